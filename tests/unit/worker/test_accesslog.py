"""The access log, written to real files: exact lines, in one piece, and what happens when the disk is full."""

import locale
import logging
import os
import resource
import select
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.processes import forked, run_forked

from pyserver.clock import Clock
from pyserver.limits import LOG_BATCH_BYTES, LOG_BATCH_S, LOG_WAITING_MAX_BYTES
from pyserver.worker.accesslog import AccessLog, Batch, escape, stamp

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
HEAD = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def clock() -> Clock:
    made = Clock()
    made.second, made.now = 1_700_000_000, 100.0
    return made


@pytest.fixture
def log(tmp_path: Path, clock: Clock) -> Iterator[AccessLog]:
    made = AccessLog(str(tmp_path / "log"), clock)
    yield made
    made.close()


class Heard(logging.Handler):
    """What is said to the administrator."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@pytest.fixture
def heard() -> Iterator[Heard]:
    handler = Heard()
    logging.getLogger("pyserver").addHandler(handler)
    yield handler
    logging.getLogger("pyserver").removeHandler(handler)


def written(log: AccessLog) -> None:
    batch = log._batch()
    batch.run()
    log.written(batch)


# -- one line -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("utc")
@pytest.mark.parametrize(
    ("head", "line"),
    [
        (
            b"GET /a?b=c HTTP/1.1\r\nHost: x\r\nReferer: http://y/\r\nUser-Agent: curl/8\r\n\r\n",
            b'192.0.2.1 - - [14/Nov/2023:22:13:20 +0000] "GET /a?b=c HTTP/1.1" 200 5 "http://y/" "curl/8"\n',
        ),
        (HEAD, b'192.0.2.1 - - [14/Nov/2023:22:13:20 +0000] "GET /a HTTP/1.1" 200 5 "-" "-"\n'),
        (b"", b'192.0.2.1 - - [14/Nov/2023:22:13:20 +0000] "-" 200 5 "-" "-"\n'),
        (
            b'GET /"\\\x00\r\nUser-Agent: a"\x1b[1m\xc3\xa9\r\n\r\n',
            b'192.0.2.1 - - [14/Nov/2023:22:13:20 +0000] "GET /\\x22\\x5C\\x00" 200 5 "-" "a\\x22\\x1B[1m\\xC3\\xA9"\n',
        ),
        (
            b"\x16\x03\x01\x02\x00\x01",  # a TLS hello on a plain port
            b'192.0.2.1 - - [14/Nov/2023:22:13:20 +0000] "\\x16\\x03\\x01\\x02\\x00\\x01" 200 5 "-" "-"\n',
        ),
        (
            b"GET /x\ny HTTP/1.1\r\nUser-Agent: \r\n\r\n",
            b'192.0.2.1 - - [14/Nov/2023:22:13:20 +0000] "GET /x" 200 5 "-" "-"\n',
        ),
        (
            b"GET /x HTTP/1.1\rAuthorization: Basic c2VjcmV0\r\n\r\n",  # a head that is refused
            b'192.0.2.1 - - [14/Nov/2023:22:13:20 +0000] "GET /x HTTP/1.1" 200 5 "-" "-"\n',
        ),
    ],
    ids=["combined", "without", "nothing", "hostile", "TLS", "line feed", "carriage return"],
)
def test_lines(tmp_path: Path, log: AccessLog, head: bytes, line: bytes) -> None:
    log.record(b"192.0.2.1", head, 200, 5)
    written(log)
    assert (tmp_path / "log").read_bytes() == line


def test_a_head_that_comes_again_has_the_same_line_whatever_its_length(tmp_path: Path, log: AccessLog) -> None:
    """What a line has of a head is kept for the next one, unless that would take much memory."""
    heads = [b"GET /%d HTTP/1.1\r\nHost: x\r\nReferer: %b\r\n\r\n" % (n, b"r" * (1500 * n)) for n in range(4)]
    for head in heads * 3:
        log.record(b"-", head, 200, 1)
    log.close()
    lines = (tmp_path / "log").read_bytes().splitlines()
    assert len(set(lines)) == len(heads)
    assert lines == lines[: len(heads)] * 3
    assert [line.split(b'"')[3].count(b"r") for line in lines[:4]] == [0, 1500, 3000, 4500]


def test_every_byte_is_printable_ascii_or_escaped() -> None:
    for value in range(256):
        escaped = escape(bytes([value]))
        if 0x20 <= value < 0x7F and value not in b'"\\':
            assert escaped == bytes([value])
        else:
            assert escaped == b"\\x%02X" % value


@pytest.mark.parametrize(
    ("zone", "expected"),
    [
        ("UTC", b"[14/Nov/2023:22:13:20 +0000]"),
        ("Asia/Kolkata", b"[15/Nov/2023:03:43:20 +0530]"),
        ("America/St_Johns", b"[14/Nov/2023:18:43:20 -0330]"),
        ("XYZ-14", b"[15/Nov/2023:12:13:20 +1400]"),
    ],
)
def test_local_time(monkeypatch: pytest.MonkeyPatch, zone: str, expected: bytes) -> None:
    if "/" in zone and not Path("/usr/share/zoneinfo", zone).exists():
        pytest.skip("no time zones here")
    with monkeypatch.context() as context:
        context.setenv("TZ", zone)
        time.tzset()
        assert stamp(1_700_000_000) == expected
    time.tzset()


@pytest.mark.usefixtures("utc")
def test_months_are_english_in_every_locale() -> None:
    def in_another_locale() -> int:
        for name in ("de_DE.UTF-8", "fr_FR.UTF-8", "C.UTF-8"):
            try:
                locale.setlocale(locale.LC_ALL, name)
                break
            except locale.Error:
                continue
        found = [stamp(month * 2_629_800 + 1_000_000)[4:7].decode() for month in range(12)]
        return 0 if set(found) == set(MONTHS) else 1

    assert run_forked(in_another_locale) == 0


def test_the_time_of_a_line_is_its_rounds(tmp_path: Path, log: AccessLog, clock: Clock) -> None:
    log.record(b"a", HEAD, 200, 0)
    clock.second += 1
    log.record(b"b", HEAD, 200, 0)
    written(log)
    one, two = (tmp_path / "log").read_bytes().splitlines()
    assert stamp(1_700_000_000) in one
    assert stamp(1_700_000_001) in two


# -- batches ------------------------------------------------------------------------------------------


def test_lines_wait_for_a_batch_or_for_their_time(log: AccessLog, clock: Clock) -> None:
    assert log.take() is None
    log.record(b"a", HEAD, 200, 0)
    assert log.take() is None
    clock.now += LOG_BATCH_S
    assert log.take() is not None
    assert log.take() is None, "one batch at a time"


def test_a_large_batch_does_not_wait(log: AccessLog) -> None:
    head = b"GET /%b HTTP/1.1\r\n\r\n" % (b"x" * 1000)
    while log._bytes < LOG_BATCH_BYTES:
        assert log.take() is None
        log.record(b"a", head, 200, 0)
    assert log.take() is not None


def test_at_most_one_batch_is_under_way(log: AccessLog, clock: Clock) -> None:
    log.record(b"a", HEAD, 200, 0)
    clock.now += LOG_BATCH_S
    batch = log.take()
    assert batch is not None
    log.record(b"b", HEAD, 200, 0)
    clock.now += LOG_BATCH_S
    assert log.take() is None
    batch.run()
    log.written(batch)
    assert log.take() is not None


def test_reopening_while_a_batch_is_under_way_keeps_to_one_at_a_time(log: AccessLog, clock: Clock) -> None:
    log.record(b"a", HEAD, 200, 0)
    clock.now += LOG_BATCH_S
    first = log.take()
    assert first is not None
    log.record(b"b", HEAD, 200, 0)
    log.reopen()
    log.record(b"c", HEAD, 200, 0)
    clock.now += LOG_BATCH_S
    assert log.take() is None, "the first is still under way"
    first.run()
    log.written(first)
    assert log.take() is not None


def test_workers_append_to_one_file_in_whole_lines(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "log"

    def worker(number: int) -> None:
        log = AccessLog(str(path), clock)
        for count in range(2000):
            log.record(b"%d" % number, b"GET /%d HTTP/1.1\r\n\r\n" % count, 200, 0)
            if count % 100 == 0:
                written(log)
        log.close()

    with forked(lambda: worker(1)) as one, forked(lambda: worker(2)) as two:
        assert one.wait() == two.wait() == 0
    lines = path.read_bytes().splitlines()
    for number in (b"1", b"2"):
        own = [line for line in lines if line.startswith(number + b" ")]
        assert [line.split(b'"GET /')[1].split(b" ")[0] for line in own] == [b"%d" % count for count in range(2000)]
    assert len(lines) == 4000


@pytest.mark.parametrize("umask", [0o077, 0o022, 0])
def test_the_file_is_for_its_owner_and_group_whatever_the_umask(tmp_path: Path, clock: Clock, umask: int) -> None:
    before = os.umask(umask)
    try:
        log = AccessLog(str(tmp_path / "log"), clock)
    finally:
        os.umask(before)
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o640
    assert not os.get_inheritable(log._fd)
    log.close()


def test_a_file_that_is_there_keeps_its_mode(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "log").touch(0o604)
    (tmp_path / "log").chmod(0o604)
    AccessLog(str(tmp_path / "log"), clock).close()
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o604


# -- trouble ------------------------------------------------------------------------------------------


def test_a_full_disk_is_counted_and_told_once(clock: Clock, heard: Heard) -> None:
    log = AccessLog("/dev/full", clock)
    for _ in range(3):
        for _ in range(10):
            log.record(b"a", HEAD, 200, 0)
        written(log)
    assert log.dropped == 30
    assert heard.messages == [
        "cannot write /dev/full: No space left on device, dropping its lines until it can be written"
    ]
    log.close()


def test_when_it_can_be_written_again_that_is_told(tmp_path: Path, clock: Clock, heard: Heard) -> None:
    path = tmp_path / "log"
    path.symlink_to("/dev/full")
    log = AccessLog(str(path), clock)
    log.record(b"a", HEAD, 200, 0)
    written(log)
    path.unlink()
    log.reopen()
    written(log)
    assert heard.messages.pop().startswith("cannot write"), "an empty batch tells nothing about the file"
    assert not heard.messages
    log.record(b"b", HEAD, 200, 0)
    written(log)
    assert heard.messages == [f"{path} can be written again, 1 lines were dropped so far"]
    assert path.read_bytes().startswith(b"b ")
    log.close()


def test_a_line_that_the_disk_cut_is_not_joined_by_the_next(log: AccessLog, tmp_path: Path) -> None:
    """The disk fills up in the middle of a line, as a limit of the file's size does here."""
    log.record(b"cut", HEAD, 200, 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, hard))  # Python ignores SIGXFSZ: write(2) says EFBIG
    try:
        written(log)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    for peer in (b"next", b"last"):
        log.record(peer, HEAD, 200, 0)
        written(log)
    (path,) = tmp_path.iterdir()
    cut, following, last = path.read_bytes().splitlines()
    assert (len(cut), following[:5], last[:5]) == (20, b"next ", b"last ")


