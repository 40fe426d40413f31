"""More clients than room: they wait in the kernel, nothing spins, and everybody is answered in the end."""

import contextlib
import signal
import socket
import time

import pytest
from tests.service.client import Client, request
from tests.service.conftest import Serve
from tests.service.harness import Server, cpu_seconds, wait_until

PATIENT = {"server.hung_after": 60}


def spent(server: Server, seconds: float) -> float:
    """Return what share of a core the master used for a while."""
    before = cpu_seconds(server.pid)
    time.sleep(seconds)
    return (cpu_seconds(server.pid) - before) / seconds


def test_full_queue_leaves_clients_in_the_backlog(serve: Serve) -> None:
    server = serve(settings={**PATIENT, "server.queue": 4})
    pids = server.stop_workers()
    with server.clients(40, within=15) as clients:
        for client in clients:
            client.send(request("/small.txt"))
        wait_until(lambda: server.look().filled_slots == 4)
        assert spent(server, 1.0) < 0.1
        seen = server.look()
        assert (seen.filled_slots, seen.empty_slots, seen.in_hand) == (4, 0, 0)
        wait_until(lambda: server.look().saturations >= 1)
        for pid in pids:
            server.kill_process(pid, signal.SIGCONT)
        assert [client.answer().content for client in clients] == [b"small\n"] * 40
    wait_until(lambda: server.look().empty_slots == 4)
    wait_until(lambda: server.counters()["connections"] == 40)
    assert server.generations() == {0: 1, 1: 1}


def balanced(server: Server) -> bool:
    """Nobody waits, and no place is lost."""
    seen = server.look()
    return (seen.filled_slots, seen.empty_slots, seen.in_hand) == (0, seen.capacity, 0)


@pytest.mark.parametrize("queue", [1024, 4], ids=["in the queue", "in the kernel"])
def test_who_has_waited_too_long_is_refused(serve: Serve, queue: int) -> None:
    """RFC 9110 15.6.4: at once, with Retry-After, and counted; who comes then is served."""
    server = serve(settings={**PATIENT, "server.queue": queue, "server.queue_wait": 2})
    pids = server.stop_workers()
    with server.clients(40, within=15) as clients:
        for client in clients:
            client.send(request("/small.txt"))
        wait_until(lambda: server.look().filled_slots == min(queue, 40))
        time.sleep(2.5)
        for pid in pids:
            server.kill_process(pid, signal.SIGCONT)
        answers = [client.answer() for client in clients]
        assert all(client.ended() for client in clients)
    assert {(answer.status, answer.fields["retry-after"], answer.persists) for answer in answers} == {(503, "2", False)}
    wait_until(lambda: server.counters()["shed"] == 40)
    wait_until(lambda: balanced(server))
    wait_until(lambda: server.ask("/small.txt", within=15).status == 200, within=20)
    wait_until(lambda: server.logged(r"clients refused, which had waited for more than 2 s"))
    assert "refused after too long a wait" in server.status().stdout


def test_administrators_are_never_refused(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as public, socket.create_server(("127.0.0.1", 0)) as admin:
        server = serve(
            listeners=[("http", public), ("admin", admin)],
            bind=(),
            settings={**PATIENT, "server.queue": 4, "server.queue_wait": 1},
        )
        pids = server.stop_workers()
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(Client(public.getsockname(), within=15)) for _ in range(20)]
            for client in clients:
                client.send(request("/small.txt"))
            wait_until(lambda: server.look().filled_slots == 4)
            administrator = stack.enter_context(Client(admin.getsockname(), within=15))
            administrator.send(request("/healthz"))
            time.sleep(1.5)
            for pid in pids:
                server.kill_process(pid, signal.SIGCONT)
            assert administrator.answer().content == b"alive\n"
            assert {client.answer().status for client in clients} == {503}


def test_queue_of_one(serve: Serve) -> None:
    """The smallest queue that can be: each connection waits for the one before it."""
    server = serve(settings={"server.queue": 1})
    for _ in range(5):
        with server.clients(20) as clients:
            for client in clients:
                client.send(request("/small.txt"))
            assert [client.answer().content for client in clients] == [b"small\n"] * 20
    wait_until(lambda: server.look().empty_slots == 1)


def test_saturated_again_and_again(serve: Serve) -> None:
    """The message that there is room must not be missed once in a hundred times."""
    server = serve(settings={**PATIENT, "server.queue": 2}, workers=2)
    for turn in range(30):
        with server.clients(12, within=5) as clients:
            for client in clients:
                client.send(request("/small.txt", "Connection: close"))
            for client in clients:
                assert client.answer().content == b"small\n", turn
    wait_until(lambda: server.look().empty_slots == 2)


def test_workers_killed_while_the_queue_is_full(serve: Serve) -> None:
    server = serve(settings={**PATIENT, "server.queue": 4})
    pids = server.stop_workers()
    with server.clients(20, within=15) as clients:
        for client in clients:
            client.send(request("/small.txt"))
        wait_until(lambda: server.look().filled_slots == 4)
        for pid in pids:
            server.kill_process(pid)
        assert [client.answer().content for client in clients] == [b"small\n"] * 20
    wait_until(lambda: server.look().empty_slots == 4)


def test_no_worker_for_a_moment(serve: Serve) -> None:
    """Between the death of the only worker and its successor, clients wait, and nothing spins."""
    server = serve(workers=1, settings={"server.respawn_delay_max": 2})
    for generation in range(1, 7):
        server.kill_worker(0)
        server.replaced(0, generation)
    server.kill_worker(0)
    wait_until(lambda: not server.workers())
    with server.clients(10, within=10) as clients:
        for client in clients:
            client.send(request("/small.txt"))
        assert spent(server, 0.6) < 0.1
        assert [client.answer().content for client in clients] == [b"small\n"] * 10


def test_idle_server_does_next_to_nothing(serve: Serve) -> None:
    server = serve()
    server.ask()
    workers = server.workers().values()
    before = sum(cpu_seconds(pid) for pid in [server.pid, *workers])
    time.sleep(2)
    assert (sum(cpu_seconds(pid) for pid in [server.pid, *workers]) - before) / 2 < 0.05
