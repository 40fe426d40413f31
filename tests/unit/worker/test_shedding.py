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
from pyserver.limits import SHED_TOLD_S
from pyserver.worker.shedding import Shedding

GET = b"GET /small.txt HTTP/1.1\r\nHost: x\r\n\r\n"


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
    assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
    hall.close()


# -- what they hear ----------------------------------------------------------------------------------


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
