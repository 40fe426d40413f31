"""The end: what is under way is finished, what is idle is closed at once, and nobody waits for ever."""

import hashlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.service.client import Client, Failure, Refused, Reset, Truncated, request
from tests.service.conftest import Serve
from tests.service.harness import Server, wait_until

LONG = {"server.drain": 20}


def slow_reader(server: Server) -> Client:
    """Return a client that has asked for far more than the buffers hold, and read nothing of it."""
    client = server.client(receive_buffer=65536, within=10)
    client.send(request("/large.bin"))
    wait_until(lambda: server.counters()["responses_2xx"] > 0)
    return client


@pytest.fixture
def busy(serve: Serve, downloads: Path) -> Iterator[tuple[Server, Client]]:
    """A server in the middle of an answer, and the client that it is for."""
    server = serve(settings=LONG)
    with slow_reader(server) as client:
        yield server, client


def test_answer_under_way_is_finished(busy: tuple[Server, Client], large: bytes) -> None:
    server, client = busy
    server.send_signal(signal.SIGTERM)
    wait_until(lambda: server.logged("SIGTERM: stopping, 1 connections open, at most 20 s"))
    answer = client.answer()
    assert hashlib.sha256(answer.content).digest() == hashlib.sha256(large).digest()
    assert client.ended()
    began = time.monotonic()
    assert server.wait() == 0
    assert time.monotonic() - began < 6
    assert not server.logged("cutting")


def test_idle_connections_are_closed_at_once(serve: Serve) -> None:
    server = serve(settings=LONG)
    with server.clients(20) as clients:
        for client in clients:
            client.ask()
        began = time.monotonic()
        server.send_signal(signal.SIGTERM)
        assert all(client.ended() for client in clients)
        assert server.wait() == 0
        assert time.monotonic() - began < 6


def refuses(server: Server) -> bool:
    try:
        server.client().close()
    except Refused:
        return True
    return False


def test_new_clients_are_refused(busy: tuple[Server, Client]) -> None:
    server, client = busy
    server.send_signal(signal.SIGTERM)
    wait_until(lambda: server.logged("stopping"))
    wait_until(lambda: refuses(server))
    client.answer()
    assert server.wait() == 0


def test_request_that_is_on_its_way_is_answered(serve: Serve) -> None:
    """A connection that was made but has not asked yet gets a moment to do so."""
    server = serve(settings=LONG)
    with server.client() as early:
        wait_until(lambda: server.counters()["connections"] == 1)
        server.send_signal(signal.SIGTERM)
        wait_until(lambda: server.logged("stopping"))
        # Whether the answer says that it is the last depends on whether the worker has been told yet.
        assert early.ask().status == 200
        assert early.ended()
    assert server.wait() == 0


def test_half_a_request_gets_the_time_it_needs(serve: Serve) -> None:
    server = serve(settings=LONG)
    with server.client() as client:
        client.send(b"GET / HTTP/1.1\r\n")
        wait_until(lambda: server.counters()["bytes_received"] > 0)
        server.send_signal(signal.SIGTERM)
        wait_until(lambda: server.logged("stopping"))
        time.sleep(0.5)
        client.send(b"Host: localhost\r\n\r\n")
        answer = client.answer()
        assert (answer.status, answer.persists) == (200, False)
    assert server.wait() == 0


def test_deadline_cuts_and_says_so(serve: Serve, downloads: Path) -> None:
    server = serve(settings={"server.drain": 1})
    with slow_reader(server) as client:
        began = time.monotonic()
        with server.logs("drain deadline passed, cutting 1 connections"):
            assert server.stop() == 0
        assert 0.9 < time.monotonic() - began < 8
        with pytest.raises((Truncated, Reset)):
            client.answer()
    server.finish()
    assert not server.logged(" err |respawn"), "what we did ourselves is no failure of a worker's"


