"""With the memo and without it every answer is the same, and a change on the disk is seen in the next second."""

import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.files.process import as_nobody
from tests.unit.worker.conftest import Hall

from pyserver.config import Limits, Proxies, Tracing
from pyserver.handlers.memo import Memo
from pyserver.http.response import Head, Response
from pyserver.ipc.assignment import Origin
from pyserver.ipc.messages import Drain
from pyserver.worker import proxies as worker_proxies
from pyserver.worker import tracing as worker_tracing
from pyserver.worker.jsonlog import JsonLog

BOUNDARY = re.compile(rb"[0-9a-f]{16,}")

TARGETS = st.sampled_from(
    [
        b"/",
        b"/small.txt",
        b"/small.txt?query",
        b"/%73mall.txt",
        b"/large.bin",
        b"/folder",
        b"/folder/",
        b"/missing",
        b"/.git/config",
        b"/../small.txt",
        b"/%00",
        b"http://other/small.txt",
        b"*",
    ]
)
METHODS = st.sampled_from([b"GET"] * 6 + [b"HEAD", b"OPTIONS", b"POST", b"TRACE", b"BREW"])
FIELDS = st.lists(
    st.sampled_from(
        [
            b'If-None-Match: "nonsense"',
            b"If-None-Match: *",
            b"If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT",
            b"If-Modified-Since: Fri, 31 Dec 2055 23:59:59 GMT",
            b"If-Match: *",
            b'If-Match: "nonsense"',
            b"Range: bytes=0-1",
            b"Range: bytes=0-1, 3-4",
            b"Range: bytes=-1",
            b"Range: bytes=99999999-",
            b'If-Range: "nonsense"',
            b"Accept-Encoding: gzip",
            b"Accept-Encoding: identity;q=0, *;q=0",
            b"Connection: close",
            b"Connection: keep-alive",
            b"Cookie: a=b",
            b"User-Agent: test",
            b"Origin: http://other",
            b"Content-Length: 3",
            b"Transfer-Encoding: chunked",
            b"Expect: 100-continue",
            b"Bad field: x",
        ]
    ),
    max_size=4,
)
HOSTS = st.sampled_from([b"Host: x\r\n"] * 4 + [b"Host: other\r\n", b"Host: a b\r\n", b""])
HEADS = st.tuples(METHODS, TARGETS, st.sampled_from([b"1.1"] * 5 + [b"1.0"]), HOSTS, FIELDS)


GET = b"GET /small.txt HTTP/1.1\r\nHost: x\r\n\r\n"


def rendered(head: tuple[bytes, bytes, bytes, bytes, list[bytes]]) -> bytes:
    method, target, version, host, fields = head
    lines = b"".join(field + b"\r\n" for field in fields)
    return b"%b %b HTTP/%b\r\n%b%b\r\n" % (method, target, version, host, lines)


def said(hall: Hall, data: bytes) -> tuple[bytes, bool]:
    """All that comes back for these bytes on a connection of their own, and whether it is closed."""
    client = hall.client(data)
    hall.turn()
    got, closed = b"", False
    while True:
        try:
            part = client.recv(1 << 20)
        except BlockingIOError:
            break
        except ConnectionResetError:
            closed = True
            break
        if not part:
            closed = True
            break
        got += part
        hall.turn()
    client.close()
    hall.turn()
    return BOUNDARY.sub(b"(boundary)", got), closed


@pytest.fixture
def halls(site: Path, tmp_path: Path) -> Iterator[tuple[Hall, Hall]]:
    """Two workers of one site: one remembers, the other does not."""
    (site / "folder").mkdir()
    (site / "folder" / "index.html").write_bytes(b"folder")
    os.utime(site / "small.txt", (1_000_000_000, 1_000_000_000))
    with_memo, without = Hall(site, tmp_path / "log"), Hall(site, tmp_path / "other-log")
    without.equip(memo=Memo(0))
    without.clock.second = with_memo.clock.second
    yield with_memo, without
    with_memo.close()
    without.close()


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(HEADS, min_size=1, max_size=5))
def test_every_answer_is_the_same(
    halls: tuple[Hall, Hall], heads: list[tuple[bytes, bytes, bytes, bytes, list[bytes]]]
) -> None:
    with_memo, without = halls
    for data in map(rendered, heads * 3):
        assert said(with_memo, data) == said(without, data), data
    assert counted(with_memo) == counted(without)
    assert [line.split("] ")[1] for line in with_memo.lines()] == [line.split("] ")[1] for line in without.lines()]


