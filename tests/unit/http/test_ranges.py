"""RFC 9110 14: each row a Range and what it means for a file of 11 bytes."""

import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyserver import limits
from pyserver.http import ranges
from pyserver.http.ranges import UNSATISFIABLE, Spec, resolve

SIZE = 11

ROWS = [
    # 14.1.2 byte ranges
    (b"bytes=0-0", [(0, 1)]),  # T-24: the end is inclusive
    (b"bytes=0-4", [(0, 5)]),
    (b"bytes=10-10", [(10, 11)]),
    (b"bytes=5-", [(5, 11)]),
    (b"bytes=5-99", [(5, 11)]),
    (b"bytes=-1", [(10, 11)]),
    (b"bytes=-11", [(0, 11)]),
    (b"bytes=-99", [(0, 11)]),  # T-26: a suffix longer than all of it
    (b"bytes=000-0004", [(0, 5)]),
    (b"BYTES=0-4", [(0, 5)]),  # 14.1: unit names are case-insensitive
    (b"bytes=0-4,", [(0, 5)]),  # 5.6.1.2: empty members
    (b"bytes=, ,0-4 , ", [(0, 5)]),
    (b"bytes=0-99999999999999999999999999999999", [(0, 11)]),
    # 14.1.1, 15.5.17: nothing of it exists
    (b"bytes=11-", UNSATISFIABLE),
    (b"bytes=11-11", UNSATISFIABLE),
    (b"bytes=-0", UNSATISFIABLE),  # T-25
    (b"bytes=-000", UNSATISFIABLE),
    (b"bytes=99999999999999999999999999999999-", UNSATISFIABLE),
    (b"bytes=9223372036854775808-9223372036854775809", UNSATISFIABLE),
    (b"bytes=" + b"9" * 6000 + b"-", UNSATISFIABLE),  # int() itself would refuse
    # 14.2: ignored
    (b"bytes=4-0", None),
    (b"bytes=99999999999999999999999999999999-99999999999999999999999999999998", None),
    (b"bytes=", None),
    (b"bytes=-", None),
    (b"bytes=,", None),
    (b"bytes", None),
    (b"bytes 0-4", None),
    (b"bytes =0-4", None),
    (b"bytes=0 - 4", None),
    (b"bytes=0-4-5", None),
    (b"bytes=--1", None),
    (b"bytes=a-b", None),
    (b"bytes=+0-4", None),  # T-28: what int() would take
    (b"bytes=0-1_0", None),
    (b"bytes=0-\xb2", None),
    (b"bytes=0x0-0x4", None),
    (b"bytes=0-4, bytes=5-6", None),  # two Range lines, joined
    (b"lines=0-4", None),
    (b"", None),
]


@pytest.mark.parametrize(("value", "expected"), ROWS)
def test_row(value: bytes, expected: object) -> None:
    found = resolve(value, SIZE)
    assert (list(found) if isinstance(found, tuple) else found) == expected


