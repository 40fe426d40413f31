# ruff: noqa: E501  a row is one line
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyserver.config.errors import Refused
from pyserver.config.kinds import Kind
from pyserver.config.sitekinds import (
    FIELDS,
    FLAG,
    FOLDER_PATH,
    HOSTS,
    MOVED_FROM,
    MOVED_STATUS,
    MOVED_TO,
    ORIGINS,
    PAGE,
    PAGES,
    PATTERN,
    words,
)

LONG = "a" * 63

TAKEN = [
    (FLAG, True, True),
    (words("on", "off"), "off", "off"),
    (HOSTS, [], ()),
    (HOSTS, ["Example.ORG", "*.Example.org."], ("example.org", "*.example.org")),  # T-47
    (HOSTS, ["localhost", "a_b.internal", "192.0.2.1"], ("localhost", "a_b.internal", "192.0.2.1")),
    (HOSTS, ["[2001:DB8:0:0::1]"], ("[2001:db8::1]",)),
    (HOSTS, ["xn--bcher-kva.example"], ("xn--bcher-kva.example",)),
    (HOSTS, [f"{LONG}.org"], (f"{LONG}.org",)),
    (ORIGINS, [], ()),
    (ORIGINS, "*", ("*",)),
    (ORIGINS, ["*"], ("*",)),
    (ORIGINS, ["https://a.org", "http://[::1]:8080"], ("https://a.org", "http://[::1]:8080")),
    (FOLDER_PATH, "/static/", "/static/"),
    (FOLDER_PATH, "/.well-known/acme-challenge/", "/.well-known/acme-challenge/"),
    (FOLDER_PATH, "/a b/é/100%/", "/a b/é/100%/"),
    (PAGE, "", ""),
    (PAGE, "/index.html", "/index.html"),
    (PAGES, {}, {}),
    (PAGES, {"404": "/404.html", "503": "/e/5.html"}, {404: "/404.html", 503: "/e/5.html"}),
    (MOVED_FROM, "/", "/"),
    (MOVED_FROM, "/*", "/*"),
    (MOVED_FROM, "/old/", "/old/"),
    (MOVED_FROM, "/old page/*", "/old page/*"),
    (MOVED_TO, "/new/*", "/new/*"),
    (MOVED_TO, "/new%20page?a=b&c#d", "/new%20page?a=b&c#d"),
    (MOVED_TO, "https://example.org", "https://example.org"),
    (MOVED_TO, "http://[::1]:8080/*", "http://[::1]:8080/*"),
    (MOVED_STATUS, 308, 308),
    (PATTERN, "*", "*"),
    (PATTERN, "*.min.js", "*.min.js"),
    (PATTERN, "file-?.txt", "file-?.txt"),
    (PATTERN, "/**", "/**"),
    (PATTERN, "/assets/**/*.css", "/assets/**/*.css"),
    (FIELDS, {"Cache-Control": "no-cache"}, {"Cache-Control": "no-cache"}),
    (FIELDS, {"X-Empty": "", "Link": '</a.css>; rel="preload"'}, {"X-Empty": "", "Link": '</a.css>; rel="preload"'}),
    (FIELDS, {"Vary": "Origin"}, {"Vary": "Origin"}),
]  # fmt: skip


def named(value: object) -> str:
    """Return an identifier that is the same in each process; a Kind's representation has addresses in it."""
    return value.written if isinstance(value, Kind) else repr(value)


@pytest.mark.parametrize(("kind", "written", "taken"), TAKEN, ids=named)
def test_what_is_taken(kind: Kind, written: object, taken: object) -> None:
    assert kind.read(written, "/etc") == taken


