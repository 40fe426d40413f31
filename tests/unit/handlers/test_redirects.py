import pytest

from pyserver.config import Redirect
from pyserver.handlers.redirects import Moved, Redirects

RULES = Redirects(
    (
        Redirect("/old", "/new"),
        Redirect("/b\u00fccher/*", "/b%C3%BCcher-neu/*", 308),
        Redirect("/old/kept/*", "/kept/*", 302),
        Redirect("/old/*", "/new/*"),
        Redirect("/gone/*", "/"),
        Redirect("/out/*", "https://example.org/*", 307),
        Redirect("/out2/*", "https://example.org/in/*"),
        Redirect("/asked", "/new?from=asked"),
        Redirect("/part", "/new#part"),
        Redirect("/app/*", "/app#/*"),
        Redirect("/root/*", "/*"),
    )
)


@pytest.mark.parametrize(
    ("path", "query", "status", "location"),
    [
        (b"/old", None, 301, b"/new"),
        (b"/old", b"a=b&c=%20", 301, b"/new?a=b&c=%20"),  # T-10: the query is kept
        (b"/old", b'a="<b>"&c=%22|5%', 301, b"/new?a=%22%3Cb%3E%22&c=%22%7C5%25"),  # RFC 9110 10.2.2
        (b"/old", b"", 301, b"/new?"),
        (b"/old/", None, 301, b"/new/"),
        (b"/old/a/b.html", None, 301, b"/new/a/b.html"),
        (b"/old/kept/a", None, 302, b"/kept/a"),  # the first that fits
        (b"/old/a b%?#\xff", None, 301, b"/new/a%20b%25%3F%23%FF"),  # T-10: encoded again
        (b"/old/a\r\nSet-Cookie: x", None, 301, b"/new/a%0D%0ASet-Cookie:%20x"),  # http.target refuses it before
        (b"/b\xc3\xbccher/x", None, 308, b"/b%C3%BCcher-neu/x"),
        (b"/gone/a/b", b"q", 301, b"/?q"),
        (b"/out/a", None, 307, b"https://example.org/a"),
        (b"/out/.evil.example/", None, 307, b"https://example.org/.evil.example/"),  # never the host goes on
        (b"/out/@evil.example/", None, 307, b"https://example.org/@evil.example/"),
        (b"/out2//evil.example/", None, 301, b"https://example.org/in/evil.example/"),
        (b"/root//evil.example/", None, 301, b"/evil.example/"),  # T-9
        (b"/root/\\evil.example", None, 301, b"/%5Cevil.example"),
        (b"/asked", b"a=b", 301, b"/new?from=asked"),  # the rule has its own
        (b"/part", b"a=b", 301, b"/new?a=b#part"),
        (b"/app/x", b"a=b", 301, b"/app?a=b#/x"),
    ],
)
def test_where_it_went(path: bytes, query: bytes | None, status: int, location: bytes) -> None:
    assert RULES.find(path, query) == Moved(status, location)


@pytest.mark.parametrize("path", [b"/", b"/older", b"/old-private/x", b"/new/old/x", b"/out", b"/Old", b"/part/x"])
def test_what_is_where_it_was(path: bytes) -> None:
    # T-2: whole segments
    assert RULES.find(path, b"a=b") is None


@pytest.mark.parametrize(("source", "to"), [("/a", "/b/*"), ("/a/*", "https://example.org*"), ("/a/*", "/b*")])
def test_a_star_that_could_name_a_host_is_refused(source: str, to: str) -> None:
    with pytest.raises(ValueError, match="must stand"):
        Redirects((Redirect(source, to),))
