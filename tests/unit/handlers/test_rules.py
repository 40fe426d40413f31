import time

import pytest

from pyserver.config import FieldRule, Site
from pyserver.handlers.rules import Rules, fingerprinted, pattern

NOSNIFF = b"X-Content-Type-Options: nosniff\r\n"


def rules(*fields: tuple[str, dict[str, str]], **settings: object) -> Rules:
    return Rules(Site("/srv", fields=tuple(FieldRule(match, changed) for match, changed in fields), **settings))  # type: ignore[arg-type]


# -- patterns ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "paths", "others"),
    [
        ("*.html", [b"/a.html", b"/d/e/a.html", b"/.html"], [b"/a.htm", b"/a.html/b", b"/a.HTML", b"/a.html~"]),
        ("index.html", [b"/index.html", b"/a/index.html"], [b"/xindex.html", b"/indexxhtml"]),
        ("**", [b"/a", b"/a/b/c", b"/"], []),
        ("/**", [b"/a", b"/a/b/c", b"/"], []),
        ("/*", [b"/a", b"/"], [b"/a/b"]),
        ("/assets/**", [b"/assets/a", b"/assets/a/b", b"/assets/"], [b"/assets", b"/assets-x/a", b"/x/assets/a"]),
        ("/assets/*.js", [b"/assets/a.js"], [b"/assets/b/a.js", b"/assets/a.jsx", b"/x/assets/a.js"]),
        ("/assets/**/*.js", [b"/assets/a.js", b"/assets/b/c/a.js"], [b"/assets/a.css", b"/assetsa.js"]),
        ("/**/x/*", [b"/x/a", b"/b/x/a", b"/b/c/x/a"], [b"/bx/a", b"/x"]),
        ("/a/**/**/b", [b"/a/b", b"/a/c/b"], [b"/ab"]),
        ("/a/**/b/**/c", [b"/a/b/c", b"/a/x/b/y/z/c"], [b"/a/c", b"/a/b"]),
        ("?.txt", [b"/a.txt", b"/\xc3\xa9.txt", b"/\xff.txt"], [b"/ab.txt", b"/.txt", b"/x//.txt"]),
        ("caf\u00e9.txt", [b"/caf\xc3\xa9.txt"], [b"/cafe.txt"]),
        ("a+(b).$", [b"/a+(b).$"], [b"/aab", b"/ab"]),  # nothing else has a meaning
        ("/a b", [b"/a b"], [b"/a%20b"]),  # T-1: decoded
    ],
)
def test_patterns(text: str, paths: list[bytes], others: list[bytes]) -> None:
    matches = pattern(text)
    assert [path for path in paths if matches.fullmatch(path) is None] == []
    assert [path for path in others if matches.fullmatch(path) is not None] == []


def test_a_long_name_is_no_attack() -> None:
    started = time.monotonic()
    for text in ("*.html", "/**/*a*b", "/a/**/b/**/c"):
        pattern(text).fullmatch(b"/a" + b"/b" * 4000)
        pattern(text).fullmatch(b"/" + b"a" * 8000)
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(
    ("name", "has"),
    [
        (b"/app.3f2a9c1b.js", True),
        (b"/app-3f2a9c1b.js", True),
        (b"/app_3F2A9C1B.min.js", True),
        (b"/3f2a9c1b4d5e6f708192a3b4c5d6e7f8", True),
        (b"/app.3f2a9c1.js", False),  # seven
        (b"/app.3f2a9c1g.js", False),
        (b"/app3f2a9c1b.js", False),  # no part of its own
        (b"/report-20240131.pdf", False),  # a date
        (b"/fabaceae.html", False),  # a word
        (b"/3f2a9c1b/app.js", False),  # a folder's name says nothing of the file
        (b"/app.js", False),
        (b"/app.3f2A9c1b.js", False),  # no tool writes both
    ],
)
def test_a_hash_in_a_name(name: bytes, has: bool) -> None:
    assert fingerprinted(name) == has
    expected = b"Cache-Control: public, max-age=31536000, immutable\r\n" * has
    assert rules(immutable=True).lines(name).unchanged == expected
    assert rules().lines(name).unchanged == b""


# -- which fields --------------------------------------------------------------------------------------


def test_without_rules_there_is_nosniff() -> None:
    # T-46; and a 304 updates nothing of it
    assert rules().lines(b"/a.html") == (NOSNIFF, b"")
    assert rules().errors == rules().built_in == b""


