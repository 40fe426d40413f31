"""No answer can be split (RFC 9112 11.1): whatever is asked, its head is the lines that we write, and no others.

A site in which names on the disk, redirects, fields and error pages could each bring bytes into a head, and requests
that try to. What h11 reads as a client is what was meant.
"""

import re
from collections.abc import Callable
from pathlib import Path

import h11
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pyserver.clock import Clock
from pyserver.config import FieldRule, Limits, Redirect, Site
from pyserver.handlers import router
from pyserver.handlers.router import Handler
from pyserver.handlers.static import Pending
from pyserver.http.errors import ProtocolError
from pyserver.http.request import parse_head
from pyserver.http.response import Response

OURS = {
    b"server", b"date", b"connection", b"content-type", b"content-length", b"content-range", b"content-encoding",
    b"accept-ranges", b"etag", b"last-modified", b"location", b"allow", b"vary", b"cache-control",
    b"x-content-type-options", b"x-mine", b"access-control-allow-origin", b"access-control-expose-headers",
    b"access-control-allow-methods", b"access-control-allow-headers", b"access-control-max-age", b"referrer-policy",
    b"content-security-policy",
}  # fmt: skip
LINE = re.compile(rb"[A-Za-z][A-Za-z-]*: [\t\x20-\x7e]*")
ORIGIN = "https://example.org"
EVIL = b"\r\nSet-Cookie: evil=1\r\n\r\n"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Handler:
    root = tmp_path_factory.mktemp("site")
    for folder in (b"plain", b"a\r\nSet-Cookie: x=1", b"b\nc", b'q"<>', b"\xff\xfe", b"%0d%0a", b"listed"):
        at = Path(bytes(root).decode()) / folder.decode(errors="surrogateescape")
        at.mkdir()
        if folder != b"listed":
            (at / "index.html").write_text("here")
    for name in (b"evil\r\nX: y.txt", b"page.html", b"evil\x7f.bin"):
        (root / name.decode(errors="surrogateescape")).write_text("content " * 100)
        (root / "listed" / name.decode(errors="surrogateescape")).write_text("content")
    (root / "404.html").write_text("nothing")
    settings_ = Site(
        str(root),
        listing=True,
        clean_urls=True,
        cors=(ORIGIN,),
        errors={404: "/404.html"},
        redirects=(Redirect("/old/*", "/new/*", 301), Redirect("/away/*", "https://example.org/x/*", 302)),
        fields=(FieldRule("/**", {"X-Mine": "yes", "Cache-Control": "no-cache"}),),
    )
    return router.build([settings_], Limits(), Clock())


# Raw bytes, and what is meant to become a line end once it is decoded.
PIECES = st.sampled_from(
    [
        *(
            b"%0d%0a",
            b"%0D%0A%20",
            b"%250d%250a",
            b"%e5%98%8a%e5%98%8d",
            b"Set-Cookie:%20evil=1",
            b"%00",
            b"%7f",
            b"%ff",
        ),
        *(b"/", b"//", b"..", b"%2e%2e", b"%5c", b"?", b"#", b"@evil.example", b"%e2%80%a8", b".html", b"old", b"away"),
        *(b"plain", b"a%0d%0aSet-Cookie:%20x=1", b"b%0ac", b"q%22%3C%3E", b"%ff%fe", b"listed", b"page"),
    ]
) | st.binary(max_size=4)
TARGETS = st.lists(PIECES, max_size=6).map(lambda pieces: b"/" + b"".join(pieces))
FIELDS = st.sampled_from(
    [
        *(b"Origin: " + ORIGIN.encode(), b"Origin: https://evil.example", b"Origin: https://example.org\x0b"),
        *(b"Range: bytes=0-1,3-4", b"Range: bytes=\xff-", b'If-None-Match: "\xff"', b"Accept: application/json"),
        *(b"Accept-Encoding: gzip, \xe5\x98\x8a", b"Access-Control-Request-Method: GET", b"Host: b\xe5\x98\x8a"),
    ]
)


def finished(pending: Pending) -> Response | Pending:
    """Let it do what may block."""
    todo: list[Callable[[], None]] = []
    pending.begin(lambda run, _then: todo.append(run), lambda: None)
    for run in todo:
        run()
    return pending.finish()


def answer(site: Handler, method: bytes, target: bytes, fields: list[bytes]) -> bytes | None:
    """Return the head and what is in memory of the content; None if it is no request."""
    lines = b"".join(b"%b\r\n" % field for field in fields)
    try:
        request = parse_head(b"%b %b HTTP/1.1\r\nHost: a\r\n%b\r\n" % (method, target, lines))
    except ProtocolError:
        return None
    found = site.respond(request, True)
    while isinstance(found, Pending):
        found = finished(found)
    return found.wire


@settings(max_examples=600, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from([b"GET", b"GET", b"HEAD", b"OPTIONS", b"POST"]),
    target=TARGETS,
    fields=st.lists(FIELDS, max_size=3),
)
@example(b"GET", b"/a%0d%0aSet-Cookie:%20x=1", [])
@example(b"GET", b"/b%0ac?x=\xff%0d%0a", [])
@example(b"GET", b"/%250d%250a", [])
@example(b"GET", b"/old/%0d%0aX:y", [])
@example(b"GET", b"/away/%250d%250a?a=%0d%0ab", [])
@example(b"GET", b"/plain?%0d%0aSet-Cookie:evil", [b"Origin: https://example.org"])
@example(b"OPTIONS", b"*", [b"Origin: https://example.org", b"Access-Control-Request-Method: GET"])
def test_a_head_is_of_our_lines_only(site: Handler, method: bytes, target: bytes, fields: list[bytes]) -> None:
    wire = answer(site, method, target, fields)
    if wire is None:
        return
    head, end, _content = wire.partition(b"\r\n\r\n")
    status_line, *lines = head.split(b"\r\n")
    assert end
    assert re.fullmatch(rb"HTTP/1\.1 [1-5][0-9][0-9] [A-Za-z ]*", status_line)
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    names = [line.partition(b":")[0].lower() for line in lines]
    assert set(names) <= OURS
    assert len(names) == len(set(names)), "a field twice"
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(wire)
    read = client.next_event()
    assert isinstance(read, h11.Response)
    assert [name for name, _ in read.headers] == names


@pytest.mark.parametrize(
    "path", [b"/a%0D%0ASet-Cookie%3A%20x%3D1", b"/b%0Ac", b"/q%22%3C%3E", b"/%FF%FE", b"/%250d%250a"]
)
def test_the_names_that_try_it_are_not_served_or_served_encoded(site: Handler, path: bytes) -> None:
    """The property above would hold for a site that serves none of them."""
    wire = answer(site, b"GET", path, [])
    assert wire is not None
    status = int(wire[9:12])
    if re.search(rb"%0[0-9a-fA-F]", path):
        assert status == 400, "control bytes are in no path of ours"
    else:
        assert status == 301
        assert EVIL not in wire
