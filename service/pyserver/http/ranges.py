"""Which bytes of a representation a Range asks for (RFC 9110 14).

Owns:    the reading of ranges-specifiers and their meaning for a size.
Never:   converts anything but ASCII digits (T-28), or lets a number grow beyond what a file can have.
Fails:   never: what is no ranges-specifier is ignored (RFC 9110 14.2), and None says so.
Used by: handlers; http.multipart.

`resolve` decides what is answered: `parse` reads the list of range-specs, `satisfy` gives one of them a meaning for a
size, `coalesce` puts together what is cheaper in one piece. How several spans become one answer is http.multipart's.
"""

import re
from collections.abc import Sequence
from enum import Enum
from typing import Final, Literal, NamedTuple, TypeAlias

from pyserver import limits
from pyserver.http.fields import Lines

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


# The first byte and the one behind the last.
Span: TypeAlias = tuple[int, int]


class Spec(NamedTuple):
    """One range-spec. Without `first` it is a suffix and `last` its length; without `last` it goes to the end."""

    first: int | None
    last: int | None


def resolve(
    value: bytes, size: int, part_bytes: int = 0
) -> tuple[Span, ...] | Literal[Unsatisfiable.UNSATISFIABLE] | None:
    """Return the spans that `value` asks for, in the order of the answer; one of them is a plain 206.

    `part_bytes`: what each part of an answer in several parts costs beside its content.

    None: answer as if there were no Range, because it is no set of byte ranges (RFC 9110 14.2), because it has more of
    them than limits.RANGES_MAX, or because the parts would be more to send than the whole (both: 14.2, 17.15).
    UNSATISFIABLE: answer 416. As long as one range-spec is satisfiable the others are left out (15.3.7.2).
    """
    specs = parse(value)
    if specs is None:
        return None
    spans = [span for spec in specs if (span := satisfy(spec, size)) is not None]
    if len(spans) > 1:
        spans = coalesce(spans, part_bytes)
        # One part more than there are stands for what ends them all.
        if len(spans) > 1 and sum(end - first for first, end in spans) + part_bytes * (len(spans) + 1) > size:
            return None
    if spans:
        return tuple(spans)
    if size == 0 and any(spec.first is None and spec.last for spec in specs):
        return None  # satisfiable by all of nothing, which no Content-Range can say (T-33): the empty 200 does
    return UNSATISFIABLE


def parse(value: bytes) -> list[Spec] | None:
    """Return the range-specs of a set of byte ranges; None when it is none, when one is invalid, or for too many."""
    found = BYTES_RANGES.fullmatch(value)
    if found is None or found[1].count(b"-") > limits.RANGES_MAX:  # each has one
        return None
    specs = []
    for first, last in SPECS.findall(found[1]):
        if first and last and _magnitude(last) < _magnitude(first):
            return None  # RFC 9110 14.1.1: an int-range whose last-pos is less than its first-pos is invalid
        specs.append(Spec(_number(first), _number(last)))
    return specs


def satisfy(spec: Spec, size: int) -> Span | None:
    """Return the span of one range-spec in a representation of `size` bytes, None where they do not meet."""
    first, last = spec
    if first is None:  # the last so many bytes; all of them when there are fewer (T-26)
        length = min(last or 0, size)
        return (size - length, size) if length else None
    if first >= size:
        return None
    return first, size if last is None else min(last + 1, size)


def coalesce(spans: Sequence[Span], gap: int) -> list[Span]:
    """Put spans together that overlap, touch, or leave less than `gap` between them (RFC 9110 15.3.7.2).

    The order is the one in which they were asked for; what was put together has the place of its foremost.
    """
    placed: list[tuple[int, Span]] = []
    for first, end, place in sorted((first, end, place) for place, (first, end) in enumerate(spans)):
        if placed:
            foremost, (start, stop) = placed[-1]
            if first - stop < max(gap, 1):
                placed[-1] = min(foremost, place), (start, max(stop, end))
                continue
        placed.append((place, (first, end)))
    return [span for _, span in sorted(placed)]


def content_range(first: int, end: int, size: int) -> Lines:
    """Return the field line of a 206 whose span is first to `end`, one behind the last (RFC 9110 14.4)."""
    return Lines(b"Content-Range: bytes %d-%d/%d\r\n" % (first, end - 1, size))


def unsatisfied_range(size: int) -> Lines:
    """Return the field line that a 416 carries (RFC 9110 15.5.17)."""
    return Lines(b"Content-Range: bytes */%d\r\n" % size)


def _magnitude(digits: bytes) -> tuple[int, bytes]:
    """Order numbers of any length without converting them."""
    significant = digits.lstrip(b"0")
    return len(significant), significant


def _number(digits: bytes) -> int | None:
    if not digits:
        return None
    length, significant = _magnitude(digits)
    return int(significant or b"0") if length <= _DIGITS_MAX else _HUGE
