"""RFC 9110 14: each row a Range and what it means for a file of 11 bytes."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyserver.http import ranges
from pyserver.http.ranges import UNSATISFIABLE, Spec, resolve

SIZE = 11

ROWS = [
    # 14.1.2 byte ranges
    (b"bytes=0-0", (0, 1)),  # T-24: the end is inclusive
    (b"bytes=0-4", (0, 5)),
    (b"bytes=10-10", (10, 11)),
    (b"bytes=5-", (5, 11)),
    (b"bytes=5-99", (5, 11)),
    (b"bytes=-1", (10, 11)),
    (b"bytes=-11", (0, 11)),
    (b"bytes=-99", (0, 11)),  # T-26: a suffix longer than all of it
    (b"bytes=000-0004", (0, 5)),
    (b"BYTES=0-4", (0, 5)),  # 14.1: unit names are case-insensitive
    (b"bytes=0-4,", (0, 5)),  # 5.6.1.2: empty members
    (b"bytes=, ,0-4 , ", (0, 5)),
    (b"bytes=0-99999999999999999999999999999999", (0, 11)),
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
    (b"bytes=0-0,2-3", None),  # several: not yet
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
    assert resolve(value, SIZE) == expected


def test_an_empty_file() -> None:
    # T-33: there is no Content-Range for all of nothing
    assert resolve(b"bytes=0-", 0) is UNSATISFIABLE
    assert resolve(b"bytes=0-0", 0) is UNSATISFIABLE
    assert resolve(b"bytes=-0", 0) is UNSATISFIABLE
    assert resolve(b"bytes=-5", 0) is None


def test_several_are_read_though_not_answered_yet() -> None:
    assert ranges.parse(b"bytes=0-0, -5 ,7-") == [Spec(0, 0), Spec(None, 5), Spec(7, None)]


def test_the_fields_of_the_answers() -> None:
    assert ranges.content_range(0, 1, 11) == b"Content-Range: bytes 0-0/11\r\n"  # 14.4
    assert ranges.unsatisfied_range(11) == b"Content-Range: bytes */11\r\n"


@given(
    st.one_of(st.binary(max_size=30), st.text("0123456789-, ", max_size=20).map(lambda text: b"bytes=" + text.encode()))
)
def test_whatever_is_asked_a_span_lies_inside(value: bytes) -> None:
    span = resolve(value, SIZE)
    assert span is None or span is UNSATISFIABLE or 0 <= span[0] < span[1] <= SIZE


@pytest.mark.parametrize(
    "value", [b"bytes=" + b"0-0," * 8000 + b"x", b"bytes=" + b"," * 32_000, b"bytes=" + b" ," * 16_000]
)
def test_hostile_lists_cost_no_more_than_their_length(value: bytes) -> None:
    before = time.thread_time()
    assert resolve(value, SIZE) is None
    assert time.thread_time() - before < 0.1
