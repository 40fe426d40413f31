"""What [[site]] changes of the answers, from outside: each rule in the pipeline that serves."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.handlers.test_static import MODIFIED_NS, SECRET, Answer, Visitor, request, tag

from pyserver import limits
from pyserver.config import Alias, FieldRule, Redirect, Site
from pyserver.http.response import PAGE_POLICY, Response, error_page

FILES = {
    "index.html": b"home",
    "page.html": b"page",
    "app.3f2a9c1b.js": b"js",
    "errors/404.html": b"<title>custom 404</title>",
    "errors/405.html": b"<title>custom 405</title>",
    "errors/412.html": b"<title>custom 412</title>",
    "errors/416.html": b"<title>custom 416</title>",
    "about.html": b"about",
    "both": b"both, the file",
    "both.html": b"both, the page",
    "dir.html": b"the page beside the folder",
    "dir/index.html": b"dir",
    "bare.html": b"bare, the page",
    "bare/x.txt": b"in a folder without an index",
    "x.bak.html": b"no backup",
    "old/moved.html": b"still here",
    ".hidden/page.html": b"dotted",
    ".env": b"dotted too",
    "page.html.swp": SECRET,
    "assets/none.html": b"under the alias",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    www = tmp_path / "www"
    other = {"style.css": b"css", "index.html": b"static home", "sub/index.html": b"sub", "page.html": b"static page"}
    for base, files in ((www, FILES), (tmp_path / "static", other), (tmp_path / "www-private", {"secret": SECRET})):
        for name, content in files.items():
            (base / name).parent.mkdir(parents=True, exist_ok=True)
            (base / name).write_bytes(content)
            os.utime(base / name, ns=(MODIFIED_NS, MODIFIED_NS))
    return www


@pytest.fixture
def settings(folder: Path) -> Site:
    return Site(str(folder))


def visit(settings: Site, **changed: object) -> Visitor:
    return Visitor(Path(settings.root), settings=settings.replaced(**changed))


def every_look(visitor: Visitor) -> Iterator[Visitor]:
    """From the disk, prepared, and looked at again."""
    for _ in range(2):
        yield visitor
        yield visitor
        visitor.later()


# -- clean URLs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status", "expected"),
    [
        (b"/about", 200, b"about"),
        (b"/about.html", 301, b"/about"),
        (b"/about.html?a=b", 301, b"/about?a=b"),  # T-10
        (b"/both", 200, b"both, the file"),  # what has that very name comes first
        (b"/both.html", 200, b"both, the page"),
        (b"/dir", 301, b"/dir/"),
        (b"/dir/", 200, b"dir"),
        (b"/dir.html", 200, b"the page beside the folder"),
        (b"/bare", 404, None),  # a folder of that name, also without an index
        (b"/bare.html", 200, b"bare, the page"),
        (b"/index.html", 301, b"/"),
        (b"/dir/index.html", 301, b"/dir/"),
        (b"/dir/index", 200, b"dir"),
        (b"/index", 200, b"home"),
        (b"/about/", 404, None),  # T-11
        (b"/x.bak.html", 200, b"no backup"),  # its cleaner path is nobody's business
        (b"/x.bak", 404, None),  # T-12
        (b"/nothing", 404, None),
        (b"/nothing.html", 404, None),  # T-10: no redirect to a 404
        (b"/old/moved", 200, b"still here"),
    ],
)
def test_clean_urls(settings: Site, path: bytes, status: int, expected: bytes | None) -> None:
    for visitor in every_look(visit(settings, clean_urls=True)):
        answer = visitor.get(path)
        assert answer.status == status
        if status == 301:
            assert answer.fields[b"Location"] == expected
            assert visitor.get(answer.fields[b"Location"]).status == 200  # and no ring
        elif status == 200:
            assert answer.content == expected
            assert answer.fields[b"ETag"] == tag(len(answer.content))


def test_without_clean_urls_a_page_has_its_own_name(settings: Site) -> None:
    assert visit(settings).get(b"/about").status == 404
    assert visit(settings).get(b"/about.html").status == 200


# -- fallback ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (b"/app", 200),
        (b"/app/route/", 200),
        (b"/bare/", 200),
        (b"/app?q", 200),
        (b"/app/user.name", 404),  # with an extension it is a file that is missing
        (b"/nothing.js", 404),
        (b"/.git/config", 404),  # hidden is not there, and nothing stands in for it
        (b"/%00", 400),
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_the_fallback(settings: Site, path: bytes, status: int, method: bytes) -> None:
    for visitor in every_look(visit(settings, fallback="/index.html")):
        answer = visitor.get(path, method=method)
        assert answer.status == status
        if status == 200:
            assert answer.content == (b"home" if method == b"GET" else b"")
            assert answer.fields[b"ETag"] == tag(4)
            assert answer.fields[b"Content-Type"] == b"text/html; charset=utf-8"


def test_the_fallback_is_a_representation_with_validators_and_ranges(settings: Site) -> None:
    # RFC 9110 13.2.1: without the precondition it would be 200
    visitor = visit(settings, fallback="/index.html", fields=(FieldRule("*.html", {"Cache-Control": "no-cache"}),))
    assert visitor.get(b"/app", b"If-None-Match: " + tag(4)).status == 304
    assert visitor.get(b"/app", b"If-None-Match: " + tag(4)).fields[b"Cache-Control"] == b"no-cache"
    assert visitor.get(b"/app", b"Range: bytes=1-2").content == b"om"
    assert visitor.get(b"/app", method=b"POST").status == 405


def test_a_fallback_that_is_not_there_is_a_404(settings: Site) -> None:
    visitor = visit(settings, fallback="/nothing.html", errors={404: "/errors/404.html"})
    for _ in range(2):
        answer = visitor.get(b"/app")
        assert (answer.status, answer.content) == (404, FILES["errors/404.html"])  # the site's own


def test_a_page_that_stands_in_is_not_in_the_way_of_who_asks_for_it(settings: Site) -> None:
    """It is in the cache by another name: its own path has rules of its own."""
    visitor = visit(
        settings, fallback="/index.html", clean_urls=True, errors={404: "/.env"},
        redirects=(Redirect("/errors/404.html", "/"),),
    )  # fmt: skip
    for _ in range(2):
        assert visitor.get(b"/app").content == b"home"
        assert visitor.get(b"/index.html").fields[b"Location"] == b"/"
        answer = visitor.get(b"/nothing.txt")
        assert (answer.status, answer.content) == (404, b"dotted too")  # the administrator's own choice
        assert visitor.get(b"/.env").content == b"dotted too"
        assert visitor.get(b"/.env").status == 404


# -- error pages ---------------------------------------------------------------------------------------


ERRORS = {status: f"/errors/{status}.html" for status in (403, 404, 405, 412, 416)}


@pytest.mark.parametrize(
    ("path", "lines", "method", "status", "more"),
    [
        (b"/nothing", (), b"GET", 404, {}),
        (b"/nothing", (), b"HEAD", 404, {}),
        (b"/.git", (), b"GET", 404, {}),
        (b"/page.html", (), b"POST", 405, {b"Allow": b"GET, HEAD, OPTIONS"}),
        (b"/page.html", (b'If-Match: "x"',), b"GET", 412, {}),
        (b"/page.html", (b"Range: bytes=9-",), b"GET", 416, {b"Content-Range": b"bytes */4"}),
    ],
)
def test_an_error_told_by_a_page_of_the_site(
    settings: Site, path: bytes, lines: tuple[bytes, ...], method: bytes, status: int, more: dict[bytes, bytes]
) -> None:
    content = FILES[f"errors/{status}.html"]
    rule = FieldRule("*", {"Cache-Control": "max-age=60"})
    for visitor in every_look(visit(settings, errors=ERRORS, fields=(rule,))):
        answer = visitor.get(path, *lines, method=method)
        assert (answer.status, answer.content) == (status, b"" if method == b"HEAD" else content)
        fields = {name: value for name, value in answer.fields.items() if name not in (b"Date", b"Server")}
        assert fields == {
            b"Content-Type": b"text/html; charset=utf-8",
            b"X-Content-Type-Options": b"nosniff",
            b"Content-Length": b"%d" % len(content),
            **more,
        }


@pytest.mark.parametrize(
    "line", [b"If-None-Match: *", b'If-Match: "x"', b"Range: bytes=0-0", b"If-None-Match: " + tag(25)]
)
def test_nothing_is_asked_of_an_error_page(settings: Site, line: bytes) -> None:
    # T-23
    answer = visit(settings, errors=ERRORS).get(b"/nothing", line)
    assert (answer.status, answer.content) == (404, FILES["errors/404.html"])


@pytest.mark.parametrize("page", ["/errors/nothing.html", "/errors", "/page.html/x", "/errors/404"])
@pytest.mark.parametrize("more", [{}, {"clean_urls": True, "fallback": "/index.html"}])
def test_an_error_page_that_is_not_there_leaves_the_built_in_one(
    settings: Site, page: str, more: dict[str, object]
) -> None:
    for visitor in every_look(visit(settings, errors={404: page, 403: page, 405: page}, **more)):
        answer = visitor.get(b"/nothing.txt")
        assert (answer.status, answer.content) == (404, error_page(404))
        assert visitor.get(b"/page.html", method=b"PUT").content == error_page(405)


def test_an_error_page_that_changes_is_read_again(settings: Site, folder: Path) -> None:
    visitor = visit(settings, errors=ERRORS)
    assert visitor.get(b"/nothing").content == FILES["errors/404.html"]
    (folder / "errors/404.html").write_bytes(b"new")
    assert visitor.later().get(b"/nothing").content == b"new"
    (folder / "errors/404.html").unlink()
    assert visitor.later().get(b"/nothing").content == error_page(404)


def test_a_large_error_page_is_sent_from_its_descriptor(settings: Site, folder: Path) -> None:
    content = bytes(limits.FILE_IN_MEMORY_MAX_BYTES + 1)
    (folder / "errors/404.html").write_bytes(content)
    answer = visit(settings, errors=ERRORS).get(b"/nothing")
    assert (answer.status, answer.content) == (404, content)


def test_every_step_may_have_to_wait_for_the_disk(settings: Site) -> None:
    visitor = visit(settings, errors=ERRORS, fallback="/errors/missing.html")
    visitor.root._cached = False
    assert visitor.get(b"/app").content == FILES["errors/404.html"]
    assert visitor.waited == 3
    assert visitor.get(b"/nothing.txt").content == FILES["errors/404.html"]
    assert visitor.waited == 4
    assert visitor.get(b"/page.html", method=b"POST", keep=False).content == FILES["errors/405.html"]


# -- redirects ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "location"),
    [
        (b"/old/moved.html?a=b", b"/new/moved.html?a=b"),  # also where a file is
        (b"/old/../old/x%20y", b"/new/x%20y"),  # T-1: cleaned before it is compared
        (b"/%6fld/x", b"/new/x"),
        (b"//old//%2fevil.example", b"/new/evil.example"),  # T-9
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"POST", b"PUT"])
def test_what_moved(settings: Site, path: bytes, location: bytes, method: bytes) -> None:
    visitor = visit(settings, redirects=(Redirect("/old/*", "/new/*", 308),), security="basic")
    answer = visitor.get(path, method=method)
    assert (answer.status, answer.fields[b"Location"]) == (308, location)
    assert answer.fields[b"X-Frame-Options"] == b"SAMEORIGIN"
    assert (answer.content == b"") == (method == b"HEAD")
    assert visitor.get(b"/old/%00").status == 400
    assert visitor.get(b"/old/x", method=b"OPTIONS").status == 204
    assert visitor.get(b"/old/x", method=b"TRACE").status == 405


# -- aliases ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status", "expected"),
    [
        (b"/static/style.css", 200, b"css"),
        (b"/static/", 200, b"static home"),
        (b"/static", 301, b"/static/"),
        (b"/static?q", 301, b"/static/?q"),
        (b"/static/sub", 301, b"/static/sub/"),
        (b"/static/sub/", 200, b"sub"),
        (b"/static/page", 200, b"static page"),
        (b"/static/page.html", 301, b"/static/page"),
        (b"/%73tatic/style.css", 200, b"css"),
        (b"/x/../static/style.css", 200, b"css"),
        (b"/static/../page", 200, b"page"),
        (b"/static-private/secret", 404, None),  # T-2
        (b"/static../www-private/secret", 404, None),  # nginx: alias off by a slash
        (b"/static/../www-private/secret", 404, None),
        (b"/static/..%2f..%2fwww-private/secret", 400, None),
        (b"/assets/none.html", 404, None),  # what the alias hides
        (b"/assets/style.css", 200, b"css"),
        (b"/style.css", 404, None),
        (b"/static/nothing", 404, None),
    ],
)
def test_aliases(settings: Site, folder: Path, path: bytes, status: int, expected: bytes | None) -> None:
    static = str(folder.parent / "static")
    aliases = (Alias("/static/", static), Alias("/assets/", static))
    for visitor in every_look(visit(settings, aliases=aliases, clean_urls=True)):
        answer = visitor.get(path)
        assert answer.status == status
        assert (answer.fields[b"Location"] if status == 301 else answer.content if status == 200 else None) == expected
        assert SECRET not in answer.content


def test_rules_and_error_pages_know_a_file_by_its_path_in_the_site(settings: Site, folder: Path) -> None:
    aliases = (Alias("/static/", str(folder.parent / "static")),)
    rule = FieldRule("/static/**", {"Cache-Control": "max-age=9"})
    visitor = visit(settings, aliases=aliases, fields=(rule,), errors={404: "/static/page.html"})
    assert visitor.get(b"/static/style.css").fields[b"Cache-Control"] == b"max-age=9"
    assert b"Cache-Control" not in visitor.get(b"/page.html").fields
    assert visitor.get(b"/nothing").content == b"static page"


# -- dot files, index -------------------------------------------------------------------------------------


def test_dot_files_by_option(settings: Site) -> None:
    for path, content in ((b"/.hidden/page.html", b"dotted"), (b"/.env", b"dotted too")):
        assert visit(settings).get(path).status == 404
        assert visit(settings, dot_files="allow").get(path).content == content
    assert visit(settings, dot_files="allow").get(b"/page.html.swp").status == 404  # T-12: a backup stays one


def test_an_index_that_nobody_may_ask_for_is_none(settings: Site, folder: Path) -> None:
    # T-4
    (folder / "bare" / ".index.html").write_bytes(SECRET)
    (folder / "bare" / "index.old").write_bytes(SECRET)
    index = (".index.html", "index.old")
    assert visit(settings, index=index).get(b"/bare/").status == 404
    assert visit(settings, index=index).get(b"/bare").status == 404
    assert visit(settings, index=index, dot_files="allow").get(b"/bare/").status == 200


# -- fields ------------------------------------------------------------------------------------------------


def test_the_fields_of_every_kind_of_answer(settings: Site) -> None:
    # RFC 9110 15.3.7, 15.4.5; T-21
    rule = FieldRule("*.html", {"Cache-Control": "max-age=60", "Content-Language": "en"})
    visitor = visit(settings, fields=(rule,), security="basic", cors=("*",))
    everywhere = {
        b"Referrer-Policy", b"X-Frame-Options", b"Cross-Origin-Opener-Policy", b"Access-Control-Allow-Origin",
        b"Access-Control-Expose-Headers", b"Server", b"Date",
    }  # fmt: skip
    of_a_page = everywhere | {
        b"Content-Type", b"X-Content-Type-Options", b"Accept-Ranges", b"Last-Modified", b"ETag", b"Cache-Control",
        b"Content-Language", b"Content-Length",
    }  # fmt: skip
    of_an_error = everywhere | {b"Content-Type", b"Content-Length", b"X-Content-Type-Options"}
    for _ in range(2):
        assert visitor.get(b"/page.html").fields.keys() == of_a_page
        assert visitor.get(b"/").fields.keys() == of_a_page  # by the name of the file that was opened
        assert visitor.get(b"/page.html", b"Range: bytes=0-1").fields.keys() == of_a_page | {b"Content-Range"}
        assert visitor.get(b"/page.html", b"Range: bytes=0-0,3-3", method=b"HEAD").fields.keys() == of_a_page
        unchanged = visitor.get(b"/page.html", b"If-None-Match: *").fields.keys()
        assert unchanged == everywhere | {b"Last-Modified", b"ETag", b"Cache-Control"}
        assert visitor.get(b"/nothing").fields.keys() == of_an_error
        assert visitor.get(b"/dir").fields.keys() == of_an_error | {b"Location"}
        assert visitor.get(b"/page.html", method=b"PUT").fields.keys() == of_an_error | {b"Allow"}
        assert visitor.get(b"/page.html", method=b"OPTIONS").fields.keys() == everywhere | {b"Allow"}


def test_several_ranges_have_the_fields_too(settings: Site, folder: Path) -> None:
    (folder / "large.html").write_bytes(bytes(5000))
    visitor = visit(settings, fields=(FieldRule("*", {"Cache-Control": "no-cache"}),))
    answer = visitor.get(b"/large.html", b"Range: bytes=0-0,3000-3000")
    assert answer.fields[b"Content-Type"].startswith(b"multipart/byteranges")
    assert answer.fields[b"Cache-Control"] == b"no-cache"


def test_immutable(settings: Site) -> None:
    visitor = visit(settings, immutable=True)
    assert visitor.get(b"/app.3f2a9c1b.js").fields[b"Cache-Control"] == b"public, max-age=31536000, immutable"
    assert b"Cache-Control" not in visitor.get(b"/page.html").fields
    assert b"Cache-Control" not in visitor.get(b"/gone.3f2a9c1b.js").fields  # a 404 can be mended


def test_the_built_in_pages_keep_their_style_under_the_strict_policy(settings: Site) -> None:
    visitor = visit(settings, security="strict", errors={405: "/errors/405.html"})
    assert visitor.get(b"/nothing").fields[b"Content-Security-Policy"] == PAGE_POLICY
    site_policy = visitor.get(b"/page.html").fields[b"Content-Security-Policy"]
    assert site_policy.startswith(b"default-src 'self'")
    assert visitor.get(b"/page.html", method=b"PUT").fields[b"Content-Security-Policy"] == site_policy


# -- CORS ----------------------------------------------------------------------------------------------------


LISTED = ("https://a.example", "https://b.example")


def test_answers_to_a_list_of_origins(settings: Site) -> None:
    """Each origin is named to itself, and every answer says that it varies; also the prepared one stays right."""
    made = visit(settings, cors=LISTED, errors={412: "/errors/412.html"})
    kinds: list[tuple[bytes, tuple[bytes, ...], bytes]] = [
        (b"/page.html", (), b"GET"),
        (b"/page.html", (), b"HEAD"),
        (b"/page.html", (b"If-None-Match: *",), b"GET"),
        (b"/page.html", (b"Range: bytes=0-1",), b"GET"),
        (b"/page.html", (b"Range: bytes=9-",), b"GET"),
        (b"/page.html", (b'If-Match: "x"',), b"GET"),
        (b"/nothing", (), b"GET"),
        (b"/dir", (), b"GET"),
        (b"/%00", (), b"GET"),
        (b"/page.html", (), b"PUT"),
    ]
    for visitor in every_look(made):
        for path, lines, method in kinds:
            for origin, allowed in (
                (None, None), (b"https://a.example", b"https://a.example"), (b"https://evil.example", None),
                (b"https://b.example", b"https://b.example"), (b"null", None),
            ):  # fmt: skip
                asked = lines if origin is None else (*lines, b"Origin: " + origin)
                answer = visitor.get(path, *asked, method=method)
                assert answer.fields.get(b"Access-Control-Allow-Origin") == allowed
                assert answer.fields[b"Vary"] == b"Origin"
                assert b"Access-Control-Allow-Credentials" not in answer.fields


def test_the_same_origin_twice_is_no_origin(settings: Site) -> None:
    answer = visit(settings, cors=LISTED).get(b"/page.html", b"Origin: https://a.example", b"Origin: https://a.example")
    assert b"Access-Control-Allow-Origin" not in answer.fields


@pytest.mark.parametrize(
    ("cors", "origin", "allowed"),
    [
        (("*",), b"https://any.example", b"*"),
        (LISTED, b"https://a.example", b"https://a.example"),
        (LISTED, b"https://evil.example", None),
        ((), b"https://a.example", None),
    ],
)
def test_a_preflight(settings: Site, cors: tuple[str, ...], origin: bytes, allowed: bytes | None) -> None:
    lines = (b"Origin: " + origin, b"Access-Control-Request-Method: GET", b"Access-Control-Request-Headers: range, x-y")
    answer = visit(settings, cors=cors).get(b"/page.html", *lines, method=b"OPTIONS")
    assert (answer.status, answer.content, answer.fields[b"Allow"]) == (204, b"", b"GET, HEAD, OPTIONS")
    assert answer.fields.get(b"Access-Control-Allow-Origin") == allowed
    expected = (b"GET, HEAD", b"*", b"86400") if allowed else (None, None, None)
    names = (b"Access-Control-Allow-Methods", b"Access-Control-Allow-Headers", b"Access-Control-Max-Age")
    assert tuple(answer.fields.get(name) for name in names) == expected
    assert answer.fields.get(b"Vary") == (b"Origin" if cors == LISTED else None)


def test_without_a_list_an_origin_changes_nothing(settings: Site) -> None:
    for cors in ((), ("*",)):
        visitor = visit(settings, cors=cors)
        first = visitor.ask(request(b"/page.html"))
        assert visitor.ask(request(b"/page.html", b"Origin: https://a.example")) is first


# -- all at once ----------------------------------------------------------------------------------------------


def test_no_request_recurses_or_fails_with_everything_on(settings: Site, folder: Path) -> None:
    made = visit(
        settings,
        clean_urls=True, fallback="/index.html", errors=dict.fromkeys(range(400, 600), "/errors/404.html"),
        security="strict", cors=LISTED, immutable=True, aliases=(Alias("/static/", str(folder.parent / "static")),),
        redirects=(Redirect("/old/*", "/new/*"),), fields=(FieldRule("**", {"Cache-Control": "no-cache"}),),
        dot_files="allow",
    )  # fmt: skip
    paths = [b"/" + name.encode() for name in FILES] + [b"/", b"/x", b"/x.y", b"/static", b"/static/x", b"/old/", b"/%"]
    for visitor in every_look(made):
        for path in paths:
            for method in (b"GET", b"HEAD", b"POST", b"OPTIONS", b"BREW"):
                response = visitor.ask(request(path, b"Origin: https://a.example", method=method))
                assert isinstance(response, Response)
                answer = Answer(response)
                assert re.fullmatch(b"/(?!/).*", answer.fields.get(b"Location", b"/"))
                assert answer.fields[b"Access-Control-Allow-Origin"] == b"https://a.example"
