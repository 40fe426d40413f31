"""The master is killed: workers finish what they have, who waits is served by the next start, nothing is left."""

import hashlib
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.service.client import Client, request
from tests.service.conftest import Serve
from tests.service.faults import hold_queue_mutex
from tests.service.harness import SHM, Load, Server, process_state, wait_until


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """What systemd holds for the service's whole life."""
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        made.listen(128)
        yield made


@pytest.fixture
def activated(serve: Serve, listener: socket.socket) -> Server:
    return serve(listeners=[("http", listener)])


def test_workers_finish_what_they_have_and_go(activated: Server, site: Path, large: bytes) -> None:
    (site / "large.bin").write_bytes(large)
    with activated.client() as idle, activated.client(receive_buffer=65536) as busy:
        idle.ask()
        busy.send(request("/large.bin"))
        wait_until(lambda: activated.counters()["responses_2xx"] == 2)
        activated.kill_master()
        assert idle.ended()
        assert hashlib.sha256(busy.answer().content).digest() == hashlib.sha256(large).digest()
    wait_until(lambda: not activated.survivors(), why="workers that are gone")
    assert len(activated.logged("the master is gone, draining")) == 2


def test_queued_connections_are_still_answered(activated: Server) -> None:
    """They were accepted: nobody but these workers can answer them."""
    pids = activated.stop_workers()
    with activated.clients(10, within=10) as clients:
        for client in clients:
            client.send(request("/small.txt"))
        wait_until(lambda: activated.look().filled_slots == 10)
        activated.kill_master()
        for pid in pids:
            activated.kill_process(pid, signal.SIGCONT)
        assert [client.answer().content for client in clients] == [b"small\n"] * 10
    wait_until(lambda: not activated.survivors())


def test_queued_connections_are_answered_although_it_died_holding_the_mutex(activated: Server) -> None:
    """Nobody is left who could mend it: the workers must find that out, and need no accounting any more."""
    pids = activated.stop_workers()
    with activated.clients(6, within=20) as clients:
        for client in clients:
            client.send(request("/small.txt"))
        wait_until(lambda: activated.look().filled_slots == 6)
        activated.send_signal(signal.SIGSTOP)
        wait_until(lambda: process_state(activated.pid) == "T")
        hold_queue_mutex(activated, None)
        activated.kill_master()
        began = time.monotonic()
        for pid in pids:
            activated.kill_process(pid, signal.SIGCONT)
        assert [client.answer().content for client in clients] == [b"small\n"] * 6
        assert time.monotonic() - began < 5
    wait_until(lambda: not activated.survivors())


def test_next_start_serves_those_who_came_in_between(
    activated: Server, serve: Serve, listener: socket.socket, site: Path
) -> None:
    address = activated.address
    activated.kill_master()
    clients = [Client(address, within=15) for _ in range(10)]
    for client in clients:
        client.send(request("/small.txt"))
    successor = serve(listeners=[("http", listener)])
    for client in clients:
        assert client.answer().content == b"small\n"
        client.close()
    assert not list(SHM.glob(f"*pyserver.{activated.pid}.*")), "names of the dead server"
    assert not (SHM / f"pyserver.{activated.pid}").exists()
    assert successor.ask().status == 200


def test_next_start_does_not_wait_for_the_last_workers(
    activated: Server, serve: Serve, listener: socket.socket, site: Path, large: bytes
) -> None:
    """A slow download goes on in a worker of the old server, beside the new one."""
    (site / "large.bin").write_bytes(large)
    with activated.client(receive_buffer=65536, within=15) as busy:
        busy.send(request("/large.bin"))
        wait_until(lambda: activated.counters()["responses_2xx"] == 1)
        activated.kill_master()
        successor = serve(listeners=[("http", listener)])
        assert successor.ask().status == 200
        assert hashlib.sha256(busy.answer().content).digest() == hashlib.sha256(large).digest()
    assert successor.ask().status == 200


def test_workers_of_a_dead_master_leave_at_the_drain_deadline(
    serve: Serve, listener: socket.socket, site: Path, large: bytes
) -> None:
    (site / "large.bin").write_bytes(large)
    server = serve(listeners=[("http", listener)], settings={"server.drain": 1})
    with server.client(receive_buffer=65536) as client:
        client.send(request("/large.bin"))
        wait_until(lambda: server.counters()["responses_2xx"] == 1)
        with server.logs("drain deadline passed, cutting 1 connections"):
            server.kill_master()
            wait_until(lambda: not server.survivors())


def test_start_sweeps_only_what_is_dead(serve: Serve) -> None:
    living = serve()
    dead = serve()
    dead.kill_master()
    wait_until(lambda: not dead.survivors())
    third = serve()
    assert not dead.names()
    assert len(living.names()) == len(third.names()) == 5
    assert living.ask().status == 200


def test_whole_group_killed(serve: Serve, listener: socket.socket) -> None:
    """What systemd does at the end of its patience: SIGKILL to every process of the unit."""
    server = serve(listeners=[("http", listener)])
    pids = server.survivors()
    server.kill_master()
    for pid in pids:
        server.kill_process(pid)
    wait_until(lambda: not server.survivors())
    successor = serve(listeners=[("http", listener)])
    assert successor.ask().status == 200
    assert not server.names()


@pytest.mark.timeout(180)
def test_killed_again_and_again_under_load(serve: Serve, listener: socket.socket, site: Path) -> None:
    """Each kill may cost what the master had in its hands, accepted and not passed on; nobody waits for long."""
    kills = 12
    digest = hashlib.sha256((site / "small.txt").read_bytes()).hexdigest()
    server = serve(listeners=[("http", listener)], dev=False)
    with Load(server.address, {"/small.txt": digest}, one_shot=6, keep_alive=2) as load:
        for number in range(kills):
            wait_until(lambda: server.counters()["requests"] > 300)  # noqa: B023  it is called at once
            time.sleep(number * 0.0007)
            server.kill_master()
            server = serve(listeners=[("http", listener)], dev=False)
        wait_until(lambda: server.counters()["requests"] > 300)
    print(load.answered, load.failures, load.longest)
    assert {failure["what"] for failure in load.failures} <= {"Reset", "Truncated"}
    # A keep-alive client that has just sent its next request cannot know that its connection is being closed.
    assert sum(failure["client"] == "one-shot" for failure in load.failures) <= kills
    assert len(load.failures) <= kills * 3
    assert load.longest < 3


def test_worker_that_is_full_notices_it_too(serve: Serve, listener: socket.socket) -> None:
    """At its limit of open files a worker takes no messages; the end of its channel it must see all the same."""
    server = serve(listeners=[("http", listener)], workers=1, nofile=192, settings={"server.drain": 0.5})
    with server.clients(80, within=10) as busy:
        for client in busy:
            client.send(b"GET / HTTP/1.1\r\n")  # half a request, which has ten seconds to become a whole one
        wait_until(lambda: server.look().filled_slots > 0)
        with server.logs("the master is gone, draining"):
            server.kill_master()
            wait_until(lambda: not server.survivors(), within=4)
