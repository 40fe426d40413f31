"""Slow clients, hundreds of them: none holds a thread, each has its deadline, and a good client notices nothing."""

import contextlib
import hashlib
import time
from pathlib import Path

import pytest
from tests.service.client import Client, Reset, Slow, Truncated, request
from tests.service.conftest import Serve
from tests.service.harness import Server, wait_until

CROWD = 500


def quickest(server: Server, tries: int = 20) -> float:
    """Return the median time of a good client's request on a connection of its own."""
    took = []
    for _ in range(tries):
        began = time.monotonic()
        assert server.ask("/small.txt").content == b"small\n"
        took.append(time.monotonic() - began)
    return sorted(took)[tries // 2]


def test_crowd_that_dribbles_holds_no_thread(serve: Serve) -> None:
    """T-48, T-49: five hundred half heads, and two threads."""
    server = serve(threads=2, dev=False)
    head = request("/small.txt", "X-Padding: " + "x" * 60)
    with server.clients(CROWD, within=15) as crowd:
        for position in range(20):
            for client in crowd:
                client.send(head[position : position + 1])
        wait_until(lambda: server.counters()["connections_open"] == CROWD)
        assert quickest(server) < 0.1
        for client in crowd:
            client.send(head[20:])
        assert all(client.answer().content == b"small\n" for client in crowd)
        assert quickest(server) < 0.1


def test_crowd_that_is_silent_holds_no_thread(serve: Serve) -> None:
    server = serve(threads=2, dev=False)
    with server.clients(CROWD) as crowd:
        wait_until(lambda: server.counters()["connections_open"] == CROWD)
        assert quickest(server) < 0.1
        for client in crowd:
            client.send(request("/small.txt"))
        assert all(client.answer().status == 200 for client in crowd)


def test_head_has_one_deadline_that_no_drip_moves(serve: Serve) -> None:
    """RFC 9110 15.5.9, T-48."""
    server = serve(settings={"limits.head_deadline": 1})
    with server.client() as client:
        began = time.monotonic()
        for byte in b"GET / HTTP/1.1\r\n":
            client.send(bytes([byte]))
            time.sleep(0.05)
        answer = client.answer()
        assert answer.status == 408
        assert not answer.persists
        assert client.ended()
        assert 0.9 < time.monotonic() - began < 7
    wait_until(lambda: server.counters()["deadlines"] == 1)


def test_silent_connection_is_closed_without_a_word(serve: Serve) -> None:
    """A browser opens connections in advance; a 408 in one would be taken for the answer to its next request."""
    server = serve(settings={"limits.head_deadline": 1})
    with server.client() as client:
        began = time.monotonic()
        assert client.ended()
        assert 0.9 < time.monotonic() - began < 7


def test_idle_connection_is_closed_after_its_time(serve: Serve) -> None:
    server = serve(settings={"limits.keep_alive": 1})
    with server.client() as client:
        client.ask()
        time.sleep(0.5)
        client.ask()  # which begins its time anew
        began = time.monotonic()
        assert client.ended()
        assert 0.9 < time.monotonic() - began < 7


def test_second_head_has_a_deadline_too(serve: Serve) -> None:
    server = serve(settings={"limits.head_deadline": 1})
    with server.client() as client:
        client.ask()
        client.send(b"GET / HT")
        assert client.answer().status == 408
        assert client.ended()


def test_content_that_does_not_come_has_a_deadline(serve: Serve) -> None:
    server = serve(settings={"limits.body_deadline": 1})
    with server.client() as client:
        client.send(request("/", "Content-Length: 100") + b"some")
        began = time.monotonic()
        assert client.answer().status == 408
        assert client.ended()
        assert 0.9 < time.monotonic() - began < 7


@pytest.mark.parametrize("content", [False, True], ids=["head", "content"])
def test_sender_below_the_minimum_rate_is_told_408(serve: Serve, content: bool) -> None:
    """Its deadline would let it go on for a minute."""
    server = serve(
        settings={
            "limits.receive_rate": 1000,
            "limits.rate_period": 1,
            "limits.head_deadline": 60,
            "limits.body_deadline": 60,
        }
    )
    with server.client(within=20) as client:
        began = time.monotonic()
        client.send(request("/", "Content-Length: 1000") if content else b"GET / HTTP/1.1\r\nX: ")
        client.socket.settimeout(0.05)
        while time.monotonic() < began + 20:
            client.send(b"x")
            with contextlib.suppress(Slow):
                client.received += client.receive()
                break
        client.socket.settimeout(20)
        assert client.answer().status == 408
        assert client.ended()
        assert time.monotonic() - began > 0.9
    wait_until(lambda: server.counters()["too_slow"] == 1)
    assert server.counters()["deadlines"] == 0


def test_slow_reader_gets_all_of_it(serve: Serve, downloads: Path, large: bytes) -> None:
    server = serve(threads=2, settings={"limits.send_stall": 2})
    digest = hashlib.sha256()
    with server.client(receive_buffer=32768) as client:
        client.send(request("/large.bin", "Connection: close"))
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.receive(1)
        got, checked = 0, 0
        while data := client.receive(9000):
            digest.update(data)
            got += len(data)
            if got >= checked + len(large) // 10:
                checked = got
                time.sleep(0.3)  # in all longer than the stall deadline, which is about progress
                assert quickest(server, 3) < 0.2
    assert got == len(large)
    assert digest.digest() == hashlib.sha256(large).digest()


def test_many_readers_at_once(serve: Serve, downloads: Path, large: bytes) -> None:
    """More downloads than threads; each reads when it likes, and all are right."""
    server = serve(threads=2, workers=1)
    expected = hashlib.sha256(large).digest()
    with server.clients(8, within=20) as clients:
        for client in clients:
            client.send(request("/large.bin"))
        assert quickest(server, 5) < 0.3
        for client in reversed(clients):
            assert hashlib.sha256(client.answer().content).digest() == expected
            assert client.ask("/small.txt").content == b"small\n"


def test_stalled_reader_is_cut(serve: Serve, downloads: Path) -> None:
    server = serve(settings={"limits.send_stall": 1})
    with server.client(receive_buffer=32768) as client:
        client.send(request("/large.bin"))
        began = time.monotonic()
        wait_until(lambda: server.counters()["deadlines"] == 1)
        assert 0.9 < time.monotonic() - began < 7
        wait_until(lambda: server.counters()["connections_open"] == 0)
        with pytest.raises((Truncated, Reset)):
            client.answer()
    assert server.ask().status == 200


def test_reader_below_the_minimum_rate_is_cut(serve: Serve, downloads: Path) -> None:
    """It takes a little all the time, which its deadline would let it for a while."""
    server = serve(settings={"limits.send_rate": 1_000_000, "limits.rate_period": 1, "limits.send_stall": 60})
    with server.client(receive_buffer=32768, within=20) as client:
        client.send(request("/large.bin"))
        for _ in range(400):
            if server.counters()["too_slow"]:
                break
            client.receive(1000)
            time.sleep(0.05)
        assert server.counters()["too_slow"] == 1
        with pytest.raises((Truncated, Reset)):
            client.answer()
    assert server.counters()["deadlines"] == 0
    assert server.ask().status == 200


def test_bounds_of_a_head_are_options(serve: Serve) -> None:
    server = serve(settings={"limits.head_bytes": 2048, "limits.target_bytes": 500, "limits.head_fields": 10})
    for target, fields, status in (
        ("/small.txt?" + "x" * 400, ["X: y"] * 8, 200),
        ("/small.txt?" + "x" * 500, [], 414),
        ("/small.txt", ["X: y"] * 20, 431),
        ("/small.txt", ["X: " + "y" * 2048], 431),
    ):
        for _ in range(3):
            answer = server.ask(target, *fields)
            assert (answer.status, answer.persists) == (status, False)


def test_connection_ends_after_its_requests(serve: Serve) -> None:
    server = serve(settings={"limits.requests": 5})
    for _ in range(3):
        with server.client() as client:
            assert [client.ask("/small.txt").persists for _ in range(5)] == [True] * 4 + [False]
            assert client.ended()
    with server.client() as client:  # all at once
        client.send(request("/small.txt") * 8)
        assert [client.answer().persists for _ in range(5)] == [True] * 4 + [False]
        assert client.ended()


def test_steady_reader_gets_all_of_it(serve: Serve, site: Path, large: bytes) -> None:
    """The kernel may hold megabytes for a client, and takes no more before a third of that is free."""
    content = large[: 6 << 20]
    (site / "some.bin").write_bytes(content)
    server = serve(settings={"limits.send_stall": 1})
    got = []
    with server.client(receive_buffer=32768) as client:
        client.send(request("/some.bin", "Connection: close"))
        while data := client.receive(12288):
            got.append(data)
            time.sleep(len(data) / 500_000)
    assert b"".join(got).partition(b"\r\n\r\n")[2] == content
    assert server.counters()["deadlines"] == 0


def test_reader_that_leaves_is_forgotten(serve: Serve, downloads: Path) -> None:
    server = serve()
    for _ in range(20):
        with server.client() as client:
            client.send(request("/large.bin"))
            client.receive(1000)
    wait_until(lambda: server.counters()["connections_open"] == 0)
    assert server.ask().status == 200
    assert server.counters()["failures"] == 0


def test_pipelined_downloads_come_in_order(serve: Serve, downloads: Path, large: bytes) -> None:
    """The second answer waits for the first, which does not fit into any buffer."""
    server = serve()
    with Client(server.address, within=20) as client:
        client.send(request("/large.bin") + request("/small.txt") + request("/large.bin", "Range: bytes=-10"))
        assert client.answer().content == large
        assert client.answer().content == b"small\n"
        last = client.answer()
        assert (last.status, last.content) == (206, large[-10:])
