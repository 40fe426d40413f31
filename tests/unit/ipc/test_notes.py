"""What the master writes down: the last events and no more, and never more than a reader may believe."""

import os
import time
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.processes import forked

from pyserver.ipc import notes
from pyserver.ipc.notes import EVENTS_MAX, KINDS, WORDS, Event
from pyserver.ipc.segment import NOTES, ROWS, TOTALS, Segment
from pyserver.ipc.stats import CELLS


def blank() -> memoryview:
    return memoryview(bytearray(8 * (WORDS + 16))).cast("Q")


def test_it_lies_between_the_totals_and_the_rows() -> None:
    assert TOTALS + CELLS <= NOTES
    assert NOTES + WORDS <= ROWS


@given(count=st.integers(0, 3 * EVENTS_MAX))
def test_the_last_events_are_told_in_order(count: int) -> None:
    words = blank()
    kinds = list(KINDS)
    for number in range(count):
        notes.event(words, 8, kinds[number % len(kinds)], f"event {number}")
    found = notes.events(words, 8)
    told = range(max(0, count - EVENTS_MAX), count)
    assert [(each.kind, each.text) for each in found] == [(kinds[n % len(kinds)], f"event {n}") for n in told]
    assert all(abs(time.time() - each.at) < 100 for each in found)
    assert not any(words[:8]), "nothing else is touched"
    assert not any(words[8 + WORDS :])


def test_a_long_text_is_cut() -> None:
    words = blank()
    notes.event(words, 0, "died", "ä" * 1000)
    (event,) = notes.events(words, 0)
    assert event.text == "ä" * 84


def test_a_reader_in_the_middle_of_a_write_sees_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    words = blank()
    for number in range(EVENTS_MAX):
        notes.event(words, 0, "died", f"event {number}")
    put, seen = notes._put, []

    def looked_at(words: memoryview, at: int, size: int, text: str) -> None:
        seen.append([event.text for event in notes.events(words, 0)])
        put(words, at, size, text)
        seen.append([event.text for event in notes.events(words, 0)])

    monkeypatch.setattr(notes, "_put", looked_at)
    notes.event(words, 0, "died", "the next")
    assert seen == [[f"event {number}" for number in range(1, EVENTS_MAX)]] * 2


def test_one_that_is_half_written_is_not_told(segment: Segment) -> None:
    """Each text is of one letter: a mixed one would be of two events."""

    def write() -> None:
        while True:
            for letter in "abcdefg":
                segment.note("died", letter * 100)

    seen: set[str] = set()
    with forked(write):
        end = time.monotonic() + 0.5
        while time.monotonic() < end or len(seen) < 7:
            seen |= {event.text for event in segment.noted()[0]}
            assert time.monotonic() < end + 30
    assert seen == {letter * 100 for letter in "abcdefg"}


@given(seed=st.integers(), kind=st.none() | st.integers(0, len(KINDS)))
def test_whatever_stands_there_is_read_as_lines(seed: int, kind: int | None) -> None:
    words = memoryview(bytearray(Random(seed).randbytes(8 * WORDS))).cast("Q")
    if kind is not None:  # else hardly any would be known
        words[1] = kind
    for event in notes.events(words, 0):
        assert event.kind in KINDS
        assert event.text.isprintable()
    os.fsencode(notes.access_log(words, 0))
    notes.event(words, 0, "died", "after that")
    notes.event(words, 0, "died", "and that")


@pytest.mark.parametrize("path", ["", "/var/log/pyserver/access.log", "/tmp/ä", os.fsdecode(b"/tmp/\xff")])
def test_the_log_is_found_again(path: str) -> None:
    words = blank()
    notes.log_at(words, 0, "/some/other/path/that/is/longer")
    notes.log_at(words, 0, path)
    assert notes.access_log(words, 0) == path


def test_a_path_without_room_is_not_told_in_part() -> None:
    words = blank()
    notes.log_at(words, 0, "/" + 511 * "x")
    assert len(notes.access_log(words, 0)) == 512
    notes.log_at(words, 0, "/" + 512 * "x")
    assert notes.access_log(words, 0) == ""


def test_another_start_goes_on_where_the_last_one_ended(segment: Segment) -> None:
    segment.note("started", "first")
    fd, *_ = segment.descriptors()
    following = Segment.create(2, 8)
    try:
        assert following.inherit(fd)
        following.note("started", "second")
        assert [event.text for event in following.noted()[0]] == ["first", "second"]
        assert isinstance(following.noted()[0][0], Event)
    finally:
        following.close()
