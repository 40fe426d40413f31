"""Connections of trusted proxies: whose they are, and that nothing else believes what a header or a field says."""

import contextlib
import logging
import socket
import struct
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.http.test_proxy import mutilated
from tests.unit.worker.conftest import LIMITS, Hall

from pyserver.clock import Clock
from pyserver.config import Clients
from pyserver.config import Proxies as Options
from pyserver.http.forwarded import address
from pyserver.http.proxy import SIGNATURE, Malformed, parse
from pyserver.ipc.assignment import Origin
from pyserver.ipc.clients import ClientTable
from pyserver.ipc.messages import Drain
from pyserver.limits import DRAIN_GRACE_S, LINGER_S, PROXY_TOLD_S
from pyserver.worker.admission import Admission
from pyserver.worker.failures import Failures
from pyserver.worker.proxies import Proxies

GET = b"GET /small.txt HTTP/1.1\r\nHost: x\r\n\r\n"
LINE = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 80\r\n"
LOCAL = SIGNATURE + struct.pack("!BBH", 0x20, 0, 0)
PACKED = SIGNATURE + struct.pack("!BBH", 0x21, 0x11, 15) + socket.inet_aton("192.0.2.7") + bytes(8) + b"\x04\0\0"
HTTP = Origin("http", socket.AF_UNIX)


def trusting(hall: Hall, protocol: str, *trusted: str) -> Hall:
    options = Options(trusted=trusted or ("unix:http",), protocol=protocol)  # type: ignore[arg-type]
    hall.equip(proxies=Proxies(options, (HTTP,), hall.clock))
    return hall


@pytest.fixture
def proxied(hall: Hall) -> Hall:
    return trusting(hall, "proxy")


def clients_in(hall: Hall) -> list[str]:
    return [line.split(" ")[0] for line in hall.lines()]


def received(client: socket.socket) -> bytes:
    got = b""
    try:
        while part := client.recv(1 << 20):
            got += part
    except (BlockingIOError, ConnectionResetError):
        pass
    return got


def ended(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:  # it had sent what nobody read
        return True


# -- who is trusted ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trusted", "peer", "is_trusted"),
    [
        ("192.0.2.0/24", b"192.0.2.255", True),
        ("192.0.2.0/24", b"192.0.3.0", False),
        ("192.0.2.7", b"192.0.2.7", True),
        ("192.0.2.7", b"192.0.2.8", False),
        ("2001:db8::7", b"2001:db8::7", True),
        ("2001:db8::7", b"2001:db8::8", False),  # not the /64 of it, as for limits
        ("2001:db8::/32", b"2001:db8:ffff::1", True),
        ("fe80::/10", b"fe80::1%eth0", True),
        ("::/0", b"192.0.2.7", False),
        ("0.0.0.0/0", b"::1", False),
        ("192.0.2.7", b"-", False),
        ("192.0.2.7", b"unix:", False),
    ],
)
def test_addresses_are_compared_whole(trusted: str, peer: bytes, *, is_trusted: bool) -> None:
    proxies = Proxies(Options(trusted=(trusted,)), (Origin("http", socket.AF_INET6),), Clock())
    assert (proxies.via(0, socket.AF_INET6, peer) is not None) is is_trusted


def test_a_unix_peer_is_trusted_by_the_name_of_its_listener_only() -> None:
    origins = (HTTP, Origin("other", socket.AF_UNIX), Origin("admin", socket.AF_UNIX), Origin("http", socket.AF_INET))
    options = Options(trusted=("unix:http", "unix:admin", "0.0.0.0/0"))
    proxies = Proxies(options, origins, Clock())
    told = [proxies.via(number, origin.family, b"unix:") is not None for number, origin in enumerate(origins)]
    assert told == [True, False, False, False]


# -- the PROXY header ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "client"),
    [(LINE, "192.0.2.7"), (PACKED, "192.0.2.7"), (LOCAL, "unix:"), (b"PROXY UNKNOWN\r\n", "unix:")],
)
def test_the_client_is_whom_the_header_names(proxied: Hall, header: bytes, client: str) -> None:
    connected = proxied.client(header + GET)
    proxied.turn()
    assert received(connected).startswith(b"HTTP/1.1 200 ")
    connected.sendall(GET * 2)
    proxied.turn()
    assert received(connected).count(b"HTTP/1.1 200 ") == 2
    assert clients_in(proxied) == [client] * 3
    assert proxied.tally.bytes_received == len(header + GET * 3)
    assert proxied.tally.connections == 1


