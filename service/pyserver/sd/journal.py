r"""The life-cycle log: records to the journal, or lines on stderr for a human, by where we run.

Owns:    the logger "pyserver" with its one output, the level NOTICE, and the socket to journald.
Never:   blocks or raises. systemd-python's journal.send holds the interpreter lock while it waits for journald; a
         stopped journald would stop every thread. So the few lines of its protocol are our own.
Fails:   never; what cannot be written at once is dropped and counted, and the next record that gets through is
         preceded by one that says how many.
Used by: cli (how it complains), master and worker (configure, NOTICE); all processes by logging.getLogger("pyserver").

    log.warning("worker %d silent for %.1f s, killing it", slot, age, extra={"fields": {"WORKER": slot}})

gives, besides the line, a journal field to ask for: `journalctl -u pyserver WORKER=3`. With extra={"lines": [...]} the
message goes on below its first line. Messages are escaped (T-42):
what a client sends can neither begin a line nor drive a terminal.
"""

import array
import errno
import fcntl
import functools
import logging
import os
import re
import select
import socket
import struct
import time
import traceback
from collections.abc import Mapping
from typing import Final, NamedTuple

from pyserver.limits import LOG_VALUE_MAX_BYTES
from pyserver.sd.events import MESSAGE_IDS

NOTICE: Final = 25
IDENTIFIER: Final = "pyserver"
JOURNAL_SOCKET: Final = "/run/systemd/journal/socket"

# syslog(3): the facility of daemons, for those who forward the journal.
FACILITY_DAEMON: Final = 3

logging.addLevelName(NOTICE, "notice")


class Level(NamedTuple):
    """What one of Python's levels is elsewhere."""

    at_least: int
    priority: int  # syslog(3)
    word: str
    colour: str  # SGR parameters, ECMA-48 8.3.117


LEVELS: Final = (
    Level(logging.ERROR, 3, "err", "1;31"),
    Level(logging.WARNING, 4, "warning", "33"),
    Level(NOTICE, 5, "notice", "1"),
    Level(logging.INFO, 6, "info", ""),
    Level(logging.NOTSET, 7, "debug", "2"),
)

# C0, DEL, C1; what Unicode calls line ends; overrides of direction, which make a line read as another; surrogates,
# which stand for bytes that were no UTF-8.
UNSAFE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def configure(
    role: str,
    *,
    level: int = logging.INFO,
    environ: Mapping[str, str] = os.environ,
    journal: str = JOURNAL_SOCKET,
) -> "Output":
    """Give this process its log and return the output; called again after a fork, with the child's role."""
    log = logging.getLogger(IDENTIFIER)
    for before in log.handlers[:]:
        log.removeHandler(before)
        before.close()
    output = _output(role, environ, journal)
    log.addHandler(output)
    log.setLevel(level)
    log.propagate = False
    return output


def stderr_is_journal(environ: Mapping[str, str] = os.environ, descriptor: int = 2) -> bool:
    """Say whether what we write to stderr arrives in the journal (systemd.exec(5), JOURNAL_STREAM)."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def _output(role: str, environ: Mapping[str, str], journal: str) -> "Output":
    if stderr_is_journal(environ):
        try:
            return JournalOutput(role, journal)
        except OSError:
            pass  # the unit hides the socket from us (RootDirectory=); lines on stderr reach the journal all the same
    return StderrOutput(role, environ)


# -- the two outputs ---------------------------------------------------------------------------


class Output(logging.Handler):
    """What both outputs share: a record is written at once or dropped, and losses are told afterwards."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self.role = role
        self.dropped = 0
        self._untold = 0

    # -- called by any thread; logging.Handler.handle holds the handler's lock --------------

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, or count it."""
        try:
            if self._untold:
                self.write(_loss(self._untold))
                self._untold = 0
            self.write(record)
        except OSError:
            self.dropped += 1
            self._untold += 1
        except Exception:  # noqa: BLE001, a field's own __str__ may raise anything; serving must go on
            self.handleError(record)

    def write(self, record: logging.LogRecord) -> None:
        """Write the record without waiting; OSError when that cannot be."""
        raise NotImplementedError


class JournalOutput(Output):
    """Records to journald in its native protocol (https://systemd.io/JOURNAL_NATIVE_PROTOCOL/)."""

    def __init__(self, role: str, path: str = JOURNAL_SOCKET) -> None:
        super().__init__(role)
        with _datagram_socket() as probe:
            probe.connect(path)  # nobody there: better known now than at the first record
        # Not connected itself: when the socket unit of journald is restarted, only the path stays the same.
        self._path = path
        self._socket = _datagram_socket()

    def write(self, record: logging.LogRecord) -> None:
        """Send one datagram, or the descriptor of one that is too large for the socket."""
        entry = journal_entry(record, self.role)
        try:
            self._socket.sendto(entry, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL, self._path)
        except OSError as error:
            if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                raise
            self._send_sealed(entry)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        super().close()

    def _send_sealed(self, entry: bytes) -> None:
        """Send the entry as a memfd, sealed so that journald need not copy it before it trusts it."""
        descriptor = os.memfd_create("pyserver-journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            written = 0
            while written < len(entry):
                written += os.write(descriptor, entry[written:])
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))
            self._socket.sendmsg([], [rights], socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL, self._path)
        finally:
            os.close(descriptor)


