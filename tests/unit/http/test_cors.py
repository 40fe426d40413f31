"""The CORS protocol of the Fetch standard, 3.3."""

import pytest

from pyserver.http import cors

ANY = (b"*",)
LISTED = (b"https://a.example", b"http://b.example:8080")
EXPOSED = b"Access-Control-Expose-Headers: Accept-Ranges, Content-Encoding, Content-Range, ETag\r\n"


@pytest.mark.parametrize(("origins", "varies"), [((), False), (ANY, False), (LISTED, True)])
def test_answers_vary_with_a_list_only(origins: tuple[bytes, ...], varies: bool) -> None:
    assert cors.varies(origins) == varies


def test_with_a_star_everyone_gets_the_same() -> None:
    assert cors.everyone(ANY)[0] == (b"Access-Control-Allow-Origin", b"*")
    assert cors.everyone(LISTED) == cors.everyone(()) == ()
    assert cors.named(ANY, b"https://a.example") == b""


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (b"https://a.example", True),
        (b"http://b.example:8080", True),
        (b"http://a.example", False),  # the scheme is part of it (RFC 6454 4)
        (b"https://a.example:443", False),  # no browser writes it
        (b"https://a.example.evil.example", False),
        (b"https://A.example", False),
        (b"https://a.example, https://a.example", False),  # two lines joined
        (b"null", False),
        (b"", False),
        (None, False),
    ],
)
def test_a_listed_origin_is_named_and_no_other(origin: bytes | None, allowed: bool) -> None:
    expected = b"Access-Control-Allow-Origin: %b\r\n%b" % (origin or b"", EXPOSED) if allowed else b""
    assert cors.named(LISTED, origin) == expected
    assert bool(cors.preflight(LISTED, origin, b"GET")) == allowed


@pytest.mark.parametrize("origins", [(), ANY, LISTED])
def test_a_preflight_names_origin_and_method(origins: tuple[bytes, ...]) -> None:
    assert cors.preflight(origins, None, b"GET") == cors.preflight(origins, b"https://a.example", None) == b""
    answer = bytes(cors.preflight(origins, b"https://a.example", b"PUT"))
    assert bool(answer) == bool(origins)
    assert b"Allow-Credentials" not in answer
    if origins:
        assert b"Access-Control-Allow-Methods: GET, HEAD\r\n" in answer