def test_what_the_deadline_cuts_is_in_the_log(serve: Serve, downloads: Path, tmp_path: Path) -> None:
    """The worker itself cuts, and lives to write it down."""
    log = tmp_path / "access.log"
    server = serve(settings={"server.drain": 1}, access_log=log)
    with slow_reader(server), server.logs("worker .: drain deadline passed, cutting 1 connections"):
        assert server.stop() == 0
    assert not server.logged("SIGKILL")
    (line,) = log.read_text().splitlines()
    assert '"GET /large.bin HTTP/1.1" 200 ' in line


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_does_not_wait(busy: tuple[Server, Client], second: int) -> None:
    server, client = busy
    server.send_signal(signal.SIGTERM)
    wait_until(lambda: server.logged("stopping"))
    began = time.monotonic()
    assert server.stop(second) == 0
    assert time.monotonic() - began < 6
    with pytest.raises(Failure):
        client.answer()


def test_interrupt_at_a_terminal_ends_at_once(busy: tuple[Server, Client]) -> None:
    """As the help says: SIGTERM finishes the answers under way; a second one, or SIGINT, ends at once."""
    server, client = busy
    began = time.monotonic()
    assert server.stop(signal.SIGINT) == 0
    assert time.monotonic() - began < 6
    with pytest.raises(Failure):
        client.answer()


def test_workers_ignore_signals_for_the_group(serve: Serve) -> None:
    """Ctrl-C goes to every process of the terminal's group; the master alone decides what it means."""
    server = serve()
    with server.client() as client:
        client.ask()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            server.kill_worker(0, number)
            server.kill_worker(1, number)
        assert client.ask().status == 200
    assert server.generations() == {0: 1, 1: 1}


def test_stop_at_once_after_ready(serve: Serve) -> None:
    for _ in range(3):
        assert serve().stop() == 0


def test_stop_during_the_start(launch: Serve) -> None:
    """A signal that comes before the service is ready ends it too."""
    server = launch(settings=LONG)
    wait_until(lambda: server.logged("listening on"))
    assert server.stop() == 0


def test_client_who_came_while_no_worker_lived_is_answered(serve: Serve) -> None:
    """The only worker rests after its early deaths; nobody but us has the connection."""
    server = serve(workers=1, settings={"server.drain": 20, "server.respawn_delay_max": 60})
    for generation in range(1, 10):
        server.kill_worker(0)
        if generation < 9:
            server.replaced(0, generation)
    wait_until(lambda: server.logged(r"respawn in 6\.40 s"))
    with server.client() as client:
        client.send(request("/small.txt"))
        began = time.monotonic()
        server.send_signal(signal.SIGTERM)
        assert client.answer().content == b"small\n"
    assert server.wait() == 0
    assert time.monotonic() - began < 6


def test_order_that_comes_before_anybody_listens_is_not_lost(launch: Serve) -> None:
    """Signals wait while the configuration is read and modules are loaded; and no worker inherits that they do."""
    server = launch(settings=LONG)
    wait_until(lambda: blocked(server.pid) >> (signal.SIGTERM - 1) & 1)
    server.send_signal(signal.SIGTERM)
    assert server.wait() == 0
    server.finish()
    assert server.logged("SIGTERM: stopping")
    other = launch().ready()
    assert [blocked(pid) for pid in (other.pid, *other.workers().values())] == [0, 0, 0]


def blocked(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("SigBlk")), 16)


def test_waiting_connections_are_answered_before_the_end(serve: Serve) -> None:
    """What the kernel took for us before the stop is not thrown away."""
    server = serve(settings=LONG)
    pids = server.stop_workers()
    with server.clients(10, within=10) as clients:
        for client in clients:
            client.send(request("/small.txt"))
        wait_until(lambda: server.look().filled_slots == 10)
        server.send_signal(signal.SIGTERM)
        wait_until(lambda: server.logged("stopping"))
        for pid in pids:
            server.kill_process(pid, signal.SIGCONT)
        assert [client.answer().content for client in clients] == [b"small\n"] * 10
    assert server.wait() == 0
