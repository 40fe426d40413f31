"""Clients that have waited too long: who that is, and what they hear."""

import contextlib
import logging
import socket
from pathlib import Path

import pytest
from tests.unit.processes import wait_until
from tests.unit.worker.conftest import Hall

from pyserver.clock import Clock
from pyserver.http.dates import imf_fixdate
from pyserver.limits import LINGER_S, SHED_TOLD_S
from pyserver.worker.client import Phase
from pyserver.worker.shedding import Shedding

GET = b"GET /small.txt HTTP/1.1\r\nHost: x\r\n\r\n"
TOO_LONG = 31.0  # the bound of a Hall is 30


def all_of(client: socket.socket) -> bytes:
    data = b""
    with contextlib.suppress(BlockingIOError):
        while got := client.recv(65536):
            data += got
    return data


# -- who ---------------------------------------------------------------------------------------------


def test_it_is_looked_at_who_came_together_with_others() -> None:
    """The time of a message is that of the oldest of them."""
    shedding = Shedding(0.3, Clock())
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as stack:

        def connected() -> int:
            client = stack.enter_context(socket.create_connection(listener.getsockname()))
            client.sendall(GET)
            return stack.enter_context(listener.accept()[0]).fileno()

        old = connected()
        wait_until(lambda: shedding.overdue(old))
        # At once, but for when this thread stands still between connect and look.
        wait_until(lambda: not shedding.overdue(connected()))


def test_where_that_is_not_known_all_are_as_old() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert Shedding(1.0, Clock()).overdue(one.fileno())


def test_without_a_bound_nobody_waits_too_long(site: Path, tmp_path: Path) -> None:
    hall = Hall(site, tmp_path / "log", queue_wait=0.0)
    client = hall.client(GET, queued=1e9)
    assert all_of(client).startswith(b"HTTP/1.1 200 ")
    hall.close()


# -- what they hear ----------------------------------------------------------------------------------


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


def test_the_answer_is_of_its_second() -> None:
    clock = Clock()
    shedding = Shedding(1.5, clock)
    first = shedding.answer(head_only=False)
    assert shedding.answer(head_only=False) is first
    assert b"Retry-After: 2\r\n" in first.wire
    clock.second += 1
    assert bytes(imf_fixdate(clock.second)) in shedding.answer(head_only=False).wire


def test_the_log_has_one_line_for_many(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    shedding = Shedding(1.5, clock)
    with caplog.at_level(logging.WARNING, "pyserver"):
        shedding.turn()
        assert not caplog.messages
        for _ in range(7):
            shedding.answer(head_only=False)
        shedding.turn()
        shedding.answer(head_only=True)
        shedding.turn()
        assert caplog.messages == ["7 clients refused, which had waited for more than 1.5 s"]
        clock.now += SHED_TOLD_S
        shedding.turn()
        shedding.turn()
        assert caplog.messages[1:] == ["1 clients refused, which had waited for more than 1.5 s"]
