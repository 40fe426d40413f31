"""What the listener for administrators answers: how the server is, for programs. It can only be read, never ordered.

Owns:    the paths there, what each is made of, and whom they are for.
Never:   answers at a public listener (worker.main gives it to the one that is called "admin"); looks at a file; keeps
         an answer, or lets another keep it.
Fails:   never: an exception is a bug, which worker.connection logs.
Used by: worker.main (builds), worker.connection (asks).

A page in a visitor's browser can have a name of its own lead to 127.0.0.1, and then read what is answered there as
its own (DNS rebinding). So over TCP only those are answered who ask for `localhost` or for an address: such a page has
asked for its name. A UNIX socket is out of reach for browsers, and has the rights of a file.
"""

import re
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Final, NamedTuple

from pyserver.clock import Clock
from pyserver.handlers import dashboard
from pyserver.handlers.static import LookAgain, Pending
from pyserver.http import lifecycle
from pyserver.http.dates import imf_fixdate
from pyserver.http.fields import FieldValue, Lines, field_line, field_name, field_value, written
from pyserver.http.request import Request
from pyserver.http.response import Response, head
from pyserver.ipc.observe import Snapshot, as_document

Exposition = Callable[[Snapshot, str], tuple[str, bytes]]

_TYPE: Final = field_name(b"Content-Type")
_POLICY: Final = field_name(b"Content-Security-Policy")
_ALLOW: Final = written(b"Allow: GET, HEAD\r\n")
_OF_EACH: Final = written(
    b"X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\nReferrer-Policy: no-referrer\r\n"
)

_TEXT: Final = "text/plain; charset=utf-8"
_INDEX: Final = "/\n/metrics\n/status.json\n/healthz\n/readyz\n"
_NO_LIBRARY: Final = "There are no metrics: the library prometheus_client is missing (python3-prometheus-client).\n"
_ELSEWHERE: Final = "Ask for localhost or for an address: names are not answered here.\n"

# Accept is not among what http.request keeps of a head, for no file depends on it.
_ACCEPT: Final = re.compile(rb"\n(?i:accept):[ \t]*+([^\r]*+)")


class Page(NamedTuple):
    """What is answered, but for what belongs to the connection."""

    status: int
    kind: str
    content: bytes
    policy: FieldValue = field_value(b"default-src 'none'; frame-ancestors 'none'")


class Status:
    """What answers at one listener."""

    __slots__ = ("_any_name", "_clock", "_exposition", "_look")

    misses_root = False

    def __init__(self, look: Callable[[], Snapshot], clock: Clock, *, any_name: bool) -> None:
        self._look = look  # may wait a moment
        self._clock = clock
        self._any_name = any_name  # whatever host is asked for
        self._exposition = _library()  # now: later the worker may be confined

    def respond(self, request: Request, keep: bool) -> Response | Pending:  # noqa: FBT001  # a keyword costs
        """Return the answer to `request`, or a Pending when the segment has to be looked at."""
        make = self._pages.get(request.path)
        if not self._any_name and not _is_here(request.host):
            return self._answer(Page(421, _TEXT, _ELSEWHERE.encode()), request, keep=keep)
        if request.method not in (b"GET", b"HEAD"):
            return self._answer(Page(405, _TEXT, b"GET and HEAD only\n"), request, keep=keep)
        if make is None:
            return self._answer(Page(404, _TEXT, _INDEX.encode()), request, keep=keep)
        return Rendering(lambda: self._answer(make(self, request), request, keep=keep))

    def tidy(self) -> list[LookAgain]:
        """Nothing is kept."""
        return []

    def _answer(self, page: Page, request: Request, *, keep: bool) -> Response:
        lines = [
            field_line(_TYPE, field_value(page.kind.encode())),  # a library's, which may repeat what was asked for
            Lines(b"Content-Length: %d\r\n" % len(page.content)),
            field_line(_POLICY, page.policy),
            _OF_EACH,
        ]
        if page.status == 405:
            lines.append(_ALLOW)
        connection = lifecycle.connection_field(request.minor, keep)
        with_content = request.method != b"HEAD"
        return Response(
            page.status,
            head(page.status, lines, imf_fixdate(self._clock.second), connection),
            page.content if with_content else b"",
            content_bytes=len(page.content) if with_content else 0,
            close=connection == lifecycle.CLOSE,
            again=False,
        )

    # -- the pages: in a thread that may wait --------------------------------------------------------

    def _dashboard(self, _request: Request) -> Page:
        return Page(200, "text/html; charset=utf-8", dashboard.PAGE, dashboard.POLICY)

    def _metrics(self, request: Request) -> Page:
        if self._exposition is None:
            return Page(501, _TEXT, _NO_LIBRARY.encode())
        accept = b",".join(_ACCEPT.findall(request.head))
        kind, content = self._exposition(self._look(), accept.decode("latin-1"))
        return Page(200, kind, content)

    def _document(self, request: Request) -> Page:
        document = as_document(self._look(), with_requests=request.query == b"requests")
        return Page(200, "application/json", document.encode() + b"\n")

    def _alive(self, _request: Request) -> Page:
        return Page(200, _TEXT, b"alive\n")

    def _ready(self, _request: Request) -> Page:
        seen = self._look()
        if seen.ready:
            return Page(200, _TEXT, b"ready\n")
        crew = [worker for worker in seen.workers if worker.crew == seen.crew]
        ready = sum(worker.state == "ready" for worker in crew)
        why = "the server is stopping" if seen.stopping else f"{ready} of {len(crew)} workers are ready"
        return Page(503, _TEXT, f"not ready: {why}\n".encode())

    _pages: Final = {
        b"/": _dashboard,
        b"/metrics": _metrics,
        b"/status.json": _document,
        b"/healthz": _alive,
        b"/readyz": _ready,
    }


class Rendering(Pending):
    """An answer that a thread makes which may wait: for a master that stopped while it changed the totals."""

    __slots__ = ("_answer", "_make")

    def __init__(self, make: Callable[[], Response]) -> None:
        self._make = make
        self._answer: Response | Exception | None = None

    def run(self) -> None:
        """Make it. Never raises."""
        try:
            self._answer = self._make()
        except Exception as bug:  # noqa: BLE001  # finish() raises it, where it is logged
            self._answer = bug

    def begin(self, start: Callable[[Callable[[], None], Callable[[], None]], None], then: Callable[[], None]) -> None:
        """Have it made, and then answered."""
        start(self.run, then)

    def finish(self) -> Response:
        """Return it."""
        assert self._answer is not None
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


def _library() -> Exposition | None:
    """Return what renders metrics, if its library is there."""
    try:
        from pyserver.handlers.metrics import exposition  # noqa: PLC0415  it is optional
    except ImportError:
        return None
    return exposition


def _is_here(host: bytes) -> bool:
    """Tell whether this host was asked for by an address or as localhost (as http.request writes them)."""
    if host == b"localhost" or host.startswith(b"["):
        return True
    try:
        IPv4Address(host.decode("latin-1"))
    except ValueError:
        return False
    return True