# Several, of 1,000 bytes, where a part costs 80 beside its content.
SEVERAL = [
    # 14.1.2: its example; 15.3.7.2: the order is that of the request
    (b"bytes=0-0,-1", [(0, 1), (999, 1000)]),
    (b"bytes=-1,0-0", [(999, 1000), (0, 1)]),
    (b"bytes=500-600, 700-799 ,0-99", [(500, 601), (700, 800), (0, 100)]),
    # 15.3.7.2: overlapping, touching, and nearer to each other than a part costs
    (b"bytes=0-99,50-149", [(0, 150)]),
    (b"bytes=0-99,100-199", [(0, 200)]),
    (b"bytes=0-99,0-99", [(0, 100)]),
    (b"bytes=0-99,20-29", [(0, 100)]),
    (b"bytes=0-99,179-180", [(0, 181)]),  # 79 between them
    (b"bytes=0-99,180-181", [(0, 100), (180, 182)]),  # 80
    (b"bytes=0-9,180-189,90-99", [(0, 10), (180, 190), (90, 100)]),
    (b"bytes=0-9,180-189,89-99", [(0, 100), (180, 190)]),
    (b"bytes=0-9,179-189,89-99", [(0, 190)]),  # one after the other, through the last
    # what was put together has the place of its foremost
    (b"bytes=500-599,0-9,600-699", [(500, 700), (0, 10)]),
    (b"bytes=0-9,600-699,300-309,500-599", [(0, 10), (500, 700), (300, 310)]),
    # 15.3.7.2: without those that do not exist; one that is left is no multipart
    (b"bytes=1000-,0-9", [(0, 10)]),
    (b"bytes=0-9,-0,990-,1000-1001", [(0, 10), (990, 1000)]),
    (b"bytes=1000-,-0", UNSATISFIABLE),
    # 14.1.1: one that is invalid makes the set invalid
    (b"bytes=0-9,9-0", None),
    (b"bytes=0-9,x", None),
    # 14.2, 17.15: more to send than the whole, 80 for each part and the end of all
    (b"bytes=0-379,620-999", [(0, 380), (620, 1000)]),
    (b"bytes=0-379,619-999", None),
    (b"bytes=0-,0-,0-,0-", [(0, 1000)]),  # CVE-2011-3192, nginx 1.29.5: nothing is sent twice
]


@pytest.mark.parametrize(("value", "expected"), SEVERAL)
def test_several(value: bytes, expected: object) -> None:
    found = resolve(value, 1000, part_bytes=80)
    assert (list(found) if isinstance(found, tuple) else found) == expected


def test_parts_that_cost_nothing_are_still_not_sent_twice() -> None:
    assert resolve(b"bytes=0-1,2-3,5-6,6-7", 10, part_bytes=0) == ((0, 4), (5, 8))


def test_so_many_and_no_more() -> None:
    size = 1_000_000
    for count, ignored in ((limits.RANGES_MAX, False), (limits.RANGES_MAX + 1, True)):
        value = b"bytes=" + b",".join(b"%d-%d" % (n * 1000, n * 1000) for n in range(count))
        assert (resolve(value, size, 80) is None) is ignored
        # what does not exist, and what is the same, counts as well: it is the asking that costs
        assert (resolve(b"bytes=0-0" + b",0-0" * (count - 1), size, 80) is None) is ignored
        assert (resolve(b"bytes=-0" + b",-0" * (count - 1), size, 80) is None) is ignored


def test_an_empty_file() -> None:
    # T-33: there is no Content-Range for all of nothing
    assert resolve(b"bytes=0-", 0) is UNSATISFIABLE
    assert resolve(b"bytes=0-0", 0) is UNSATISFIABLE
    assert resolve(b"bytes=-0", 0) is UNSATISFIABLE
    assert resolve(b"bytes=-5", 0) is None
    assert resolve(b"bytes=0-,-5", 0) is None
    assert resolve(b"bytes=0-,-0", 0) is UNSATISFIABLE


def test_range_specs() -> None:
    assert ranges.parse(b"bytes=0-0, -5 ,7-") == [Spec(0, 0), Spec(None, 5), Spec(7, None)]


def test_the_fields_of_the_answers() -> None:
    assert ranges.content_range(0, 1, 11) == b"Content-Range: bytes 0-0/11\r\n"  # 14.4
    assert ranges.unsatisfied_range(11) == b"Content-Range: bytes */11\r\n"


# -- a model: slow and obvious, with sets of positions ---------------------------------------------------


def asked_positions(spec: bytes, size: int) -> set[int] | None:
    """The bytes that one range-spec names (14.1.1, 14.1.2); None if it is none."""
    first, dash, last = spec.partition(b"-")
    if not dash or not all(b"0" <= spec[n : n + 1] <= b"9" or n == len(first) for n in range(len(spec))):
        return None
    if not first and not last:
        return None
    if not first:
        return {position for position in range(size) if position >= size - int(last)}
    if last and int(last) < int(first):
        return None
    return {position for position in range(size) if position >= int(first) and (not last or position <= int(last))}


