"""A datagram socket stands for journald, a real pipe, terminal and file for stderr."""

import array
import fcntl
import logging
import os
import pty
import re
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pyserver.limits import LOG_VALUE_MAX_BYTES
from pyserver.sd.journal import (
    NOTICE,
    JournalOutput,
    Output,
    StderrOutput,
    configure,
    human_line,
    journal_entry,
    stderr_is_journal,
)

SERVICE = str(Path(__file__).parents[3] / "service")


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "journal"))
        bound.setblocking(False)
        yield bound


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    """A logger of this test alone; what is put on it is closed afterwards."""
    own = logging.Logger("pyserver.test", logging.DEBUG)  # noqa: LOG001, nobody else shall find it
    yield own
    for output in own.handlers:
        output.close()


def to(output: Output, log: logging.Logger) -> Output:
    log.addHandler(output)
    return output


def parse(entry: bytes) -> dict[str, bytes]:
    """Read an entry as journald does: NAME=value, or NAME, length, value."""
    fields = {}
    while entry:
        line, _, after = entry.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (length,) = struct.unpack_from("<Q", after)
            value, after = after[8 : 8 + length], after[8 + length :]
            assert after[:1] == b"\n"
            after = after[1:]
        assert name.decode() not in fields
        fields[name.decode()] = value
        entry = after
    return fields


def received(journald: socket.socket) -> list[dict[str, bytes]]:
    got = []
    while True:
        try:
            got.append(parse(journald.recv(1 << 20)))
        except BlockingIOError:
            return got


def record(message: str, *arguments: object, level: int = logging.INFO, **more: object) -> logging.LogRecord:
    made = logging.LogRecord("pyserver", level, "/x/master/main.py", 42, message, arguments, None, "run")
    made.__dict__.update(more)
    return made


def raised(error: Exception) -> Exception:
    try:
        raise error  # noqa: TRY301, it is to have a traceback
    except Exception as caught:  # noqa: BLE001
        return caught


# -- as the journal gets it ------------------------------------------------------------------------


def test_a_record_and_its_fields(journald: socket.socket, log: logging.Logger) -> None:
    to(JournalOutput("worker 0", journald.getsockname()), log)
    log.warning("worker %d silent for %.1f s", 3, 12.0, extra={"fields": {"WORKER": 3, "request_id": "a b", "x-y": 1}})
    (fields,) = received(journald)
    line = int(fields.pop("CODE_LINE"))
    assert line > 0
    assert fields == {
        "MESSAGE": b"worker 3 silent for 12.0 s",
        "PRIORITY": b"4",
        "SYSLOG_IDENTIFIER": b"pyserver",
        "SYSLOG_FACILITY": b"3",
        "ROLE": b"worker 0",
        "LOGGER": b"pyserver.test",
        "CODE_FILE": __file__.encode(),
        "CODE_FUNC": b"test_a_record_and_its_fields",
        "WORKER": b"3",
        "REQUEST_ID": b"a b",
        "X_Y": b"1",
    }


@pytest.mark.parametrize(
    ("level", "priority", "word"),
    [
        (logging.CRITICAL, b"3", b"err"),
        (logging.ERROR, b"3", b"err"),
        (logging.WARNING, b"4", b"warning"),
        (NOTICE, b"5", b"notice"),
        (logging.INFO, b"6", b"info"),
        (logging.DEBUG, b"7", b"debug"),
        (1, b"7", b"debug"),
    ],
)
def test_levels(level: int, priority: bytes, word: bytes) -> None:
    assert parse(journal_entry(record("x", level=level), "master"))["PRIORITY"] == priority
    assert human_line(record("x", level=level), "master", dated=False, coloured=False).split()[1] == word


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ("two\nlines", b"NAME\n\x09\0\0\0\0\0\0\0two\nlines\n"),
        ("\n", b"NAME\n\x01\0\0\0\0\0\0\0\n\n"),
        ("", b"NAME=\n"),
        ("a=b", b"NAME=a=b\n"),
        (b"\xff\0", b"NAME=\xff\0\n"),
        ("\u00e9", b"NAME=\xc3\xa9\n"),
        ("\udcff", b"NAME=\\udcff\n"),
        (1.5, b"NAME=1.5\n"),
    ],
)
def test_values(value: object, sent: bytes) -> None:
    entry = journal_entry(record("x", fields={"name": value}), "master")
    assert entry.startswith(sent)
    assert set(parse(entry)) >= {"NAME", "MESSAGE", "PRIORITY"}