def conversed(hall: Hall, requests: list[bytes]) -> list[tuple[bytes, bool]]:
    """What comes back for each of these on one connection, or on another one where the last was closed."""
    client, found = hall.client(), []
    for data in requests:
        client.sendall(data)
        got, closed, more = b"", False, True
        while more:
            hall.turn()
            try:
                part = client.recv(1 << 20)
            except BlockingIOError:
                more = False
            except ConnectionResetError:
                closed, more = True, False
            else:
                got, closed, more = got + part, not part, bool(part)
        found.append((BOUNDARY.sub(b"(boundary)", got), closed))
        if closed:
            client.close()
            client = hall.client()
    client.close()
    hall.turn()
    return found


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(HEADS, min_size=1, max_size=4))
def test_every_answer_on_a_kept_connection_is_the_same(
    halls: tuple[Hall, Hall], heads: list[tuple[bytes, bytes, bytes, bytes, list[bytes]]]
) -> None:
    """Connections that have settled are answered by a way of their own (Connections.see_to)."""
    with_memo, without = halls
    # Between two of them one that is known, and keeps the connection.
    requests = [data for head in heads * 3 for data in (rendered(head), GET)]
    assert conversed(with_memo, requests) == conversed(without, requests)
    assert counted(with_memo) == counted(without)
    assert [line.split("] ")[1] for line in with_memo.lines()] == [line.split("] ")[1] for line in without.lines()]


# Fields that no answer depends on, with those that some do.
IGNORED = st.sampled_from([b"", b"User-Agent: a\r\n", b"User-Agent: b\r\n", b"Cookie: a\r\nReferer: http://x/\r\n"])
HEEDED = st.sampled_from(
    [b""] * 4
    + [b"Accept-Encoding: gzip\r\n", b"Range: bytes=0-1\r\n", b"If-None-Match: *\r\n", b"Connection: close\r\n"]
)
SAME = st.tuples(
    st.sampled_from([b"GET", b"GET", b"HEAD"]),
    st.sampled_from([b"/small.txt", b"/folder/", b"/missing", b"/small.txt?query"]),
    st.sampled_from([b"1.1", b"1.1", b"1.1", b"1.0"]),
    HEEDED,
    IGNORED,
)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(SAME, min_size=2, max_size=12), st.sets(st.integers(0, 35), max_size=2))
def test_every_answer_that_other_heads_share_is_the_same(
    halls: tuple[Hall, Hall], heads: list[tuple[bytes, bytes, bytes, bytes, bytes]], seconds: set[int]
) -> None:
    """Heads that differ in what no answer depends on are answered by their request lines (Memo.find)."""
    with_memo, without = halls
    requests = [b"%b %b HTTP/%b\r\nHost: x\r\n%b%b\r\n" % head for head in heads * 3]
    parts, at = [], 0
    for second in sorted(seconds):
        parts.append(requests[at:second])
        at = second
    for part in (*parts, requests[at:]):
        assert conversed(with_memo, part) == conversed(without, part)
        for hall in halls:
            hall.clock.second += 1
    assert counted(with_memo) == counted(without)
    assert [line.split("] ")[1] for line in with_memo.lines()] == [line.split("] ")[1] for line in without.lines()]


def settled(hall: Hall, data: bytes = GET, *, buffer: int = 0) -> socket.socket:
    """A client that has had this answered so often that it comes from the memo by the shortest way."""
    client = hall.client(buffer=buffer)
    for _ in range(4):
        client.sendall(data)
        while not _taken(hall, client).endswith(b"\n"):
            pass
    (connection,) = hall.connections.table.values()
    assert connection.settled or not hall.memo.answers
    return client


def test_settled_connections_are_answered_without_a_step_more(halls: tuple[Hall, Hall]) -> None:
    """The shortest way is taken: what is in the memo alone decides, and the full way is not asked."""
    with_memo, _ = halls
    client = settled(with_memo)
    connections = with_memo.connections
    connections.ready = connections.readable = connections.serve = None  # type: ignore[method-assign, assignment]
    client.sendall(GET)
    with_memo.turn()
    assert client.recv(1 << 20).endswith(b"small\n")