def model(value: bytes, size: int, part_bytes: int) -> object:
    if value[:6].lower() != b"bytes=":
        return None
    members = [member.strip(b" \t") for member in value[6:].split(b",")]
    wanted = [asked_positions(member, size) for member in members if member]
    if not wanted or len(wanted) > limits.RANGES_MAX:
        return None
    islands: list[set[int]] = []
    for positions in wanted:
        if positions is None:
            return None
        if positions:
            islands.append(positions)
    if not islands:
        some_suffix = any(m.startswith(b"-") and int(m[1:]) for m in members if m)
        return None if size == 0 and some_suffix else UNSATISFIABLE
    # Two that are near become one, in the place of the first of them, until no two are near.
    while near := next(
        (
            (one, other)
            for n, one in enumerate(islands)
            for other in islands[n + 1 :]
            if one & other or missing(one, other) == 0 or missing(one, other) < part_bytes
        ),
        None,
    ):
        one, other = near
        islands = [
            set(range(min(one | other), max(one | other) + 1)) if island is one else island
            for island in islands
            if island is not other
        ]
    if len(islands) > 1 and sum(map(len, islands)) + part_bytes * (len(islands) + 1) > size:
        return None
    return tuple((min(island), max(island) + 1) for island in islands)


def missing(one: set[int], other: set[int]) -> int:
    """How many bytes lie between two islands."""
    low, high = sorted((one, other), key=min)
    return max(0, min(high) - max(low) - 1)


NUMBERS = st.one_of(st.integers(0, 60), st.sampled_from([99, 10**30])).map(lambda number: b"%d" % number)
SPECS = st.one_of(
    st.builds(lambda first, last: first + b"-" + last, NUMBERS, NUMBERS),
    st.builds(lambda first, length: b"%d-%d" % (first, first + length), st.integers(0, 60), st.integers(0, 9)),
    NUMBERS.map(lambda number: number + b"-"),
    NUMBERS.map(lambda number: b"-" + number),
)
SETS = st.lists(st.one_of(SPECS, st.sampled_from([b"", b" "])), max_size=6).map(b", ".join)
VALUES = st.one_of(
    SETS.map(lambda members: b"bytes=" + members),
    st.text("0123456789-, ", max_size=20).map(lambda text: b"Bytes=" + text.encode()),
    st.binary(max_size=30),
)


@settings(max_examples=1000, deadline=None)
@given(VALUES, st.integers(0, 50), st.integers(0, 12))
def test_as_the_model(value: bytes, size: int, part_bytes: int) -> None:
    assert resolve(value, size, part_bytes) == model(value, size, part_bytes)


@given(VALUES, st.integers(0, 50), st.integers(0, 12))
def test_whatever_is_asked_is_answered_once_and_nothing_beyond(value: bytes, size: int, part_bytes: int) -> None:
    spans = resolve(value, size, part_bytes)
    if isinstance(spans, tuple):
        assert spans
        assert all(0 <= first < end <= size for first, end in spans)
        in_order = sorted(spans)
        assert all(end < first for (_, end), (first, _) in pairwise(in_order))
        assert len(spans) == 1 or sum(end - first + part_bytes for first, end in spans) <= size


@pytest.mark.parametrize(
    "value",
    [
        b"bytes=" + b"0-0," * 8000 + b"x",
        b"bytes=" + b"0-0," * 8000,
        b"bytes=" + b"," * 32_000,
        b"bytes=" + b" ," * 16_000,
    ],
)
def test_hostile_lists_cost_no_more_than_their_length(value: bytes) -> None:
    before = time.thread_time()
    assert resolve(value, SIZE) is None
    assert time.thread_time() - before < 0.1
