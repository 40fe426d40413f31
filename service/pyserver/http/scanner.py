"""Walk a head that is incomplete or wrong, as far as it is here, and say what is wrong as soon as that is sure.

Owns:    the position in one head; a byte is looked at once, however small the pieces are in which it arrives. And how
         much a head may be (Bounds).
Never:   looks at meaning: http.request does, when the head is complete and its grammar is right. A head that
         gets to its end here is one that grammar.head() matches, and the other way round (a property test says so).
Fails:   ProtocolError. Which one depends on the bytes only, never on how they were cut: it belongs to the first byte
         that no good head could have in that place.
Used by: http.reader (heads that do not come in one piece), http.request (heads that do not match); worker.main and
         handlers make and keep the Bounds that the options say.
"""

import re
import sys
from enum import Enum
from typing import Final, NamedTuple

from pyserver import limits
from pyserver.http import grammar
from pyserver.http.errors import ProtocolError

# RFC 9112 2.2: a server SHOULD ignore at least one empty line before the request line; old clients sent one after
# the content of a POST. Some more are taken, for ever is not.
BLANK_LINES_MAX: Final = 4


class Part(Enum):
    """Where in a head we are."""

    START = "the start of the request"
    BLANK_LF = "an empty line before the request"
    METHOD = "the method"
    TARGET = "the request target"
    VERSION = "the version"
    REQUEST_LF = "the end of the request line"
    LINE = "the start of a field line"
    NAME = "a field name"
    VALUE = "a field value"
    VALUE_LF = "the end of a field line"
    END_LF = "the end of the head"
    END = "after the head"


class Rule(NamedTuple):
    """What may stand in a part: a run of bytes, how long, and which byte leads on to which part."""

    run: re.Pattern[bytes]
    at_least: int
    at_most: int
    too_long: int  # status
    onward: dict[bytes, Part]


UNBOUNDED: Final = sys.maxsize  # but by the head as a whole
_NOTHING: Final = re.compile(rb"")
_TOKEN: Final = re.compile(grammar.TCHAR + rb"*+")
_TARGET: Final = re.compile(grammar.TARGET_BYTE + rb"*+")
_VERSION: Final = re.compile(rb"[!-~]*+")
_VALUE: Final = re.compile(grammar.FIELD_BYTE + rb"*+")
_LINES: Final = re.compile(rb"(?:%b)*" % grammar.FIELD_LINE)

# The grammar of a head as a table. START and LINE lead on without taking a byte (b"") where no other one fits.
RULES: Final = {
    Part.START: Rule(_NOTHING, 0, 0, 400, {b"\r": Part.BLANK_LF, b"": Part.METHOD}),
    Part.BLANK_LF: Rule(_NOTHING, 0, 0, 400, {b"\n": Part.START}),
    Part.METHOD: Rule(_TOKEN, 1, grammar.METHOD_MAX_BYTES, 501, {b" ": Part.TARGET}),
    Part.TARGET: Rule(_TARGET, 1, limits.TARGET_MAX_BYTES, 414, {b" ": Part.VERSION}),
    Part.VERSION: Rule(_VERSION, grammar.VERSION_BYTES, grammar.VERSION_BYTES, 400, {b"\r": Part.REQUEST_LF}),
    Part.REQUEST_LF: Rule(_NOTHING, 0, 0, 400, {b"\n": Part.LINE}),
    Part.LINE: Rule(_NOTHING, 0, 0, 400, {b"\r": Part.END_LF, b"": Part.NAME}),
    Part.NAME: Rule(_TOKEN, 1, UNBOUNDED, 431, {b":": Part.VALUE}),
    Part.VALUE: Rule(_VALUE, 0, UNBOUNDED, 431, {b"\r": Part.VALUE_LF}),
    Part.VALUE_LF: Rule(_NOTHING, 0, 0, 400, {b"\n": Part.LINE}),
    Part.END_LF: Rule(_NOTHING, 0, 0, 400, {b"\n": Part.END}),
}


