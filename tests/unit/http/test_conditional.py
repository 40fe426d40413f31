"""RFC 9110 13: each row a request for a file with these validators."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
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
    assert if_range_matches(value, ETAG, MODIFIED, NOW, settled=True) is matches


@pytest.mark.parametrize(
    ("value", "etag", "modified", "settled"),
    [
        (b'W/"v2"', b'W/"v2"', MODIFIED, False),
        (b'"v2"', b'W/"v2"', MODIFIED, False),
        (b'W/"v2"', ETAG, MODIFIED, True),
        (SAME, b'W/"v2"', MODIFIED, False),  # 8.8.2.2: it may change twice within the second that its date names
        (SAME, None, None, True),
        (ETAG, None, None, True),
    ],
)
def test_if_range_takes_only_what_is_strong(
    value: bytes, etag: bytes | None, modified: int | None, settled: bool
) -> None:
    assert not if_range_matches(value, etag, modified, NOW, settled=settled)


# -- a model: the steps of 13.2.2 as the RFC writes them, of conditions that are known instead of read -----------------


@dataclass(frozen=True)
class Tag:
    opaque: str
    weak: bool

    @property
    def sent(self) -> bytes:
        return ("W/" if self.weak else "").encode() + f'"{self.opaque}"'.encode()


def strongly_equal(one: Tag, other: Tag) -> bool:
    # 8.8.3.2: "if both are not weak and their opaque-tags match character-by-character"
    return not one.weak and not other.weak and one.opaque == other.opaque


def weakly_equal(one: Tag, other: Tag) -> bool:
    # 8.8.3.2: "regardless of either or both being tagged as weak"
    return one.opaque == other.opaque


def model(
    if_match: list[Tag] | str | None,
    unmodified_since: int | None,
    if_none_match: list[Tag] | str | None,
    modified_since: int | None,
    etag: Tag | None,
    modified: int | None,
    method: bytes,
) -> int:
    def listed(condition: list[Tag] | str, equal: Callable[[Tag, Tag], bool]) -> bool:
        if isinstance(condition, str):
            return condition == "*"
        return etag is not None and any(equal(tag, etag) for tag in condition)

    step = 1
    while True:
        if step == 1:
            if if_match is None:
                step = 2
            elif listed(if_match, strongly_equal):
                step = 3
            else:
                return 412
        elif step == 2:
            # 13.1.4: "A recipient MUST ignore the If-Unmodified-Since if the resource has no modification date"
            if unmodified_since is None or modified is None or modified <= unmodified_since:
                step = 3
            else:
                return 412
        elif step == 3:
            if if_none_match is None:
                step = 4
            elif not listed(if_none_match, weakly_equal):
                step = 5
            else:
                return 304 if method in (b"GET", b"HEAD") else 412
        elif step == 4:
            if method not in (b"GET", b"HEAD") or modified_since is None or modified is None:
                step = 5
            elif modified <= modified_since <= NOW:  # T-18: a date of the future says nothing
                return 304
            else:
                step = 5
        else:
            return 200


TAGS = st.builds(Tag, st.sampled_from(["", "a", "b", "a,b", "W/"]), st.booleans())
LISTS = st.one_of(st.none(), st.sampled_from(["*", "unquoted", '"a', '*, "a"']), st.lists(TAGS, min_size=1, max_size=4))
DATES = st.one_of(st.none(), st.integers(NOW - 2, NOW + 2))
SEPARATORS = st.sampled_from([b",", b", ", b" ,, ", b"\t,\t"])


@settings(max_examples=1000, deadline=None)
@given(
    if_match=LISTS,
    unmodified_since=DATES,
    if_none_match=LISTS,
    modified_since=DATES,
    etag=st.one_of(st.none(), TAGS),
    modified=DATES,
    method=st.sampled_from([b"GET", b"HEAD", b"PUT"]),
    separator=SEPARATORS,
)
def test_as_the_model(
    if_match: list[Tag] | str | None,
    unmodified_since: int | None,
    if_none_match: list[Tag] | str | None,
    modified_since: int | None,
    etag: Tag | None,
    modified: int | None,
    method: bytes,
    separator: bytes,
) -> None:
    fields = {}
    for name, tags in ((IM, if_match), (INM, if_none_match)):
        if tags is not None:
            fields[name] = tags.encode() if isinstance(tags, str) else separator.join(tag.sent for tag in tags)
    for name, date in ((IUS, unmodified_since), (IMS, modified_since)):
        if date is not None:
            fields[name] = imf_fixdate(date)
    expected = model(if_match, unmodified_since, if_none_match, modified_since, etag, modified, method)
    assert evaluate(fields, etag.sent if etag else None, modified, method, NOW) == expected


@given(st.one_of(TAGS, DATES), st.one_of(st.none(), TAGS), DATES, st.booleans())
def test_if_range_as_the_model(asked: Tag | int | None, etag: Tag | None, modified: int | None, settled: bool) -> None:
    # 13.1.5: by strong comparison, or by exactly the date where that is a strong validator
    if isinstance(asked, Tag):
        expected, sent = etag is not None and strongly_equal(asked, etag), asked.sent
    elif asked is not None:
        expected, sent = settled and asked == modified, imf_fixdate(asked)
    else:
        expected, sent = False, b"nothing that is known"
    assert if_range_matches(sent, etag.sent if etag else None, modified, NOW, settled=settled) is expected


@given(st.dictionaries(st.sampled_from([IM, IUS, INM, IMS]), st.binary(max_size=30)), st.sampled_from([b"GET", b"PUT"]))
def test_whatever_is_asked_there_is_an_answer(fields: dict[bytes, bytes], method: bytes) -> None:
    assert evaluate(fields, ETAG, MODIFIED, method, NOW) in (200, 304, 412)