def test_a_head_that_was_never_seen_is_answered_without_a_step_more(halls: tuple[Hall, Hall]) -> None:
    """By its line, above a section that means what that of another head does."""
    with_memo, _ = halls
    client = settled(with_memo)
    with_memo.memo.answers.clear()  # as after many others
    section = b"Host: x\r\nUser-Agent: other\r\n\r\n"
    for _ in range(2):
        client.sendall(b"GET /missing HTTP/1.1\r\n" + section)
        assert b" 404 " in _taken(with_memo, client)
    client.sendall(GET)
    assert _taken(with_memo, client).endswith(b"small\n")
    connections = with_memo.connections
    connections.ready = connections.readable = connections.serve = None  # type: ignore[method-assign, assignment]
    client.sendall(b"GET /small.txt HTTP/1.1\r\n" + section)
    assert _taken(with_memo, client).endswith(b"small\n")


def test_a_settled_client_that_does_not_take_all_at_once(halls: tuple[Hall, Hall], site: Path) -> None:
    content = b"middling\n" * 10_000
    (site / "middling.bin").write_bytes(content)
    head = b"GET /middling.bin HTTP/1.1\r\nHost: x\r\n\r\n"
    for hall in halls:
        client = settled(hall, buffer=4096)
        for _ in range(4):
            client.sendall(head)
            got = b""
            while not got.endswith(content):
                got += _taken(hall, client)
            assert got.partition(b"\r\n\r\n")[2] == content
            client.sendall(GET)
            assert _taken(hall, client).endswith(b"small\n")
        client.close()
        hall.turn()
        assert not hall.connections.table
    assert head in halls[0].memo.answers
    assert counted(halls[0]) == counted(halls[1])


def test_a_settled_client_that_is_gone(halls: tuple[Hall, Hall]) -> None:
    for hall in halls:
        client = settled(hall)
        client.sendall(GET)
        client.close()  # EPIPE
        hall.turn()
        client = settled(hall)
        client.close()
        hall.turn()
        assert not hall.connections.table
        assert [line.split('"')[2] for line in hall.lines()] == [" 200 6 "] * 4 + [" 200 0 "] + [" 200 6 "] * 4
    assert counted(halls[0]) == counted(halls[1])


@pytest.mark.parametrize("how", [Drain.CLOSE, Drain.STORE, Drain.MOVE])
def test_what_has_settled_follows_the_end_of_its_worker(halls: tuple[Hall, Hall], how: Drain) -> None:
    for hall in halls:
        client = settled(hall)
        client.sendall(GET)
        hall.connections.drain(how)
        hall.turn()
        if how is Drain.CLOSE:
            got = client.recv(1 << 20)
            assert b"Connection: close" in got
            assert got.endswith(b"small\n")
            assert not hall.connections.table
        else:
            (connection,) = hall.connections.holding.to_return()
            assert connection.socket.recv(1 << 20) == GET, "unread"


def counted(hall: Hall) -> dict[str, object]:
    """All that a worker counts, but for what the memo is allowed to change, and how answers are timed."""
    names = set(hall.tally.__slots__) - {
        "memo_misses",
        "_in_rounds",
        "apart",
        "answer_time",
        "answer_times",
        "queue_waits",
        "file_cache_misses",  # a look that is quick enough is none
    }
    return {name: getattr(hall.tally, name) for name in names}


LAST = b"GET /%b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def test_an_answer_that_is_too_much_at_once_goes_on_as_the_client_takes_it(
    halls: tuple[Hall, Hall], site: Path
) -> None:
    """For a client that is new and wants no more, which has a way of its own."""
    content = bytes(range(256)) * 512
    (site / "middling.bin").write_bytes(content)
    head = LAST % b"middling.bin"
    for hall in halls:
        for _ in range(4):
            client = hall.client(head, buffer=4096)
            got = b""
            while part := _taken(hall, client):
                got += part
            assert got.partition(b"\r\n\r\n")[2] == content
        assert not hall.connections.table
    assert head in halls[0].memo.answers
    assert counted(halls[0]) == counted(halls[1])


def _taken(hall: Hall, client: socket.socket) -> bytes:
    hall.turn()
    return client.recv(1 << 20)


