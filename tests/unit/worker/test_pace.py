"""Clients that are slower than they must be, on a clock that the test moves."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.worker.conftest import LARGE_BYTES, Hall

from pyserver.config import Limits
from pyserver.limits import PARKING_TICKS_PER_S
from pyserver.worker.client import Connection

RATE, PERIOD = 100, 4.0
LATE = 2 / PARKING_TICKS_PER_S
LIMITS = Limits(
    receive_rate=RATE,
    send_rate=RATE * 1024,
    rate_period=PERIOD,
    head_deadline=1000.0,
    body_deadline=1000.0,
    send_stall=1000.0,
    keep_alive=1000.0,
)
HEAD = b"GET /small.txt HTTP/1.1\r\nHost: x\r\nX-Padding: %b\r\n\r\n" % (b"x" * 4000)
CONTENT = b"GET /small.txt HTTP/1.1\r\nHost: x\r\nContent-Length: 4000\r\n\r\n"
LARGE = b"GET /large.bin HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def strict(site: Path, tmp_path: Path) -> Iterator[Hall]:
    made = Hall(site, tmp_path / "log", limits=LIMITS)
    yield made
    made.close()


def heard(client: socket.socket, most: int = 1 << 30) -> bytes:
    data = b""
    with contextlib.suppress(BlockingIOError):
        while got := client.recv(min(1 << 20, most - len(data))):
            data += got
    return data


def only(hall: Hall) -> Connection:
    (connection,) = hall.connections.table.values()
    return connection


@pytest.mark.parametrize("before", [HEAD[:50], CONTENT], ids=["head", "content"])
def test_who_sends_too_little_in_a_period_is_told_408_and_ended(strict: Hall, before: bytes) -> None:
    """RFC 9110 15.5.9."""
    client = strict.client(before)
    for _ in range(int(PERIOD)):
        strict.wait(0.9)
        client.sendall(b"x" * (RATE - 10))
        strict.turn()
    assert heard(client) == b""
    strict.wait(1 + LATE)
    assert heard(client).startswith(b"HTTP/1.1 408 ")
    client.close()
    strict.turn()
    assert not strict.connections.table
    assert (strict.tally.too_slow, strict.tally.deadlines) == (1, 0)
    assert [line.split('" ')[1][:3] for line in strict.lines()] == ["408"]


@pytest.mark.parametrize("before", [HEAD[:50], CONTENT], ids=["head", "content"])
def test_who_sends_enough_in_each_period_is_answered(strict: Hall, before: bytes) -> None:
    """All at its end: what counts is the mean."""
    client = strict.client(before)
    rest = HEAD[50:] if before in HEAD else b"x" * 4000
    while rest:
        strict.wait(PERIOD - 1)
        client.sendall(rest[: int(RATE * PERIOD)])
        rest = rest[int(RATE * PERIOD) :]
        strict.turn()
        strict.wait(1)
    assert heard(client).startswith(b"HTTP/1.1 200 ")
    assert strict.tally.too_slow == 0


def test_who_takes_too_little_in_a_period_is_cut_off(strict: Hall) -> None:
    client = strict.client(LARGE, buffer=4096)
    received = 0
    while strict.connections.table and received < LARGE_BYTES:
        strict.turn()
        received += len(heard(client, RATE * 1024 // 2))
        strict.wait(1)
    assert received < LARGE_BYTES // 2
    assert (strict.tally.too_slow, strict.tally.deadlines) == (1, 0)
    assert '"GET /large.bin HTTP/1.1" 200 ' in strict.lines()[0], "what it got is in the log"


def test_who_takes_enough_is_served_to_the_end(strict: Hall) -> None:
    client = strict.client(LARGE, buffer=4096)
    received = 0
    while received < LARGE_BYTES:
        assert strict.connections.table, received
        taken = 0
        while taken < RATE * 1024 * 1.2:  # in steps: the other side has little room, too
            part = len(heard(client, 65536))
            taken += part
            strict.turn()
            if not part:
                break
        received += taken
        strict.wait(1)
    assert strict.tally.too_slow == 0


def test_only_one_of_the_rates_may_be_set(site: Path, tmp_path: Path) -> None:
    hall = Hall(site, tmp_path / "log", limits=Limits(send_rate=1, rate_period=1.0, head_deadline=100.0))
    hall.client(HEAD[:50])
    hall.wait(50)
    assert hall.connections.table
    assert hall.tally.too_slow == 0
    hall.close()


def test_without_a_rate_nobody_is_watched(hall: Hall) -> None:
    hall.client(HEAD[:50])
    hall.client(LARGE, buffer=4096)
    hall.turn()
    assert [each.pace for each in hall.connections.table.values()] == [None, None]


def test_between_requests_and_before_the_first_nobody_is_too_slow(strict: Hall) -> None:
    strict.client()
    client = strict.client(HEAD)
    strict.turn()
    client.sendall(HEAD[:10])
    strict.turn()
    strict.wait(PERIOD / 2)
    client.sendall(HEAD[10:])
    strict.turn()
    for _ in range(10):
        strict.wait(PERIOD)
    assert heard(client).count(b"HTTP/1.1 200 ") == 2
    assert len(strict.connections.table) == 2
    assert strict.tally.too_slow == 0


def test_each_request_has_a_period_of_its_own(strict: Hall) -> None:
    """The end of the first one's period is none of the second."""
    client = strict.client(HEAD[:10])
    strict.wait(PERIOD - 0.5)
    client.sendall(HEAD[10:] + HEAD[:10])
    strict.turn()
    strict.wait(PERIOD - 0.5)
    assert heard(client).startswith(b"HTTP/1.1 200 ")
    assert strict.connections.table
    strict.wait(0.5 + LATE)
    assert heard(client).startswith(b"HTTP/1.1 408 ")


def test_time_in_which_it_waits_for_the_disk_does_not_count(strict: Hall) -> None:
    strict.root.cold = True
    client = strict.client(CONTENT + b"x")
    strict.wait(1)
    client.sendall(b"x" * 3999)
    for descriptor, _ in strict.poll.poll(0):
        strict.connections.ready(strict.connections.table[descriptor])
    (job,) = strict.connections.jobs
    strict.connections.jobs.clear()
    for _ in range(5):
        strict.clock.now += PERIOD
        strict.connections.expire(strict.clock.now)
    assert strict.tally.too_slow == 0
    strict.root.cold = False
    strict.do(job)
    strict.turn()
    assert heard(client).startswith(b"HTTP/1.1 200 ")


def test_who_has_all_that_was_sent_is_not_to_blame(strict: Hall) -> None:
    client = strict.client(LARGE, buffer=4096)
    strict.turn()
    while heard(client):  # without a turn: the server sends nothing more meanwhile
        pass
    strict.clock.now += 2 * PERIOD
    strict.connections.expire(strict.clock.now)
    assert only(strict).outgoing is not None
    assert strict.tally.too_slow == 0


def test_who_leaves_is_forgotten(strict: Hall) -> None:
    for first in (HEAD[:50], CONTENT, LARGE):
        client = strict.client(first, buffer=4096)
        strict.turn()
        connection = only(strict)
        pace = connection.pace
        assert pace is not None
        assert pace.bucket
        client.close()
        strict.turn()
        assert not strict.connections.table
        assert connection.pace is None
        assert not pace.bucket
