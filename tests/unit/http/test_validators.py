"""RFC 9110 8.8, and what T-19 makes of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyserver.http.conditional import ENTITY_TAG
from pyserver.http.validators import entity_tag, is_precise, is_weak, opaque_tag, settled

NS = st.integers(2 * 10**9, 2**63)
SIZES = st.integers(0, 2**50)
CODINGS = st.sampled_from([b"", b"gz", b"br", b"zst"])


@pytest.mark.parametrize(
    ("modified_at", "changed_at", "expected"),
    [
        (98, 98, True),
        (98, 50, True),  # a file system without ctime has something old there
        (50, 98, True),
        (99, 50, False),
        (50, 99, False),  # a deployment sets mtime back; ctime tells
        (100, 100, False),
        (200, 50, False),  # of the future
        (50, 200, False),
    ],
)
def test_settled(modified_at: int, changed_at: int, expected: bool) -> None:
    assert settled(modified_at, changed_at, looked_at=100) is expected


def test_the_form_of_a_tag() -> None:
    assert entity_tag(0x1234, 0xAB, strong=True) == b'"1234-ab"'
    assert entity_tag(0x1234, 0xAB, strong=False) == b'W/"1234-ab"'
    assert entity_tag(0x1234, 0xAB, b"gz", strong=True) == b'"1234-ab-gz"'
    assert entity_tag(0x1234, 0xAB, b"gz", strong=False) == b'W/"1234-ab-gz"'


@given(NS, SIZES, CODINGS)
def test_when_it_becomes_strong_only_the_mark_goes(modified_ns: int, size: int, coding: bytes) -> None:
    weak = entity_tag(modified_ns, size, coding, strong=False)
    strong = entity_tag(modified_ns, size, coding, strong=True)
    assert (is_weak(weak), is_weak(strong)) == (True, False)
    assert opaque_tag(weak) == opaque_tag(strong) == strong
    assert ENTITY_TAG.fullmatch(weak)
    assert ENTITY_TAG.fullmatch(strong)


@given(st.tuples(NS, SIZES, CODINGS), st.tuples(NS, SIZES, CODINGS))
def test_no_two_are_alike(one: tuple[int, int, bytes], other: tuple[int, int, bytes]) -> None:
    # T-19: Caddy joined the numbers without a separator; T-20: another one for each coding
    assert (entity_tag(*one, strong=True) == entity_tag(*other, strong=True)) is (one == other)


@given(st.tuples(NS, SIZES, CODINGS, SIZES), st.tuples(NS, SIZES, CODINGS, SIZES))
def test_what_else_is_told_makes_another_tag(
    one: tuple[int, int, bytes, int], other: tuple[int, int, bytes, int]
) -> None:
    tags = [entity_tag(ns, size, coding, told=told, strong=True) for ns, size, coding, told in (one, other)]
    assert all(ENTITY_TAG.fullmatch(tag) for tag in tags)
    assert (tags[0] == tags[1]) is (one == other)


@pytest.mark.parametrize(("modified_ns", "precise"), [(1_000_000_000, False), (0, False), (1_000_000_001, True)])
def test_a_time_of_whole_seconds_was_set(modified_ns: int, *, precise: bool) -> None:
    assert is_precise(modified_ns) is precise
