"""Counters: every one is stored, totals never go backwards, and gauges end with their worker."""

import inspect
import math
import os
import random
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.processes import forked, run_forked, wait_until

from pyserver.ipc.observe import QUANTILES, snapshot
from pyserver.ipc.segment import HEADER, TOTALS, Segment
from pyserver.ipc.stats import (
    BUCKETS,
    CELLS,
    COUNTERS,
    HISTOGRAMS,
    Durations,
    Tally,
    bound,
    fold,
    index_of,
    quantile,
    read,
    read_buckets,
)

NAMES = [counter.name for counter in COUNTERS]


def filled(value: int) -> Tally:
    tally = Tally()
    for offset, name in enumerate(NAMES):
        if not name.startswith("responses_"):
            setattr(tally, name, value + offset)
    tally.classes = [0, *(value + index_of(f"responses_{digit}xx") for digit in range(1, 6))]
    return tally


def test_the_table_names_each_counter_once_and_tells_its_unit() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert all(counter.unit and counter.text for counter in COUNTERS)
    assert [index_of(name) for name in NAMES] == list(range(len(NAMES)))


def test_every_counter_of_a_tally_is_published_in_its_cell(segment: Segment) -> None:
    at = segment.counters(1)
    filled(100).publish(segment.words, at)
    assert segment.words[at : at + len(NAMES)].tolist() == list(range(100, 100 + len(NAMES)))


def test_a_sum_that_is_no_word_ends_nobody(segment: Segment) -> None:
    """Of times, where a clock went back between two processors, or of more than there can be."""
    tally = filled(7)
    tally.queue_wait, tally.answer_time = -5, 1 << 70
    row, usual = segment.counters(1), segment.counters(0)
    tally.publish(segment.words, row)
    filled(7).publish(segment.words, usual)
    told = {one.name: (segment.words[row + at], segment.words[usual + at]) for at, one in enumerate(COUNTERS)}
    assert (told.pop("queue_wait")[0], told.pop("answer_time")[0]) == (0, (1 << 64) - 1)
    assert all(value == other for value, other in told.values())


def test_publishing_touches_nothing_else(segment: Segment) -> None:
    before = segment.words.tolist()
    at = segment.counters(1)
    filled(1).publish(segment.words, at)
    after = segment.words.tolist()
    assert after[:at] == before[:at]
    assert after[at + len(NAMES) :] == before[at + len(NAMES) :]


def test_nothing_that_a_tally_counts_is_forgotten() -> None:
    told = inspect.getsource(Tally.publish)
    elsewhere = {"queue_waits", "answer_times", "apart", "_in_rounds"}  # are in the segment, or only for these
    assert all(f"self.{name}" in told for name in set(Tally.__slots__) - elsewhere)


@given(
    rows=st.lists(st.lists(st.integers(0, 2**48), min_size=len(NAMES), max_size=len(NAMES)), min_size=3, max_size=3),
    dead=st.lists(st.integers(0, 2), max_size=5),
)
def test_a_fold_moves_counts_and_drops_gauges(rows: list[list[int]], dead: list[int]) -> None:
    width = CELLS
    words = memoryview(bytearray(8 * (1 + 4 * width))).cast("Q")
    totals_at, rows_at = 1, [1 + (1 + number) * width for number in range(3)]
    for at, row in zip(rows_at, rows, strict=True):
        for offset, value in enumerate(row):
            words[at + offset] = value
    before, _ = read(words, totals_at, rows_at)
    for number in dead:
        fold(words, 0, totals_at, rows_at[number])
    after, now = read(words, totals_at, rows_at)
    assert words[0] == 2 * len(dead)
    for index, counter in enumerate(COUNTERS):
        if counter.gauge:
            assert after[counter.name] == sum(rows[n][index] for n in range(3) if n not in dead)
        else:
            assert after[counter.name] == before[counter.name]
    assert all(now[number][name] == 0 for number in dead for name in NAMES)


def test_a_reader_never_sees_a_word_half_written(segment: Segment) -> None:
    """All ones and all zeros in turns: anything else would be half of each."""
    at, ones = segment.counters(0), 2**64 - 1
    low, high = filled(0), Tally()
    for name in NAMES:
        if not name.startswith("responses_"):
            setattr(low, name, 0)
            setattr(high, name, ones)
    low.classes, high.classes = [0] * 6, [ones] * 6

    def write() -> None:
        while True:
            low.publish(segment.words, at)
            high.publish(segment.words, at)

    with forked(write):
        wait_until(lambda: segment.words[at] == ones)
        seen: set[int] = set()

        def look() -> bool:
            for _ in range(10_000):
                seen.update(segment.words[at : at + len(NAMES)].tolist())
            return time.monotonic() > end and {0, ones} <= seen

        end = time.monotonic() + 0.1
        wait_until(look, within=30)
    assert seen == {0, ones}