@pytest.mark.parametrize("fields", [{"worker": None}, {"": 1}, {"_": 1}, {"__9": 1}, [], None, "x"])
def test_what_is_no_field_is_left_out(fields: object) -> None:
    plain = parse(journal_entry(record("x"), "master"))
    assert parse(journal_entry(record("x", fields=fields), "master")) == plain


def test_a_field_can_neither_replace_ours_nor_claim_to_be_trusted() -> None:
    entry = journal_entry(record("x", fields={"MESSAGE": "other", "_PID": 1, "9LIVES": 9, "L" * 99: 0}), "master")
    fields = parse(entry)
    assert fields["MESSAGE"] == b"x"
    assert {"PID", "LIVES", "L" * 64} <= fields.keys()
    assert all(re.fullmatch(r"[A-Z][A-Z0-9_]{0,63}", name) for name in fields)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("a\r\nREADY", r"a\r\nREADY"),
        ("\x1b[2J", r"\x1b[2J"),
        ("\0\x7f\x9b", r"\x00\x7f\x9b"),
        ("tab\t", r"tab\t"),
        ("\u2028\u202e", r"\u2028\u202e"),
        ("\udc80", r"\udc80"),
        ("caf\u00e9 \U0001f600", "caf\u00e9 \U0001f600"),
    ],
)
def test_control_characters_are_escaped(message: str, text: str) -> None:
    sent = record("%s", message)
    assert parse(journal_entry(sent, "master"))["MESSAGE"].decode() == text
    assert human_line(sent, "master", dated=False, coloured=False).decode().endswith(f"master: {text}\n")


def test_an_exception_is_one_record_with_its_traceback(journald: socket.socket, log: logging.Logger) -> None:
    to(JournalOutput("worker 0", journald.getsockname()), log)
    error = raised(FileNotFoundError(2, "No such file\nforged", "/x\x1b[2J"))
    log.error("serving without it", exc_info=error)
    (fields,) = received(journald)
    lines = fields["MESSAGE"].decode().split("\n")
    assert lines[:2] == ["serving without it", "Traceback (most recent call last):"]
    assert "\x1b" not in fields["MESSAGE"].decode()
    assert fields["ERRNO"] == b"2"


def test_a_message_may_go_on_below_its_first_line() -> None:
    entry = record("worker %d hangs", 3)
    entry.lines = ["thread 1 sends", "request of \x1b[2J\nforged", 7]
    message = parse(journal_entry(entry, "master"))["MESSAGE"]
    assert message == b"worker 3 hangs\nthread 1 sends\nrequest of \\x1b[2J\\nforged\n7"
    line = human_line(entry, "master", dated=True, coloured=False)
    assert line.endswith(b"worker 3 hangs\n    thread 1 sends\n    request of \\x1b[2J\\nforged\n    7\n")
    entry.lines = "no list"
    assert human_line(entry, "master", dated=True, coloured=False).endswith(b"worker 3 hangs\n")


def test_a_message_that_does_not_fit_its_arguments_is_told() -> None:
    entry = parse(journal_entry(record("%d of %d", "x"), "master"))
    assert entry["MESSAGE"] == b"%d of %d (does not fit its arguments ('x',))"


