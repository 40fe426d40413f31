"""The access log as JSON: whatever a client sends, a line is one object, and says which bytes they were."""

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyserver.clock import Clock
from pyserver.worker.accesslog import Details, first_line
from pyserver.worker.jsonlog import JsonLog, text

HEAD = (
    b"GET /caf%C3%A9?q=\xc3\xa9 HTTP/1.1\r\nHost: example.org\r\nReferer: https://example.org/a\r\n"
    b"User-Agent: tester/1.0\r\nAuthorization: Basic c2VjcmV0\r\nCookie: session=secret\r\n\r\n"
)
DETAILS = Details(1_234_567, 98_765, b"abc-1")


@pytest.fixture
def log(tmp_path: Path) -> Iterator[JsonLog]:
    clock = Clock()
    clock.second, clock.now = 1_700_000_000, 100.0
    made = JsonLog(str(tmp_path / "log"), clock, 3)
    yield made
    made.close()


def written(log: JsonLog) -> bytes:
    """What the file gets next."""
    batch = log._batch()
    path = Path(log._path)
    before = path.stat().st_size
    batch.run()
    log.written(batch)
    return path.read_bytes()[before:]


def unescape(value: str) -> bytes:
    """Return the bytes that text() was given, as a reader of the log gets them."""
    return re.sub(rb"\\x([0-9a-f]{2})", lambda found: bytes([int(found[1], 16)]), value.encode("utf-8"))


def one(log: JsonLog, *record: Any) -> dict[str, Any]:  # noqa: ANN401  those of record()
    log.record(*record)
    line = written(log)
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    assert line.isascii()
    found: dict[str, Any] = json.loads(line)
    return found


def test_a_line_has_these_fields_in_this_order(log: JsonLog) -> None:
    found = one(log, b"192.0.2.7", HEAD, 200, 6, DETAILS)
    assert list(found.items()) == [
        ("time", "2023-11-14T22:13:20Z"),
        ("client", "192.0.2.7"),
        ("method", "GET"),
        ("target", "/caf%C3%A9?q=\xe9"),
        ("protocol", "HTTP/1.1"),
        ("status", 200),
        ("bytes", 6),
        ("host", "example.org"),
        ("referer", "https://example.org/a"),
        ("user_agent", "tester/1.0"),
        ("request_id", "abc-1"),
        ("duration_us", 1234),
        ("queue_us", 98),
        ("worker", 3),
    ]


def test_what_is_not_known_is_not_there(log: JsonLog) -> None:
    assert list(one(log, b"-", b"", 408, 0, Details(None, None, b""))) == [
        "time", "client", "request", "status", "bytes", "worker",
    ]  # fmt: skip
    assert list(one(log, b"-", b"GET / HTTP/1.0\r\n\r\n", 200, 0, Details(0, None, b""))) == [
        "time", "client", "method", "target", "protocol", "status", "bytes", "duration_us", "worker",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "line", [b"nonsense", b"", b"GET / HTTP/1.1 ", b"GET  / HTTP/1.1", b"GET / HTTP/11", b"\x16\x03\x01", b'"},{"a":"']
)
def test_what_is_no_request_stands_as_it_came(log: JsonLog, line: bytes) -> None:
    found = one(log, b"::1", line + b"\r\nHost: x\r\n", 400, 9, None)
    assert unescape(found["request"]) == line
    assert found["host"] == "x"
    assert "method" not in found


def test_secrets_are_not_in_it(log: JsonLog) -> None:
    log.record(b"192.0.2.7", HEAD, 401, 0, DETAILS)
    line = written(log)
    assert b"secret" not in line
    assert b"c2VjcmV0" not in line
    assert b"example.org" in line


def test_the_time_is_that_of_the_request(log: JsonLog) -> None:
    log.record(b"::1", HEAD, 200, 6)
    log._clock.second += 1
    log.record(b"::1", HEAD, 200, 6)
    times = [json.loads(line)["time"] for line in written(log).splitlines()]
    assert times == ["2023-11-14T22:13:20Z", "2023-11-14T22:13:21Z"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b"plain", "plain"),
        ("Zürich".encode(), "Zürich"),
        (b"\xff", r"\xff"),
        (rb"\xff", r"\x5cxff"),
        (b"\\", r"\x5c"),
        (b"\xed\xa0\x80", r"\xed\xa0\x80"),  # half of a pair is no character
        (b"\xc0\xaf", r"\xc0\xaf"),  # an overlong form neither
        (b"a\x00\x1b[2J\x7f", "a\x00\x1b[2J\x7f"),
    ],
)
def test_bytes_as_text(value: bytes, shown: str) -> None:
    assert text(value) == shown
    assert unescape(shown) == value


@given(st.one_of(st.binary(), st.text().map(lambda given: given.encode("utf-8", "surrogatepass"))))
def test_text_is_these_bytes_and_no_others(value: bytes) -> None:
    shown = text(value)
    shown.encode("utf-8")  # it can be
    assert unescape(shown) == value


VALUES = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [b'"', b"\\", b'\\"', b"\\x41", b"\\u0041", b"\xe2\x80\xa8", b"\xed\xa0\x80", b"\x00", b"\x1b]0;\x07"]
    ),
).map(lambda value: value.replace(b"\r", b"").replace(b"\n", b""))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60), VALUES, VALUES, VALUES, st.binary(max_size=100), VALUES)
def test_any_bytes_make_one_object_a_line(
    log: JsonLog, line: bytes, host: bytes, referer: bytes, agent: bytes, more: bytes, identity: bytes
) -> None:
    head = b"%b\r\nHost: %b\r\nReferer: %b\r\nUser-Agent: %b\r\n" % (line, host, referer, agent)
    found = one(log, b"::1", head + more, 400, 0, Details(1, 2, identity))
    first = first_line(head)
    if "request" in found:
        assert unescape(found["request"]) == first
    else:
        assert " ".join((found["method"], found["target"], found["protocol"])) == text(first)
    if b"\n" not in line:  # else a field of `line` may come first
        assert unescape(found["host"]) == host.strip(b" \t")
        assert unescape(found["referer"]) == referer.strip(b" \t")
        assert unescape(found["user_agent"]) == agent.strip(b" \t")
    assert unescape(found.get("request_id", "")) == identity


def test_many_lines_go_out_in_one_batch_and_are_counted_when_lost(
    log: JsonLog, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(1000):
        log.record(b"::1", HEAD, 200, 6, DETAILS)
    batch = log.take()
    assert batch is not None
    batch.run()
    log.written(batch)
    lines = Path(log._path).read_bytes().splitlines()
    assert len(lines) == 1000
    assert len({line for line in lines if json.loads(line)["status"] == 200}) == 1
    with caplog.at_level(logging.ERROR):
        for _ in range(40_000):
            log.record(b"::1", HEAD, 200, 6, DETAILS)
    assert log.dropped > 0
    assert "takes no more" in caplog.text