def test_later_rules_replace_earlier_ones_by_name() -> None:
    made = rules(
        ("/**", {"Cache-Control": "no-cache", "X-A": "1"}),
        ("*.css", {"cache-control": "max-age=60"}),
        ("*.js", {"X-A": "2"}),
        ("a.css", {"X-A": ""}),  # removed
    )
    assert made.lines(b"/a.html").whole == NOSNIFF + b"Cache-Control: no-cache\r\nX-A: 1\r\n"
    assert made.lines(b"/b.css").whole == NOSNIFF + b"cache-control: max-age=60\r\nX-A: 1\r\n"
    assert made.lines(b"/a.css").whole == NOSNIFF + b"cache-control: max-age=60\r\n"


def test_a_rule_replaces_what_a_switch_says() -> None:
    made = rules(
        ("*.html", {"X-Frame-Options": "", "Content-Security-Policy": "default-src https:"}),
        ("keep-3f2a9c1b.js", {"Cache-Control": "no-store"}),
        security="strict",
        immutable=True,
    )
    whole = bytes(made.lines(b"/a.html").whole)
    assert b"X-Frame-Options" not in whole
    assert (
        whole.count(b"Content-Security-Policy: default-src https:\r\n") == whole.count(b"Content-Security-Policy") == 1
    )
    assert b"Cache-Control: no-store\r\n" in bytes(made.lines(b"/keep-3f2a9c1b.js").whole)


def test_a_304_has_all_but_what_describes_the_content() -> None:
    # RFC 9110 15.4.5: Cache-Control, Content-Location, Expires and Vary must be there, and nothing about the content
    named = {
        "Cache-Control": "no-cache", "Content-Location": "/x", "Expires": "0", "Vary": "Cookie", "X-Robots-Tag": "none",
        "Content-Language": "en", "Content-Disposition": "attachment", "Link": "</a>; rel=next",
    }  # fmt: skip
    made = rules(("*", named), security="basic", cors=("*",))
    unchanged = {line.partition(b":")[0] for line in made.lines(b"/a").unchanged.splitlines()}
    assert unchanged == {
        b"Cache-Control", b"Content-Location", b"Expires", b"Vary", b"X-Robots-Tag", b"Referrer-Policy",
        b"X-Frame-Options", b"Cross-Origin-Opener-Policy", b"Access-Control-Allow-Origin",
        b"Access-Control-Expose-Headers",
    }  # fmt: skip
    whole = {line.partition(b":")[0] for line in made.lines(b"/a").whole.splitlines()}
    assert whole == unchanged | {b"X-Content-Type-Options", b"Content-Language", b"Content-Disposition", b"Link"}


@pytest.mark.parametrize(
    ("own", "cors", "vary", "expected"),
    [
        ("", (), (), b""),
        ("", ("*",), (), b""),  # the same for all
        ("", ("https://a.example",), (), b"Vary: Origin\r\n"),
        ("", ("https://a.example",), (b"Accept-Encoding",), b"Vary: Accept-Encoding, Origin\r\n"),
        ("Cookie", (), (b"Accept-Encoding",), b"Vary: Cookie, Accept-Encoding\r\n"),
        ("accept-encoding, Cookie", (), (b"Accept-Encoding",), b"Vary: accept-encoding, Cookie\r\n"),
        ("*", ("https://a.example",), (b"Accept-Encoding",), b"Vary: *\r\n"),
    ],
)
def test_vary_is_one_field(own: str, cors: tuple[str, ...], vary: tuple[bytes, ...], expected: bytes) -> None:
    for lines in rules(("*", {"Vary": own}), cors=cors).lines(b"/a", vary=vary):
        assert b"".join(line for line in lines.splitlines(keepends=True) if line.startswith(b"Vary")) == expected


def test_errors_have_what_is_not_about_files() -> None:
    # a rule for files says nothing of an error: an immutable 404 could not be mended
    made = rules(("**", {"Cache-Control": "max-age=9"}), security="strict", cors=("https://a.example",), immutable=True)
    assert b"Cache-Control" not in bytes(made.errors)
    assert b"Vary: Origin\r\n" in bytes(made.errors)  # T-21
    assert b"default-src 'self'" in bytes(made.errors)
    assert b"style-src 'sha256-" in bytes(made.built_in)
    assert made.built_in.count(b"Content-Security-Policy") == 1
    assert b"X-Frame-Options: DENY\r\n" in bytes(made.built_in)


def test_with_cors_others_may_load_what_they_may_read() -> None:
    assert b"Cross-Origin-Resource-Policy" in bytes(rules(security="strict").errors)
    assert b"Cross-Origin-Resource-Policy" not in bytes(rules(security="strict", cors=("*",)).errors)


@pytest.mark.parametrize("value", ["a\r\nb", "a\nb", "\0"])
def test_a_value_that_is_not_one_line_is_a_mistake(value: str) -> None:
    # T-42: the configuration has refused it
    with pytest.raises(ValueError, match="cannot be the value"):
        rules(("*", {"X-A": value})).lines(b"/a")