def test_a_stalled_journal_is_not_waited_for_and_losses_are_told(journald: socket.socket, log: logging.Logger) -> None:
    output = to(JournalOutput("master", journald.getsockname()), log)
    before = time.monotonic()
    for i in range(5000):
        log.info("line %d", i)
    assert time.monotonic() - before < 5
    taken = received(journald)
    assert 0 < len(taken) < 5000
    assert output.dropped == 5000 - len(taken)

    log.info("again")
    told, again = received(journald)
    assert told["MESSAGE"].decode() == f"{output.dropped} log records were dropped: nobody took them in time"
    assert told["DROPPED"].decode() == str(output.dropped)
    assert told["PRIORITY"] == b"4"
    assert again["MESSAGE"] == b"again"

    log.info("and again")
    assert [fields["MESSAGE"] for fields in received(journald)] == [b"and again"]


def test_other_threads_run_while_the_journal_is_stalled(journald: socket.socket, log: logging.Logger) -> None:
    to(JournalOutput("master", journald.getsockname()), log)
    longest, stop = [0.0], threading.Event()

    def watch() -> None:
        last = time.monotonic()
        while not stop.is_set():
            now = time.monotonic()
            longest[0] = max(longest[0], now - last)
            last = now

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(2000):
        log.info("x" * 200)
    stop.set()
    watcher.join()
    assert longest[0] < 1.0


def test_a_journal_that_restarts_is_found_again(tmp_path: Path, log: logging.Logger) -> None:
    path = tmp_path / "journal"
    for number in range(2):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald:
            journald.bind(str(path))
            journald.setblocking(False)
            if number == 0:
                output = to(JournalOutput("master", str(path)), log)
            log.info("here")
            assert received(journald)[-1]["MESSAGE"] == b"here"
        path.unlink()
        log.info("nobody")
    assert output.dropped == 2


def test_a_large_entry_goes_by_sealed_memfd(journald: socket.socket, log: logging.Logger) -> None:
    journald.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    output = to(JournalOutput("master", journald.getsockname()), log)
    values = dict.fromkeys(("A", "B", "C"), "v" * (LOG_VALUE_MAX_BYTES - 1))
    log.info("large", extra={"fields": values})
    assert output.dropped == 0

    data, control, _, _ = journald.recvmsg(16, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
    assert data == b""
    ((level, kind, payload),) = control
    assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
    (descriptor,) = array.array("i", payload)
    with os.fdopen(descriptor, "rb") as memfd:
        seals = fcntl.fcntl(memfd, fcntl.F_GET_SEALS)
        assert seals == fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        fields = parse(os.pread(descriptor, os.fstat(descriptor).st_size, 0))
    assert fields["MESSAGE"] == b"large"
    assert {name: fields[name].decode() for name in values} == values


def test_a_value_beyond_its_bound_is_cut_with_a_note() -> None:
    sent = record("%s", "\u00e9" * LOG_VALUE_MAX_BYTES)
    message = parse(journal_entry(sent, "master"))["MESSAGE"]
    assert message.endswith(b"\xa9 ... (%d bytes cut)" % LOG_VALUE_MAX_BYTES)
    assert len(message) < LOG_VALUE_MAX_BYTES + 64
    assert len(human_line(sent, "master", dated=False, coloured=False)) < LOG_VALUE_MAX_BYTES + 64


def test_no_journal_is_known_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        JournalOutput("master", str(tmp_path / "nobody"))


# -- as a human gets it ---------------------------------------------------------------------------


def test_a_line() -> None:
    plain = record("serving %d workers", 2, level=NOTICE, created=1_786_000_000.0, msecs=7.9)
    at = time.localtime(1_786_000_000)
    day, clock = time.strftime("%Y-%m-%d", at), time.strftime("%H:%M:%S.007", at)
    assert human_line(plain, "master", dated=False, coloured=False).decode() == (
        f"{clock} notice  master: serving 2 workers\n"
    )
    assert human_line(plain, "master", dated=True, coloured=False).decode() == (
        f"{day} {clock} notice  master: serving 2 workers\n"
    )
    assert human_line(plain, "master", dated=False, coloured=True).decode() == (
        f"\x1b[2m{clock}\x1b[0m \x1b[1mnotice \x1b[0m master: serving 2 workers\n"
    )


def test_a_traceback_cannot_look_like_another_line() -> None:
    error = raised(ValueError("bad\n12:00:00.000 notice  master: forged"))
    made = record("oops", level=logging.ERROR, exc_info=(type(error), error, error.__traceback__))
    first, *rest = human_line(made, "worker 1", dated=False, coloured=False).decode().splitlines()
    assert first.endswith("err     worker 1: oops")
    assert all(line.startswith("    ") for line in rest)
    assert rest[-1].strip() == "12:00:00.000 notice  master: forged"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    yield reading, writing
    for end in (reading, writing):
        with suppress(OSError):  # closed by the test
            os.close(end)


def drained(reading: int) -> bytes:
    got = b""
    while True:
        try:
            got += os.read(reading, 1 << 16)
        except BlockingIOError:
            return got


def test_a_pipe_gets_dated_lines_without_colour(pipe: tuple[int, int], log: logging.Logger) -> None:
    to(StderrOutput("master", {"TERM": "xterm"}, pipe[1]), log)
    log.warning("one")
    log.info("two")
    lines = drained(pipe[0]).decode().splitlines()
    assert [re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} ", "", line) for line in lines] == [
        "warning master: one",
        "info    master: two",
    ]


