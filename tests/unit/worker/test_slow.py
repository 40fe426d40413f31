"""Slow requests: where their time went, how many are told, and what is told of the rest."""

import logging
import socket
import time

import pytest
from tests.unit.worker.conftest import LIMITS, Hall
from tests.unit.worker.test_connection import GET, LARGE, LATE, at_work, heard

from pyserver.clock import Clock
from pyserver.limits import SLOW_TOLD_PER_S
from pyserver.sd.journal import NOTICE, journal_entry
from pyserver.worker.slow import Slow, Times

PHASES = ("queue", "reading", "working", "sending", "serving")


def fields_of(record: logging.LogRecord) -> dict[str, str]:
    lines = journal_entry(record, "worker 1").decode().splitlines()
    return dict(line.split("=", 1) for line in lines)


# -- what is told -------------------------------------------------------------------------------------


def test_a_record_says_where_the_time_went(told: list[logging.LogRecord]) -> None:
    times = Times(0.5, 0.25, 2.0, 1.0, 0.125)
    head = b"GET /film?q=\x1b[2J HTTP/1.1\r\nHost: a\r\n\r\n"
    Slow(1, 1.0, Clock()).note(b"192.0.2.7", head, 200, 4096, times)
    (record,) = told
    fields = fields_of(record)
    assert record.levelno == NOTICE
    assert fields["MESSAGE"] == (
        r"192.0.2.7 GET /film?q=\x1B[2J HTTP/1.1: status 200 after 3.875 s, most of it working"
        " (queue 0.500, reading 0.250, working 2.000, sending 1.000, serving 0.125)"
    )
    expected = {
        "HTTP_METHOD": "GET",
        "HTTP_PATH": "/film",
        "HTTP_STATUS": "200",
        "HTTP_BYTES": "4096",
        "CLIENT": "192.0.2.7",
        "WORKER": "1",
        "SLOW_PHASE": "working",
        "DURATION_US": "3875000",
        "QUEUE_US": "500000",
        "READING_US": "250000",
        "WORKING_US": "2000000",
        "SENDING_US": "1000000",
        "SERVING_US": "125000",
    }
    assert {name: fields.get(name) for name in expected} == expected
    assert len(fields["MESSAGE_ID"]) == 32


@pytest.mark.parametrize("phase", PHASES)
def test_the_longest_phase_is_named(phase: str) -> None:
    assert Times(0.1, 0.1, 0.1, 0.1, 0.1)._replace(**{phase: 3.0}).longest == phase


def test_more_than_a_second_may_have_are_counted_and_told(told: list[logging.LogRecord]) -> None:
    clock = Clock()
    slow = Slow(0, 1.0, clock)
    for _ in range(SLOW_TOLD_PER_S + 7):
        slow.note(b"::1", GET, 200, 6, Times(0, 0, 0, 2, 0))
    assert len(told) == SLOW_TOLD_PER_S
    slow.turn()
    assert len(told) == SLOW_TOLD_PER_S, "the second is not over"
    clock.second += 1
    slow.turn()
    slow.turn()
    assert fields_of(told.pop()).items() >= {"LEFT_OUT": "7", "WORKER": "0"}.items()
    slow.note(b"::1", GET, 200, 6, Times(0, 0, 0, 2, 0))
    assert len(told) == SLOW_TOLD_PER_S + 1, "and the next second has its own share"


def test_what_was_left_out_is_told_at_the_end(told: list[logging.LogRecord]) -> None:
    slow = Slow(0, 1.0, Clock())
    for _ in range(SLOW_TOLD_PER_S + 2):
        slow.note(b"::1", GET, 200, 6, Times(0, 0, 0, 2, 0))
    slow.close()
    slow.close()
    assert [record.getMessage() for record in told[SLOW_TOLD_PER_S:]] == [
        f"2 slow requests more than {SLOW_TOLD_PER_S} a second are not here"
    ]


# -- of a conversation ----------------------------------------------------------------------------------


