"""One request head, from its bytes to what the server decides by (RFC 9112 3, 5, 6; RFC 9110 7.2, 7.6.1, 10.1.1).

Owns:    Request, and the rules that join fields: which host, how long the content is, whether the connection goes on.
Never:   guesses. A head that two readers could frame in two ways is refused (RFC 9112 6.3, 11.2).
Fails:   ProtocolError with the status to answer; after each of them the connection must be closed.
Used by: http.reader; handlers, worker and http.lifecycle read what it returns.
"""

import re
from functools import lru_cache
from ipaddress import IPv6Address
from typing import Final, NamedTuple

from pyserver.http import grammar
from pyserver.http.errors import ProtocolError
from pyserver.http.scanner import USUAL, Bounds, HeadScanner

# Eighteen digits are below 2**63: nothing that we compare or add can grow beyond what everyone can count.
LENGTH_MAX_DIGITS: Final = 18

PORT_MAX: Final = 65535


class Request:
    """A request whose head was found good. Read-only by convention; content, if any, is still to come."""

    __slots__ = (
        "chunked",
        "expects_continue",
        "fields",
        "head",
        "host",
        "keep_alive",
        "length",
        "method",
        "minor",
        "path",
        "query",
        "target",
    )

    method: bytes  # case-sensitive (RFC 9110 9.1); not necessarily one that is known
    target: bytes  # as it was sent
    path: bytes  # still percent-encoded, begins with "/"; b"*" of OPTIONS; host and port of CONNECT
    query: bytes | None  # None: no "?"; b"": an empty one
    minor: int  # of HTTP/1: 0 or 1
    host: bytes  # lower case, neither port nor final dot; b"" where HTTP/1.0 names none
    fields: dict[bytes, bytes]  # lower-case name -> value: ranges, preconditions, codings; nothing else is kept
    keep_alive: bool  # the client would go on after this request (RFC 9112 9.3)
    length: int  # of the content by Content-Length; 0 without
    chunked: bool  # the content is chunked
    expects_continue: bool  # the client waits for 100 (Continue) before it sends its content
    head: bytes  # all of it, with the empty line

    @property
    def has_body(self) -> bool:
        """Tell whether content follows the head."""
        return self.chunked or self.length > 0

    def __repr__(self) -> str:
        return f"<Request {self.method!r} {self.target!r} HTTP/1.{self.minor}>"


class Section(NamedTuple):
    """What all field lines of a head mean together, below any request line that grammar.PLAIN_LINE matches."""

    host: bytes
    fields: dict[bytes, bytes]
    keep_alive: bool

    @classmethod
    def of(cls, request: Request) -> "Section | None":
        """Return what stands below the request line of `request`; None if that, or content, has a say in it."""
        if not request.minor or request.has_body or request.target[:1] != b"/":
            return None
        return cls(request.host, request.fields, request.keep_alive)


def plain(line: bytes, section: Section, head: bytes, bounds: Bounds = USUAL) -> Request | None:
    """Return the request of a line above a section, which together are `head`; None for any but a plain line.

    It is what interpret() returns for the whole head (a property test says so), without reading the section again.
    """
    found = grammar.PLAIN_LINE.fullmatch(line)
    if found is None or len(line) > bounds.target_bytes or len(head) > bounds.head_bytes:
        return None
    request = Request()
    request.method, request.target, request.path, request.query = found.groups()
    request.minor = 1
    request.host, request.fields, request.keep_alive = section
    request.length = 0
    request.chunked = request.expects_continue = False
    request.head = head
    return request


def only_head(data: bytes, bounds: Bounds = USUAL) -> Request | None:
    """Return the request that `data` is, when that is one good head and nothing else; None in every other case.

    For the common one, without what http.reader needs to go on with parts, with several, or to say what is wrong.
    """
    found = bounds.pattern.match(data)
    if found is None or found.end() != len(data):
        return None
    try:
        request = interpret(found, bounds)
    except ProtocolError:
        return None
    return None if request.has_body else request


def parse_head(data: bytes, start: int = 0, bounds: Bounds = USUAL) -> Request:
    """Return the request whose head begins at `start` and is complete in `data`; what follows it is ignored."""
    found = bounds.pattern.match(data, start)
    if found is None:
        scanner = HeadScanner(start, bounds)
        if not scanner.advance(data):
            raise ProtocolError(400, "request head is incomplete")
        found = bounds.pattern.match(data, scanner.start)  # there were empty lines before it
        assert found is not None
    return interpret(found, bounds)


def interpret(found: re.Match[bytes], bounds: Bounds = USUAL) -> Request:
    """Return the request that a match of grammar.head() means."""
    method, target, path, query, minor_digit = found.groups()
    head = found[0]
    if len(target) > bounds.target_bytes or len(head) > bounds.head_bytes:
        HeadScanner(bounds=bounds).advance(head)  # raises 414 or 431, whichever is met first

    fields: dict[bytes, bytes] = {}
    for name, value in grammar.FIELDS.findall(head):
        key = name.lower()
        # RFC 9110 5.3: several lines are one list. What is no list (Host, Content-Length, Range, dates) becomes
        # invalid by this, and its own grammar refuses or ignores it.
        fields[key] = fields[key] + b", " + value.rstrip(b" \t") if key in fields else value.rstrip(b" \t")

    request = Request()
    request.method = method
    request.target = target
    request.query = query
    request.minor = minor = 0 if minor_digit == b"0" else 1  # RFC 9112 2.3: as the highest minor version we know
    request.head = head
    request.fields = fields

    host = fields.pop(b"host", None)
    if host is not None:
        request.host = host_name(host)
    elif minor:
        raise ProtocolError(400, "HTTP/1.1 request without Host")  # RFC 9112 3.2
    else:
        request.host = b""
    if path is not None:
        if method == b"CONNECT":
            raise ProtocolError(400, "CONNECT needs host and port")  # RFC 9112 3.2.3
        request.path = path
    else:
        _read_other_form(request)

    if fields:
        request.keep_alive = _persists(fields.pop(b"connection", b""), minor)
        _read_framing(request, fields)
    else:
        request.keep_alive = minor == 1
        request.length = 0
        request.chunked = request.expects_continue = False
    return request