@pytest.mark.parametrize("header", [LINE, PACKED, LOCAL])
def test_a_header_comes_in_any_pieces(proxied: Hall, header: bytes) -> None:
    data = header + GET
    for cut in range(len(data)):
        connected = proxied.client(data[:cut])
        proxied.turn()
        connected.sendall(data[cut:])
        proxied.turn()
        assert received(connected).count(b"HTTP/1.1 200 ") == 1, cut
    dripping = proxied.client()
    for byte in data:
        dripping.sendall(bytes([byte]))
        proxied.turn()
    assert received(dripping).count(b"HTTP/1.1 200 ") == 1
    assert len(set(clients_in(proxied))) == 1


@pytest.mark.parametrize("first", [GET, b"G", b"\x16\x03\x01", LINE.lower(), LINE.replace(b"7 ", b"777 ")])
def test_a_peer_that_should_send_one_and_does_not_is_closed(
    proxied: Hall, caplog: pytest.LogCaptureFixture, first: bytes
) -> None:
    connected = proxied.client(first)
    proxied.turn()
    assert ended(connected)
    assert not proxied.connections.table
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "unix: sent no PROXY header: it" in caplog.text
    assert proxied.lines() == []


def test_a_flood_of_such_connections_is_none_of_the_log(proxied: Hall, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(20):
        proxied.client(GET)
    assert len(caplog.records) == 1
    proxied.clock.now += PROXY_TOLD_S
    proxied.client(GET)
    assert len(caplog.records) == 2
    assert "19 more like it" in caplog.text


def test_a_check_that_only_connects_is_no_fault(proxied: Hall, caplog: pytest.LogCaptureFixture) -> None:
    proxied.client().close()
    proxied.turn()
    assert not proxied.connections.table
    assert not caplog.records
    proxied.client(LINE[:9]).close()
    proxied.turn()
    assert not proxied.connections.table
    assert "it ends after 9 bytes" in caplog.text


def test_a_peer_that_is_gone_is_not_taken_for_a_client(hall: Hall) -> None:
    """A check of HAProxy sends its header and resets the connection: then nobody can tell whose it was."""
    options = Options(trusted=("127.0.0.1",), protocol="proxy")
    hall.equip(proxies=Proxies(options, (Origin("http", socket.AF_INET),), hall.clock))
    hall.connections._origins = (Origin("http", socket.AF_INET),)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), 5)
        served, _ = listener.accept()
        client.sendall(LOCAL)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
    with pytest.raises(OSError, match="not connected"):
        served.getpeername()
    hall.connections.adopt(served.detach(), 0)
    hall.turn()
    assert not hall.connections.table
    assert hall.lines() == []


def test_the_deadline_of_the_head_is_one_with_the_header(proxied: Hall, caplog: pytest.LogCaptureFixture) -> None:
    silent, dripping, whole = proxied.client(), proxied.client(LINE[:3]), proxied.client(LINE[:4])
    proxied.turn()
    proxied.wait(LIMITS.head_deadline - 1)
    dripping.sendall(LINE[3:4])
    whole.sendall(LINE[4:] + GET[:7])
    proxied.turn()
    assert not ended(silent)
    proxied.wait(2)
    assert ended(silent)
    assert ended(dripping)
    assert received(whole).startswith(b"HTTP/1.1 408 ")
    assert proxied.tally.deadlines == 3
    assert "it did not come in time" in caplog.text


@pytest.mark.parametrize("trusted", ["unix:other", "127.0.0.1"])
def test_who_is_not_trusted_is_a_client_and_no_header_of_it_is_believed(hall: Hall, trusted: str) -> None:
    """As HAProxy does by `expect-proxy layer4 if { src ... }`."""
    trusting(hall, "proxy", trusted)
    plain, pretender = hall.client(GET), hall.client(LINE + GET)
    hall.turn()
    assert received(plain).startswith(b"HTTP/1.1 200 ")
    assert received(pretender).startswith(b"HTTP/1.1 400 ")
    assert clients_in(hall) == ["unix:", "unix:"]


