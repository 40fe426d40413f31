"""What was written to the access log since the last look, or a sample of it where that is more than one look is worth.

Owns:    the log's descriptor and the place up to which it was read.
Never:   reads more than a bounded part at a time, however fast the log grows; costs the server anything.
Fails:   never: where there is no log that we may read, `why` says so.
Used by: top.main.

The paths and clients of `pyserver top` come from here, so the server counts nothing for whoever may look one day.
"""

import os
import re
import stat
from pathlib import Path
from typing import Final, NamedTuple

_CHUNK_BYTES: Final = 16 * 1024
_CHUNKS: Final = 16

# The combined format: client, two names, time, request line, status. And one JSON object a line: time, client, and
# method and target, or what was no request; what stands after them does not matter here.
_COMBINED: Final = rb'(\S+) \S+ \S+ \[[^\]]*\] "(?:[^" ]+ )?([^" ?]+)[^"]*" [0-9]{3} '
_JSON: Final = rb'\{"time":"[^"]*","client":"([^"]*)",(?:"method":"[^"]*","target"|"request"):"((?:[^"\\?]|\\.)*)'
_LINE: Final = re.compile(rb"^(?:%b|%b)" % (_COMBINED, _JSON), re.MULTILINE)
_NOT_PRINTABLE: Final = re.compile(rb"[^\x20-\x7e]")


class Line(NamedTuple):
    """What of a line is counted."""

    client: str
    path: str  # without the query


class LogTail:
    """The end of one log, also after it was moved away and opened anew."""

    def __init__(self, path: str) -> None:
        """Begin at its end."""
        self.path = path
        self.why = ""  # there is nothing
        self._fd = -1
        self._read = 0
        self._open(at_end=True)

    def close(self) -> None:
        """Close it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def lines(self) -> list[Line]:
        """Return what is new, or an even sample of it."""
        found: list[Line] = []
        if self._fd >= 0:
            found = self._new()
            if self._was_moved():
                found += self._new()  # what was written between the two looks
                self.close()
        if self._fd < 0:
            self._open(at_end=False)
            if self._fd >= 0:
                found += self._new()
        return found

    def _open(self, *, at_end: bool) -> None:
        self.why = ""
        if not self.path:
            self.why = "the server writes no access log to a file"
            return
        try:
            # A FIFO that nobody writes would hold us here, and there is nothing to sample in one.
            self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError as error:
            self.why = f"{self.path}: {error.strerror}"
            return
        found = os.fstat(self._fd)
        self._read = found.st_size if at_end else 0
        if not stat.S_ISREG(found.st_mode):
            self.close()
            self.why = f"{self.path}: it is no file"

    def _was_moved(self) -> bool:
        try:
            return not os.path.samestat(Path(self.path).stat(), os.fstat(self._fd))
        except OSError:
            return False  # the new one is not there yet

    def _new(self) -> list[Line]:
        size = os.fstat(self._fd).st_size
        if size < self._read:  # it was cut
            self._read = 0
        begin, self._read = self._read, size
        new = size - begin
        if new <= _CHUNKS * _CHUNK_BYTES:
            data = os.pread(self._fd, new, begin)
            end = data.rfind(b"\n") + 1
            self._read = begin + end  # a line that is not whole is for the next look
            return _understood(data[:end])
        step = new // _CHUNKS
        found = []
        for at in range(begin, begin + _CHUNKS * step, step):
            data = os.pread(self._fd, _CHUNK_BYTES, at)
            # Where it begins is within a line, as is where it ends.
            found += _understood(data[data.find(b"\n") + 1 : data.rfind(b"\n") + 1])
        return found


def _understood(data: bytes) -> list[Line]:
    return [Line(_shown(one or other), _shown(path or target)) for one, path, other, target in _LINE.findall(data)]


def _shown(raw: bytes) -> str:
    """Return what does no harm to a terminal: the server writes nothing else, but others may write there."""
    return _NOT_PRINTABLE.sub(b"?", raw).decode("ascii")