@lru_cache(maxsize=256)
def host_name(value: bytes) -> bytes:
    """Return the name in a Host value or an authority, for comparison: lower case, no port, no final dot (T-47)."""
    found = grammar.HOST.fullmatch(value)
    if found is None or int(found[2] or 0) > PORT_MAX:
        raise ProtocolError(400, "invalid, repeated or empty Host")  # RFC 9112 3.2
    name = found[1].lower()
    if name.startswith(b"["):
        try:
            name = b"[%b]" % str(IPv6Address(name[1:-1].decode("ascii"))).encode()  # one form of many (RFC 5952)
        except ValueError:
            raise ProtocolError(400, "invalid IPv6 address in Host") from None
    return name.removesuffix(b".")


def _read_other_form(request: Request) -> None:
    """Read a target that is not in origin-form (RFC 9112 3.2.2 to 3.2.4)."""
    target = request.target
    if request.method == b"CONNECT":
        if grammar.AUTHORITY_FORM.fullmatch(target) is None:
            raise ProtocolError(400, "CONNECT needs host and port")
        host_name(target)  # raises if it is none; Host goes on saying who is asked
        request.path = target
    elif target == b"*":
        if request.method != b"OPTIONS":
            raise ProtocolError(400, "asterisk-form is for OPTIONS only")
        request.path = target
    else:
        found = grammar.ABSOLUTE_FORM.fullmatch(target)
        if found is None:
            raise ProtocolError(400, "request target has none of the four forms")
        authority, path, query = found.groups()
        # RFC 9112 3.2.2: the origin server MUST ignore Host and use the host of the target.
        request.host = host_name(authority)
        request.query = query
        # RFC 9112 3.2.4: OPTIONS with neither path nor query asks about the server as a whole.
        whole_server = request.method == b"OPTIONS" and path is None and query is None
        request.path = b"*" if whole_server else path or b"/"


def _persists(connection: bytes, minor: int) -> bool:
    """Tell whether the client would go on (RFC 9112 9.3). `close` wins over everything."""
    options = connection.lower()
    if options == b"keep-alive":
        return True
    names = [option.strip(b" \t") for option in options.split(b",")]
    return b"close" not in names and (minor == 1 or b"keep-alive" in names)


def _read_framing(request: Request, fields: dict[bytes, bytes]) -> None:
    """Find out how long the content is (RFC 9112 6.3), and whether the client waits before it sends it."""
    length = fields.pop(b"content-length", None)
    codings = fields.pop(b"transfer-encoding", None)
    expectation = fields.pop(b"expect", None)
    request.length = 0
    request.chunked = request.expects_continue = False
    if codings is not None:
        _check_codings(codings, minor=request.minor, with_length=length is not None)
        request.chunked = True
    elif length is not None:
        request.length = _content_length(length)
    if expectation is not None and request.minor == 1:  # RFC 9110 10.1.1: ignored from HTTP/1.0
        if any(member.strip(b" \t") != b"100-continue" for member in expectation.lower().split(b",")):
            raise ProtocolError(417, "only 100-continue can be expected")
        request.expects_continue = request.has_body  # without content there is nothing to wait for


def _content_length(value: bytes) -> int:
    """Return the length announced (RFC 9110 8.6), or refuse it."""
    if grammar.DIGITS.fullmatch(value) is None:
        raise ProtocolError(400, "invalid or repeated Content-Length")  # RFC 9112 6.3, item 5
    significant = value.lstrip(b"0")
    if len(significant) > LENGTH_MAX_DIGITS:
        raise ProtocolError(413, f"Content-Length has {len(significant)} digits")
    return int(significant or b"0")


def _check_codings(value: bytes, *, minor: int, with_length: bool) -> None:
    """Return when the codings are exactly `chunked`; all else ends the connection (RFC 9112 6.1, 6.3, T-39)."""
    if minor == 0:
        raise ProtocolError(400, "Transfer-Encoding in HTTP/1.0")  # RFC 9112 6.1: as if the framing were faulty
    if with_length:
        raise ProtocolError(400, "both Transfer-Encoding and Content-Length")  # RFC 9112 6.3, item 3
    value = value.lower()
    if value == b"chunked":
        return
    if grammar.CODINGS.fullmatch(value) is None:
        raise ProtocolError(400, "invalid Transfer-Encoding")
    codings = [coding.strip(b" \t") for coding in value.split(b",")]
    if b"chunked" in codings[:-1]:
        raise ProtocolError(400, "chunked is not the final transfer coding, or not alone")  # RFC 9112 6.3, item 4
    raise ProtocolError(501, "unknown transfer coding")  # RFC 9112 6.1