def test_the_memo_answers_such_connections_too(proxied: Hall) -> None:
    connected = proxied.client(LINE)
    for _ in range(4):
        connected.sendall(GET)
        proxied.turn()
    assert GET in proxied.memo.answers
    assert received(connected).count(b"HTTP/1.1 200 ") == 4


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mutilated(), st.lists(st.integers(0, 60), max_size=3))
def test_whatever_a_trusted_peer_sends_it_is_served_or_closed(proxied: Hall, header: bytes, cuts: list[int]) -> None:
    """In pieces, and with a request behind it; then the next one is served as ever."""
    data = header + GET
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    connected = proxied.client()
    with contextlib.suppress(BrokenPipeError):
        for start, end in pairwise(places):
            connected.sendall(data[start:end])
            proxied.turn()
    try:
        read = parse(data)
    except Malformed:
        assert ended(connected)
    else:
        assert received(connected) or read is None or not data[read.length :]
    proxied.wait(LIMITS.head_deadline + 1)
    received(connected)
    connected.close()
    proxied.turn()
    proxied.wait(LINGER_S + 1)
    assert not proxied.connections.table
    good = proxied.client(LINE + GET)
    proxied.turn()
    assert received(good).startswith(b"HTTP/1.1 200 ")
    good.close()
    proxied.turn()
    assert {name == "unix:" or address(name.encode()) == name.encode() for name in clients_in(proxied)} == {True}


# -- the end of a worker ---------------------------------------------------------------------------


@pytest.mark.parametrize("how", [Drain.MOVE, Drain.STORE, Drain.CLOSE])
def test_a_connection_with_a_header_does_not_go_over_to_a_worker_that_did_not_read_it(
    proxied: Hall, how: Drain
) -> None:
    idle, asking, new = proxied.client(LINE + GET), proxied.client(LINE + GET), proxied.client(LINE[:5])
    proxied.turn()
    received(idle)
    received(asking)
    asking.sendall(GET)
    proxied.connections.drain(how)
    assert not proxied.connections.holding.returning
    new.sendall(LINE[5:] + GET)
    proxied.turn()
    for client in (asking, new):
        assert b"Connection: close\r\n" in received(client)
        assert ended(client)
    proxied.wait(DRAIN_GRACE_S + 0.3)
    assert ended(idle)
    assert not proxied.connections.table
    assert not any(answer.close for _, answer in proxied.memo.answers.values())


def test_after_a_move_the_memo_has_nothing_that_ends(proxied: Hall) -> None:
    """Others of the worker are to go on: what says `close` is for one connection only."""
    one = proxied.client(LINE + GET)
    proxied.turn()
    proxied.connections.drain(Drain.MOVE)
    late = [proxied.client(LINE + GET) for _ in range(3)]
    proxied.turn()
    assert all(b"Connection: close" in received(client) for client in late)
    assert b"Connection: close" not in received(one)
    assert not proxied.memo.answers


def test_an_answer_under_way_at_a_move_is_the_last_but_one(proxied: Hall) -> None:
    connected = proxied.client(LINE + GET.replace(b"small.txt", b"large.bin"), buffer=4096)
    proxied.connections.drain(Drain.MOVE)
    got = b""
    for _ in range(10_000):
        proxied.turn()
        part = received(connected)
        if not part:
            break
        got += part
    assert got.startswith(b"HTTP/1.1 200 ")
    assert b"Connection: close" not in got[:300]
    connected.sendall(GET)
    proxied.turn()
    assert b"Connection: close\r\n" in received(connected)
    assert ended(connected)