def test_a_full_pipe_is_not_waited_for_and_losses_are_told(pipe: tuple[int, int], log: logging.Logger) -> None:
    output = to(StderrOutput("master", {}, pipe[1]), log)
    assert os.get_blocking(pipe[1])
    before = time.monotonic()
    for i in range(3000):
        log.info("%06d %s", i, "x" * 100)
    assert time.monotonic() - before < 5
    assert output.dropped > 0
    taken = len(drained(pipe[0]).splitlines())
    assert taken + output.dropped == 3000
    log.info("again")
    told, again = drained(pipe[0]).decode().splitlines()
    assert told.endswith(f"{output.dropped} log records were dropped: nobody took them in time")
    assert again.endswith("again")
    assert os.get_blocking(pipe[1]), "the mode belongs to whoever shares the open file"


def test_a_line_that_was_cut_is_ended_before_the_next(pipe: tuple[int, int], log: logging.Logger) -> None:
    output = to(StderrOutput("master", {}, pipe[1]), log)
    log.info("x" * 200_000)
    assert output.dropped == 1
    cut = drained(pipe[0])
    assert cut
    assert not cut.endswith(b"\n")
    log.info("next")
    assert drained(pipe[0]).startswith(b"\n")


def test_a_reader_that_went_is_counted(pipe: tuple[int, int], log: logging.Logger) -> None:
    output = to(StderrOutput("master", {}, pipe[1]), log)
    os.close(pipe[0])
    log.info("x")
    assert output.dropped == 1
    os.close(pipe[1])
    log.info("x")
    assert output.dropped == 2


def test_a_full_disk_is_counted(log: logging.Logger) -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY | os.O_CLOEXEC)
    output = to(StderrOutput("master", {}, descriptor), log)
    log.info("x")
    os.close(descriptor)
    assert output.dropped == 1


