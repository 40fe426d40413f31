"""Find the end of a request's content, and throw the content away (RFC 9112 6.2, 7.1).

Owns:    the position in one content; a file server has no use for the bytes themselves.
Never:   reads beyond the end: what follows belongs to the next request.
Fails:   ProtocolError 400 (framing cannot be followed), 413 (more than we care to discard). Both end the connection.
Used by: http.reader.

Both kinds of content have `consume(data, start)`, which returns where it stopped and whether the content is complete.
Bytes from there on are to be given again, followed by more.
"""

from enum import Enum
from typing import Final

from pyserver import limits
from pyserver.http import grammar
from pyserver.http.errors import ProtocolError

CRLF: Final = b"\r\n"


class LengthBody:
    """Content of a length that was announced (RFC 9112 6.2)."""

    __slots__ = ("_left",)

    def __init__(self, length: int) -> None:
        if length > limits.BODY_DISCARD_MAX_BYTES:
            raise ProtocolError(413, f"content of {length} bytes, limit {limits.BODY_DISCARD_MAX_BYTES}")
        self._left = length

    def consume(self, data: bytes | bytearray, start: int) -> tuple[int, bool]:
        """Discard up to the end of the content."""
        taken = min(self._left, len(data) - start)
        self._left -= taken
        return start + taken, self._left == 0


class _Expected(Enum):
    """What comes next in chunked content."""

    SIZE = "chunk-size line"
    DATA = "chunk-data"
    DATA_END = "line end after chunk-data"
    TRAILER = "trailer section"


class ChunkedBody:
    """Content in chunks (RFC 9112 7.1), with its trailer section, which is thrown away too (RFC 9110 6.5.1)."""

    __slots__ = ("_expected", "_extensions", "_left", "_searched", "_total", "_trailer")

    def __init__(self) -> None:
        self._expected = _Expected.SIZE
        self._left = 0  # of the current chunk
        self._total = 0  # of all chunks so far
        self._extensions = 0  # bytes of chunk extensions so far
        self._trailer = 0  # bytes of the trailer section so far
        self._searched = 0  # bytes of the current line in which there is no LF

    def consume(self, data: bytes | bytearray, start: int) -> tuple[int, bool]:
        """Discard whole chunks and lines; an incomplete line is left where it is."""
        while start < len(data):
            if self._expected is _Expected.DATA:
                taken = min(self._left, len(data) - start)
                self._left -= taken
                start += taken
                if not self._left:
                    self._expected = _Expected.DATA_END
            elif self._expected is _Expected.DATA_END:
                if not CRLF.startswith(bytes(data[start : start + 2])):
                    raise ProtocolError(400, "chunk-data is not followed by CRLF")
                if len(data) - start < len(CRLF):
                    break
                start += len(CRLF)
                self._expected = _Expected.SIZE
            else:
                line = self._line(data, start)
                if line is None:
                    break
                start += len(line)
                if self._expected is _Expected.SIZE:
                    self._begin_chunk(line)
                elif line == CRLF:
                    return start, True
                elif grammar.TRAILER_LINE.fullmatch(line) is None:
                    raise ProtocolError(400, "invalid trailer field line")
        return start, False

    def _line(self, data: bytes | bytearray, start: int) -> bytes | None:
        """Return the line that begins at `start` with its LF, or None while it is incomplete."""
        at_most = (
            limits.CHUNK_LINE_MAX_BYTES
            if self._expected is _Expected.SIZE
            else limits.TRAILER_MAX_BYTES - self._trailer
        )
        end = data.find(b"\n", start + self._searched, start + at_most)
        if end < 0:
            self._searched = len(data) - start
            if self._searched >= at_most:
                raise ProtocolError(400, f"{self._expected.value} is too long")
            return None
        self._searched = 0
        line = bytes(data[start : end + 1])
        if self._expected is _Expected.TRAILER:
            self._trailer += len(line)
        return line

    def _begin_chunk(self, line: bytes) -> None:
        found = grammar.CHUNK_LINE.fullmatch(line)
        if found is None:
            raise ProtocolError(400, "invalid chunk-size line")
        self._left = int(found[1], 16)
        self._total += self._left
        self._extensions += len(found[2])
        if self._total > limits.BODY_DISCARD_MAX_BYTES:
            raise ProtocolError(413, f"chunked content of more than {limits.BODY_DISCARD_MAX_BYTES} bytes")
        if self._extensions > limits.CHUNK_EXTENSIONS_MAX_BYTES:
            raise ProtocolError(413, f"chunk extensions of more than {limits.CHUNK_EXTENSIONS_MAX_BYTES} bytes")
        self._expected = _Expected.DATA if self._left else _Expected.TRAILER
