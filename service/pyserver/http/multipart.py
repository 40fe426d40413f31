"""Several spans of one representation as one content: multipart/byteranges (RFC 9110 14.6, RFC 2046 5.1.1).

Owns:    what stands between the spans; the spans themselves are sent by whoever has them.
Never:   makes up the boundary: that is random, another one for each answer (T-32), and comes from the caller.
Used by: handlers.
"""

from collections.abc import Sequence
from typing import Final

from pyserver.http.fields import FieldValue, field_value
from pyserver.http.ranges import Span, content_range

# Of the boundary, all of them visible ASCII. Nobody who wrote the content can have foreseen 96 random bits in it.
BOUNDARY_BYTES: Final = 24
_ANY_BOUNDARY: Final = field_value(b"-" * BOUNDARY_BYTES)


def content_type(boundary: FieldValue) -> FieldValue:
    """Return the media type of the whole. Hexadecimal digits need no quotes (RFC 9110 5.6.6)."""
    return field_value(b"multipart/byteranges; boundary=" + boundary)


def parts(
    spans: Sequence[Span], size: int, media_type: FieldValue, boundary: FieldValue
) -> list[bytes | tuple[int, int]]:
    """Return what is sent, in turn: bytes, and of the representation offset and count (as http.response has it).

    RFC 2046 5.1.1   multipart-body = dash-boundary CRLF body-part *( delimiter CRLF body-part ) close-delimiter
                     delimiter = CRLF dash-boundary ; dash-boundary = "--" boundary ; close-delimiter = delimiter "--"
    The line end before a boundary belongs to the delimiter, so a part ends where its span does.
    """
    sent: list[bytes | tuple[int, int]] = []
    for first, end in spans:
        part_head = _part_head((first, end), size, media_type, boundary)
        sent += part_head if sent else part_head.removeprefix(b"\r\n"), (first, end - first)
    sent.append(b"\r\n--%b--\r\n" % boundary)
    return sent


def part_bytes(size: int, media_type: FieldValue) -> int:
    """Return what no part costs more than, beside its span."""
    return len(_part_head((size, size + 1), size, media_type, _ANY_BOUNDARY))


def _part_head(span: Span, size: int, media_type: FieldValue, boundary: FieldValue) -> bytes:
    line = content_range(*span, size)
    return b"\r\n--%b\r\nContent-Type: %b\r\n%b\r\n" % (boundary, media_type, line)
