"""Policy over the workers: which state follows which event, and what should be done now. Nothing is done here.

Owns:    the table of states; the rules of respawn, throttle and hanging.
Never:   forks, signals, reads a clock: it is told the time and answers with actions (master.children acts).
Fails:   RuntimeError for an event that cannot happen in a state: our own inconsistency.
Used by: master.main; master.workers, master.succession, master.stopping (the states).
"""

import logging
from collections.abc import Iterable
from enum import IntEnum
from typing import Final, Literal, NamedTuple

from pyserver.ipc.messages import DOOMED_FROM
from pyserver.limits import ABORT_GRACE_S, CUT_GRACE_S, PROVEN_AFTER_S, RESPAWN_DELAY_S

log = logging.getLogger("pyserver")


class State(IntEnum):
    """Where a worker's place stands; the number is in the segment for whoever looks."""

    EMPTY = 0  # no process
    STARTING = 1  # spawned, has not said READY
    READY = 2  # may be given connections
    DRAINING = 3  # finishes what it has, gets nothing new
    ABORTED = DOOMED_FROM  # hung: told to write its stacks and die
    KILLED = 5  # SIGKILL sent, waiting for the exit


Event = Literal["spawned", "ready", "drain", "hung", "killed", "exited"]

NEXT: Final[dict[tuple[State, Event], State]] = {
    (State.EMPTY, "spawned"): State.STARTING,
    (State.STARTING, "ready"): State.READY,
    (State.STARTING, "drain"): State.DRAINING,
    (State.STARTING, "hung"): State.ABORTED,
    (State.STARTING, "killed"): State.KILLED,
    (State.STARTING, "exited"): State.EMPTY,
    (State.READY, "drain"): State.DRAINING,
    (State.READY, "hung"): State.ABORTED,
    (State.READY, "killed"): State.KILLED,
    (State.READY, "exited"): State.EMPTY,
    (State.DRAINING, "ready"): State.DRAINING,  # it was told to drain while it started
    (State.DRAINING, "hung"): State.ABORTED,
    (State.DRAINING, "killed"): State.KILLED,
    (State.DRAINING, "exited"): State.EMPTY,
    (State.ABORTED, "killed"): State.KILLED,
    (State.ABORTED, "exited"): State.EMPTY,
    (State.KILLED, "exited"): State.EMPTY,
}


def step(state: State, event: Event) -> State:
    """Return the state that follows."""
    try:
        return NEXT[state, event]
    except KeyError:
        raise RuntimeError(f"{event} while {state.name}") from None


class Place:
    """One worker slot, as the policy sees it."""

    def __init__(
        self,
        slot: int,
        state: State = State.EMPTY,
        *,
        generation: int = 0,
        since: float = 0.0,
        spawned_at: float = 0.0,
        beat: float = 0.0,
        early_deaths: int = 0,
        not_before: float = 0.0,
        crew: int = 1,
        drain_by: float = 0.0,
    ) -> None:
        self.slot = slot
        self.state = state
        self.generation = generation  # of the worker that is, or was last, here
        self.since = since  # when the present state began
        self.spawned_at = spawned_at
        self.beat = beat  # the worker's last sign of life, by the segment; 0: none yet
        self.early_deaths = early_deaths  # in a row
        self.not_before = not_before  # the throttle: no spawn until then
        self.crew = crew  # the workers of one configuration: each reload has its own
        self.drain_by = drain_by  # of a worker that a reload has replaced: when it shall have gone

    def happened(self, event: Event, now: float) -> None:
        """Move to the next state."""
        before, self.state = self.state, step(self.state, event)
        self.since = now
        log.debug("worker %d %s: %s -> %s", self.slot, event, before.name, self.state.name)

    @property
    def serves(self) -> bool:
        """Whether connections may be given to it."""
        return self.state is State.READY

    @property
    def runs(self) -> bool:
        """Whether it has a process."""
        return self.state is not State.EMPTY


class Rules(NamedTuple):
    """What the administrator has to say about it; seconds."""

    start_within: float
    hung_after: float
    respawn_delay_max: float


class Action(NamedTuple):
    """What should be done with a slot: spawn it, abort it (stacks, then death), kill it."""

    verb: Literal["spawn", "abort", "kill"]
    slot: int


def decide(places: Iterable[Place], now: float, rules: Rules, *, refill: Iterable[int], judge: bool) -> list[Action]:
    """Return the actions that bring the places toward what is wanted.

    `refill` are the slots that shall have a worker. `judge` is false when the master itself was late: then a silent
    heartbeat proves nothing.
    """
    actions = []
    refill = frozenset(refill)
    for place in places:
        if place.state is State.EMPTY:
            if place.slot in refill and now >= place.not_before:
                actions.append(Action("spawn", place.slot))
        elif place.state is State.ABORTED:
            if now - place.since >= ABORT_GRACE_S:
                actions.append(Action("kill", place.slot))
        elif place.state is State.DRAINING and 0 < place.drain_by <= now - CUT_GRACE_S:
            actions.append(Action("kill", place.slot))
        elif place.state is not State.KILLED and judge and silent_for(place, now) >= patience(place, rules):
            actions.append(Action("abort", place.slot))
    return actions


def silent_for(place: Place, now: float) -> float:
    """Return for how long a worker has given no sign of life, in seconds."""
    return now - max(place.beat, place.spawned_at)


def patience(place: Place, rules: Rules) -> float:
    """Return how long a worker may be silent: longer before its first beat than after."""
    return rules.hung_after if place.beat else rules.start_within


def fresh(places: Iterable[Place], now: float, rules: Rules) -> bool:
    """Tell whether no worker that serves is silent for too long: half of what the watchdog wants to know.

    With no worker at all it is true: the master is well and the throttle at work, and an end by the watchdog would only
    begin the same start-ups anew.
    """
    return all(silent_for(place, now) < patience(place, rules) for place in places if place.serves)


def rest(place: Place, now: float, rules: Rules) -> float:
    """Note a death, and return how long the place rests before its next worker, in seconds.

    A worker that lived for a while is replaced at once. Each one that dies young doubles the rest.
    """
    if now - place.spawned_at >= PROVEN_AFTER_S:
        place.early_deaths = 0
        return 0.0
    place.early_deaths += 1
    if place.early_deaths == 1:
        return 0.0
    # The exponent is bounded before it is used: a crash loop can go on for weeks.
    doublings = min(place.early_deaths - 2, 20)
    return float(min(rules.respawn_delay_max, RESPAWN_DELAY_S * 2**doublings))
