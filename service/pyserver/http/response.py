"""Answers as bytes: status lines, heads, error pages (RFC 9112 4, RFC 9110 15).

Owns:    what an answer looks like on the wire.
Never:   decides which answer is given, or reads the clock: `date` comes ready-made. Takes bytes for a head that nobody
         checked: the types of http.fields, and Head and Reason here, are made by those who did.
Fails:   never, but where a constant of ours is wrong: then at its import.
Used by: handlers (build answers), worker (sends them; answers errors).
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final, NewType, Protocol

from pyserver.http import lifecycle
from pyserver.http.fields import FieldValue, Lines, field_value, written
from pyserver.http.grammar import FIELD_BYTE

Head = NewType("Head", bytes)  # a status line, field lines and the empty line
Reason = NewType("Reason", bytes)  # RFC 9112 4: reason-phrase = 1*( HTAB / SP / VCHAR / obs-text ), or none

CONTINUE: Final = Head(b"HTTP/1.1 100 Continue\r\n\r\n")

SERVER: Final = written(b"Server: pyserver\r\n")

# What an error page says below its title. One sentence for the visitor; the reason is for the log.
SENTENCES: Final = {
    301: "This page has its place at a slightly different address.",
    302: "This page is at a different address for now.",
    307: "This page is at a different address for now.",
    308: "This page has its place at a different address.",
    400: "Your browser sent a request that this server does not understand.",
    403: "You are not allowed to see this page.",
    404: "There is nothing at this address.",
    405: "This page cannot be asked for in this way.",
    408: "Your browser took too long to send its request.",
    412: "The page is not what your browser took it for.",
    413: "Your browser sent more than this server takes.",
    414: "The address is too long.",
    416: "The page has no such part.",
    417: "Your browser expects something that this server does not do.",
    429: "There were too many requests from your address. Please try again in a moment.",
    431: "Your browser sent too many or too long header fields. Deleting the cookies of this site may help.",
    500: "Something went wrong here. It is not your fault.",
    501: "This server does not know how to do that.",
    503: "This server has too much to do right now. Please try again in a moment.",
    505: "This server speaks HTTP/1.1 only.",
}

_STYLE: Final = """
body { font: 1rem/1.6 system-ui, sans-serif; max-width: 34rem; margin: 18vh auto 0; padding: 0 1.5rem; }
h1 { font-size: 1.5rem; font-weight: 600; margin: 0; }
h1 b { font-weight: 300; opacity: .6; margin-right: .4em; }
p { opacity: .8; }
"""

# The Content-Security-Policy that an error page can live with: nothing is loaded, nothing runs, and of styles only its
# own counts, known by its hash (CSP3 2.3.1, hash-source).
PAGE_POLICY: Final = field_value(
    b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    b"style-src 'sha256-1qFzgo7aBi75POrE67jwseWyy57DcwLHhhtWe89tv3g='"
)

_OF_PAGE: Final = written(b"Content-Type: text/html; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n")

_PAGE: Final = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{status} {reason}</title>
<style>{style}</style>
</head>
<body>
<h1><b>{status}</b>{reason}</h1>
<p>{sentence}</p>
</body>
</html>
"""


class Source(Protocol):
    """What an answer is sent from when it is not in memory: it keeps a descriptor open while it lives."""

    @property
    def fd(self) -> int:
        """The open descriptor."""


