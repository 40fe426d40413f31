"""Policy over workers: every cell of the table, and every rule at its bounds."""

import logging
from typing import get_args

import pytest
from docs.states import CAUSE, MEANING, PAGE, page
from hypothesis import given
from hypothesis import strategies as st

from pyserver.limits import ABORT_GRACE_S, PROVEN_AFTER_S, RESPAWN_DELAY_S
from pyserver.master.supervisor import (
    NEXT,
    Action,
    Event,
    Place,
    Rules,
    State,
    decide,
    fresh,
    patience,
    rest,
    silent_for,
    step,
)

EVENTS: tuple[Event, ...] = get_args(Event)
RULES = Rules(start_within=10, hung_after=5, respawn_delay_max=4)
EMPTY, STARTING, READY, DRAINING, ABORTED, KILLED = State

# The whole table once more, by hand: rows are states, columns are events; None cannot happen.
#                spawned   ready     drain     hung     killed  exited
EXPECTED: dict[State, tuple[State | None, ...]] = {
    EMPTY: (STARTING, None, None, None, None, None),
    STARTING: (None, READY, DRAINING, ABORTED, KILLED, EMPTY),
    READY: (None, None, DRAINING, ABORTED, KILLED, EMPTY),
    DRAINING: (None, DRAINING, None, ABORTED, KILLED, EMPTY),
    ABORTED: (None, None, None, None, KILLED, EMPTY),
    KILLED: (None, None, None, None, None, EMPTY),
}


# -- the table --------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", EVENTS)
def test_every_cell(state: State, event: Event) -> None:
    after = EXPECTED[state][EVENTS.index(event)]
    if after is not None:
        assert step(state, event) is after
        return
    with pytest.raises(RuntimeError, match=f"^{event} while {state.name}$"):
        step(state, event)


def test_the_table_has_no_other_cells() -> None:
    assert len(NEXT) == sum(after is not None for row in EXPECTED.values() for after in row)


def test_whatever_runs_can_exit_and_whatever_is_not_dead_yet_can_be_killed() -> None:
    assert all(step(state, "exited") is EMPTY for state in State if state is not EMPTY)
    assert {state for state in State if (state, "killed") in NEXT} == set(State) - {EMPTY, KILLED}


def test_the_page_is_what_the_table_says() -> None:
    assert set(MEANING) == set(State)
    assert set(CAUSE) == set(EVENTS)
    assert PAGE.read_text("utf-8") == page(), "PYTHONPATH=service python3 docs/states.py"


def test_a_place_notes_when_its_state_began(caplog: pytest.LogCaptureFixture) -> None:
    place = Place(3)
    with caplog.at_level(logging.DEBUG, "pyserver"):
        place.happened("spawned", 7.5)
    assert (place.state, place.since) == (STARTING, 7.5)
    assert "worker 3 spawned: EMPTY -> STARTING" in caplog.messages or not logging.getLogger("pyserver").propagate


@pytest.mark.parametrize("state", State)
def test_what_a_state_means_for_others(state: State) -> None:
    place = Place(0, state)
    assert place.serves is (state is READY)
    assert place.runs is (state is not EMPTY)


# -- what should be done ------------------------------------------------------------------------------

NOW = 1000.0


def place(state: State, **values: float) -> Place:
    """A place that is well at NOW, but for `values`."""
    made = Place(0, state, generation=1, since=NOW - 1, spawned_at=NOW - 1, beat=NOW - 0.1)
    for name, value in values.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("found", "verb"),
    [
        (place(EMPTY), "spawn"),
        (place(EMPTY, not_before=NOW), "spawn"),
        (place(EMPTY, not_before=NOW + 0.001), None),
        (place(STARTING), None),
        (place(STARTING, beat=0, spawned_at=NOW - 9.9), None),
        (place(STARTING, beat=0, spawned_at=NOW - 10), "abort"),
        (place(READY), None),
        (place(READY, spawned_at=NOW - 100, beat=NOW - 4.9), None),
        (place(READY, spawned_at=NOW - 100, beat=NOW - 5), "abort"),
        (place(READY, spawned_at=NOW - 4.9, beat=NOW - 20), None),  # the beat is its predecessor's
        (place(DRAINING, spawned_at=NOW - 100, beat=NOW - 4.9), None),
        (place(DRAINING, spawned_at=NOW - 100, beat=NOW - 5), "abort"),
        (place(DRAINING, beat=0, spawned_at=NOW - 6), None),  # it was told to drain while it started
        (place(ABORTED, since=NOW - ABORT_GRACE_S + 0.01), None),
        (place(ABORTED, since=NOW - ABORT_GRACE_S), "kill"),
        (place(KILLED, since=NOW - 100, beat=1, spawned_at=1), None),
    ],
)
def test_decisions(found: Place, verb: str | None) -> None:
    actions = decide([found], NOW, RULES, refill=[0], judge=True)
    assert [action.verb for action in actions] == ([] if verb is None else [verb])