def test_a_new_client_that_is_gone_already(halls: tuple[Hall, Hall]) -> None:
    head = LAST % b"small.txt"
    for hall in halls:
        for _ in range(3):
            assert said(hall, head)[0].endswith(b"small\n")
        hall.client().close()
        ours, theirs = socket.socketpair()
        ours.sendall(head)
        ours.close()
        hall.connections.adopt(theirs.detach(), 0)  # EPIPE
        hall.turn()
        assert not hall.connections.table
        assert [line.split('"')[2] for line in hall.lines()] == [" 200 6 "] * 3 + [" 200 0 "]
    assert head in halls[0].memo.answers
    assert counted(halls[0]) == counted(halls[1])


def test_that_test_can_fail(halls: tuple[Hall, Hall]) -> None:
    """It does use the memo."""
    with_memo, without = halls
    data = b"GET /small.txt HTTP/1.1\r\nHost: x\r\n\r\n"
    for _ in range(3):
        said(with_memo, data)
        said(without, data)
    assert data in with_memo.connections._memo.answers
    assert not without.connections._memo.answers
    (request, answer) = with_memo.connections._memo.answers[data]
    wrong = Response(200, Head(answer.wire.replace(b"small\n", b"wrong\n")), content_bytes=answer.content_bytes)
    with_memo.connections._memo.answers[data] = (request, wrong)
    assert said(with_memo, data) != said(without, data)
    assert request.path == b"/small.txt"


def status_and_content(hall: Hall) -> tuple[int, bytes]:
    """For the third time in this second, so from the memo if it ever is."""
    for _ in range(3):
        got, _ = said(hall, GET)
    head, _, content = got.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), content


@pytest.mark.parametrize("change", ["overwritten", "replaced", "grown"])
def test_a_change_is_seen_in_the_next_second(hall: Hall, site: Path, change: str) -> None:
    os.utime(site / "small.txt", (1_000_000_000, 1_000_000_000))
    hall.clock.second += 3  # long after the change: nothing is looked at more often for being new
    assert status_and_content(hall) == (200, b"small\n")
    hall.clock.second += 1
    assert status_and_content(hall) == (200, b"small\n")  # renewed
    file = site / "small.txt"
    if change == "overwritten":
        file.write_bytes(b"SMALL\n")
    elif change == "grown":
        with file.open("ab") as more:
            more.write(b"more")
    else:
        (site / "new").write_bytes(b"SMALL\n")
        (site / "new").rename(file)
    hall.clock.second += 1
    assert status_and_content(hall) == (200, file.read_bytes())


def test_what_goes_and_what_comes_is_seen_in_the_next_second(hall: Hall, site: Path) -> None:
    hall.clock.second += 3
    assert status_and_content(hall) == (200, b"small\n")
    (site / "small.txt").rename(site / "away")
    hall.clock.second += 1
    assert status_and_content(hall)[0] == 404
    (site / "away").rename(site / "small.txt")
    hall.clock.second += 1
    assert status_and_content(hall) == (200, b"small\n")
    (site / "small.txt").unlink()
    (site / "small.txt").mkdir()
    hall.clock.second += 1
    assert status_and_content(hall)[0] == 404


def test_what_becomes_unreadable_is_seen_in_the_next_second(hall: Hall, site: Path) -> None:
    os.chown(site / "small.txt", 65534, 65534)
    with (site / "small.txt").open("rb") as file:

        def look() -> None:
            hall.clock.second += 3
            assert status_and_content(hall) == (200, b"small\n")
            os.fchmod(file.fileno(), 0)
            hall.clock.second += 1
            assert status_and_content(hall)[0] == 403

        as_nobody(look)


def test_two_clients_at_once_get_each_their_own(hall: Hall) -> None:
    one, other = hall.client(), hall.client()
    for _ in range(4):
        one.sendall(GET)
        other.sendall(GET.replace(b"small.txt", b"missing.txt"))
        hall.turn()
        assert one.recv(9999).startswith(b"HTTP/1.1 200")
        assert other.recv(9999).startswith(b"HTTP/1.1 404")


def test_each_answer_is_counted_and_logged(hall: Hall) -> None:
    """Nothing that watches requests sees fewer of them: the way out is the same."""
    client = hall.client()
    for _ in range(5):
        client.sendall(GET)
        hall.turn()
    assert GET in hall.memo.answers
    assert hall.tally.requests == 5
    assert hall.tally.classes[2] == 5
    assert hall.tally.bytes_received == 5 * len(GET)
    assert hall.tally.bytes_sent == len(client.recv(99999))
    assert len([line for line in hall.lines() if '"GET /small.txt HTTP/1.1" 200 6' in line]) == 5


