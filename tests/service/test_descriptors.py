"""Out of descriptors: the clients wait, nothing spins, nothing is lost, and it recovers by itself (T-52, T-56)."""

import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.service.client import Failure, Reset, Truncated, request
from tests.service.conftest import Serve
from tests.service.harness import Server, cpu_seconds, descriptors, wait_until


@contextmanager
def limited(pid: int, files: int) -> Iterator[None]:
    """Lower the limit of open files of a running process for a while."""
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (files, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


def test_master_without_descriptors_pauses_and_recovers(serve: Serve) -> None:
    server = serve()
    server.ask()
    with limited(server.pid, max(descriptors(server.pid)) + 1), server.clients(10, within=10) as clients:
        wait_until(
            lambda: server.logged(r"no descriptor for a client \(Too many open files\), accepting again in 0.1 s")
        )
        before = cpu_seconds(server.pid)
        time.sleep(1)
        assert cpu_seconds(server.pid) - before < 0.2
        for client in clients:
            client.send(request("/small.txt"))
    with server.clients(1) as fresh:
        assert fresh[0].ask().status == 200
    wait_until(lambda: server.look().accept_pauses >= 1)
    wait_until(lambda: server.look().empty_slots == 1024)


def test_clients_that_waited_for_a_descriptor_are_answered(serve: Serve) -> None:
    server = serve()
    server.ask()
    with server.clients(10, within=10) as clients:
        with limited(server.pid, 3):
            for client in clients:
                client.send(request("/small.txt"))
            wait_until(lambda: server.logged("no descriptor for a client") or server.counters()["connections"] == 11)
        assert [client.answer().content for client in clients] == [b"small\n"] * 10


def test_master_at_its_limit_still_replaces_workers(serve: Serve) -> None:
    server = serve()
    with limited(server.pid, max(descriptors(server.pid)) + 1), server.clients(3):
        wait_until(lambda: server.logged("no descriptor for a client"))
        server.kill_worker(0)
        server.replaced(0, 1)
    assert server.ask().status == 200


def open_clients(server: Server) -> int:
    return server.counters()["connections_open"]


def test_worker_at_its_limit_closes_idle_connections_for_new_ones(serve: Serve) -> None:
    """An idle connection has had its answers and can come again; a new one has had nothing."""
    server = serve(workers=1, nofile=288)  # leaves room for 64 connections: see limits
    with server.clients(150, within=10) as clients:
        for client in clients:
            assert client.ask("/small.txt").content == b"small\n"
        assert open_clients(server) < 100
        assert server.counters()["connections_lost"] == 0
        gone = 0
        for client in clients:
            try:
                client.ask("/small.txt")
            except Failure:
                gone += 1
        assert 50 <= gone <= 140  # the oldest had to go
    assert server.ask().status == 200


def test_worker_at_its_limit_lets_new_ones_wait(serve: Serve, site: object) -> None:
    """When nobody is idle there is nothing to close: who comes waits until somebody has gone."""
    server = serve(workers=1, nofile=288)
    with server.clients(60, within=10) as busy:
        for client in busy:
            client.send(b"GET / HTTP/1.1\r\n")  # half a request
        wait_until(lambda: open_clients(server) >= 40)
        with server.clients(60, within=10) as late:
            for client in late:
                client.send(request("/small.txt", "Connection: close"))
            for client in busy:
                client.send(b"Host: localhost\r\nConnection: close\r\n\r\n")
            assert [client.answer().status for client in busy] == [200] * 60
            assert [client.answer().content for client in late] == [b"small\n"] * 60
    assert server.counters()["connections_lost"] == 0


def test_worker_at_its_limit_hears_its_orders(serve: Serve, tmp_path: Path) -> None:
    """They stand behind connections in its channel, which it does not read."""
    log = tmp_path / "access.log"
    server = serve(workers=1, nofile=288, access_log=log)
    with server.clients(60, within=10) as busy, server.clients(60, within=10) as late:
        for client in busy:
            client.send(b"GET / HTTP/1.1\r\n")  # half a request
        for client in late:
            client.send(request("/small.txt", "Connection: close"))
        wait_until(lambda: server.look().filled_slots > 0)
        log.rename(tmp_path / "moved")
        server.send_signal(signal.SIGUSR1)
        wait_until(log.exists, why="the log opened anew")
        server.send_signal(signal.SIGTERM)
        wait_until(lambda: server.logged("stopping"))
        time.sleep(0.5)  # two rounds
        answers = []
        for client in busy:
            client.send(b"Host: localhost\r\n\r\n")
        answers = [client.answer() for client in busy]
        assert [(answer.status, answer.persists) for answer in answers] == [(200, False)] * 60
        assert [client.answer().content for client in late] == [b"small\n"] * 60
    assert server.wait() == 0
    assert server.generations() == {0: 1}, "who waited was answered by this one"


def test_worker_that_cannot_open_a_file_says_so_to_the_client(serve: Serve) -> None:
    """RFC 9110 15.6.4: 503, and the connection, the worker and its log are well."""
    server = serve(workers=1)
    with server.client() as client:
        assert client.ask("/small.txt").status == 200
        with limited(server.workers()[0], 3):
            assert client.ask("/middling.bin").status == 503
        wait_until(lambda: client.ask("/middling.bin").status == 200)


def test_connections_that_the_kernel_drops_are_told_and_end(serve: Serve) -> None:
    """T-56: a descriptor over the receiver's limit is gone; nobody may wait for an answer to it."""
    server = serve(workers=1)
    with (
        server.logs(r"worker 0: 1 connections lost: the limit of open files is reached \(LimitNOFILE=\)"),
        limited(server.workers()[0], 3),
        server.client() as client,
        pytest.raises((Truncated, Reset)),
    ):
        client.ask()
    assert server.ask().status == 200
    wait_until(lambda: server.look().empty_slots == 1024)
    wait_until(lambda: server.counters()["connections_lost"] == 1)


@pytest.mark.parametrize("nofile", [20, 40])
def test_limit_that_is_too_small_to_start_is_said_in_one_line(launch: Serve, nofile: int) -> None:
    server = launch(workers=16, nofile=nofile)
    server.expected_status = 1
    assert server.wait() == 1
    server.finish()  # no name is left
    assert len(server.log) == 1, server.log
    assert server.logged(r"cannot start: Too many open files; raise the limit of open files \(LimitNOFILE=\)")


@pytest.mark.parametrize("nofile", [96, 128])
def test_small_limit_still_serves(serve: Serve, nofile: int) -> None:
    server = serve(workers=2, nofile=nofile)
    with server.clients(30, within=10) as clients:
        for client in clients:
            client.send(request("/small.txt"))
        assert [client.answer().content for client in clients] == [b"small\n"] * 30


def test_a_worker_has_room_for_descriptors_before_it_needs_them(serve: Serve) -> None:
    """Else the first clients beyond 256, 512 and so on would wait for the kernel (worker.alone). FDSize of proc(5)."""
    server = serve(workers=1, nofile=4096)
    status = Path(f"/proc/{server.workers()[0]}/status").read_text()
    facts = dict(line.split(":", 1) for line in status.splitlines())
    assert int(facts["Threads"]) > 1
    assert int(facts["FDSize"]) >= 2048
