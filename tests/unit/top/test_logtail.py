"""The end of a log: everything once, a bounded part of very much, on after a rotation, and never a hang."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pyserver.top.logtail import Line, LogTail
from pyserver.worker.accesslog import AccessLog

CLOCK = SimpleNamespace(second=1_700_000_000, now=0.0)


def written(peer: bytes, head: bytes) -> bytes:
    """A line, as the server writes it."""
    log = AccessLog("-", cast("Any", CLOCK))
    log.record(peer, head, 200, 5)
    (line,) = log._lines
    return line


def append(log: Path, *lines: bytes) -> None:
    with log.open("ab") as file:
        file.write(b"".join(lines))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "access.log"
    path.write_bytes(written(b"192.0.2.9", b"GET /before HTTP/1.1\r\n\r\n"))
    return path


@pytest.mark.parametrize(
    ("head", "path"),
    [
        (b'GET / HTTP/1.1\r\nUser-Agent: a "quoted" one\r\n\r\n', "/"),
        (b'GET /a/b.css?v=1&w=%22 HTTP/1.1\r\nReferer: http://a.example/?x="GET /no HTTP/1.1"\r\n\r\n', "/a/b.css"),
        (b"HEAD /%C3%A4 HTTP/1.0\r\n\r\n", "/%C3%A4"),
        (b"GET /\x1b[31mred HTTP/1.1\r\n\r\n", "/\\x1B[31mred"),
        (b"no-request\r\n", "no-request"),
        (b"", "-"),
    ],
)
def test_what_our_log_has_is_understood(log: Path, head: bytes, path: str) -> None:
    tail = LogTail(str(log))
    append(log, written(b"2001:db8::1", head))
    assert tail.lines() == [Line("2001:db8::1", path)]
    tail.close()


@pytest.mark.parametrize(
    ("rest", "path"),
    [
        (rb'"method":"GET","target":"/a.css?v=1","protocol":"HTTP/1.1","status":200,"bytes":5,"worker":0}', "/a.css"),
        (rb'"method":"HEAD","target":"/\u00e4\"b","protocol":"HTTP/1.1","status":404,"bytes":0}', r"/\u00e4\"b"),
        (rb'"request":"no-request","status":400,"bytes":0,"referer":"\",\"target\":\"/no"}', "no-request"),
    ],
)
def test_one_object_a_line_is_understood_too(log: Path, rest: bytes, path: str) -> None:
    tail = LogTail(str(log))
    append(log, b'{"time":"2026-11-02T09:00:00Z","client":"2001:db8::1",' + rest + b"\n")
    assert tail.lines() == [Line("2001:db8::1", path)]
    tail.close()


def test_everything_is_told_once(log: Path) -> None:
    tail = LogTail(str(log))
    assert tail.lines() == []
    for number in range(5):
        line = written(b"192.0.2.1", b"GET /%d HTTP/1.1\r\n\r\n" % number)
        append(log, line[:30])
        assert tail.lines() == [], "it is not whole"
        append(log, line[30:])
        assert tail.lines() == [Line("192.0.2.1", f"/{number}")]
    tail.close()


def test_of_very_much_a_sample_is_taken_from_all_of_it(log: Path) -> None:
    tail = LogTail(str(log))
    append(log, *(written(b"192.0.2.1", b"GET /%d HTTP/1.1\r\n\r\n" % (number // 1000)) for number in range(100_000)))
    found = tail.lines()
    assert 1000 < len(found) < 4000
    paths = [int(line.path[1:]) for line in found]
    assert paths == sorted(paths)
    assert len(set(paths)) >= 16
    assert (min(paths), max(paths)) <= (0, 99)
    assert max(paths) > 90
    assert tail.lines() == []
    tail.close()


def test_it_goes_on_after_a_rotation(log: Path) -> None:
    tail = LogTail(str(log))
    append(log, written(b"a", b"GET /last HTTP/1.1\r\n\r\n"))
    log.rename(log.with_suffix(".1"))
    assert tail.lines() == [Line("a", "/last")]
    append(log.with_suffix(".1"), written(b"a", b"GET /later HTTP/1.1\r\n\r\n"))
    append(log, written(b"a", b"GET /new HTTP/1.1\r\n\r\n"))
    assert tail.lines() == [Line("a", "/later"), Line("a", "/new")]
    log.write_bytes(b"")  # copytruncate
    assert tail.lines() == []
    append(log, written(b"a", b"GET /cut HTTP/1.1\r\n\r\n"))
    assert [line.path for line in tail.lines()] == ["/cut"]
    tail.close()


def test_where_there_is_none_it_says_why(tmp_path: Path) -> None:
    assert LogTail("").why == "the server writes no access log to a file"
    tail = LogTail(str(tmp_path / "access.log"))
    assert tail.why == f"{tmp_path}/access.log: No such file or directory"
    assert tail.lines() == []
    append(tmp_path / "access.log", written(b"a", b"GET /first HTTP/1.1\r\n\r\n"))
    assert tail.lines() == [Line("a", "/first")]
    assert tail.why == ""
    tail.close()


def test_a_fifo_does_not_hold_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    tail = LogTail(str(tmp_path / "fifo"))
    assert tail.lines() == []
    assert tail.why == f"{tmp_path}/fifo: it is no file"
    tail.close()


def test_what_another_wrote_does_no_harm_to_a_terminal(log: Path) -> None:
    tail = LogTail(str(log))
    append(log, b'\x1b[2J - - [x] "GET /\xff\x1b HTTP/1.1" 200 1 "-" "-"\n', b"nonsense\n", b"\x00" * 100 + b"\n")
    assert tail.lines() == [Line("?[2J", "/??")]
    tail.close()