@pytest.mark.parametrize(
    ("environ", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_a_terminal_gets_colours_unless_told_otherwise(
    environ: dict[str, str], *, coloured: bool, log: logging.Logger
) -> None:
    ours, theirs = pty.openpty()
    try:
        to(StderrOutput("master", environ, theirs), log)
        log.error("x")
        line = os.read(ours, 4096)
    finally:
        os.close(ours)
        os.close(theirs)
    assert (b"\x1b[1;31m" in line) == coloured
    assert re.match(rb"(\x1b\[2m)?\d\d:", line), "the day is known to who looks at a terminal"


def test_a_field_whose_text_raises_does_not_reach_the_caller(
    pipe: tuple[int, int], log: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    class Odd:
        def __str__(self) -> str:
            raise RuntimeError("odd")

    to(StderrOutput("master", {}, pipe[1]), log)
    log.info("%s", Odd())
    assert "RuntimeError: odd" in capsys.readouterr().err


# -- which of the two ----------------------------------------------------------------------------


def stream(descriptor: int) -> dict[str, str]:
    found = os.fstat(descriptor)
    return {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}


def test_stderr_is_the_journal_only_when_it_is_this_very_stream(pipe: tuple[int, int]) -> None:
    assert stderr_is_journal(stream(pipe[1]), pipe[1])
    assert not stderr_is_journal({}, pipe[1])
    assert not stderr_is_journal({"JOURNAL_STREAM": "1:2"}, pipe[1])
    assert not stderr_is_journal({"JOURNAL_STREAM": "x"}, pipe[1])
    assert not stderr_is_journal(stream(pipe[1]), 9999)


@pytest.fixture
def own_log() -> Iterator[logging.Logger]:
    log = logging.getLogger("pyserver")
    before = log.handlers[:], log.level, log.propagate
    log.handlers = []
    yield log
    for output in log.handlers:
        output.close()
    log.handlers, log.level, log.propagate = before


def test_configure_chooses_and_replaces(journald: socket.socket, own_log: logging.Logger) -> None:
    first = configure("master", environ=stream(2), journal=journald.getsockname())
    second = configure("worker 0", environ=stream(2), journal=journald.getsockname(), level=logging.DEBUG)
    assert isinstance(first, JournalOutput)
    assert own_log.handlers == [second]
    logging.getLogger("pyserver.worker").debug("started")
    (fields,) = received(journald)
    assert (fields["ROLE"], fields["MESSAGE"], fields["LOGGER"]) == (b"worker 0", b"started", b"pyserver.worker")


def test_configure_falls_back_to_lines_when_the_journal_is_hidden(tmp_path: Path, own_log: logging.Logger) -> None:
    assert isinstance(configure("master", environ=stream(2), journal=str(tmp_path / "nobody")), StderrOutput)
    assert isinstance(configure("master", environ={}), StderrOutput)
    assert len(own_log.handlers) == 1


def test_a_process_says_it_on_its_own_stderr() -> None:
    program = (
        "import logging; from pyserver.sd.journal import NOTICE, configure; configure('master');"
        "logging.getLogger('pyserver').log(NOTICE, 'listening on %s', '127.0.0.1:8080');"
        "logging.getLogger('pyserver').debug('not by default')"
    )
    ran = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", program],
        env={"PYTHONPATH": SERVICE, "LC_ALL": "C"},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert re.fullmatch(r"\d{4}-\S+ \S+ notice  master: listening on 127\.0\.0\.1:8080\n", ran.stderr)


def test_a_forked_child_gets_its_own_socket_and_role(journald: socket.socket, own_log: logging.Logger) -> None:
    configure("master", environ=stream(2), journal=journald.getsockname())
    child = os.fork()
    if child == 0:
        status = 1
        try:
            configure("worker 1", environ=stream(2), journal=journald.getsockname())
            own_log.info("child")
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    own_log.info("parent")
    assert [(fields["ROLE"], fields["MESSAGE"]) for fields in received(journald)] == [
        (b"worker 1", b"child"),
        (b"master", b"parent"),
    ]


def test_sockets_are_close_on_exec(journald: socket.socket) -> None:
    output = JournalOutput("master", journald.getsockname())
    ours = [int(p.name) for p in Path("/proc/self/fd").iterdir() if p.exists() and stat.S_ISSOCK(p.stat().st_mode)]
    assert ours
    assert not any(os.get_inheritable(fd) for fd in ours)
    output.close()
