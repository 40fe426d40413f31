import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyserver.http import target
from pyserver.http.errors import ProtocolError

CLEANED = [
    (b"/", b"/"),
    (b"/a/b.html", b"/a/b.html"),
    (b"/a/", b"/a/"),
    (b"//", b"/"),
    (b"//a///b//", b"/a/b/"),
    # RFC 3986 5.2.4
    (b"/.", b"/"),
    (b"/a/.", b"/a/"),
    (b"/a/./b", b"/a/b"),
    (b"/a/..", b"/"),
    (b"/a/b/..", b"/a/"),
    (b"/a/b/../c", b"/a/c"),
    (b"/a/../b/", b"/b/"),
    (b"/...", b"/..."),
    (b"/.a/..b", b"/.a/..b"),
    # RFC 3986 2.1, 6.2.2: decoded once, before anything else (T-1)
    (b"/%41%2e%2F", b"/A./"),
    (b"/a%2fb", b"/a/b"),
    (b"/a/%2e%2E/b", b"/b"),
    (b"/%2525", b"/%25"),
    (b"/%e2%82%ac", b"/\xe2\x82\xac"),
    (b"/%FF", b"/\xff"),
    (b"/a+b;c=d", b"/a+b;c=d"),
    (b"/a|b", b"/a|b"),
]

REFUSED = [
    b"/..",
    b"/../a",
    b"/a/../..",
    b"/a/../../b",
    b"/%2e%2e/a",
    b"/a/..%2f..",
    b"/%00",
    b"/a%00.html",
    b"/a%0d%0ab",
    b"/%7f",
    b"/a\\b",
    b"/a/..%5c..",
    b"/%",
    b"/%4",
    b"/%4g",
    b"/%%41",
]


@pytest.mark.parametrize(("raw", "cleaned"), CLEANED)
def test_clean(raw: bytes, cleaned: bytes) -> None:
    assert target.clean(raw) == cleaned


@pytest.mark.parametrize("raw", REFUSED)
def test_a_path_that_cannot_be_a_file_is_400_and_the_connection_goes_on(raw: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        target.clean(raw)
    assert (caught.value.status, caught.value.close) == (400, False)


@pytest.mark.parametrize(
    ("path", "encoded"),
    [
        (b"/a b/", b"/a%20b/"),
        (b"/100%", b"/100%25"),
        (b"/\xe2\x82\xac?#", b"/%E2%82%AC%3F%23"),
        (b"//evil.example/", b"/evil.example/"),  # T-9
        (b"/\\evil.example/", b"/%5Cevil.example/"),
        (b"/a\r\nSet-Cookie: b", b"/a%0D%0ASet-Cookie:%20b"),
        (b"", b"/"),
    ],
)
def test_encode(path: bytes, encoded: bytes) -> None:
    assert target.encode(path) == encoded


@pytest.mark.parametrize(
    ("query", "encoded"),
    [
        (b"", b""),
        (b"a=b&c=%20%c3%BC", b"a=b&c=%20%c3%BC"),  # what is encoded stays as it is
        (b"-._~!$&'()*+,;=:@/?", b"-._~!$&'()*+,;=:@/?"),
        (b'"<>^`{|}\\[]#', b"%22%3C%3E%5E%60%7B%7C%7D%5C%5B%5D%23"),
        (b"%", b"%25"),
        (b"%4&%zz", b"%254&%25zz"),
        (b"\xff\r\n ", b"%FF%0D%0A%20"),
    ],
)
def test_encode_query(query: bytes, encoded: bytes) -> None:
    assert target.encode_query(query) == encoded


SEGMENTS = st.sampled_from(
    [b"", b".", b"..", b"...", b"a", b"%2e", b"%2E%2e", b"%2f", b"%5c", b"%00", b"%", b" ", b"\xff"]
)


@given(st.lists(st.one_of(SEGMENTS, st.binary(max_size=4)), max_size=8).map(lambda names: b"/" + b"/".join(names)))
def test_what_is_clean_stays_inside_and_survives_a_location(raw: bytes) -> None:
    try:
        cleaned = target.clean(raw)
    except ProtocolError:
        return
    assert cleaned.startswith(b"/")
    assert not {b"..", b".", b""} & set(cleaned[1:].removesuffix(b"/").split(b"/")) or cleaned == b"/"
    assert target.clean(target.encode(cleaned)) == cleaned
    assert not target.encode(cleaned).startswith(b"//")
