import time

import pytest

from pyserver import limits
from pyserver.http.accept import ACCEPT, choose, parse

HTML, JSON = b"text/html", b"application/json"


@pytest.mark.parametrize(
    ("value", "chosen"),
    [
        (None, HTML),  # 12.5.1: no wish
        (b"", HTML),
        (b"*/*", HTML),  # curl
        (b"application/json", JSON),
        (b"Application/JSON", JSON),  # 8.3.1: case-insensitive
        (b"text/html", HTML),
        (b"application/json, text/html", HTML),  # of equal weight, ours first
        (b"application/json, */*", HTML),
        (b"application/json, */*;q=0.9", JSON),
        (b"application/json;q=0.9, text/html", HTML),
        (b"application/json, text/html;q=0.999", JSON),
        (b"application/json;q=0.5,text/html;q=0.25", JSON),
        (b"text/html;q=.75,application/json;q=0.5", JSON),  # 12.4.2: what has a malformed weight is not asked for
        (b"application/*", JSON),
        (b"application/*;q=0.1, text/html;q=0", JSON),
        (b"application/json;q=0, */*", HTML),
        (b"text/*;q=0.3, application/json;q=0.7, */*;q=0.5", JSON),  # the more specific range counts
        (b"*/*, text/html;q=0.1", JSON),
        (b"image/png", HTML),  # none of ours: what we have, never 406
        (b"text/html;q=0, application/json;q=0", HTML),
        (b"application/json;charset=utf-8", JSON),
        (b'application/json; charset="UTF-8" ; q=1.000', JSON),
        (b"application/json;version=2", HTML),  # a variety that we do not have
        (b"application/json;q=1;ext=1", JSON),  # RFC 7231 5.3.2: accept-ext
        (b"text/html;q=0.8 ; a=b, application/json;q=0.9", JSON),
        (b", ,application/json,,", JSON),  # 5.6.1.2: empty members
        (b"application/json;", JSON),  # 5.6.6: an empty parameter
        (b'text/x;a="b,c;q=0", application/json', JSON),  # a comma in a quoted string parts nothing
        (b"application", HTML),
        (b"application/json q=1", HTML),
        (b"application/json;q=+1", HTML),  # T-34: digits only
        (
            b"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",  # a browser
            HTML,
        ),
        (b"application/json, text/plain, */*;q=0.01", JSON),
    ],
)
def test_choice(value: bytes | None, chosen: bytes) -> None:
    assert choose(value, (HTML, JSON)) == chosen


def test_the_first_offered_is_for_who_has_no_wish() -> None:
    assert choose(None, (JSON, HTML)) == JSON
    assert choose(b"text/*", (JSON, HTML)) == HTML


@pytest.mark.parametrize(("size", "chosen"), [(limits.WISH_MAX_BYTES, JSON), (limits.WISH_MAX_BYTES + 1, HTML)])
def test_a_value_that_is_too_long_is_none(size: int, chosen: bytes) -> None:
    assert choose(JSON.ljust(size, b","), (HTML, JSON)) == chosen


def test_weights() -> None:
    assert parse(b"a/b;q=0.5, c/d;Q=0.125;x=y, */*;q=0") == ((b"a/b", 500), (b"c/d", 125), (b"*/*", 0))


@pytest.mark.parametrize("part", [b"a/a,", b"a/a;b=c", b";", b" ;", b'a/a;b="', b'\\"', b"a", b",", b" "])
def test_hostile_values_take_linear_time(part: bytes) -> None:
    value = b"a/a" + part * (30_000 // len(part)) + b"\x00"
    began = time.process_time()
    parse(value)
    assert ACCEPT.fullmatch(value) is None
    assert time.process_time() - began < 0.5