@pytest.fixture
def slow(hall: Hall) -> Hall:
    """A worker that tells of what takes longer than 60 ms."""
    hall.equip(slow=Slow(0, 0.06, hall.clock))
    hall.clock.turn()
    return hall


def phase_of(told: list[logging.LogRecord]) -> str:
    (record,) = told
    fields = fields_of(record)
    parts = [int(fields[f"{name.upper()}_US"]) for name in PHASES]
    assert abs(int(fields["DURATION_US"]) - sum(parts)) <= len(parts), "they add up"
    assert max(parts) >= 60_000
    return fields["SLOW_PHASE"]


def pass_time(hall: Hall, seconds: float = 0.1) -> None:
    """Let time pass for real, and begin another round."""
    time.sleep(seconds)
    hall.clock.turn()


def test_what_is_quick_is_not_told(slow: Hall, told: list[logging.LogRecord]) -> None:
    slow.connections.records._slow = Slow(0, 60.0, slow.clock)
    client = slow.client(GET + GET)
    slow.turn()
    assert heard(client).count(b"small\n") == 2
    assert told == []


def test_the_wait_in_the_queue_counts(slow: Hall, told: list[logging.LogRecord]) -> None:
    ours, theirs = socket.socketpair()
    slow.opened.append(ours)
    ours.setblocking(False)
    ours.sendall(GET)
    slow.connections.adopt(theirs.detach(), 0, waited_ns=5_000_000_000)
    slow.turn()
    assert phase_of(told) == "queue"
    slow.connections.records._slow = Slow(0, 4.0, slow.clock)
    ours.sendall(GET)
    slow.turn()
    assert len(told) == 1, "once for a connection"


@pytest.mark.parametrize("first", [GET[:20], GET.replace(b"Host", b"Content-Length: 3\r\nHost") + b"a"])
def test_a_client_that_is_slow_to_ask(slow: Hall, told: list[logging.LogRecord], first: bytes) -> None:
    client = slow.client(first)
    pass_time(slow)
    client.sendall(GET[20:] if first == GET[:20] else b"bc")
    slow.turn()
    assert phase_of(told) == "reading"
    slow.connections.records._slow = Slow(0, 0.0, slow.clock)
    client.sendall(GET)
    slow.turn()
    assert int(fields_of(told[1])["READING_US"]) == 0, "the next request has its own times"


def test_a_disk_that_is_slow(slow: Hall, told: list[logging.LogRecord]) -> None:
    _client, job = at_work(slow)
    pass_time(slow)
    slow.do(job)
    slow.turn()
    assert phase_of(told) == "working"


def test_a_client_that_is_slow_to_take(slow: Hall, told: list[logging.LogRecord]) -> None:
    client = slow.client(LARGE, buffer=8192)
    slow.turn()
    pass_time(slow)
    while not told and heard(client):
        slow.turn()
    assert phase_of(told) == "sending"


def test_a_client_that_leaves_in_the_middle_is_told_too(slow: Hall, told: list[logging.LogRecord]) -> None:
    client = slow.client(LARGE, buffer=8192)
    slow.turn()
    pass_time(slow)
    client.close()
    slow.turn()
    assert phase_of(told) == "sending"


def test_a_worker_that_is_held_up(slow: Hall, told: list[logging.LogRecord]) -> None:
    """The round began long ago: something before this request took its time."""
    time.sleep(0.1)
    slow.client(GET)
    slow.turn()
    assert phase_of(told) == "serving"


def test_a_request_that_never_comes_whole(slow: Hall, told: list[logging.LogRecord]) -> None:
    slow.client(b"GET /half")
    time.sleep(0.1)
    slow.wait(LIMITS.head_deadline + LATE)
    (record,) = told
    fields = fields_of(record)
    assert (fields["SLOW_PHASE"], fields["HTTP_STATUS"]) == ("reading", "408")


def test_off_it_tells_nothing(hall: Hall, told: list[logging.LogRecord]) -> None:
    time.sleep(0.1)
    client = hall.client(GET)
    hall.turn()
    assert heard(client).endswith(b"small\n")
    assert told == []