class Bounds:
    """How much a head may be, and what is made of that once."""

    __slots__ = ("fields", "head_bytes", "pattern", "rules", "target_bytes")

    def __init__(
        self,
        head_bytes: int = limits.HEAD_MAX_BYTES,
        target_bytes: int = limits.TARGET_MAX_BYTES,
        fields: int = limits.FIELDS_MAX,
    ) -> None:
        self.head_bytes = head_bytes  # request line and fields together
        self.target_bytes = target_bytes
        self.fields = fields  # lines
        self.pattern = grammar.HEAD if fields == limits.FIELDS_MAX else grammar.head(fields)
        self.rules = RULES | {Part.TARGET: RULES[Part.TARGET]._replace(at_most=target_bytes)}


USUAL: Final = Bounds()


class HeadScanner:
    """The way through one head; positions are those of the data that `advance` is given."""

    __slots__ = ("_blank_lines", "_bounds", "_fields", "_mark", "_part", "_part_start", "start")

    start: int  # of the head, behind the empty lines before it

    def __init__(self, start: int = 0, bounds: Bounds = USUAL) -> None:
        self._bounds = bounds
        self.start = self._mark = self._part_start = start
        self._part = Part.START
        self._blank_lines = 0
        self._fields = 0

    def moved(self, dropped: int) -> None:
        """Follow the data after `dropped` bytes were taken from its front."""
        self.start -= dropped
        self._mark -= dropped
        self._part_start -= dropped

    def advance(self, data: bytes | bytearray) -> bool:
        """Go on as far as `data` goes; True at the end of the head, False where bytes are missing."""
        part, mark, most = self._part, self._mark, self._bounds.head_bytes
        rules = self._bounds.rules
        # One byte beyond what is allowed is enough to know that it is too much.
        end = min(len(data), self.start + most)
        while part is not Part.END:
            if part is Part.LINE:
                self._part_start = mark = self._whole_lines(data, mark, end)
            rule = rules[part]
            stop = rule.run.match(data, mark, end).end()  # type: ignore[union-attr]  # every run may be empty
            length = stop - self._part_start
            if length > rule.at_most:
                raise ProtocolError(rule.too_long, f"{part.value} is longer than {rule.at_most} bytes")
            mark = stop
            if stop == end:
                break
            byte = bytes(data[stop : stop + 1])
            onward = rule.onward.get(byte)
            if onward is not None:
                mark += 1
            else:
                onward = rule.onward.get(b"")
            if onward is None or length < rule.at_least:
                raise ProtocolError(400, f"byte 0x{byte[0]:02x} in {part.value}")
            self._leave(part, onward, data, mark)
            if onward is Part.START:
                end = min(len(data), mark + most)
            part, self._part_start = onward, mark
        self._part, self._mark = part, mark
        if part is Part.END:
            return True
        if len(data) - self.start > most:
            raise ProtocolError(431, f"request head is longer than {most} bytes")
        return False

    def _whole_lines(self, data: bytes | bytearray, mark: int, end: int) -> int:
        """Go past the field lines that are complete and good, all at once: the table is for the others."""
        stop = _LINES.match(data, mark, end).end()  # type: ignore[union-attr]  # it may be empty
        self._count_fields(data.count(b"\n", mark, stop))
        return stop

    def _count_fields(self, more: int) -> None:
        self._fields += more
        if self._fields > self._bounds.fields:
            raise ProtocolError(431, f"more than {self._bounds.fields} field lines")

    def _leave(self, part: Part, onward: Part, data: bytes | bytearray, mark: int) -> None:
        """Check what is known when a part is complete."""
        if part is Part.VERSION:
            _check_version(bytes(data[self._part_start : mark - 1]))
        elif onward is Part.NAME:
            self._count_fields(1)
        elif part is Part.BLANK_LF:
            self._blank_lines += 1
            self.start = mark
            if self._blank_lines > BLANK_LINES_MAX:
                raise ProtocolError(400, "too many empty lines before the request")


def _check_version(version: bytes) -> None:
    found = grammar.VERSION.fullmatch(version)
    if found is None:
        raise ProtocolError(400, "no HTTP version")
    if found[1] != b"1":
        raise ProtocolError(505, f"HTTP/{version[5:].decode('ascii')} is not spoken here")