# What is written; what is said of it; what to write instead, None for what the kind takes in general.
REFUSED = [
    (FLAG, 1, "is a whole number", None),
    (words("on", "off"), "of", "is not known", 'write "off"'),
    (words("on", "off"), "xyzzy", "is not known", None),
    # hosts: RFC 1123 2.1, RFC 3986 3.2.2
    (HOSTS, "a.org", "is a string", 'write ["a.org"]'),
    (HOSTS, 1, "is a whole number", None),
    (HOSTS, [1], "has 1, which is not a host", None),
    (HOSTS, [""], 'has ""', "leave hosts out: the site without them answers for all other hosts"),
    (HOSTS, ["*"], 'has "*"', "leave hosts out: the site without them answers for all other hosts"),
    (HOSTS, ["http://A.org/x"], 'has "http://A.org/x", which is not a host', 'write "a.org"'),
    (HOSTS, ["a.org:8080"], 'has "a.org:8080", which is not a host', 'write "a.org"'),
    (HOSTS, ["a.org/"], 'has "a.org/", which is not a host', 'write "a.org"'),
    (HOSTS, ["::1"], 'has "::1", which is not a host', 'write "[::1]"'),
    (HOSTS, ["[::1]:80"], 'has "[::1]:80", which is not a host', 'write "[::1]"'),
    (HOSTS, ["[::1%eth0]"], 'has "[::1%eth0]", which is not a host', None),
    (HOSTS, ["[::1"], 'has "[::1", which is not a host', None),
    (HOSTS, ["*.[::1]"], 'has "*.[::1]", which is not a host', None),
    (HOSTS, ["bücher.example"], 'has "bücher.example", which is not a host', 'write "xn--bcher-kva.example"'),
    (HOSTS, ["www.*"], 'has "www.*", which is not a host', 'write "*" only in front, as in "*.example.org"'),
    (HOSTS, ["*.*.org"], 'has "*.*.org", which is not a host', 'write "*" only in front, as in "*.example.org"'),
    (HOSTS, ["a..org"], 'has "a..org", which is not a host', None),
    (HOSTS, ["-a.org"], 'has "-a.org", which is not a host', None),
    (HOSTS, ["a b"], 'has "a b", which is not a host', None),
    (HOSTS, ["a.org\n"], 'has "a.org\\n", which is not a host', None),
    (HOSTS, [f"a{LONG}.org"], f'has "a{LONG}.org", which is not a host', None),
    (HOSTS, [".".join([LONG] * 4)], f'has "{".".join([LONG] * 4)[:159]}..., which is not a host', None),
    # origins: RFC 6454 6.2
    (ORIGINS, "https://a.org", "is a string", 'write ["https://a.org"]'),
    (ORIGINS, ["*", "https://a.org"], 'has "*" and others', 'write "*" alone, or leave it out'),
    (ORIGINS, [1], "has 1, which is not an origin", None),
    (ORIGINS, ["a.org"], 'has "a.org", which is not an origin', None),
    (ORIGINS, ["null"], 'has "null", which is not an origin', None),
    (ORIGINS, ["ftp://a.org"], 'has "ftp://a.org", which is not an origin', None),
    (ORIGINS, ["https://*.a.org"], 'has "https://*.a.org", which is not an origin', None),
    (ORIGINS, ["https://a.org/"], 'has "https://a.org/", which no browser sends as an origin', 'write "https://a.org"'),
    (ORIGINS, ["https://a.org:443"], 'has "https://a.org:443", which no browser sends as an origin', 'write "https://a.org"'),
    (ORIGINS, ["HTTPS://A.org:8443/x"], 'has "HTTPS://A.org:8443/x", which no browser sends as an origin', 'write "https://a.org:8443"'),
    # paths of aliases
    (FOLDER_PATH, 1, "is a whole number", None),
    (FOLDER_PATH, "", 'does not begin with "/"', None),
    (FOLDER_PATH, "static/", 'does not begin with "/"', 'write "/static/"'),
    (FOLDER_PATH, "/static", 'does not end with "/"', 'write "/static/"'),
    (FOLDER_PATH, "/static/*", 'needs no "*"', 'write "/static/"'),
    (FOLDER_PATH, "/", "is the whole site", "write root in [[site]]"),
    (FOLDER_PATH, "/a//b/", "has empty or dot segments", 'write "/a/b/"'),
    (FOLDER_PATH, "//a/", "has empty or dot segments", 'write "/a/"'),
    (FOLDER_PATH, "/a/../b/", "has empty or dot segments", 'write "/b/"'),
    (FOLDER_PATH, "/a/b/..", "has empty or dot segments", 'write "/a/"'),
    (FOLDER_PATH, "/a%20b/", "is percent-encoded", 'write "/a b/"'),
    (FOLDER_PATH, "/a/?b", "is more than a path", 'write "/a/"'),
    (FOLDER_PATH, "/a\\b/", "has a control byte or a backslash, which no request may have", "write it without"),
    (FOLDER_PATH, "/a\0/", "has a control byte or a backslash, which no request may have", "write it without"),
    # pages
    (PAGE, 1, "is a whole number", None),
    (PAGE, "404.html", 'does not begin with "/"', 'write "/404.html"'),
    (PAGE, "/app/", "is a folder", 'write "/app/index.html"'),
    (PAGE, "/a.html#b", "is more than a path", 'write "/a.html"'),
    (PAGES, "/404.html", "is a string", None),
    (PAGES, {"200": "/a"}, 'has "200", which is not the status of an error', None),
    (PAGES, {"4xx": "/a"}, 'has "4xx", which is not the status of an error', None),
    (PAGES, {"٤04": "/a"}, 'has "٤04", which is not the status of an error', None),
    (PAGES, {"404": 1}, "has for 404 1, which is a whole number", None),
    (PAGES, {"404": ""}, 'has for 404 "", which does not begin with "/"', None),
    (PAGES, {"404": "/e/"}, 'has for 404 "/e/", which is a folder', 'write "/e/index.html"'),
    # redirects
    (MOVED_FROM, "old", 'does not begin with "/"', 'write "/old"'),
    (MOVED_FROM, "/a*", 'has "*" within a name', 'write "/a/*"'),
    (MOVED_FROM, "/*/a", 'has "*" before its end', 'write "*" as the last thing, as in "/old/*"'),
    (MOVED_FROM, "/a/**", 'has "*" before its end', 'write "*" as the last thing, as in "/old/*"'),
    (MOVED_FROM, "/a?b=c", "is more than a path", 'write "/a"'),
    (MOVED_TO, "", "is neither a path nor an http or https URL", None),
    (MOVED_TO, "new", "is neither a path nor an http or https URL", None),
    (MOVED_TO, "//a.org/", "leaves the scheme open", 'write "https://a.org/"'),
    (MOVED_TO, "javascript:alert(1)", "is neither a path nor an http or https URL", None),
    (MOVED_TO, "https://", "is neither a path nor an http or https URL", None),
    (MOVED_TO, "https://u:p@a.org/", "is neither a path nor an http or https URL", None),
    (MOVED_TO, "https://a.org*", 'has "*" within a name', 'write "https://a.org/*"'),
    (MOVED_TO, "/a b/é/*", "is not percent-encoded", 'write "/a%20b/%C3%A9/*"'),
    (MOVED_TO, "/100%", "is not percent-encoded", 'write "/100%25"'),
    (MOVED_TO, "/a\r\nX: y", "is not percent-encoded", 'write "/a%0D%0AX:%20y"'),
    (MOVED_STATUS, 303, "is not the status of a redirect", None),
    (MOVED_STATUS, "301", "is a string", None),
    # patterns
    (PATTERN, 1, "is a whole number", None),
    (PATTERN, "", "is empty", None),
    (PATTERN, "[a-z].html", 'has "[", which means nothing here', 'write "*", "**" and "?" only'),
    (PATTERN, "*.{js,css}", 'has "{", which means nothing here', 'write "*", "**" and "?" only'),
    (PATTERN, "/a**", 'has "**" within a name', 'write "*" for a part of a name, "/**" for all below a folder'),
    (PATTERN, "/***", 'has "**" within a name', 'write "*" for a part of a name, "/**" for all below a folder'),
    (PATTERN, "assets/*.js", 'has a slash and does not begin with "/"', 'write "/assets/*.js"'),
    (PATTERN, "/a//*.js", "has empty or dot segments", 'write "/a/*.js"'),
    (PATTERN, "a\n", "has a control byte, which no request may have", "write it without"),
    # fields: RFC 9110 5.1, 5.5; T-42
    (FIELDS, "Cache-Control: no-cache", "is a string", None),
    (FIELDS, {}, "is empty", None),
    (FIELDS, {"Cache Control": "x"}, 'has "Cache Control", which is not the name of a field', 'write letters, digits and "-", as in "Cache-Control"'),
    (FIELDS, {"": "x"}, 'has "", which is not the name of a field', 'write letters, digits and "-", as in "Cache-Control"'),
    (FIELDS, {"X:": "x"}, 'has "X:", which is not the name of a field', 'write letters, digits and "-", as in "Cache-Control"'),
    (FIELDS, {"X\n": "x"}, 'has "X\\n", which is not the name of a field', 'write letters, digits and "-", as in "Cache-Control"'),
    (FIELDS, {"É": "x"}, 'has "É", which is not the name of a field', 'write letters, digits and "-", as in "Cache-Control"'),
    (FIELDS, {"X-A": "1", "x-a": "2"}, 'has "x-a" twice', "write it once"),
    (FIELDS, {"X-A": 1}, 'has "X-A", which is a whole number', "write a string"),
    (FIELDS, {"X-A": "a\r\nSet-Cookie: b"}, 'has for "X-A" "a\\r\\nSet-Cookie: b", which is not one line of ASCII', "write visible characters and spaces"),
    (FIELDS, {"X-A": "a\0"}, 'has for "X-A" "a\\u0000", which is not one line of ASCII', "write visible characters and spaces"),
    (FIELDS, {"X-A": "é"}, 'has for "X-A" "é", which is not one line of ASCII', "write visible characters and spaces"),
    (FIELDS, {"X-A": "a\n"}, 'has for "X-A" "a\\n", which is not one line of ASCII', "write visible characters and spaces"),
    (FIELDS, {"X-A": " a "}, 'has for "X-A" " a ", which begins or ends with space', 'write "a"'),
    *((FIELDS, {name: "1"}, f'has "{name}", which {why}', "leave it to the server") for name, why in [
        ("Content-Length", "frames the message"),
        ("transfer-encoding", "frames the message"),
        ("CONNECTION", "frames the message"),
        ("Date", "tells of this very answer"),
        ("Location", "tells of this very answer"),
        ("ETag", "tells of the file that is sent"),
        ("Content-Encoding", "tells of the file that is sent"),
        ("Content-Type", "follows from the name of the file"),
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "written", "what", "instead"), REFUSED, ids=named)
def test_what_is_refused(kind: Kind, written: object, what: str, instead: str | None) -> None:
    with pytest.raises(Refused) as caught:
        kind.read(written, "/etc")
    assert (caught.value.what, caught.value.instead) == (what, instead)


KINDS = [HOSTS, ORIGINS, FOLDER_PATH, PAGE, MOVED_FROM, MOVED_TO, PATTERN, words("a", "b")]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.written)
@given(text=st.text(st.sampled_from('/.*?#%\\:[]{}@aB0é\0\n -"')) | st.text())
def test_any_text_is_taken_or_refused_and_what_is_taken_stays_as_it_is(kind: Kind, text: str) -> None:
    listed = kind in (HOSTS, ORIGINS)
    try:
        taken = kind.read([text] if listed else text, "")
    except Refused:
        return
    assert kind.read(list(taken) if isinstance(taken, tuple) else taken, "") == taken


@given(name=st.text(), value=st.text())
def test_any_field_that_is_taken_is_one_line(name: str, value: str) -> None:
    try:
        FIELDS.read({name: value}, "")
    except Refused:
        return
    assert f"{name}: {value}".isascii()
    assert f"{name}: {value}".replace("\t", "").isprintable()