def test_only_slots_that_shall_have_a_worker_are_refilled() -> None:
    places = [Place(slot) for slot in range(4)]
    assert decide(places, NOW, RULES, refill=[1, 3], judge=True) == [Action("spawn", 1), Action("spawn", 3)]
    assert decide(places, NOW, RULES, refill=[], judge=True) == []


def test_a_master_that_was_late_itself_judges_nobody() -> None:
    """After SIGSTOP and SIGCONT, or a suspended machine, every heartbeat looks old."""
    silent = place(READY, spawned_at=0, beat=1)
    aborted = place(ABORTED, since=0)
    assert decide([silent], NOW, RULES, refill=[], judge=False) == []
    assert decide([aborted], NOW, RULES, refill=[], judge=False) == [Action("kill", 0)]


def test_deciding_changes_nothing() -> None:
    places = [place(state) for state in State]
    before = [repr(each) for each in places]
    decide(places, NOW + 100, RULES, refill=range(6), judge=True)
    assert [repr(each) for each in places] == before


def test_silence_and_patience() -> None:
    assert silent_for(place(READY, spawned_at=990, beat=995), NOW) == 5
    assert silent_for(place(READY, spawned_at=998, beat=995), NOW) == 2
    assert patience(place(STARTING, beat=0), RULES) == RULES.start_within
    assert patience(place(READY), RULES) == RULES.hung_after


@pytest.mark.parametrize(
    ("places", "healthy"),
    [
        ([], True),
        ([place(READY), place(READY)], True),
        ([place(READY), place(READY, spawned_at=0, beat=NOW - 5)], False),
        ([place(READY), place(STARTING, spawned_at=0, beat=0)], True),  # it does not serve, supervision sees to it
        ([place(READY), place(ABORTED, spawned_at=0, beat=1)], True),
        ([place(EMPTY), place(KILLED)], True),
    ],
)
def test_freshness_is_of_those_who_serve(places: list[Place], healthy: bool) -> None:
    assert fresh(places, NOW, RULES) is healthy


# -- the throttle -------------------------------------------------------------------------------------


def deaths(*lives: float) -> list[float]:
    """The rests after workers of one place that lived so long, one after the other."""
    found = Place(0)
    rests = []
    for life in lives:
        found.spawned_at = NOW
        rests.append(rest(found, NOW + life, RULES))
    return rests


@pytest.mark.parametrize(
    ("lives", "rests"),
    [
        ([PROVEN_AFTER_S], [0]),
        ([0.1], [0]),  # one early death is an accident
        ([0.1] * 4, [0, RESPAWN_DELAY_S, 2 * RESPAWN_DELAY_S, 4 * RESPAWN_DELAY_S]),
        ([0.1, 0.1, PROVEN_AFTER_S, 0.1, 0.1], [0, RESPAWN_DELAY_S, 0, 0, RESPAWN_DELAY_S]),
    ],
)
def test_rests(lives: list[float], rests: list[float]) -> None:
    assert deaths(*lives) == rests


def test_a_crash_loop_of_weeks_rests_as_long_as_allowed_and_no_longer() -> None:
    rests = deaths(*[0.1] * 5000)
    assert max(rests) == rests[-1] == RULES.respawn_delay_max
    assert rests == sorted(rests)


@given(st.lists(st.floats(0, 10), max_size=60), st.floats(0.01, 300))
def test_a_rest_is_never_longer_than_the_administrator_says(lives: list[float], limit: float) -> None:
    found = Place(0)
    for life in lives:
        found.spawned_at = NOW
        assert 0 <= rest(found, NOW + life, RULES._replace(respawn_delay_max=limit)) <= limit