def test_lines_beyond_what_may_wait_are_dropped_and_counted(log: AccessLog) -> None:
    head = b"GET /%b HTTP/1.1\r\n\r\n" % (b"x" * 8000)
    for _ in range(LOG_WAITING_MAX_BYTES // 8000 + 50):
        log.record(b"a", head, 200, 0)
    assert log.dropped > 0
    assert log._bytes < LOG_WAITING_MAX_BYTES + 10_000


def test_a_log_that_hangs_is_told_at_the_first_line_it_costs(log: AccessLog, clock: Clock, heard: Heard) -> None:
    head = b"GET /%b HTTP/1.1\r\n\r\n" % (b"x" * 8000)
    log.record(b"a", head, 200, 0)
    clock.now += LOG_BATCH_S
    hanging = log.take()
    assert hanging is not None
    while not log.dropped:
        assert not heard.messages
        log.record(b"a", head, 200, 0)
    for _ in range(10):
        log.record(b"a", head, 200, 0)
    (message,) = heard.messages
    assert message.endswith("/log takes no more, dropping its lines until it can be written")
    hanging.run()
    log.written(hanging)
    assert heard.messages[1].endswith("can be written again, 11 lines were dropped so far")


def test_what_hangs_is_not_waited_for_at_the_end(tmp_path: Path, clock: Clock) -> None:
    log = AccessLog(str(tmp_path / "log"), clock)
    log.record(b"a", HEAD, 200, 0)
    clock.now += LOG_BATCH_S
    assert log.take() is not None
    log.record(b"b", HEAD, 200, 0)
    log.close()
    assert log.dropped == 1
    os.close(log._fd)


def test_lines_of_a_pipe_come_in_pieces_that_the_kernel_does_not_mix() -> None:
    """pipe(7): up to PIPE_BUF bytes are written at once. A pipe in packet mode shows each write(2)."""
    readable, writable = os.pipe2(os.O_DIRECT)
    made = [b"%d %b\n" % (number, b"x" * (number * 37 % 900)) for number in range(60)]
    made.insert(30, b"y" * (select.PIPE_BUF + 100) + b"\n")  # which no piece holds
    Batch(writable, made).run()
    os.close(writable)
    pieces = []
    while piece := os.read(readable, 2 * select.PIPE_BUF):
        pieces.append(piece)
    os.close(readable)
    assert b"".join(pieces) == b"".join(made)
    long = [piece for piece in pieces if b"y" in piece]
    others = [piece for piece in pieces if b"y" not in piece]
    assert b"".join(long) == made[30], "it has its own"
    assert all(piece.endswith(b"\n") and len(piece) <= select.PIPE_BUF for piece in others)
    assert len(others) < 20


# -- reopening ----------------------------------------------------------------------------------------


def test_reopening_after_a_move_loses_nothing(tmp_path: Path, log: AccessLog, clock: Clock) -> None:
    """logrotate moves the file and signals; lines before go to the old one, lines after to the new one."""
    path, moved = tmp_path / "log", tmp_path / "log.1"
    log.record(b"a", HEAD, 200, 0)
    path.rename(moved)
    log.record(b"b", HEAD, 200, 0)
    log.reopen()
    batch = log.take()
    assert batch is not None, "it does not wait for a batch's worth"
    batch.run()
    log.written(batch)
    log.record(b"c", HEAD, 200, 0)
    written(log)
    assert [line[:1] for line in moved.read_bytes().splitlines()] == [b"a", b"b"]
    assert [line[:1] for line in path.read_bytes().splitlines()] == [b"c"]


def test_reopening_leaves_no_descriptor(log: AccessLog) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        log.reopen()
        written(log)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_file_that_cannot_be_opened_again_is_told_and_the_old_one_goes_on(
    tmp_path: Path, clock: Clock, heard: Heard
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    log = AccessLog(str(folder / "log"), clock)
    folder.rename(tmp_path / "moved")
    log.reopen()
    assert not heard.messages, "nothing is opened by the leader"
    written(log)
    assert len(heard.messages) == 1
    assert "writing on to the old file" in heard.messages[0]
    log.record(b"a", HEAD, 200, 0)
    written(log)
    assert (tmp_path / "moved/log").read_bytes().startswith(b"a ")
    log.close()


def test_standard_output_is_neither_closed_nor_replaced(clock: Clock) -> None:
    def child() -> int:
        readable, writable = os.pipe()
        os.dup2(writable, 1)
        log = AccessLog("-", clock)
        log.record(b"a", HEAD, 200, 0)
        log.reopen()
        if log.take() is not None:
            return 2
        log.record(b"b", HEAD, 200, 0)
        log.close()
        os.fstat(1)
        return 0 if os.read(readable, 1000).count(b"\n") == 2 else 1

    assert run_forked(child) == 0


def test_closing_writes_what_waits(tmp_path: Path, clock: Clock) -> None:
    log = AccessLog(str(tmp_path / "log"), clock)
    log.record(b"a", HEAD, 200, 0)
    log.close()
    assert (tmp_path / "log").read_bytes().startswith(b"a ")


def test_a_folder_that_is_not_there(tmp_path: Path, clock: Clock) -> None:
    with pytest.raises(FileNotFoundError):
        AccessLog(str(tmp_path / "no/log"), clock)
