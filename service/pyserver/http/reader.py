"""Turn the bytes of one connection into requests (RFC 9112).

Owns:    the bytes received and not yet understood.
Never:   receives, waits or answers; keeps bytes of a request that was returned.
Fails:   ProtocolError, as soon as the bytes here leave no other outcome, and the same one however they were cut.
         After it the reader is of no more use.
Used by: worker.connection; worker.client (each has one).
"""

from pyserver.http.body import ChunkedBody, LengthBody
from pyserver.http.request import Request, interpret
from pyserver.http.scanner import USUAL, Bounds, HeadScanner


class RequestReader:
    """What one client sends, as a sequence of requests: feed, next, discard_body, and again."""

    __slots__ = ("_body", "_bounds", "_data", "_request", "_scanner", "_start")

    def __init__(self, bounds: Bounds = USUAL) -> None:
        self._bounds = bounds
        self._data: bytes | bytearray = b""
        self._start = 0  # of what is not yet understood
        self._scanner: HeadScanner | None = None  # of a head that did not come in one piece
        self._request: Request | None = None  # whose content has not been looked at
        self._body: LengthBody | ChunkedBody | None = None  # of which some is missing

    def feed(self, data: bytes) -> None:
        """Take bytes that were received."""
        if not self._data:
            self._data = data
            return
        # Only what is incomplete gets here; appending to a bytearray keeps a drip of single bytes linear.
        if not isinstance(self._data, bytearray):
            self._data = bytearray(self._data)
        if self._start:
            del self._data[: self._start]
            if self._scanner is not None:
                self._scanner.moved(self._start)
            self._start = 0
        self._data += data

    def next(self) -> Request | None:
        """Return the next request when its head is complete, None when bytes are missing.

        The content of the request before must have been discarded.
        """
        assert self._request is None, "content of the last request is still here"
        assert self._body is None, "content of the last request is not at its end"
        if not self._data:
            return None
        found = None
        if self._scanner is None:
            found = self._bounds.pattern.match(self._data, self._start)
            if found is None:
                # Incomplete, wrong, or after empty lines: rare, so it may cost a second look.
                self._scanner = HeadScanner(self._start, self._bounds)
        if self._scanner is not None:
            if not self._scanned(self._scanner):
                return None
            found = self._bounds.pattern.match(self._data, self._start)
        assert found is not None, "the scanner lets a head through that the pattern does not match"
        request = interpret(found, self._bounds)
        self._consumed(found.end())
        if request.chunked or request.length:
            self._request = request
        return request

    def _scanned(self, scanner: HeadScanner) -> bool:
        """Tell whether the head that did not match at once is complete now, and drop the empty lines before it."""
        complete = scanner.advance(self._data)
        self._consumed(scanner.start)
        if complete:
            self._scanner = None
        return complete

    def discard_body(self) -> bool:
        """Throw away content of the request last returned: True at its end, False when bytes are missing."""
        if self._request is not None:
            self._body = ChunkedBody() if self._request.chunked else LengthBody(self._request.length)
            self._request = None
        if self._body is None:
            return True
        start, done = self._body.consume(self._data, self._start)
        self._consumed(start)
        if done:
            self._body = None
        return done

    @property
    def started(self) -> bool:
        """Tell whether a request or its content has begun and is not complete."""
        return self._request is not None or self._body is not None or self._start < len(self._data)

    @property
    def pending(self) -> bytes:
        """The bytes that were received and belong to no request returned so far."""
        return bytes(self._data[self._start :])

    def _consumed(self, start: int) -> None:
        if start < len(self._data):
            self._start = start
            return
        if self._scanner is not None:
            self._scanner.moved(start)
        self._data = b""
        self._start = 0