WITH_CONTENT = b"GET /small.txt HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
SMUGGLED = b"GET /missing HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    ("head", "content"),
    [
        (WITH_CONTENT % len(SMUGGLED), SMUGGLED),
        (
            b"GET /small.txt HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED),
        ),
    ],
    ids=["length", "chunked"],
)
def test_content_is_never_taken_for_a_request(hall: Hall, head: bytes, content: bytes) -> None:
    """RFC 9112 11.2: not when its head was answered before, and then comes alone."""
    for _ in range(4):
        client = hall.client(head + content)
        hall.turn()
        assert client.recv(99999).count(b"HTTP/1.1 ") == 1
    client = hall.client(head)
    hall.turn()
    with pytest.raises(BlockingIOError):
        client.recv(99999)  # it is not answered before its content is here
    client.sendall(content)
    hall.turn()
    got = client.recv(99999)
    assert got.count(b"HTTP/1.1 ") == 1
    assert got.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("at_once", [1, 2, 5], ids=["one after the other", "in pairs", "all at once"])
def test_the_last_request_of_a_connection_says_so(site: Path, tmp_path: Path, at_once: int) -> None:
    """limits.requests: its head is known by then, and so is an answer that does not end the connection."""
    hall = Hall(site, tmp_path / "log", limits=Limits(requests=5))
    for _ in range(3):
        client = hall.client()
        got = b""
        for _ in range(0, 6, at_once):
            try:
                client.sendall(GET * at_once)
            except BrokenPipeError:
                break
            hall.turn()
            got += client.recv(99999)
        heads = got.split(b"HTTP/1.1 200")[1:]
        assert [b"\r\nConnection: close\r\n" in head for head in heads] == [False] * 4 + [True]
        hall.turn()
        client.close()
        hall.turn()
        assert not hall.connections.table
    assert all(not answer.close for _, answer in hall.memo.answers.values())
    assert at_once > 1 or hall.memo.answers, "the others do come from the memo"
    hall.close()


def test_an_answer_to_a_last_request_is_nobody_elses(site: Path, tmp_path: Path) -> None:
    """Each second request is the last of its connection, and asks for what was asked for before."""
    hall = Hall(site, tmp_path / "log", limits=Limits(requests=2))
    for parked in (False, False, False, True):
        client = hall.client(GET, parked=parked)  # one that another worker had has had its first
        for last in (True,) if parked else (False, True):
            hall.turn()
            assert (b"\r\nConnection: close\r\n" in client.recv(99999)) is last
            if not last:
                client.sendall(GET)
        assert client.recv(1) == b""
    hall.close()


def test_a_connection_may_have_a_single_request(site: Path, tmp_path: Path) -> None:
    hall = Hall(site, tmp_path / "log", limits=Limits(requests=1))
    for parked in (False, False, False, True):
        client = hall.client(GET, parked=parked)
        hall.turn()
        assert b"\r\nConnection: close\r\n" in client.recv(99999)
        assert client.recv(1) == b""
    hall.close()


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n" % (b"a" * 1000), b"414"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n%b\r\n" % (b"X: y\r\n" * 20), b"431"),
        # Its fields are known from below a shorter line; together they are too much.
        (b"GET /%b HTTP/1.1\r\nHost: x\r\nX: %b\r\n\r\n" % (b"a" * 400, b"y" * 1700), b"431"),
    ],
    ids=["target", "fields", "head"],
)
def test_a_head_that_is_too_much_is_so_with_the_memo_too(
    site: Path, tmp_path: Path, head: bytes, status: bytes
) -> None:
    """limits.head_bytes, target_bytes, head_fields."""
    tight = Hall(site, tmp_path / "log", limits=Limits(head_bytes=2048, target_bytes=500, head_fields=10))
    usual = Hall(site, tmp_path / "other-log")
    line, _, fields = head.partition(b"\r\n")
    for _ in range(4):
        said(tight, b"GET / HTTP/1.1\r\n" + fields)
        assert said(tight, head)[0].startswith(b"HTTP/1.1 " + status)
        assert said(usual, head)[0].startswith(b"HTTP/1.1 404" if line.startswith(b"GET /a") else b"HTTP/1.1 200")
    tight.close()
    usual.close()


def test_pipelined_heads_are_taken_apart(hall: Hall) -> None:
    client: socket.socket = hall.client()
    for _ in range(4):
        client.sendall(GET * 3)
        hall.turn()
        assert client.recv(99999).count(b"HTTP/1.1 200") == 3
    assert GET * 3 not in hall.memo.answers


