r"""The access log: one line a request, written in batches; here in the combined format.

Owns:    the log's descriptor and the lines that wait for it.
Never:   blocks the leader: a batch is written by a job. What the disk does not take is dropped and counted.
Fails:   OSError when the file cannot be opened at the start.
Used by: worker.main (open), worker.records (record), worker.pool (flush); worker.jsonlog (other lines);
         worker.failures, worker.slow (first_line, escape).

The format is the "combined" of Apache and nginx. Bytes that could end a line or a quoted part, or drive a terminal,
are written as \xHH, as Apache does (T-42).
"""

import contextlib
import logging
import os
import re
import select
import stat
import time
from functools import lru_cache
from typing import Final, NamedTuple

from pyserver.clock import Clock
from pyserver.http.headers import field
from pyserver.limits import LOG_BATCH_BYTES, LOG_BATCH_S, LOG_WAITING_MAX_BYTES

log = logging.getLogger("pyserver")

_UNSAFE: Final = re.compile(rb"[^\x20\x21\x23-\x5b\x5d-\x7e]")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def escape(value: bytes) -> bytes:
    r"""Return the value with everything but harmless printable ASCII as \xHH."""
    return _UNSAFE.sub(lambda found: b"\\x%02X" % found[0][0], value)


def first_line(head: bytes) -> bytes:
    """Return what comes before the first CR or LF: what follows may be fields, and among them secrets.

    Where one of them stands alone the request is refused, so no line of a good one is cut short.
    """
    return head.partition(b"\r")[0].partition(b"\n")[0]


def _read(head: bytes) -> tuple[bytes, bytes]:
    """Return what a line has of a head: its first line, and its Referer and User-Agent in quotes."""
    referer, agent = field(head, b"referer") or b"-", field(head, b"user-agent") or b"-"
    return escape(first_line(head)) or b"-", b'"%b" "%b"' % (escape(referer), escape(agent))


# Many requests have the head of one before: a third of what a line costs.
_of_head: Final = lru_cache(maxsize=512)(_read)
_HEAD_KEPT_MAX_BYTES: Final = 2048


def stamp(second: int) -> bytes:
    """Return the time as the combined format has it, in local time; month names are never a locale's."""
    at = time.localtime(second)
    zone = at.tm_gmtoff // 60
    sign = "-" if zone < 0 else "+"
    hours, minutes = divmod(abs(zone), 60)
    return (
        f"[{at.tm_mday:02}/{_MONTHS[at.tm_mon - 1]}/{at.tm_year}:{at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02} "
        f"{sign}{hours:02}{minutes:02}]"
    ).encode()


class Batch:
    """Lines on their way to the file, and after them, if it was asked for, the opening anew; done by any thread."""

    __slots__ = ("_fd", "_lines", "_path", "cut", "kept", "lost", "why")

    def __init__(self, fd: int, lines: list[bytes], path: str = "") -> None:
        self._fd = fd
        self._lines = lines
        self._path = path  # of the file to open anew; "": none
        self.lost = 0
        self.cut = False  # the file ends within a line
        self.why = ""
        self.kept = ""  # why the file could not be opened, and the old one was kept

    @property
    def empty(self) -> bool:
        """Whether there are no lines, so that it tells nothing about the file."""
        return not self._lines

    @property
    def reopens(self) -> bool:
        """Whether the file was to be opened anew."""
        return bool(self._path)

    def run(self) -> None:
        """Do all of it."""
        if self._lines:
            self._write()
        if self._path:
            self._reopen()

    def _reopen(self) -> None:
        try:
            fresh = _opened(self._path)
        except OSError as error:
            self.kept = error.strerror or str(error)
            return
        # The file behind the number changes, the number does not.
        os.dup2(fresh, self._fd, inheritable=False)
        os.close(fresh)

    def _write(self) -> None:
        """Write so that lines stay whole among those of other workers.

        One call on a file opened for appending does, however long. A pipe takes a piece of PIPE_BUF bytes at once or
        not at all (pipe(7)), and what is larger it may mix with others'.
        """
        data, written = b"".join(self._lines), 0
        try:
            whole = stat.S_ISREG(os.fstat(self._fd).st_mode)
            while written < len(data):
                end = len(data) if whole else _end_of_piece(data, written)
                written += os.write(self._fd, memoryview(data)[written:end])
        except OSError as error:
            self.lost = data.count(b"\n", written)
            self.cut = not data[:written].endswith(b"\n") and written > 0
            self.why = error.strerror or str(error)


def _end_of_piece(data: bytes, start: int) -> int:
    """Return where the last line ends that fits into a pipe's piece, or the first one if none does."""
    return data.rfind(b"\n", start, start + select.PIPE_BUF) + 1 or data.index(b"\n", start) + 1