def test_a_reader_never_sees_a_counter_go_backwards(segment: Segment) -> None:
    """Not even to nothing for a moment, as struct.pack_into() would have it."""

    def write() -> None:
        tally = filled(1)
        while True:
            tally.requests += 1
            tally.publish(segment.words, segment.counters(0))

    at = segment.counters(0) + index_of("requests")
    with forked(write):
        wait_until(lambda: segment.words[at])
        seen: list[int] = []

        def look() -> bool:
            seen.extend(segment.words[at] for _ in range(10_000))
            return len(seen) > 300_000 and len(set(seen)) > 100

        wait_until(look, within=30)
    assert all(before <= after for before, after in pairwise(seen))


def test_a_worker_killed_at_any_moment_takes_no_count_with_it(segment: Segment) -> None:
    at = segment.counters(0) + index_of("requests")

    def write() -> None:
        tally = filled(1 << 40)
        tally.requests = 1 << 40
        while True:
            tally.publish(segment.words, segment.counters(0))

    for _ in range(100):
        segment.words[at] = 0
        with forked(write) as worker:
            wait_until(lambda: segment.words[at])
            worker.kill()
        assert segment.words[at] == 1 << 40


def test_totals_are_monotonic_for_a_reader_in_another_process(segment: Segment) -> None:
    """Workers count, die, are folded and replaced; a reader without any lock looks on all the time."""
    attached = Segment.attach(segment.name)
    names = [*(counter.name for counter in COUNTERS if not counter.gauge), "timed"]
    readable, writable = os.pipe()

    def watch() -> int:
        before = dict.fromkeys(names, 0)
        looks = 0
        os.set_blocking(readable, False)
        while True:
            totals = snapshot(attached).totals | {"timed": sum(snapshot(attached).buckets["answer_time"])}
            for name in names:
                if totals[name] < before[name]:
                    print(f"{name}: {before[name]} and then {totals[name]}")
                    return 1
            before = {name: totals[name] for name in names}
            looks += 1
            try:
                os.read(readable, 1)
            except BlockingIOError:
                continue
            return 0 if looks > 100 else 2

    def count(slot: int) -> None:
        tally = Tally()
        tally.attach(segment.words, segment.counters(slot))
        tally.connections_open = 5
        for _ in range(50):
            tally.took(5_000)
            tally.requests += 1
            tally.bytes_sent += 1000
            tally.classes[2] += 1
            tally.publish(segment.words, segment.counters(slot))

    with forked(watch) as reader:
        for round_ in range(150):
            slot = round_ % segment.slots
            assert run_forked(lambda slot=slot: count(slot)) == 0  # type: ignore[misc]
            fold(segment.words, HEADER["fold"], TOTALS, segment.counters(slot))
        os.write(writable, b".")
        assert reader.wait() == 0
    totals = snapshot(attached).totals
    assert totals["requests"] == totals["responses_2xx"] == 150 * 50 == sum(snapshot(attached).buckets["answer_time"])
    assert totals["connections_open"] == 0
    attached.close()
    os.close(readable)
    os.close(writable)


# -- durations --------------------------------------------------------------------------------------


def test_each_histogram_has_the_counter_that_is_its_sum() -> None:
    assert all(histogram.text and index_of(histogram.name) for histogram in HISTOGRAMS)
    assert {counter.kind for counter in COUNTERS if counter.name in [one.name for one in HISTOGRAMS]} == {"counter"}


@given(st.integers(1_100, 2**36 - 1))
def test_a_duration_is_within_five_percent_of_what_is_told_of_it(duration_ns: int) -> None:
    tally = Tally()
    tally.took(duration_ns)
    buckets = tally.answer_times._words.tolist()
    told = quantile(buckets, 0.5)
    assert told is not None
    assert abs(told - duration_ns) < duration_ns * 0.05
    index = buckets.index(1)
    assert bound(index) * 1.000001 > duration_ns
    assert index == 0 or bound(index - 1) <= duration_ns * 1.000001


@given(st.integers(-(2**40), 2**63), st.integers(1, 16))
def test_every_duration_has_a_bucket(duration_ns: int, count: int) -> None:
    durations = Durations()
    durations.add(duration_ns, count)
    assert sum(durations._words) == count
    if duration_ns < 1024:
        assert durations._words[0] == count
    if duration_ns >= 2**36:
        assert durations._words[BUCKETS - 1] == count


