"""Deadlines: never early, never more than two ticks late, and cheap to move; against a plain list of all of them."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from pyserver.limits import PARKING_TICKS_PER_S
from pyserver.worker.parking import Parking

TICK_S = 1 / PARKING_TICKS_PER_S


@dataclass(eq=False)
class Waiting:
    deadline: float
    bucket: int = 0


def parked(parking: Parking[Waiting], deadline: float) -> Waiting:
    waiting = Waiting(deadline)
    parking.put(waiting)
    return waiting


steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.floats(0, 20)),
        st.tuples(st.just("move"), st.floats(0, 20)),
        st.tuples(st.just("remove"), st.just(0.0)),
        st.tuples(st.just("wait"), st.floats(0, 3)),
        st.tuples(st.just("sleep"), st.floats(10, 500)),  # a suspended machine
    ),
    max_size=60,
)


@given(steps, st.floats(0, 10_000), st.randoms(use_true_random=False))
def test_due_is_what_a_plain_list_says_within_two_ticks(
    steps: list[tuple[str, float]],
    start: float,
    chance: "st.random.Random",  # type: ignore[name-defined]
) -> None:
    now = start
    parking: Parking[Waiting] = Parking(now)
    there: list[Waiting] = []
    for verb, amount in steps:
        if verb == "put":
            there.append(parked(parking, now + amount))
        elif verb in ("wait", "sleep"):
            now += amount
            due = parking.due(now)
            assert len(set(due)) == len(due)
            for each in due:
                assert each in there, "removed, or reported before"
                assert each.deadline <= now, "early"
                there.remove(each)
            assert all(each.deadline > now - 2 * TICK_S for each in there), "late"
        elif there:
            each = chance.choice(there)
            if verb == "move":
                each.deadline = now + amount
                parking.put(each)
            else:
                parking.remove(each)
                there.remove(each)
                assert each.bucket == 0
    assert set(parking.earliest()) == set(there)


def test_moving_later_changes_no_bucket() -> None:
    parking: Parking[Waiting] = Parking(100.0)
    waiting = parked(parking, 101.0)
    before = waiting.bucket
    for later in range(102, 200):
        waiting.deadline = float(later)
        parking.put(waiting)
        assert waiting.bucket == before
    assert parking.due(102.0) == []
    assert waiting.bucket > before, "moved when its bucket came"
    assert parking.due(198.9) == []
    assert parking.due(199.5) == [waiting]


def test_moving_earlier_is_seen_at_the_earlier_time() -> None:
    parking: Parking[Waiting] = Parking(100.0)
    waiting = parked(parking, 160.0)
    waiting.deadline = 101.0
    parking.put(waiting)
    assert parking.due(100.9) == []
    assert parking.due(101.0 + 2 * TICK_S) == [waiting]
    assert parking.due(200.0) == []


def test_a_deadline_that_has_passed_already_is_due_at_the_next_tick() -> None:
    parking: Parking[Waiting] = Parking(100.0)
    waiting = parked(parking, 50.0)
    assert parking.due(100.0) == []
    assert parking.due(100.0 + TICK_S) == [waiting]


def test_within_one_tick_it_looks_only_once() -> None:
    parking: Parking[Waiting] = Parking(100.0)
    waiting = parked(parking, 100.0)
    assert parking.due(100.0 + TICK_S) == [waiting]
    parked(parking, 0.0)
    assert parking.due(100.0 + TICK_S * 1.5) == []


def test_removing_twice_or_what_was_never_there_is_nothing() -> None:
    parking: Parking[Waiting] = Parking(100.0)
    waiting = parked(parking, 101.0)
    parking.remove(waiting)
    parking.remove(waiting)
    parking.remove(Waiting(1.0))
    assert parking.due(200.0) == []


def test_earliest_first_and_removable_on_the_way() -> None:
    parking: Parking[Waiting] = Parking(100.0)
    all_of_them = [parked(parking, 100.0 + seconds) for seconds in (5, 1, 3, 2, 4)]
    seen = []
    for each in parking.earliest():
        seen.append(each.deadline - 100)
        parking.remove(each)
    assert seen == [1, 2, 3, 4, 5]
    assert all(each.bucket == 0 for each in all_of_them)


def test_ten_thousand_idle_ones_cost_next_to_nothing_while_they_wait() -> None:
    parking: Parking[Waiting] = Parking(0.0)
    for number in range(10_000):
        parked(parking, 65 + number / 1000)
    looked_at = sum(len(parking.due(now * TICK_S)) for now in range(4 * 60))
    assert looked_at == 0