# What an answer or its line in the log has of its own, and the memo knows nothing of. Each row is a feature: how it is
# switched on, what is sent before the first head, and by what a field of a head names the client.
OWN = {
    "the client of a PROXY header": ({"protocol": "proxy"}, {}, b"PROXY TCP4 192.0.2.%d 198.51.100.1 4711 80\r\n", b""),
    "the client of X-Forwarded-For": ({"protocol": "x-forwarded-for"}, {}, b"", b"X-Forwarded-For: 192.0.2.%d\r\n"),
    "the client of Forwarded": ({"protocol": "forwarded"}, {}, b"", b"Forwarded: for=192.0.2.%d\r\n"),
    "the identity of a request": ({"protocol": "off"}, {"request_id": True}, b"", b""),
    "the identity that a proxy gave": ({"protocol": "off"}, {"request_id": True}, b"", b"X-Request-ID: id-%d\r\n"),
    "how long it took": ({"protocol": "off"}, {"server_timing": True}, b"", b""),
    "all of it": (
        {"protocol": "x-forwarded-for"},
        {"request_id": True, "server_timing": True},
        b"",
        b"X-Request-ID: id-%d\r\nX-Forwarded-For: 192.0.2.%d\r\n",
    ),
}
DATE = re.compile(rb"\r\nDate: [^\r\n]*")
OWN_LINES = re.compile(rb"\r\n(?:X-Request-ID|Server-Timing): [^\r\n]*(?=\r\n)")


@pytest.mark.parametrize("kept", [False, True], ids=["a connection each", "one connection"])
@pytest.mark.parametrize(("proxies", "tracing", "header", "field"), OWN.values(), ids=OWN)
def test_the_memo_hides_nothing_of_a_requests_own(
    site: Path,
    tmp_path: Path,
    proxies: dict[str, str],
    tracing: dict[str, bool],
    header: bytes,
    field: bytes,
    kept: bool,
) -> None:
    """Three clients in turn, each asking for the same three things, with the memo and without it."""
    seen = []
    for name, memo in (("with", None), ("without", Memo(0))):
        hall = Hall(site, tmp_path / name)
        hall.equip(memo=memo or hall.memo)
        options = Proxies(trusted=("unix:http",), **proxies)  # type: ignore[arg-type]
        hall.equip(proxies=worker_proxies.Proxies(options, (Origin("http", socket.AF_UNIX),), hall.clock))
        if tracing:
            hall.equip(tracing=worker_tracing.Tracing(Tracing(**tracing)))
        hall.equip(access=JsonLog(str(hall.log), hall.clock, 0))
        answers = []
        for client in (1, 2, 3):
            begin = header % client if header else b""
            own = field % ((client,) * field.count(b"%d"))
            heads = [
                b"GET %b HTTP/1.1\r\nHost: x\r\n%b\r\n" % (target, own)
                for target in (b"/small.txt", b"/missing", b"/small.txt") * 2
            ]
            if kept:
                found = conversed(hall, [begin + heads[0], *heads[1:]])
            else:
                found = [said(hall, begin + head) for head in heads]
            answers += [(OWN_LINES.sub(b"", got), OWN_LINES.findall(got)) for got, _ in found]
        entries = [json.loads(line) for line in hall.lines()]
        assert len(entries) == len(answers) == 18
        assert bool(hall.connections._memo.answers) is (memo is None)
        for entry, (_, lines) in zip(entries, answers, strict=True):
            assert len(lines) == len(tracing)
            if "request_id" in tracing:
                assert lines[0].endswith(b" " + (entry["request_id"].encode() if b"-ID" in field else b"(boundary)"))
        clients = [entry["client"] for entry in entries]
        assert clients == [
            f"192.0.2.{number}" if b"192" in header + field else "unix:" for number in (1, 2, 3) for _ in range(6)
        ]
        if b"-ID" in field:
            assert [entry["request_id"] for entry in entries] == [
                f"id-{number}" for number in (1, 2, 3) for _ in range(6)
            ]
        elif "request_id" in tracing:
            assert len({entry["request_id"] for entry in entries}) == 18
        seen.append([answer for answer, _ in answers])
        hall.close()
    assert [DATE.sub(b"", answer) for answer in seen[0]] == [DATE.sub(b"", answer) for answer in seen[1]]