@given(st.lists(st.integers(1_100, 10**10), min_size=1, max_size=400), st.sampled_from([0.5, 0.9, 0.99, 0.999]))
def test_quantiles_are_those_of_the_sorted_list(values: list[int], share: float) -> None:
    durations = Durations()
    for value in values:
        durations.add(value)
    exact = sorted(values)[max(0, math.ceil(len(values) * share) - 1)]
    told = quantile(durations._words.tolist(), share)
    assert told is not None
    assert abs(told - exact) < exact * 0.05


# Of each some seconds, as a server might have them: what the caches have, a disk that is asked now and then, downloads.
DISTRIBUTIONS: Final[dict[str, Callable[[random.Random], float]]] = {
    "one value": lambda _: 1.2345e-3,
    "uniform": lambda chance: chance.uniform(1e-4, 2e-3),
    "exponential": lambda chance: 1e-5 + chance.expovariate(1 / 3e-4),
    "log-normal": lambda chance: 2e-6 + chance.lognormvariate(math.log(1e-4), 1.5),
    "two humps": lambda chance: abs(chance.gauss(8e-5, 1e-5) if chance.random() < 0.93 else chance.gauss(9e-3, 1e-3)),
    "a long tail": lambda chance: min(60.0, 5e-5 * chance.paretovariate(0.8)),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_percentiles_of_known_distributions_are_within_five_percent(name: str) -> None:
    """As `pyserver status` tells them, of twenty thousand durations."""
    chance, durations = random.Random(name), Durations()
    values = sorted(int(1e9 * DISTRIBUTIONS[name](chance)) for _ in range(20_000))
    for value in values:
        durations.add(value)
    for share in QUANTILES.values():
        exact = values[math.ceil(len(values) * share) - 1]
        told = quantile(durations._words.tolist(), share)
        assert told == pytest.approx(exact, rel=0.05), f"{share:.1%}"


def test_nothing_has_no_quantile() -> None:
    assert quantile([0] * BUCKETS, 0.5) is None


def test_durations_are_counted_in_the_row_and_survive_their_worker(segment: Segment) -> None:
    tally = Tally()
    tally.attach(segment.words, segment.counters(1))
    before = segment.words.tolist()
    tally.waited(2_000_000, 3)
    tally.took(50_000)
    rows = [segment.counters(slot) for slot in range(segment.slots)]
    changed = [at for at, word in enumerate(segment.words) if word != before[at]]
    assert len(changed) == 2
    assert all(rows[1] + len(COUNTERS) <= at < rows[1] + CELLS for at in changed)
    for _ in range(2):
        found = read_buckets(segment.words, TOTALS, rows)
        assert (sum(found["queue_wait"]), sum(found["answer_time"])) == (3, 1)
        assert found["queue_wait"].index(3) > found["answer_time"].index(1)
        fold(segment.words, HEADER["fold"], TOTALS, rows[1])
    assert not any(segment.words[rows[1] : rows[1] + CELLS])
    assert (tally.queue_wait, tally.answer_time) == (6_000_000, 50_000)


def test_what_another_wrote_into_our_buckets_does_not_end_us(segment: Segment) -> None:
    tally = Tally()
    tally.attach(segment.words, segment.counters(0))
    for at in range(segment.counters(0), segment.counters(0) + CELLS):
        segment.words[at] = 2**64 - 1
    tally.took(50_000, 7)
    tally.waited(50_000, 7)
    assert sum(word == 6 for word in segment.words) >= 2


def test_a_round_times_what_it_answered() -> None:
    tally = Tally()
    tally.round_ends(1_000_000)
    assert tally.answer_time == 0
    tally.requests = 5
    tally.apart = 2  # under way still
    tally.round_ends(1_000_000)
    tally.round_ends(9_000_000)
    assert tally.answer_time == 3_000_000
    assert sum(tally.answer_times._words) == 3
    tally.requests = 6
    tally.round_ends(2_000_000)
    assert tally.answer_time == 5_000_000


def test_what_is_timed_apart_and_never_became_a_request_takes_nothing_away() -> None:
    """It is an error of ours in between, and no bucket shall have fewer than none by it: they are words."""
    tally = Tally()
    tally.requests = 5
    tally.round_ends(1_000_000)
    tally.apart = 1
    tally.round_ends(2_000_000)
    assert (tally.answer_time, sum(tally.answer_times._words)) == (5_000_000, 5)
    tally.requests = 7
    tally.round_ends(3_000_000)
    assert (tally.answer_time, sum(tally.answer_times._words)) == (8_000_000, 6)
