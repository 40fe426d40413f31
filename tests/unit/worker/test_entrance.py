"""Clients that come, over Connections: who is served, who is refused, and who has to say first by whom it comes."""

import contextlib
import logging
import select
import socket
import struct

import pytest
from tests.unit.worker.conftest import LIMITS, Hall

from pyserver.config import Clients
from pyserver.config import Proxies as Options
from pyserver.http.dates import imf_fixdate
from pyserver.ipc.assignment import Origin
from pyserver.ipc.clients import ClientTable
from pyserver.ipc.messages import Drain
from pyserver.limits import LINGER_S
from pyserver.worker.admission import Admission
from pyserver.worker.client import Phase
from pyserver.worker.proxies import Proxies
from pyserver.worker.records import GONE, peer_name

GET = b"GET /small.txt HTTP/1.1\r\nHost: x\r\n\r\n"
LINE = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 80\r\n"
TOO_LONG = 31.0  # the bound of a Hall is 30


def all_of(client: socket.socket) -> bytes:
    data = b""
    with contextlib.suppress(BlockingIOError):
        while got := client.recv(65536):
            data += got
    return data


@pytest.fixture
def guarded(table: ClientTable, hall: Hall) -> Hall:
    """A worker all of whose clients come by a proxy with a PROXY header, and may have one connection each."""
    proxies = Proxies(Options(trusted=("unix:http",), protocol="proxy"), (Origin("http", socket.AF_UNIX),), hall.clock)
    admission = Admission(Clients(connections=1), table, 0, hall.clock, hall.tally, proxies)
    hall.equip(proxies=proxies, admission=admission)
    return hall


# -- who waited too long -----------------------------------------------------------------------------


def test_it_is_503_with_retry_after_and_the_end(hall: Hall) -> None:
    """RFC 9110 15.6.4, 10.2.3."""
    client = hall.client(GET, queued=TOO_LONG)
    said = all_of(client)
    head, _, content = said.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"\r\nRetry-After: 30\r\n" in head
    assert b"\r\nConnection: close" in head
    assert b"\r\nDate: " + imf_fixdate(hall.clock.second) + b"\r\n" in head
    assert b"Content-Length: %d\r\n" % len(content) in head
    assert not hall.connections.table, "there is nothing to wait for"
    tally = hall.tally
    assert (tally.shed, tally.connections, tally.requests, tally.classes[5]) == (1, 1, 1, 1)
    assert (tally.bytes_received, tally.bytes_sent) == (len(GET), len(said))
    assert '"GET /small.txt HTTP/1.1" 503 ' in hall.lines()[0]


def test_head_gets_no_content(hall: Hall) -> None:
    client = hall.client(GET.replace(b"GET", b"HEAD"), queued=TOO_LONG)
    head, _, content = all_of(client).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert content == b""


def test_who_has_not_waited_too_long_is_served(hall: Hall) -> None:
    client = hall.client(GET, queued=29.0)
    assert all_of(client).startswith(b"HTTP/1.1 200 ")
    assert hall.tally.shed == 0


@pytest.mark.parametrize("first", [b"", GET[:10], b"POST / HTTP/1.1\r\nContent-Length: 20000\r\n\r\n" + b"x" * 10])
def test_of_whom_more_may_come_is_lingered_for(hall: Hall, first: bytes) -> None:
    """RFC 9112 9.6: a close while bytes come in would take the answer away."""
    client = hall.client(first, queued=TOO_LONG)
    (connection,) = hall.connections.table.values()
    assert connection.phase is Phase.LINGERING
    client.sendall(b"x" * 5000)
    hall.turn()
    assert all_of(client).startswith(b"HTTP/1.1 503 ")
    hall.wait(LINGER_S + 1)
    assert not hall.connections.table


