"""No answer can be split (RFC 9112 11.1): whatever is asked, its head is the lines that we write, and no others.

A site in which names on the disk, redirects, fields and error pages could each bring bytes into a head, and requests
that try to. What h11 reads as a client is what was meant.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote_from_bytes

import h11
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pyserver.clock import Clock
from pyserver.config import FieldRule, Limits, Redirect, Site
from pyserver.config import Tracing as Options
from pyserver.handlers import router
from pyserver.handlers.router import Handler
from pyserver.handlers.static import Pending
from pyserver.http.dates import imf_fixdate
from pyserver.http.errors import ProtocolError
from pyserver.http.request import parse_head
from pyserver.http.response import Response
from pyserver.http.validators import entity_tag
from pyserver.worker.tracing import Tracing

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
    found = answered(site, method, target, fields)
    return None if found is None else found.wire


def answered(site: Handler, method: bytes, target: bytes, fields: list[bytes]) -> Response | None:
    lines = b"".join(b"%b\r\n" % field for field in fields)
    try:
        request = parse_head(b"%b %b HTTP/1.1\r\nHost: a\r\n%b\r\n" % (method, target, lines))
    except ProtocolError:
        return None
    found = site.respond(request, True)
    while isinstance(found, Pending):
        found = finished(found)
    return found


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


# -- the doors that no request opens ---------------------------------------------------------------------

SPOILERS = [
    *("\r\n", "\r", "\n", "\0", "\x0b", "\x85", "\u2028", "\x7f", "\t", " ", ":", ",", '"', "a", "é", "/", "?", "#"),
    "X: y",
]
ANY_TEXT = st.lists(st.sampled_from(SPOILERS) | st.text(max_size=3)).map("".join)
ANY_BYTES = st.lists(st.sampled_from([each.encode() for each in SPOILERS]) | st.binary(max_size=3)).map(b"".join)
ANY_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+: [\t\x20-\x7e\x80-\xff]*")


def asked(site: Handler, target: bytes = b"/", *fields: bytes) -> bytes:
    wire = answer(site, b"GET", target, list(fields))
    assert wire is not None
    return wire


def lines_of(wire: bytes) -> list[bytes]:
    """Return the field lines of a head that has nothing else in it."""
    head, end, _ = wire.partition(b"\r\n\r\n")
    assert end
    status_line, *lines = head.split(b"\r\n")
    assert re.fullmatch(rb"HTTP/1\.1 [1-5][0-9][0-9] [A-Za-z ]*", status_line)
    assert [line for line in lines if not ANY_LINE.fullmatch(line)] == []
    return lines


def built(settings_: Site, clock: Clock | None = None) -> Handler | None:
    """Return a site; None where its configuration cannot be served."""
    try:
        return router.build([settings_], Limits(), clock or Clock())
    except ValueError:
        return None


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("root")
    (folder / "index.html").write_text("here")
    return folder


@given(name=st.just("X-Mine") | ANY_TEXT, value=ANY_TEXT | ANY_TEXT.map('attachment; filename="{}"'.format))
@example("X-Mine", "a\r\nSet-Cookie: evil=1")
@example("X-Mine: a\r\nY", "b")
@example("X: y", "")
@example("Content-Disposition", 'attachment; filename="\r\n\r\n<script>"')
@example("Vary", "Cookie\r\nX: y")
def test_a_field_of_the_configuration_is_one_line_or_refused(root: Path, name: str, value: str) -> None:
    clock = Clock()  # of one second, so that dates and tags are the same
    plain = built(Site(str(root)), clock)
    site = built(Site(str(root), fields=(FieldRule("/**", {name: value}),)), clock)
    assert plain is not None
    if site is None:
        assert ":" in name or not ANY_LINE.fullmatch(f"{name}: {value}".encode())
        return
    added = set(lines_of(asked(site))) ^ set(lines_of(asked(plain)))
    assert all(line.lower().startswith(name.lower().encode() + b":") for line in added)
    assert len(added) <= 2  # it may replace one of ours


@given(to=ANY_TEXT | ANY_TEXT.map("/new/{}*".format))
@example("/new\r\nSet-Cookie: evil=1")
@example("https://example.org/\r\n\r\n*")
def test_where_a_redirect_leads_is_one_line_or_refused(root: Path, to: str) -> None:
    site = built(Site(str(root), redirects=(Redirect("/old/*", to, 301),)))
    if site is None:
        return
    try:
        wire = asked(site, b"/old/%250d%250a?%0d%0a")
    except ValueError:
        assert not ANY_LINE.fullmatch(b"Location: " + to.encode(errors="replace"))
        return
    assert sum(line.startswith(b"Location: ") for line in lines_of(wire)) == 1


@settings(max_examples=50)
@given(name=ANY_BYTES.map(lambda name: name.replace(b"/", b"_").replace(b"\0", b"")[:60]))
@example(b"a\r\nSet-Cookie: evil=1")
def test_a_name_on_the_disk_is_in_no_head(tmp_path_factory: pytest.TempPathFactory, name: bytes) -> None:
    if name in (b"", b".", b".."):
        return
    folder = tmp_path_factory.mktemp("names")
    (folder / os.fsdecode(name)).mkdir()  # asked for without its slash, it is in a Location
    site = built(Site(str(folder), listing=True))
    assert site is not None
    target = b"/" + quote_from_bytes(name).encode()
    for asking in ([b"/"], [target], [target + b"/"], [b"/", b"Accept: application/json"]):
        lines_of(asked(site, *asking))


@given(value=ANY_BYTES)
@example(b"a\r\nSet-Cookie: evil=1")
@example(b"a\n")
def test_what_a_proxy_calls_a_request_is_a_word_or_not_repeated(root: Path, value: bytes) -> None:
    tracing = Tracing(Options(request_id=True, server_timing=True))
    site = built(Site(str(root)))
    assert site is not None
    identity = tracing.identity(b"GET / HTTP/1.1\r\nX-Request-ID: " + value + b"\r\n\r\n")
    plain = answered(site, b"GET", b"/", [])
    assert plain is not None
    lines = lines_of(plain.with_lines(tracing.lines(identity, 0.0, 1)).wire)
    assert [line.partition(b":")[0] for line in lines[:2]] == [b"X-Request-ID", b"Server-Timing"]  # they come first
    assert lines[2:] == lines_of(plain.wire)


@given(
    coding=st.binary(max_size=6),
    numbers=st.tuples(st.integers(), st.integers(min_value=0), st.integers(min_value=0)),
    strong=st.booleans(),
)
@example(coding=b"gz\r\nX: y", numbers=(0, 0, 0), strong=True)
def test_a_tag_and_a_date_are_one_line_or_refused(coding: bytes, numbers: tuple[int, int, int], strong: bool) -> None:
    modified_ns, size, told = numbers
    try:
        tag = entity_tag(modified_ns, size, coding, told=told, strong=strong)
    except ValueError:
        assert re.search(rb"[^\t\x20-\x7e\x80-\xff]", coding)
    else:
        assert ANY_LINE.fullmatch(b"ETag: " + tag)
    assert ANY_LINE.fullmatch(b"Last-Modified: " + imf_fixdate(modified_ns))
