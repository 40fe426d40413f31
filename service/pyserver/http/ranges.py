"""Which bytes of a representation a Range asks for (RFC 9110 14).

Owns:    the reading of ranges-specifiers and their meaning for a size.
Never:   converts anything but ASCII digits (T-28), or lets a number grow beyond what a file can have.
Fails:   never: what is no ranges-specifier is ignored (RFC 9110 14.2), and None says so.
Used by: handlers.

Three steps, so that answers in several parts need a change in the last one only: `parse` reads the list of
range-specs, `satisfy` gives one of them a meaning for a size, `resolve` decides what is answered.
"""

import re
from enum import Enum
from typing import Final, Literal, NamedTuple

# RFC 9110 14.1.2  byte ranges: int-range = first-pos "-" [ last-pos ] ; suffix-range = "-" suffix-length
_SPEC = rb"(?:[0-9]++-[0-9]*+|-[0-9]++)"
SPECS: Final = re.compile(rb"([0-9]*+)-([0-9]*+)")

# RFC 9110 14.1.1  ranges-specifier = range-unit "=" range-set ; range-set = 1#range-spec
# Unit names are case-insensitive (14.1); empty members of the list are parsed and ignored (5.6.1.2).
BYTES_RANGES: Final = re.compile(
    rb"(?i:bytes)=((?:[ \t]*+,)*[ \t]*+%b(?:[ \t]*+,(?:[ \t]*+%b)?)*[ \t]*+)" % (_SPEC, _SPEC)
)

# More digits than any size: the value no longer matters, only that it is large.
_DIGITS_MAX: Final = 18
_HUGE: Final = 10**_DIGITS_MAX


class Unsatisfiable(Enum):
    """No byte of what was asked for exists: 416."""

    UNSATISFIABLE = "unsatisfiable"


UNSATISFIABLE: Final = Unsatisfiable.UNSATISFIABLE


class Spec(NamedTuple):
    """One range-spec. Without `first` it is a suffix and `last` its length; without `last` it goes to the end."""

    first: int | None
    last: int | None


def resolve(value: bytes, size: int) -> tuple[int, int] | Literal[Unsatisfiable.UNSATISFIABLE] | None:
    """Return the span (first, one behind the last) that `value` asks for.

    None: answer as if there were no Range: several ranges (RFC 9110 14.2 lets a server), another unit, bad syntax.
    UNSATISFIABLE: answer 416.
    """
    specs = parse(value)
    if specs is None or len(specs) > 1:
        return None
    (spec,) = specs
    if size == 0 and spec.first is None and spec.last:
        return None  # satisfiable by all of nothing, which no Content-Range can say (T-33): the empty 200 does
    return satisfy(spec, size) or UNSATISFIABLE


def parse(value: bytes) -> list[Spec] | None:
    """Return the range-specs of a set of byte ranges; None when it is none, or when one of them is invalid."""
    found = BYTES_RANGES.fullmatch(value)
    if found is None:
        return None
    specs = []
    for first, last in SPECS.findall(found[1]):
        if first and last and _magnitude(last) < _magnitude(first):
            return None  # RFC 9110 14.1.1: an int-range whose last-pos is less than its first-pos is invalid
        specs.append(Spec(_number(first), _number(last)))
    return specs


def satisfy(spec: Spec, size: int) -> tuple[int, int] | None:
    """Return the span of one range-spec in a representation of `size` bytes, None where they do not meet."""
    first, last = spec
    if first is None:  # the last so many bytes; all of them when there are fewer (T-26)
        length = min(last or 0, size)
        return (size - length, size) if length else None
    if first >= size:
        return None
    return first, size if last is None else min(last + 1, size)


def content_range(first: int, end: int, size: int) -> bytes:
    """Return the field line of a 206 whose span is first to `end`, one behind the last (RFC 9110 14.4)."""
    return b"Content-Range: bytes %d-%d/%d\r\n" % (first, end - 1, size)


def unsatisfied_range(size: int) -> bytes:
    """Return the field line that a 416 carries (RFC 9110 15.5.17)."""
    return b"Content-Range: bytes */%d\r\n" % size


def _magnitude(digits: bytes) -> tuple[int, bytes]:
    """Order numbers of any length without converting them."""
    significant = digits.lstrip(b"0")
    return len(significant), significant


def _number(digits: bytes) -> int | None:
    if not digits:
        return None
    length, significant = _magnitude(digits)
    return int(significant or b"0") if length <= _DIGITS_MAX else _HUGE