def _opened(path: str) -> int:
    # O_NONBLOCK for the opening alone: without it a FIFO that nobody reads would hold us here for ever.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
    try:
        fd = os.open(path, flags | os.O_EXCL, 0o640)
    except FileExistsError:
        fd = os.open(path, flags, 0o640)
    else:
        os.fchmod(fd, 0o640)  # the umask of the unit leaves the group nothing, and a log is there to be read
    os.set_blocking(fd, True)
    return fd


class Details(NamedTuple):
    """What only some formats have of a request."""

    duration_ns: int | None  # from the round in which its head or content was complete to here; None: it never was
    waited_ns: int | None  # that its connection waited in the queue, if it is the first on it
    request_id: bytes


class AccessLog:
    """The log of one worker; every worker appends to the same file."""

    detailed = False  # whether details are wanted

    def __init__(self, path: str, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._lines: list[bytes] = []
        self._bytes = 0
        self._since = 0.0  # when the oldest waiting line came
        self._second = 0
        self._stamp = b""
        self._under_way: Batch | None = None  # a follower's
        self._ailing = False
        self._cut = False
        self._reopen = False  # the next batch opens the file anew
        self.dropped = 0
        self._fd = 1 if path == "-" else _opened(path)

    # -- called by the leader ------------------------------------------------------------------

    def record(self, peer: bytes, head: bytes, status: int, content_bytes: int, details: Details | None = None) -> None:
        """Add a line. `head` is the raw request head, or what came of one that was refused."""
        if self._bytes > LOG_WAITING_MAX_BYTES:
            self.dropped += 1
            if not self._ailing:
                self._ailing = True
                log.error("%s takes no more, dropping its lines until it can be written", self._path)
            return
        second = self._clock.second
        if second != self._second:
            self._second = second
            self._stamp = self._stamp_of(second)
        line = self._line(self._stamp, peer, head, status, content_bytes, details)
        if not self._lines:
            self._since = self._clock.now
        self._lines.append(line)
        self._bytes += len(line)

    @staticmethod
    def _stamp_of(second: int) -> bytes:
        return stamp(second)

    def _line(
        self, stamp: bytes, peer: bytes, head: bytes, status: int, content_bytes: int, _details: Details | None
    ) -> bytes:
        asked, named = _of_head(head) if len(head) <= _HEAD_KEPT_MAX_BYTES else _read(head)
        return b'%b - - %b "%b" %d %d %b\n' % (peer, stamp, asked, status, content_bytes, named)

    def take(self) -> Batch | None:
        """Return what should be written now, if anything; at most one batch is under way."""
        if self._under_way is not None:
            return None
        if not self._reopen:
            if not self._lines:
                return None
            if self._bytes < LOG_BATCH_BYTES and self._clock.now - self._since < LOG_BATCH_S:
                return None
        self._under_way = self._batch()
        return self._under_way

    def written(self, batch: Batch) -> None:
        """Take note of how a batch fared."""
        if batch is self._under_way:
            self._under_way = None
        if not batch.empty:
            self._judge(batch)
        if batch.kept:
            log.error("cannot open %s again: %s, writing on to the old file", self._path, batch.kept)
        elif batch.reopens:
            self._cut = False

    def _judge(self, batch: Batch) -> None:
        """Tell when the file begins to take no lines, and when it takes them again."""
        self.dropped += batch.lost
        if batch.lost and not self._ailing:
            log.error("cannot write %s: %s, dropping its lines until it can be written", self._path, batch.why)
        elif self._ailing and not batch.lost:
            log.warning("%s can be written again, %d lines were dropped so far", self._path, self.dropped)
        self._ailing = batch.lost > 0
        # A disk that fills up takes part of a line. What comes next begins a line of its own.
        self._cut = batch.cut or (self._cut and self._ailing)

    def reopen(self) -> None:
        """Have the next batch open the file by its name again, after it was moved away (logrotate).

        What waits until then goes to the old file, which is kept if there is no new one. Both may block, so this is
        the batch's, and comes after the one under way.
        """
        self._reopen = self._path != "-"

    def close(self) -> None:
        """Write what waits, and close; a batch that is under way still hangs, and so would we."""
        if self._under_way is not None:
            self.dropped += len(self._lines)
            return
        if self._lines:
            batch = self._batch()
            batch.run()
            self.written(batch)
        if self._fd > 2:
            with contextlib.suppress(OSError):  # what its disk has to say of it (close(2)): closed it is, all the same
                os.close(self._fd)

    def _batch(self) -> Batch:
        lines, self._lines, self._bytes = self._lines, [], 0
        if self._cut and lines:
            lines.insert(0, b"\n")
        path, self._reopen = self._path if self._reopen else "", False
        return Batch(self._fd, lines, path)