class StderrOutput(Output):
    """Lines on stderr, coloured on a terminal unless NO_COLOR says otherwise (https://no-color.org)."""

    def __init__(self, role: str, environ: Mapping[str, str] = os.environ, descriptor: int = 2) -> None:
        super().__init__(role)
        self._descriptor = descriptor
        self._terminal = os.isatty(descriptor)
        self._coloured = self._terminal and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        self._torn = False

    def write(self, record: logging.LogRecord) -> None:
        """Write the line, in pieces that fit where poll says that there is room.

        O_NONBLOCK would be simpler, but it belongs to the open file and so also to the shell that gave us its
        terminal. poll(2) on a pipe promises room for PIPE_BUF bytes, which is why a piece is no larger.
        """
        line = human_line(record, self.role, dated=not self._terminal, coloured=self._coloured)
        rest = memoryview(b"\n" + line if self._torn else line)
        while rest:
            if not self._poll.poll(0):
                raise BlockingIOError(errno.EAGAIN, "nobody reads stderr")
            rest = rest[os.write(self._descriptor, rest[: select.PIPE_BUF]) :]
            self._torn = bool(rest)


def _datagram_socket() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)


def _loss(count: int) -> logging.LogRecord:
    """Return the record that tells of records that are not there."""
    text = "%d log record%s dropped: nobody took them in time"
    fields = {"DROPPED": count}
    record = logging.LogRecord(
        IDENTIFIER, logging.WARNING, __file__, 0, text, (count, " was" if count == 1 else "s were"), None, "emit"
    )
    record.fields = fields
    return record


# -- a record as bytes: values in, values out ------------------------------------------------------


def journal_entry(record: logging.LogRecord, role: str) -> bytes:
    """Return the record in the journal's native protocol; field names as in systemd.journal-fields(7)."""
    level = _level(record.levelno)
    failure = record.exc_info[1] if record.exc_info else None
    fields: dict[str, object] = {_field_name(name): value for name, value in _given_fields(record).items()}
    fields |= {
        "MESSAGE": "\n".join([_message(record), *_given_lines(record), *_traceback(record)]),
        "PRIORITY": level.priority,
        "SYSLOG_IDENTIFIER": IDENTIFIER,
        "SYSLOG_FACILITY": FACILITY_DAEMON,
        "MESSAGE_ID": MESSAGE_IDS.get(record.msg) if isinstance(record.msg, str) else None,
        "ROLE": role,
        "LOGGER": record.name,
        "CODE_FILE": record.pathname,
        "CODE_LINE": record.lineno,
        "CODE_FUNC": record.funcName,
        "ERRNO": failure.errno if isinstance(failure, OSError) else None,
    }
    return b"".join(_field(name, value) for name, value in fields.items() if name and value is not None)


def human_line(record: logging.LogRecord, role: str, *, dated: bool, coloured: bool) -> bytes:
    """Return the record as a line with its end: time, level, role, message. A traceback follows, indented."""
    level = _level(record.levelno)
    at = time.strftime("%Y-%m-%d %H:%M:%S" if dated else "%H:%M:%S", time.localtime(record.created))
    stamp = f"{at}.{int(record.msecs):03d}"
    word = f"{level.word:7}"
    if coloured:
        stamp = f"\x1b[2m{stamp}\x1b[0m"
        word = f"\x1b[{level.colour}m{word}\x1b[0m" if level.colour else word
    first = f"{stamp} {word} {role}: {_message(record)}"
    text = "\n    ".join([first, *_given_lines(record), *_traceback(record)])
    return _bounded(text.encode(errors="backslashreplace")) + b"\n"


def _level(number: int) -> Level:
    return next(level for level in LEVELS if number >= level.at_least)


def _message(record: logging.LogRecord) -> str:
    """Return the message on one line; a message that does not fit its arguments is still told."""
    try:
        text = record.getMessage()
    except (TypeError, ValueError, KeyError):
        text = f"{record.msg} (does not fit its arguments {record.args!r})"
    return _escaped(text)


def _traceback(record: logging.LogRecord) -> list[str]:
    """Return the lines of the exception and the stack that came with the record."""
    lines: list[str] = []
    if record.exc_info and record.exc_info[1]:
        lines += "".join(traceback.format_exception(record.exc_info[1])).splitlines()
    if record.stack_info:
        lines += record.stack_info.splitlines()
    return [_escaped(line) for line in lines]


def _escaped(text: str) -> str:
    r"""Return the text with what could begin a line or drive a terminal written out: \n, \x1b, \u202e."""
    return UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def _given_fields(record: logging.LogRecord) -> Mapping[str, object]:
    fields = getattr(record, "fields", None)
    return fields if isinstance(fields, Mapping) else {}


def _given_lines(record: logging.LogRecord) -> list[str]:
    """Return what stands below the first line of the message."""
    lines = getattr(record, "lines", None)
    return [_escaped(str(line)) for line in lines] if isinstance(lines, list) else []


@functools.lru_cache(256)
def _field_name(name: str) -> str:
    """Return a name that journald takes: A-Z, 0-9 and _, not first, 64 at most. The leading _ is journald's own."""
    return re.sub(r"[^A-Z0-9_]", "_", name.upper()).lstrip("_0123456789")[:64]


def _field(name: str, value: object) -> bytes:
    """Return one field: NAME=value, or with a newline in it NAME, length (64 bit, little-endian), value."""
    raw = _bounded(value if isinstance(value, bytes) else str(value).encode(errors="backslashreplace"))
    if b"\n" in raw:
        return b"%b\n%b%b\n" % (name.encode(), struct.pack("<Q", len(raw)), raw)
    return b"%b=%b\n" % (name.encode(), raw)


def _bounded(raw: bytes) -> bytes:
    """Return the value, cut at its bound with a note of how much is missing."""
    if len(raw) <= LOG_VALUE_MAX_BYTES:
        return raw
    kept = raw[:LOG_VALUE_MAX_BYTES].decode(errors="ignore").encode()  # not in the middle of a character
    return kept + b" ... (%d bytes cut)" % (len(raw) - len(kept))
