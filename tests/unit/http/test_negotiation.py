"""RFC 9110 12.5.3: each row an Accept-Encoding and what is sent when there are zstd, br and gzip."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyserver import limits
from pyserver.http.negotiation import choose, parse

OURS = (b"zstd", b"br", b"gzip")

ROWS = [
    # 12.5.3, rule 1: no field, any coding would do; we do not guess
    (None, None),
    # an empty field: none but identity
    (b"", None),
    (b"  ", None),
    (b",", None),
    # what is sent by browsers, curl --compressed, wget, Go, a crawler
    (b"gzip, deflate, br, zstd", b"zstd"),
    (b"gzip, deflate, br", b"br"),
    (b"deflate, gzip, br, zstd", b"zstd"),
    (b"gzip", b"gzip"),
    (b"identity", None),
    (b"gzip,deflate", b"gzip"),
    # 8.4.1: codings are case-insensitive; 8.4.1.3: x-gzip is gzip
    (b"GZip", b"gzip"),
    (b"x-gzip", b"gzip"),
    (b"X-GZIP;q=0, gzip;q=0", None),
    # 12.4.2: weights, to three decimals
    (b"gzip;q=1, br;q=0.9, zstd;q=0.8", b"gzip"),
    (b"br;q=0.5, gzip;q=0.501", b"gzip"),
    (b"br;q=0.501, gzip;q=0.5", b"br"),
    (b"br;q=1.000, gzip", b"br"),
    (b"br;q=1., gzip;q=0.", b"br"),
    (b"br ; q=0.5 ,\tgzip\t;\tQ=0.7", b"gzip"),
    (b"br;q=0.001", b"br"),
    # 12.4.2: a weight of 0 is "not acceptable" (T-34)
    (b"gzip;q=0", None),
    (b"gzip;q=0.0", None),
    (b"gzip;q=0.000, br", b"br"),
    (b"br;q=0, *", b"zstd"),
    (b"zstd;q=0, br;q=0, *", b"gzip"),
    (b"*;q=0", None),
    (b"*;q=0, gzip", b"gzip"),
    (b"gzip, *;q=0", b"gzip"),
    # 12.5.3: "*" is any coding that is not named, identity among them
    (b"*", b"zstd"),
    (b"*;q=0.5, gzip", b"gzip"),
    (b"*;q=0.5, gzip;q=0.4", b"zstd"),
    (b"gzip;q=0.4, *;q=0.5, zstd;q=0, br;q=0", None),
    # 12.5.3, rule 2: identity is acceptable, less than what is named; named, it has its weight
    (b"gzip;q=0.001", b"gzip"),
    (b"identity;q=0.5, gzip;q=0.4", None),
    (b"identity;q=0.5, gzip;q=0.6", b"gzip"),
    (b"identity, gzip", b"gzip"),  # equal: we choose
    (b"identity;q=1, *;q=0", None),
    (b"identity;q=0, gzip;q=0.1", b"gzip"),
    # 15.5.7, 12.4.1: nothing is acceptable, and identity is sent
    (b"identity;q=0", None),
    (b"identity;q=0, *;q=0", None),
    (b"deflate, identity;q=0", None),
    (b"*;q=0, identity;q=0, gzip;q=0", None),
    # unknown codings
    (b"deflate", None),
    (b"compress, x-compress, dcb, aws-chunked", None),
    (b"sdch, gzip;q=0.1", b"gzip"),
    (b"gzipped, br2, notgzip", None),  # no search for parts of words
    # 5.6.1.2: empty members
    (b",, gzip ,,", b"gzip"),
    (b"\t,\tbr\t,\t", b"br"),
    # named twice: the least
    (b"gzip;q=0, gzip", None),
    (b"gzip, gzip;q=0", None),
    (b"br;q=0.2, gzip;q=0.3, br;q=0.9", b"gzip"),
    # malformed: as if it were not there
    (b"gzip;q=", None),
    (b"gzip;q", None),
    (b"gzip;", None),
    (b"gzip;q=1.1", None),
    (b"gzip;q=2", None),
    (b"gzip;q=-1", None),
    (b"gzip;q=+1", None),
    (b"gzip;q=.5", None),
    (b"gzip;q=0,5", None),  # a comma for a decimal point: "gzip;q=0" and a coding "5"
    (b"gzip;q=0.1234", None),
    (b"gzip;q=1.001", None),
    (b"gzip;q=1e0", None),
    (b"gzip;q=nan", None),
    (b"gzip;q=\xb2", None),
    (b"gzip;q= 1", None),
    (b"gzip;q =1", None),
    (b"gzip; level=9", None),
    (b"gzip;q=1;level=9", None),
    (b"gzip br", None),
    (b"gzip/br", None),
    (b'"gzip"', None),
    (b"gzip\xe9", None),
    (b"br, gzip;q=x", None),
    (b";q=1", None),
]


@pytest.mark.parametrize(("value", "expected"), ROWS)
def test_row(value: bytes | None, expected: bytes | None) -> None:
    assert choose(value, OURS) == expected


def test_our_order_decides_between_equals() -> None:
    assert choose(b"gzip, br, zstd", (b"gzip", b"br")) == b"gzip"
    assert choose(b"gzip, br, zstd", (b"br", b"gzip")) == b"br"


def test_only_what_there_is() -> None:
    assert choose(b"gzip, br", (b"gzip",)) == b"gzip"
    assert choose(b"br", (b"gzip",)) is None
    assert choose(b"gzip, br", ()) is None


def test_weights_are_thousandths() -> None:
    assert parse(b"a;q=0.1, b;q=0.12, c;q=0.123, d;q=1, e;q=0, f;q=1.0, *;q=0.05") == {
        b"a": 100, b"b": 120, b"c": 123, b"d": 1000, b"e": 0, b"f": 1000, b"*": 50,
    }  # fmt: skip


# -- a model: slow and obvious ---------------------------------------------------------------------------------

TOKEN = set(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
QVALUES = {f"{n / 1000:.{digits}f}".encode(): n for digits in (1, 2, 3) for n in range(0, 1001, 10 ** (3 - digits))}
QVALUES |= {b"0": 0, b"1": 1000, b"0.": 0, b"1.": 1000}  # every qvalue that there is


def members(value: bytes) -> list[tuple[bytes, int]] | None:
    found = []
    for member in value.split(b","):
        name, semicolon, weight = (part.strip(b" \t") for part in member.partition(b";"))
        if not semicolon and not name:
            continue
        if not name or not set(name) <= TOKEN:
            return None
        if semicolon and (weight[:2].lower() != b"q=" or weight[2:] not in QVALUES):
            return None
        found.append((name.lower(), QVALUES[weight[2:]] if semicolon else 1000))
    return found


def quality(coding: bytes, named: list[tuple[bytes, int]]) -> int | None:
    """The weight of a coding; None where the field says nothing of it."""
    own = [q for name, q in named if name == coding or name == b"x-" + coding]
    return min(own) if own else min((q for name, q in named if name == b"*"), default=None)


def model(value: bytes | None, available: list[bytes]) -> bytes | None:
    named = None if value is None else members(value)
    if not named:
        return None
    identity = quality(b"identity", named)
    # Acceptable ones by weight; of equal weight, ours in our order, identity last. Not named, it is the last of all.
    ranking = [(-(quality(coding, named) or 0), place, coding) for place, coding in enumerate(available)]
    ranking = [row for row in ranking if row[0] < 0]
    best = min(ranking, default=None)
    if best is None or (identity is not None and identity > -best[0]):
        return None
    return best[2]


CODINGS = st.sampled_from([b"gzip", b"x-gzip", b"BR", b"br", b"zstd", b"identity", b"*", b"deflate", b"Identity"])
WEIGHTS = st.sampled_from(
    [b"", b";q=0", b";q=0.5", b"; Q=0.50", b" ;q=0.501", b";q=1", b";q=1.000", b";q=0.5001", b";x=1"]
)
MEMBERS = st.one_of(st.tuples(CODINGS, WEIGHTS).map(b"".join), st.sampled_from([b"", b" ", b"a b"]))
VALUES = st.one_of(
    st.none(),
    st.lists(MEMBERS, max_size=6).map(b", ".join),
    st.text("gzipbr*;q=0.1, \t", max_size=25).map(str.encode),
    st.binary(max_size=20),
)


@settings(max_examples=2000, deadline=None)
@given(VALUES, st.lists(st.sampled_from(OURS), unique=True))
def test_as_the_model(value: bytes | None, available: list[bytes]) -> None:
    assert choose(value, available) == model(value, available)


@pytest.mark.parametrize(("size", "expected"), [(limits.WISH_MAX_BYTES, b"br"), (limits.WISH_MAX_BYTES + 1, None)])
def test_a_value_that_is_too_long_is_none(size: int, expected: bytes | None) -> None:
    assert choose(b"br".ljust(size, b","), OURS) == expected


def test_a_value_is_read_once_for_several_choices() -> None:
    parse.cache_clear()
    for available in (OURS, *((coding,) for coding in OURS)):
        choose(b"gzip, br;q=0.9", available)
    assert parse.cache_info().misses == 1


@pytest.mark.parametrize(
    "value", [b"gzip," * 6000 + b"\x01", b"," * 32_000, b" ;" * 16_000, b"a;q=0." * 5000, b"*" * 32_000]
)
def test_hostile_values_cost_no_more_than_their_length(value: bytes) -> None:
    before = time.thread_time()
    parse(value)
    assert time.thread_time() - before < 0.1
