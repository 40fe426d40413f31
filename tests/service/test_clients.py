"""Limits per client, over all workers together: who wants too much is refused, and others do not notice."""

import contextlib
import json
import re
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from tests.service.client import Client, Failure, Reset, Truncated, request
from tests.service.conftest import Serve
from tests.service.harness import Server, wait_until

# So that no machine is slow enough for the second request of a burst to come in its own time.
SELDOM: Mapping[str, object] = {"clients.request_rate": 1, "clients.request_burst": 3}
BAD, GOOD = "127.0.0.2", "127.0.0.3"


@contextlib.contextmanager
def in_each_worker(server: Server, source: str, count: int) -> Iterator[list[Client]]:
    """Connections that are spread over all workers, as the balancer does when none is closed."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(server.client(source=source)) for _ in range(count)]


def is_turned_away(server: Server, source: str) -> bool:
    """Tell whether a new connection is closed without an answer."""
    try:
        with server.client(source=source) as client:
            client.send(request("/small.txt", "Connection: close"))
            return client.rest() == b""
    except (Reset, Truncated):
        return True


# -- requests -----------------------------------------------------------------------------------------


def test_who_asks_too_often_is_told_so_and_others_are_served(serve: Serve) -> None:
    """RFC 6585 4. Its connection goes on, and what was answered from memory before counts too."""
    server = serve(settings=SELDOM)
    with server.client(source=BAD) as bad, server.client(source=GOOD) as good:
        answers = [bad.ask("/small.txt") for _ in range(30)]
        refused = [answer for answer in answers if answer.status == 429]
        # A machine that stands still gives it one more for each second.
        assert len(refused) > 10
        assert [answer.status for answer in answers[:3]] == [200] * 3
        assert {answer.fields["retry-after"] for answer in refused} <= {"1", "2"}
        assert all(answer.persists and b"429" in answer.content for answer in refused)
        assert good.ask("/small.txt").content == b"small\n"
    wait_until(lambda: server.counters()["limited_requests"] == len(refused))
    assert server.counters()["responses_4xx"] == len(refused)
    said = f"client {BAD} wants more than 1 requests a second, refused"
    wait_until(lambda: server.logged(said))
    assert len(server.logged(said)) == 1


def test_the_rate_is_one_for_all_workers(serve: Serve) -> None:
    server = serve(workers=2, settings={"clients.request_rate": 1, "clients.request_burst": 10})
    with in_each_worker(server, BAD, 8) as clients:
        statuses = [client.ask("/small.txt").status for _ in range(5) for client in clients]
        wait_until(lambda: sum(worker.counters["requests"] for worker in server.look().workers) == 40)
        assert all(worker.counters["requests"] for worker in server.look().workers), "each worker had some of them"
    assert statuses[:10] == [200] * 10
    # Two workers with a rate each would let in twenty.
    assert statuses.count(200) < 20


def test_requests_that_come_together_count_each(serve: Serve) -> None:
    server = serve(settings=SELDOM)
    with server.client(source=BAD) as client:
        client.send(request("/small.txt") * 20)
        statuses = [client.answer().status for _ in range(20)]
    assert statuses[:3] == [200] * 3
    assert statuses.count(429) >= 8


def test_head_and_content_keep_their_framing(serve: Serve) -> None:
    server = serve(settings=SELDOM)
    with server.client(source=BAD) as client:
        wait_until(lambda: client.ask("/small.txt", method="HEAD").status == 429)
        client.send(request("/small.txt", "Content-Length: 5") + b"12345")
        assert client.answer().status in (200, 429)
        client.send(request("/small.txt", "Content-Length: 1000000", method="POST"))
        answer = client.answer()
        assert answer.status in (405, 429)
        assert client.ended(), "where the next request begins is not known"


def test_a_unix_peer_and_an_exempt_network_are_not_limited(serve: Serve, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    server = serve(bind=("127.0.0.1:0", f"unix:{path}"), settings={**SELDOM, "clients.exempt": f'["{GOOD}/32"]'})
    with server.client(source=GOOD) as exempt, Client(path) as unix, server.client(source=BAD) as bad:
        for client in (exempt, unix):
            assert [client.ask("/small.txt").status for _ in range(20)] == [200] * 20
        assert 429 in [bad.ask("/small.txt").status for _ in range(20)]


def test_a_dry_run_refuses_nothing_and_says_what_it_would(serve: Serve) -> None:
    server = serve(settings={**SELDOM, "clients.dry_run": "true", "clients.connections": 1})
    with in_each_worker(server, BAD, 2) as clients:
        assert [client.ask("/small.txt").status for _ in range(10) for client in clients] == [200] * 20
    wait_until(lambda: server.counters()["limited_requests"] >= 10)
    wait_until(lambda: server.logged(rf"client {BAD} wants .*, would be refused \(dry run\)"))
    shown = server.status().stdout
    assert re.search(r" trouble .* requests over a client's limit ", " ".join(shown.split()))
    assert json.loads(server.status("--json").stdout)["totals"]["limited_requests"] >= 10


def test_ipv6_clients_of_one_network_are_one(serve: Serve) -> None:
    """Of loopback there is one address only; the first half of it stands for it in the log."""
    server = serve(bind=("[::1]:0",), settings=SELDOM)
    with server.client() as client:
        assert 429 in [client.ask("/small.txt").status for _ in range(20)]
    wait_until(lambda: server.logged(r"client ::/64 wants"))


# -- connections ----------------------------------------------------------------------------------------


def test_only_so_many_connections_at_a_time(serve: Serve) -> None:
    server = serve(workers=2, settings={"clients.connections": 6})
    with in_each_worker(server, BAD, 6) as clients:
        for client in clients:
            assert client.ask("/small.txt").status == 200
        assert all(is_turned_away(server, BAD) for _ in range(4))
        with server.client(source=GOOD) as good:
            assert good.ask("/small.txt").status == 200
        assert clients[0].ask("/small.txt").status == 200, "those that are open go on"
        clients[0].close()
        wait_until(lambda: not is_turned_away(server, BAD))
    wait_until(lambda: server.counters()["connections_open"] == 0)
    wait_until(lambda: server.counters()["limited_open"] >= 4)
    assert len(server.logged(f"client {BAD} wants more than 6 connections, refused")) <= 2, "once by each worker"
    wait_until(lambda: not is_turned_away(server, BAD))


def test_only_so_many_new_connections_a_second(serve: Serve) -> None:
    server = serve(workers=2, settings={"clients.connection_rate": 1, "clients.connection_burst": 5}, dev=False)
    turned_away = [is_turned_away(server, BAD) for _ in range(30)]
    assert turned_away[:5] == [False] * 5
    assert sum(turned_away) >= 10
    with server.client(source=GOOD) as good:
        assert good.ask("/small.txt").status == 200
    wait_until(lambda: server.counters()["limited_connections"] == sum(turned_away))


def test_a_killed_worker_leaks_no_count(serve: Serve) -> None:
    """Many times as many connections are lost with killed workers as the client may have."""
    server = serve(workers=2, settings={"clients.connections": 4, "server.respawn_delay_max": 0.1})
    for _ in range(3):
        with in_each_worker(server, BAD, 4) as clients:
            for client in clients:
                assert client.ask("/small.txt").status == 200
            before = server.generations()
            for slot in before:
                server.kill_worker(slot)
            for slot, generation in before.items():
                server.replaced(slot, generation)
            for client in clients:
                with contextlib.suppress(Failure):
                    client.ended()
    with in_each_worker(server, BAD, 4) as clients:
        for client in clients:
            assert client.ask("/small.txt").status == 200
        assert is_turned_away(server, BAD)


def test_connections_that_move_to_new_workers_are_counted_there(serve: Serve) -> None:
    server = serve(workers=2, settings={"clients.connections": 4})
    with in_each_worker(server, BAD, 4) as clients:
        for client in clients:
            assert client.ask("/small.txt").status == 200
        assert server.reload().returncode == 0
        wait_until(lambda: len(server.look().workers) == 2, within=15)
        wait_until(lambda: server.counters()["connections_open"] == 4)
        assert is_turned_away(server, BAD)
        for client in clients:
            assert client.ask("/small.txt").status == 200
        clients[0].close()
        wait_until(lambda: not is_turned_away(server, BAD))


def test_without_limits_nothing_is_kept(serve: Serve) -> None:
    server = serve()
    with server.client() as client:
        assert [client.ask("/small.txt").status for _ in range(300)] == [200] * 300
    maps = Path(f"/proc/{server.pid}/maps").read_text()
    assert "/dev/zero" not in maps, "which is how the kernel names anonymous memory that is shared"


@pytest.mark.parametrize("amount", [1000])
def test_a_crowd_of_clients_makes_no_worker_larger(serve: Serve, amount: int) -> None:
    """Any address of 127.0.0.0/8 is a client of its own."""
    server = serve(settings={**SELDOM, "clients.connections": 5}, dev=False)
    size = len(Path(f"/proc/{server.pid}/maps").read_text().splitlines())
    for number in range(amount):
        source = f"127.{1 + number % 250}.{number // 250}.9"
        with socket.create_connection(server.address, 5, (source, 0)) as client:  # type: ignore[arg-type]
            client.sendall(request("/small.txt", "Connection: close"))
            assert client.recv(100).startswith(b"HTTP/1.1 200 ")
    assert len(Path(f"/proc/{server.pid}/maps").read_text().splitlines()) == size
    assert server.counters()["limited_requests"] == 0