def test_who_is_gone_is_only_counted(hall: Hall) -> None:
    ours, theirs = socket.socketpair()
    ours.sendall(GET)
    ours.close()
    hall.connections.adopt(theirs.detach(), 0, waited_ns=int(TOO_LONG * 1e9))
    hall.turn()
    hall.wait(LINGER_S + 1)
    assert not hall.connections.table
    assert (hall.tally.shed, hall.tally.connections) == (1, 1)


# -- one after the other -----------------------------------------------------------------------------


def test_who_waited_too_long_is_asked_for_no_header(guarded: Hall) -> None:
    for first in (b"", LINE[:20], LINE + GET):
        late = guarded.client(first, queued=TOO_LONG)
        assert all_of(late).startswith(b"HTTP/1.1 503 ")
    assert guarded.tally.shed == 3


def test_the_limits_are_those_of_whom_the_header_names_once_it_is_there(guarded: Hall) -> None:
    waiting = [guarded.client(LINE[:20]) for _ in range(3)]
    assert {each.phase for each in guarded.connections.table.values()} == {Phase.GREETING}
    assert guarded.tally.limited_open == 0
    for client in waiting:
        client.sendall(LINE[20:] + GET)
        guarded.turn()
    assert all_of(waiting[0]).startswith(b"HTTP/1.1 200 ")
    for refused in waiting[1:]:
        with pytest.raises(ConnectionResetError):  # with a request that nobody read
            refused.recv(1)
    assert len(guarded.connections.table) == 1
    assert (guarded.tally.connections, guarded.tally.limited_open) == (3, 2)
    waiting[0].close()
    guarded.turn()
    assert all_of(guarded.client(LINE + GET)).startswith(b"HTTP/1.1 200 "), "its place is free again"


def test_a_client_that_another_worker_let_in_is_counted_and_never_refused(table: ClientTable, hall: Hall) -> None:
    hall.equip(admission=Admission(Clients(connections=1), table, 0, hall.clock, hall.tally))
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as stack:
        hall.connections._origins = (Origin("http", socket.AF_INET),)

        def come(*, parked: bool) -> socket.socket:
            client = stack.enter_context(socket.create_connection(listener.getsockname()))
            served, _ = listener.accept()
            client.settimeout(30)
            client.sendall(GET)
            assert select.select([served], [], [], 30)[0], "it is there"
            hall.connections.adopt(served.detach(), 0, parked=parked)
            hall.turn()
            return client

        assert come(parked=True).recv(12) == b"HTTP/1.1 200"
        assert come(parked=True).recv(12) == b"HTTP/1.1 200"
        assert hall.tally.connections == 0, "that is the other worker's number"
        with contextlib.suppress(ConnectionResetError):
            assert come(parked=False).recv(12) == b""
        assert (hall.tally.connections, hall.tally.limited_open) == (1, 1)
        assert len(hall.connections.table) == 2


def test_who_is_gone_before_anyone_could_look_is_counted_once(guarded: Hall) -> None:
    guarded.connections._origins = (Origin("http", socket.AF_INET),)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for parked in (False, True):
            client = socket.create_connection(listener.getsockname(), 30)
            served, _ = listener.accept()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            while peer_name(served) != GONE:
                assert select.select([served], [], [], 30)[0]
            guarded.connections.adopt(served.detach(), 0, parked=parked)
            guarded.turn()
            assert not guarded.connections.table
    assert guarded.tally.connections == 1, "who is parked was counted by the worker that had it"


# -- the end of a worker -----------------------------------------------------------------------------


@pytest.mark.parametrize("leaves", [False, True])
def test_that_a_header_does_not_come_any_more_is_told_unless_the_worker_leaves(
    guarded: Hall, caplog: pytest.LogCaptureFixture, *, leaves: bool
) -> None:
    guarded.client(LINE[:9])
    with caplog.at_level(logging.WARNING, "pyserver"):
        if leaves:
            guarded.connections.drain(Drain.CLOSE)
        guarded.wait(LIMITS.head_deadline + 1)
    assert not guarded.connections.table
    assert ("it did not come in time" in caplog.text) is not leaves
