"""RFC 9110 13: each row a request for a file with these validators."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyserver.http.conditional import evaluate, if_range_matches
from pyserver.http.dates import imf_fixdate

ETAG = b'"v2"'
NOW = 1_800_000_000
MODIFIED = NOW - 1000
SAME, BEFORE, AFTER = imf_fixdate(MODIFIED), imf_fixdate(MODIFIED - 1), imf_fixdate(MODIFIED + 1)
FUTURE = imf_fixdate(NOW + 1)

IM, IUS, INM, IMS = b"if-match", b"if-unmodified-since", b"if-none-match", b"if-modified-since"

ROWS = [
    ("nothing asked", {}, 200),
    # 13.1.1 If-Match
    ("the tag", {IM: ETAG}, 200),
    ("another tag", {IM: b'"v1"'}, 412),
    ("one of several", {IM: b'"v1", "v2"'}, 200),
    ("any", {IM: b"*"}, 200),
    ("strong comparison: a weak tag is not the same", {IM: b'W/"v2"'}, 412),
    ("an unquoted tag matches nothing (T-17)", {IM: b"v2"}, 412),
    ("a star among tags is no list", {IM: b'*, "v2"'}, 412),
    # 13.1.4 If-Unmodified-Since
    ("unmodified since then", {IUS: SAME}, 200),
    ("unmodified since later", {IUS: AFTER}, 200),
    ("modified since", {IUS: BEFORE}, 412),
    ("no date", {IUS: b"yesterday"}, 200),
    # 13.1.2 If-None-Match
    ("the tag is there", {INM: ETAG}, 304),
    ("another tag is there", {INM: b'"v1"'}, 200),
    ("weak comparison", {INM: b'W/"v2"'}, 304),
    ("any is there", {INM: b"*"}, 304),
    ("a list, the last", {INM: b'"v1" , W/"v3",,"v2"'}, 304),
    ("a list that begins with nothing (5.6.1.2)", {INM: b', ,"v2"'}, 304),
    ("a comma inside a tag", {INM: b'"v1,"v2"'}, 200),
    ("a comma inside a tag is part of it", {INM: b'"v1,v2"'}, 200),
    ("unquoted is no tag (T-17)", {INM: b"v2"}, 200),
    ("a lower-case w is no weak tag (8.8.3)", {INM: b'w/"v2"'}, 200),
    ("empty", {INM: b""}, 200),
    # 13.1.3 If-Modified-Since
    ("not modified since then", {IMS: SAME}, 304),
    ("not modified since later", {IMS: AFTER}, 304),
    ("modified since before", {IMS: BEFORE}, 200),
    ("a date in the future says nothing (T-18)", {IMS: FUTURE}, 200),
    ("not a date", {IMS: b"0"}, 200),
    ("another form of the date", {IMS: b"Sunday, 06-Nov-94 08:49:37 GMT"}, 200),
    # 13.2.2: the order
    ("If-Match leaves If-Unmodified-Since without effect", {IM: ETAG, IUS: BEFORE}, 200),
    ("If-Match fails before anything else", {IM: b'"v1"', IUS: SAME, INM: ETAG, IMS: SAME}, 412),
    ("If-Match holds, then If-None-Match decides", {IM: ETAG, INM: ETAG}, 304),
    ("If-Unmodified-Since fails before If-None-Match", {IUS: BEFORE, INM: ETAG}, 412),
    ("If-Unmodified-Since holds, then If-None-Match decides", {IUS: SAME, INM: ETAG}, 304),
    ("If-Unmodified-Since holds, then If-Modified-Since decides", {IUS: SAME, IMS: SAME}, 304),
    ("If-None-Match leaves If-Modified-Since without effect", {INM: b'"v1"', IMS: SAME}, 200),
    ("the same, disagreeing the other way", {INM: ETAG, IMS: BEFORE}, 304),
    ("even where it cannot be read", {INM: b"v1", IMS: SAME}, 200),
]


@pytest.mark.parametrize(("about", "fields", "status"), ROWS, ids=[about for about, _, _ in ROWS])
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_row(about: str, fields: dict[bytes, bytes], status: int, method: bytes) -> None:
    assert evaluate(fields, ETAG, MODIFIED, method, NOW) == status


@pytest.mark.parametrize(
    ("fields", "status"),
    [({INM: ETAG}, 412), ({INM: b"*"}, 412), ({IMS: SAME}, 200), ({IM: ETAG}, 200), ({IM: b'"v1"'}, 412)],
)
def test_methods_that_change_something(fields: dict[bytes, bytes], status: int) -> None:
    # 13.2.2, steps 3 and 4
    assert evaluate(fields, ETAG, MODIFIED, b"PUT", NOW) == status


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({IM: ETAG}, 412),
        ({IM: b"*"}, 200),
        ({INM: ETAG}, 200),
        ({INM: b"*"}, 304),
        ({IUS: BEFORE}, 200),
        ({IMS: AFTER}, 200),
    ],
)
def test_a_representation_without_validators(fields: dict[bytes, bytes], status: int) -> None:
    assert evaluate(fields, None, None, b"GET", NOW) == status


def test_a_weak_tag_of_ours_is_found_again_but_never_the_same() -> None:
    # 8.8.3.2
    assert evaluate({INM: b'"v2"'}, b'W/"v2"', MODIFIED, b"GET", NOW) == 304
    assert evaluate({IM: b'W/"v2"'}, b'W/"v2"', MODIFIED, b"GET", NOW) == 412


@pytest.mark.parametrize(
    ("value", "matches"),
    [
        (ETAG, True),
        (b'"v1"', False),
        (b'W/"v2"', False),
        (b'"v1", "v2"', False),  # one tag, not a list
        (b"*", False),
        (b"v2", False),
        (SAME, True),
        (BEFORE, False),
        (AFTER, False),  # later is not the same either (T-30)
        (b"", False),
    ],
)
def test_if_range(value: bytes, matches: bool) -> None:
    # 13.1.5
    assert if_range_matches(value, ETAG, MODIFIED, NOW) is matches


def test_if_range_takes_only_what_is_strong() -> None:
    assert not if_range_matches(b'W/"v2"', b'W/"v2"', MODIFIED, NOW)
    # 8.8.2.2: a file may change twice within the second that its date names
    assert not if_range_matches(imf_fixdate(NOW), ETAG, NOW, NOW)
    assert if_range_matches(imf_fixdate(NOW - 2), ETAG, NOW - 2, NOW)
    assert not if_range_matches(SAME, None, None, NOW)
    assert not if_range_matches(ETAG, None, None, NOW)


@given(st.dictionaries(st.sampled_from([IM, IUS, INM, IMS]), st.binary(max_size=30)), st.sampled_from([b"GET", b"PUT"]))
def test_whatever_is_asked_there_is_an_answer(fields: dict[bytes, bytes], method: bytes) -> None:
    assert evaluate(fields, ETAG, MODIFIED, method, NOW) in (200, 304, 412)
