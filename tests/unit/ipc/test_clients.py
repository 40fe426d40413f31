"""What a client took: never less than it did, bounded for all of them together, and nothing left of the dead."""

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.processes import at_step, die, forked, run_forked, steps_of

from pyserver.ipc.clients import _RATES, _ROWS, CONNECTIONS, PLACES, REQUESTS, ClientTable, Rate

S = 1_000_000_000
NOW = 1_000 * S


@pytest.fixture
def table() -> Iterator[ClientTable]:
    made = ClientTable(4)
    for slot in range(4):
        made.clear(slot)
    yield made
    made.close()


def granted(table: ClientTable, client: bytes, times: list[int], rate: Rate) -> list[bool]:
    places = table.places(client)
    return [table.take(REQUESTS, places, at, rate) == 0 for at in times]


# -- rates -----------------------------------------------------------------------------------------


def test_a_burst_at_once_and_then_the_rate(table: ClientTable) -> None:
    rate = Rate.of(10, 5)
    assert granted(table, b"a", [NOW] * 6, rate) == [True] * 5 + [False]
    assert granted(table, b"a", [NOW + S // 10, NOW + S // 10], rate) == [True, False]
    assert granted(table, b"a", [NOW + 10 * S] * 6, rate) == [True] * 5 + [False], "rest fills up to the burst only"


def test_who_is_refused_is_told_when_it_may_come_again(table: ClientTable) -> None:
    rate, places = Rate.of(2, 1), table.places(b"a")
    assert table.take(REQUESTS, places, NOW, rate) == 0
    assert table.take(REQUESTS, places, NOW + S // 5, rate) == S // 2 - S // 5
    assert table.take(REQUESTS, places, NOW + S // 2 - 1, rate) == 1, "being refused has cost nothing"
    assert table.take(REQUESTS, places, NOW + S // 2, rate) == 0


def test_the_two_rates_are_apart(table: ClientTable) -> None:
    rate, places = Rate.of(1, 1), table.places(b"a")
    assert table.take(REQUESTS, places, NOW, rate) == 0
    assert table.take(CONNECTIONS, places, NOW, rate) == 0
    assert table.take(REQUESTS, places, NOW, rate) > 0
    assert table.take(CONNECTIONS, places, NOW, rate) > 0


@given(
    gaps=st.lists(st.integers(0, S), max_size=60),
    per_second=st.integers(1, 1000),
    burst=st.integers(1, 20),
)
def test_in_no_span_of_time_more_than_the_burst_and_the_rate(gaps: list[int], per_second: int, burst: int) -> None:
    table, rate = ClientTable(1), Rate.of(per_second, burst)
    at, times = NOW, []
    for gap in gaps:
        at += gap
        times.append(at)
    let_in = [when for when, ok in zip(times, granted(table, b"a", times, rate), strict=True) if ok]
    for first in range(len(let_in)):
        for last in range(first, len(let_in)):
            assert last - first + 1 <= burst + (let_in[last] - let_in[first]) // rate.period_ns
    table.close()


def test_others_do_not_notice_a_hundred_who_are_at_their_limit(table: ClientTable) -> None:
    """The secret is new in each start, so the few that share both places with somebody are others each time."""
    rate = Rate.of(1, 3)
    for number in range(100):
        granted(table, b"bad %d" % number, [NOW] * 10, rate)
    harmed = sum(not all(granted(table, b"good %d" % number, [NOW] * 2, rate)) for number in range(300))
    # (200 / 32768) squared is one in 26,000.
    assert harmed < 3


def test_nobody_is_taken_for_less_than_it_is(table: ClientTable) -> None:
    rate = Rate.of(1, 2)
    for number in range(30_000):
        assert granted(table, b"%d" % number, [NOW] * 3, rate)[2] is False


def test_what_nobody_of_ours_wrote_is_taken_for_nothing(table: ClientTable) -> None:
    """A worker that was broken into can write anything into the table."""
    rate = Rate.of(10, 5)
    words = table._words
    for at in range(_RATES, len(words)):
        words[at] = 2**64 - 1
    assert granted(table, b"a", [NOW] * 6, rate) == [True] * 5 + [False]
    words[_ROWS] = 2**64 - 1
    assert table.open_now(table.places(b"a")) == 0


def test_a_killed_worker_leaves_a_place_as_it_was_or_as_it_would_be(table: ClientTable) -> None:
    rate, places = Rate.of(10, 5), table.places(b"a")
    cells = [REQUESTS + place for place in places]
    codes = [ClientTable.take.__code__]

    def take() -> None:
        table.take(REQUESTS, places, NOW, rate)

    for step in range(1, steps_of(codes, take)):
        for cell in cells:
            table._words[cell] = 0

        def killed(step: int = step) -> None:
            at_step(codes, step, die)
            take()

        run_forked(killed)
        assert {table._words[cell] for cell in cells} <= {0, NOW + rate.period_ns}
        assert sum(granted(table, b"a", [NOW] * 6, rate)) in (4, 5)


# -- what is open ----------------------------------------------------------------------------------


def test_open_connections_are_those_of_all_workers(table: ClientTable) -> None:
    places = table.places(b"a")
    for slot in (0, 1, 1, 3):
        table.enter(slot, places)
    assert table.open_now(places) == 4
    table.leave(1, places)
    assert table.open_now(places) == 3
    assert table.open_now(table.places(b"b")) == 0


def test_what_a_dead_worker_had_open_goes_with_its_row(table: ClientTable) -> None:
    places = table.places(b"a")
    table.enter(1, places)

    def worker() -> None:
        for _ in range(7):
            table.enter(2, places)
        os.kill(os.getpid(), 9)

    with forked(worker) as child:
        child.wait()
    assert table.open_now(places) == 8
    table.clear(2)
    assert table.open_now(places) == 1


def test_both_places_may_be_the_same(table: ClientTable) -> None:
    for _ in range(2):
        table.enter(0, (5, 5))
    assert table.open_now((5, 5)) == 2
    table.leave(0, (5, 5))
    assert table.open_now((5, 5)) == 1


def test_nothing_is_ever_less_than_none_open(table: ClientTable) -> None:
    table.leave(0, (1, 2))
    assert table.open_now((1, 2)) == 0
    table.enter(0, (1, 2))
    assert table.open_now((1, 2)) == 1


# -- bounds ----------------------------------------------------------------------------------------


def shared_bytes() -> int:
    """Return how much shared memory this process has in RAM."""
    text = Path("/proc/self/status").read_text()
    return int(text.partition("RssShmem:")[2].split()[0]) * 1024


def test_a_million_addresses_take_no_more_than_the_table(table: ClientTable) -> None:
    rate, source = Rate.of(10, 5), random.Random(7)
    for word in range(0, len(table._words), 512):
        table._words[word] = table._words[word]  # all of its pages are there from now on
    shared = shared_bytes()
    blocks = sys.getallocatedblocks()
    for _ in range(1_000_000):
        table.take(REQUESTS, table.places(source.randbytes(8)), NOW, rate)
    assert shared_bytes() <= shared + 65536
    # A word that grows to a large number is one block; a million of anything would be a million.
    assert sys.getallocatedblocks() < blocks + 10_000


def test_places_are_spread_evenly_and_by_a_secret(table: ClientTable) -> None:
    found = {place for number in range(3000) for place in table.places(number.to_bytes(4, "big"))}
    assert len(found) > 5000, "of six thousand"
    assert all(0 <= place < PLACES for place in found)
    other = ClientTable(1)
    assert [table.places(b"%d" % n) for n in range(9)] != [other.places(b"%d" % n) for n in range(9)]
    other.close()