class Response:
    """One answer, ready to send. Immutable by convention: the same object may answer many requests."""

    __slots__ = (
        "__weakref__",
        "again",
        "close",
        "content_bytes",
        "count",
        "more",
        "offset",
        "source",
        "status",
        "wire",
    )

    def __init__(
        self,
        status: int,
        head: Head,
        content: bytes | memoryview = b"",
        *,
        content_bytes: int = 0,
        source: Source | None = None,
        offset: int = 0,
        count: int = 0,
        more: tuple[bytes | tuple[int, int], ...] = (),
        close: bool = False,
        again: bool = True,
    ) -> None:
        self.status = status
        self.wire: Final[bytes] = head + content  # the content when it is in memory: one send
        self.content_bytes = content_bytes  # that the client gets; 0 for HEAD, 304
        self.source = source  # what has the rest in its `fd` and keeps it open; None: nothing is left to send
        self.offset = offset  # of the rest in the source
        self.count = count  # bytes of the rest
        self.more = more  # then: from memory, or offset and count in the source; only where there is a source
        self.close = close  # the connection ends after this answer
        # It may be given to others who ask for the same within the second; what has a source is looked at each time.
        self.again = again and source is None

    def with_lines(self, lines: Lines) -> "Response":
        """Return a copy with further field lines, which is for one request only."""
        status_line, end, rest = self.wire.partition(b"\r\n")
        return Response(
            self.status,
            Head(b"".join((status_line, end, lines, rest))),
            content_bytes=self.content_bytes,
            source=self.source,
            offset=self.offset,
            count=self.count,
            more=self.more,
            close=self.close,
            again=False,
        )

    def __repr__(self) -> str:
        return f"<Response {self.status}, {self.content_bytes} bytes{', close' if self.close else ''}>"


@lru_cache(maxsize=128)
def reason(status: int) -> Reason:
    """Return the reason phrase (RFC 9110 15); empty for a status without a registered one, as RFC 9112 4 allows."""
    try:
        from http import HTTPStatus  # noqa: PLC0415  remembered above: once for each status, and not at the start

        return PHRASES.get(status) or _phrase(HTTPStatus(status).phrase.encode("ascii"))
    except (ValueError, ImportError, OSError):  # none, or Python is being replaced below us: it says the same without
        return Reason(b"")


_PHRASE: Final = re.compile(FIELD_BYTE + rb"++")


def _phrase(words: bytes) -> Reason:
    if _PHRASE.fullmatch(words) is None:
        raise ValueError(f"{words!r} cannot be a reason phrase")
    return Reason(words)


# Where RFC 9110 has other words than the standard library of Python 3.11.
PHRASES: Final[Mapping[int, Reason]] = {
    413: _phrase(b"Content Too Large"),
    414: _phrase(b"URI Too Long"),
    416: _phrase(b"Range Not Satisfiable"),
    422: _phrase(b"Unprocessable Content"),
}


@lru_cache(maxsize=128)
def status_line(status: int) -> bytes:
    """Return the status line. It says HTTP/1.1 to HTTP/1.0 clients too (RFC 9110 6.2)."""
    return b"HTTP/1.1 %d %b\r\n" % (status, reason(status))


def head(status: int, fields: Iterable[Lines], date: FieldValue, connection: Lines) -> Head:
    """Return a complete head; `date` is an IMF-fixdate, `connection` a line of http.lifecycle."""
    return Head(b"%b%bDate: %b\r\n%b%b\r\n" % (status_line(status), SERVER, date, b"".join(fields), connection))


@lru_cache(maxsize=64)
def error_page(status: int) -> bytes:
    """Return the page that explains a status to a person: light or dark, nothing loaded from elsewhere."""
    return _PAGE.format(
        status=status, style=_STYLE, reason=reason(status).decode("ascii"), sentence=SENTENCES.get(status, "")
    ).encode("utf-8")


def error_response(
    status: int,
    *,
    date: FieldValue,
    connection: Lines,
    head_only: bool = False,
    fields: Iterable[Lines] = (),
) -> Response:
    """Return the answer that is an error page; `fields` are further lines, such as Allow or Content-Range."""
    page = error_page(status)
    return Response(
        status,
        head(status, (_OF_PAGE, Lines(b"Content-Length: %d\r\n" % len(page)), *fields), date, connection),
        b"" if head_only else page,
        content_bytes=0 if head_only else len(page),
        close=connection == lifecycle.CLOSE,
    )
