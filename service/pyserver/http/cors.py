"""Who else's scripts may read an answer (Fetch standard 3.3, "CORS protocol"), as functions of plain values.

Owns:    the field lines of CORS, for plain answers and for preflights.
Never:   allows credentials: no file of ours depends on who asks, so no answer is worth more with a cookie than without.
Used by: handlers.static (preflights, and answers to a listed origin), handlers.rules (what every answer carries).

With "*" every answer carries the same line. With a list, an answer names the origin that asked, so it differs between
origins and says `Vary: Origin`, also where no origin asked or one that is not listed: a cache must not give the answer
without the line to those who need it (Fetch standard 3.3.5, "CORS protocol and HTTP caches").
"""

from collections.abc import Collection
from typing import Final

from pyserver.http.fields import (
    NO_LINES,
    FieldName,
    FieldValue,
    Lines,
    field_line,
    field_name,
    field_value,
    joined_lines,
    written,
)

ANY: Final = field_value(b"*")

_ALLOW: Final = field_name(b"Access-Control-Allow-Origin")

# What scripts may see beside the fields that Fetch calls safelisted (2.2.2), which lack all that partial content and
# validators need. PDF viewers and players ask for it.
_EXPOSE: Final = (
    field_name(b"Access-Control-Expose-Headers"),
    field_value(b"Accept-Ranges, Content-Encoding, Content-Range, ETag"),
)
_EXPOSED: Final = field_line(*_EXPOSE)

# A preflight asks whether a request may be made that a form could not make. Any field may come along, since none does
# harm here; "*" stands for all of them where there are no credentials. Browsers keep the answer for two hours or a day
# at most.
_PREFLIGHT: Final = written(
    b"Access-Control-Allow-Methods: GET, HEAD\r\n"
    b"Access-Control-Allow-Headers: *\r\n"
    b"Access-Control-Max-Age: 86400\r\n"
)  # fmt: skip


def varies(origins: Collection[bytes]) -> bool:
    """Tell whether answers differ between origins, so that they say `Vary: Origin`."""
    return bool(origins) and ANY not in origins


def everyone(origins: Collection[bytes]) -> tuple[tuple[FieldName, FieldValue], ...]:
    """Return the fields, name and value, that every answer carries whoever asks."""
    return ((_ALLOW, ANY), _EXPOSE) if ANY in origins else ()


def named(origins: Collection[bytes], origin: bytes | None) -> Lines:
    """Return the field lines for this origin alone, where answers vary.

    An origin is compared byte by byte: browsers write it in one way only (RFC 6454 6.2). `null`, which every sandbox
    and every local file may be, cannot be listed.
    """
    if origin is None or not varies(origins) or origin not in origins:
        return NO_LINES
    return joined_lines((field_line(_ALLOW, field_value(origin)), _EXPOSED))


def preflight(origins: Collection[bytes], origin: bytes | None, method: bytes | None) -> Lines:
    """Return the further lines of a 204 to OPTIONS; none when it is no preflight, or one of an origin not allowed."""
    if origin is None or method is None or not (ANY in origins or origin in origins):
        return NO_LINES
    return _PREFLIGHT