def test_a_connection_that_was_served_before_is_asked_for_no_header(proxied: Hall) -> None:
    """Its peer was a client under the last configuration, and the bytes that come next are a request."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    proxied.opened.append(ours)
    ours.sendall(GET)
    proxied.connections.adopt(theirs.detach(), 0, parked=True)
    proxied.turn()
    assert received(ours).startswith(b"HTTP/1.1 200 ")
    assert clients_in(proxied) == ["unix:"]


def test_with_fields_connections_move_on(hall: Hall) -> None:
    trusting(hall, "x-forwarded-for")
    connected = hall.client(told(b"X-Forwarded-For: 192.0.2.7"))
    hall.turn()
    assert received(connected).startswith(b"HTTP/1.1 200 ")
    hall.connections.drain(Drain.MOVE)
    assert len(hall.connections.holding.returning) == 1


# -- fields ------------------------------------------------------------------------------------------


def told(*lines: bytes) -> bytes:
    return GET[:-2] + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


@pytest.mark.parametrize(
    ("protocol", "lines", "client"),
    [
        ("x-forwarded-for", [b"X-Forwarded-For: 192.0.2.7"], "192.0.2.7"),
        ("x-forwarded-for", [b"x-forwarded-for:192.0.2.7 "], "192.0.2.7"),
        ("x-forwarded-for", [b"X-Forwarded-For: 6.6.6.6", b"X-Forwarded-For: 192.0.2.7"], "192.0.2.7"),
        ("x-forwarded-for", [b"X_Forwarded_For: 6.6.6.6", b"Forwarded: for=6.6.6.6"], "unix:"),
        ("x-forwarded-for", [b"Referer: a X-Forwarded-For: 6.6.6.6"], "unix:"),
        ("x-forwarded-for", [b"X-Forwarded-For:"], "unix:"),
        ("x-forwarded-for", [], "unix:"),
        ("forwarded", [b"Forwarded: for=6.6.6.6", b'Forwarded: for="[2001:db8::7]:1"'], "2001:db8::7"),
        ("forwarded", [b"X-Forwarded-For: 6.6.6.6", b"X-Real-IP: 6.6.6.6"], "unix:"),
        ("off", [b"X-Forwarded-For: 6.6.6.6", b"Forwarded: for=6.6.6.6"], "unix:"),
        ("proxy", [b"X-Forwarded-For: 6.6.6.6", b"Forwarded: for=6.6.6.6"], "192.0.2.7"),
    ],
)
def test_the_client_is_whom_the_field_names(hall: Hall, protocol: str, lines: list[bytes], client: str) -> None:
    trusting(hall, protocol)
    connected = hall.client(LINE if protocol == "proxy" else b"")
    for _ in range(3):  # the last one by the memo
        connected.sendall(told(*lines))
        hall.turn()
    assert received(connected).count(b"HTTP/1.1 200 ") == 3
    assert clients_in(hall) == [client] * 3
    assert told(*lines) in hall.memo.answers


def test_each_request_of_a_connection_has_its_own_client(hall: Hall) -> None:
    trusting(hall, "x-forwarded-for")
    connected = hall.client()
    names = [b"192.0.2.%d" % number for number in range(5)]
    connected.sendall(b"".join(told(b"X-Forwarded-For: " + name) for name in names))
    hall.turn()
    assert clients_in(hall) == [name.decode() for name in names]


def test_who_is_not_trusted_has_no_say(hall: Hall) -> None:
    trusting(hall, "x-forwarded-for", "unix:other")
    hall.client(told(b"X-Forwarded-For: 6.6.6.6"))
    hall.turn()
    assert clients_in(hall) == ["unix:"]


def test_a_head_that_is_refused_says_nothing_of_its_client(hall: Hall) -> None:
    """Its fields may stand where no reader would look for them, or be cut."""
    trusting(hall, "x-forwarded-for")
    bad = hall.client(told(b"X-Forwarded-For: 6.6.6.6", b"Bad field: x"))
    slow = hall.client(told(b"X-Forwarded-For: 6.6.6.6")[:-2])
    hall.turn()
    hall.wait(LIMITS.head_deadline + 1)
    assert received(bad).startswith(b"HTTP/1.1 400 ")
    assert received(slow).startswith(b"HTTP/1.1 408 ")
    assert clients_in(hall) == ["unix:", "unix:"]


def test_content_that_is_late_is_its_clients(hall: Hall) -> None:
    trusting(hall, "x-forwarded-for")
    connected = hall.client(told(b"X-Forwarded-For: 192.0.2.7", b"Content-Length: 3"))
    hall.turn()
    hall.wait(LIMITS.body_deadline + 1)
    assert received(connected).startswith(b"HTTP/1.1 408 ")
    assert clients_in(hall) == ["192.0.2.7"]


def test_a_record_of_the_journal_names_the_client(hall: Hall, caplog: pytest.LogCaptureFixture) -> None:
    trusting(hall, "x-forwarded-for")
    hall.equip(failures=Failures(0, 10, hall.clock))
    with caplog.at_level(logging.INFO):
        hall.client(told(b"X-Forwarded-For: 192.0.2.7").replace(b"small", b"missing"))
        hall.turn()
    assert [getattr(record, "fields", {})["CLIENT"] for record in caplog.records] == [b"192.0.2.7"]


# -- limits -------------------------------------------------------------------------------------------


def limited(hall: Hall, table: ClientTable, **options: int) -> Hall:
    limits = Clients(**options)  # type: ignore[arg-type]
    hall.equip(admission=Admission(limits, table, 0, hall.clock, hall.tally, hall.parts.get("proxies")))
    return hall


def test_connections_are_limited_by_the_client_of_the_header(table: ClientTable, proxied: Hall) -> None:
    limited(proxied, table, connections=2)
    bad = [proxied.client(LINE + GET) for _ in range(3)]
    good = proxied.client(LINE.replace(b"2.7", b"2.8") + GET)
    health = [proxied.client(LOCAL + GET) for _ in range(4)]  # nobody's but the proxy's, which has no address here
    waiting = [proxied.client(LINE[:20]) for _ in range(4)]
    proxied.turn()
    assert [received(client).startswith(b"HTTP/1.1 200 ") for client in bad] == [True, True, False]
    assert ended(bad[2])
    assert received(good).startswith(b"HTTP/1.1 200 ")
    assert all(received(client).startswith(b"HTTP/1.1 200 ") for client in health)
    assert proxied.tally.limited_open == 1
    bad[0].close()
    proxied.turn()
    waiting[0].sendall(LINE[20:] + GET)
    waiting[1].sendall(LINE[20:] + GET)
    proxied.turn()
    assert received(waiting[0]).startswith(b"HTTP/1.1 200 ")
    assert ended(waiting[1])


@pytest.mark.parametrize("protocol", ["proxy", "x-forwarded-for"])
def test_requests_are_limited_by_the_true_client(
    table: ClientTable, hall: Hall, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    limited(trusting(hall, protocol), table, request_rate=1, request_burst=3)

    def ask(client: bytes) -> list[bytes]:
        by_header = protocol == "proxy"
        connected = hall.client(LINE.replace(b"192.0.2.7", client) if by_header else b"")
        for _ in range(5):
            connected.sendall(GET if by_header else told(b"X-Forwarded-For: 6.6.6.6, " + client))
            hall.turn()
        return [part[:3] for part in received(connected).split(b"HTTP/1.1 ")[1:]]

    assert ask(b"192.0.2.7") == [b"200"] * 3 + [b"429"] * 2
    assert ask(b"192.0.2.8") == [b"200"] * 3 + [b"429"] * 2
    assert ask(b"192.0.2.7") == [b"429"] * 5
    assert "client 192.0.2.7 wants more than 1 requests a second, refused" in caplog.text
    assert "client 192.0.2.8 wants more" in caplog.text
    assert "6.6.6.6" not in caplog.text


def test_requests_that_the_proxy_makes_itself_are_its_own(table: ClientTable, hall: Hall) -> None:
    """On a UNIX socket it has no address, and so no limit."""
    limited(trusting(hall, "x-forwarded-for"), table, request_rate=1, request_burst=2, connections=1)
    for connected in [hall.client(), hall.client()]:
        connected.sendall(GET * 5)
        hall.turn()
        assert received(connected).count(b"HTTP/1.1 200 ") == 5


def test_nothing_stays_open_of_all_this(table: ClientTable, proxied: Hall) -> None:
    limited(proxied, table, connections=1)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        for first in (GET, LINE + GET, LINE[:9], LOCAL + GET, LINE + b"rubbish\r\n\r\n"):
            client = proxied.client(first)
            proxied.turn()
            client.close()
            proxied.turn()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert not proxied.connections.table


def test_log_of_the_site_is_not_needed(site: Path, tmp_path: Path) -> None:
    """Without an access log the client is found for limits only."""
    hall = Hall(site, tmp_path / "log")
    hall.equip(access=None)
    trusting(hall, "x-forwarded-for")
    client = hall.client(told(b"X-Forwarded-For: 192.0.2.7"))
    hall.turn()
    assert received(client).startswith(b"HTTP/1.1 200 ")
    hall.close()
