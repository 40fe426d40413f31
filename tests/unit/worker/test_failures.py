"""Failed requests as records: their fields, their bound, and what is told of the rest."""

import logging

import pytest

from pyserver.clock import Clock
from pyserver.sd.journal import journal_entry
from pyserver.worker.failures import Failures, share_of

HEAD = (
    b"GET /missing/%C3%A9?q=\x1b[2J HTTP/1.1\r\nHost: example.org\r\n"
    b'Referer: https://example.org/a\r\nUser-Agent: a "browser"\xff\r\n\r\n'
)


@pytest.fixture
def clock() -> Clock:
    made = Clock()
    made.second = 1_700_000_000
    return made


def fields_of(record: logging.LogRecord) -> dict[str, str]:
    lines = journal_entry(record, "worker 1").decode().splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_a_record_has_its_times(clock: Clock, told: list[logging.LogRecord]) -> None:
    failures = Failures(1, 10, clock)
    failures.note(b"192.0.2.7", HEAD, 404, 162, duration_us=1500, queue_us=20)
    failures.note(b"192.0.2.7", HEAD, 404, 162, duration_us=1500)
    first, second = map(fields_of, told)
    assert (first["DURATION_US"], first["QUEUE_US"]) == ("1500", "20")
    assert "QUEUE_US" not in second, "not the first on its connection"


def test_a_record_has_what_the_journal_is_asked_for(clock: Clock, told: list[logging.LogRecord]) -> None:
    Failures(1, 10, clock).note(b"192.0.2.7", HEAD, 404, 162)
    (record,) = told
    fields = fields_of(record)
    assert fields["MESSAGE"] == r"GET /missing/%C3%A9?q=\x1B[2J HTTP/1.1: status 404"
    expected = {
        "PRIORITY": "6",
        "HTTP_METHOD": "GET",
        "HTTP_PATH": "/missing/%C3%A9",
        "HTTP_STATUS": "404",
        "HTTP_BYTES": "162",
        "CLIENT": "192.0.2.7",
        "WORKER": "1",
        "HTTP_HOST": "example.org",
        "HTTP_REFERER": "https://example.org/a",
        "HTTP_USER_AGENT": r"a \x22browser\x22\xFF",
    }
    assert {name: fields[name] for name in expected} == expected
    assert len(fields["MESSAGE_ID"]) == 32


def test_what_is_ours_weighs_more(clock: Clock, told: list[logging.LogRecord]) -> None:
    Failures(0, 10, clock).note(b"-", HEAD, 500, 0)
    assert fields_of(told[0])["PRIORITY"] == "4"


@pytest.mark.parametrize(
    "head", [b"", b"\r\n", b"\x16\x03\x01\x02\x00", b"GET", b"GET /", b"a b c d e", b"GET / HTTP/1.1"]
)
def test_what_is_no_request_makes_a_record_too(clock: Clock, told: list[logging.LogRecord], head: bytes) -> None:
    Failures(0, 10, clock).note(b"192.0.2.7", head, 400, 0)
    fields = fields_of(told[0])
    assert fields["HTTP_STATUS"] == "400"
    assert fields["MESSAGE"].endswith(": status 400")
    assert fields["MESSAGE"].isprintable()


def test_a_second_has_its_share_and_the_rest_is_told_once(clock: Clock, told: list[logging.LogRecord]) -> None:
    failures = Failures(3, 2, clock)
    for _ in range(5):
        failures.note(b"-", HEAD, 404, 0)
    assert len(told) == 2
    failures.turn()
    assert len(told) == 2
    clock.second += 1
    failures.turn()
    assert told[2].getMessage() == "3 failed requests more than log.journal_requests are not here"
    assert fields_of(told[2])["LEFT_OUT"] == "3"
    failures.note(b"-", HEAD, 404, 0)
    assert len(told) == 4
    clock.second += 1
    failures.turn()
    assert len(told) == 4


@pytest.mark.parametrize(("per_second", "workers"), [(100, 2), (100, 3), (7, 4), (10_000, 64), (4, 4)])
def test_the_workers_share_what_the_service_may(per_second: int, workers: int) -> None:
    assert sum(share_of(per_second, workers, slot) for slot in range(workers)) == per_second


def test_shares_at_the_ends() -> None:
    assert [share_of(0, 2, slot) for slot in range(2)] == [0, 0]
    assert [share_of(1, 3, slot) for slot in range(3)] == [1, 1, 1]
