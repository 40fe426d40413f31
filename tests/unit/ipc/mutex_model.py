"""A model of ipc.semaphores.Mutex, small enough that every state it can reach is visited.

One step is one access to what the processes share: one cell, or the semaphore. Between two steps anybody may be delayed
for ever (so a SIGSTOP needs no step of its own) and a wait that sleeps may end in vain at any moment. Party 0 may be
killed anywhere, and is started again when the master has recovered from its death.

`turns` and `holds` count without end. The master only asks whether they moved since it read them, so the model keeps
just that: moves since the reading, up to as many as make a difference. This makes the states finite in number.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple, TypeAlias


class Rules(NamedTuple):
    """What the order of things in Mutex is good for: with any of them weakened there is a hole."""

    held_before_counted: bool = True  # __enter__ says HELD, then counts in `holds`
    holds_before_states: bool = True  # the look reads `holds`, then the states
    turns_after_states: bool = True  # and `turns` last
    states_before_holds: bool = True  # the judgement reads states and turns, then holds
    vain_waits: int = 2  # by how much `turns` must move: the first wait may have begun before the look


# Where a party is. Between TAKEN and INSIDE it sets its two cells, one after the other.
OUT, TRYING, ASLEEP, IN_VAIN, DECIDING, GIVING_UP, TAKEN, HALF_SAID, INSIDE, LEFT = range(10)
HOLDING: Final = frozenset((TAKEN, HALF_SAID, INSIDE))

# What its state cell says.
IDLE, WANTED, HELD = range(3)

# Where the master is: outside of recover() (or holding the mutex for a purpose of its own), or at a step of it.
AWAY, OWN, LOOKING, WAITING, SLEEPING, TOOK, JUDGING, DOUBTING = range(8)

Party: TypeAlias = tuple[int, int, int, int]  # place, state cell, moves of turns, moves of holds
Master: TypeAlias = tuple[int, int, bool]  # place, step of a list of readings, a look stands
State: TypeAlias = tuple[int, bool, tuple[Party, ...], Master]  # semaphore, party 0 is dead, parties, master

START_PARTY: Final[Party] = (OUT, IDLE, 0, 0)
REST: Final[Master] = (AWAY, 0, False)


class Broken(Exception):
    """The protocol failed in this state."""


class Model:
    """The transition system of party 0, some others, and the master."""

    def __init__(self, rules: Rules, others: int) -> None:
        self.rules = rules
        self.start: State = (1, False, (START_PARTY,) * (1 + others), REST)
        living = range(1, 1 + others)
        holds = [("holds", each) for each in living]
        states = [("state", each) for each in living]
        turns = [("turns", each) for each in living]
        self._look = holds + states if rules.holds_before_states else states + holds
        self._look = self._look + turns if rules.turns_after_states else turns + self._look
        waits = [(what, each) for each in living for what in ("waits", "turned")]
        moved = [("moved", each) for each in living]
        self._judge = waits + moved if rules.states_before_holds else moved + waits

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        """Yield every step that may be next, and where it leads."""
        semaphore, dead, parties, master = state
        for number, party in enumerate(parties):
            if number == 0 and dead:
                continue
            for semaphore_then, moved in self._party_steps(semaphore, party):
                then = (*parties[:number], moved, *parties[number + 1 :])
                yield f"party {number}", (semaphore_then, dead, then, master)
        if not dead:
            yield "kill", (semaphore, True, parties, master)
        yield from self._master_steps(state)

    def _party_steps(self, semaphore: int, party: Party) -> Iterator[tuple[int, Party]]:
        place, cell, turns, holds = party
        counted = (turns, min(holds + 1, 1))
        if place == OUT:
            yield semaphore, (TRYING, WANTED, turns, holds)
        elif place == TRYING:
            yield (semaphore - 1, (TAKEN, cell, turns, holds)) if semaphore else (0, (ASLEEP, cell, turns, holds))
        elif place == ASLEEP:
            if semaphore:
                yield semaphore - 1, (TAKEN, cell, turns, holds)
            yield semaphore, (IN_VAIN, cell, turns, holds)
        elif place == IN_VAIN:
            yield semaphore, (DECIDING, cell, min(turns + 1, self.rules.vain_waits), holds)
        elif place == DECIDING:
            yield semaphore, (TRYING, cell, turns, holds)
            yield semaphore, (GIVING_UP, cell, turns, holds)
        elif place == GIVING_UP:
            yield semaphore, (OUT, IDLE, turns, holds)
        elif place == TAKEN:
            first = (HELD, turns, holds) if self.rules.held_before_counted else (cell, *counted)
            yield semaphore, (HALF_SAID, *first)
        elif place == HALF_SAID:
            second = (cell, *counted) if self.rules.held_before_counted else (HELD, turns, holds)
            yield semaphore, (INSIDE, *second)
        elif place == INSIDE:
            yield semaphore + 1, (LEFT, cell, turns, holds)
        elif place == LEFT:
            yield semaphore, (OUT, IDLE, turns, holds)

    # -- the master ------------------------------------------------------------------------------

    def _master_steps(self, state: State) -> Iterator[tuple[str, State]]:
        semaphore, dead, parties, (place, _step, looked) = state

        def to(*master: int | bool, semaphore: int = semaphore) -> tuple[str, State]:
            return "master", (semaphore, dead, parties, master)  # type: ignore[return-value]

        if place == AWAY:
            if semaphore:
                yield to(OWN, 0, False, semaphore=semaphore - 1)
            if dead:
                yield self._done(state, held=False) if parties[0][1] == IDLE else to(LOOKING, 0, False)
        elif place == OWN:
            yield to(*REST, semaphore=semaphore + 1)
        elif place == LOOKING:
            yield from self._look_steps(state)
        elif place == WAITING:
            yield to(TOOK, 0, looked, semaphore=semaphore - 1) if semaphore else to(SLEEPING, 0, looked)
        elif place == SLEEPING:
            if semaphore:
                yield to(TOOK, 0, looked, semaphore=semaphore - 1)
            yield to(*((JUDGING, 0, True) if looked else (LOOKING, 0, False)))
            yield to(*REST)  # Stuck; it may begin anew
        elif place == TOOK:
            yield self._done((semaphore + 1, dead, parties, REST), held=False)
        elif place in (JUDGING, DOUBTING):
            yield from self._judge_steps(state)

    def _look_steps(self, state: State) -> Iterator[tuple[str, State]]:
        semaphore, dead, parties, (_, step, _looked) = state
        if step == len(self._look):
            yield "master", (semaphore, dead, parties, (WAITING, 0, True))
            return
        what, number = self._look[step]
        place, cell, turns, holds = parties[number]
        if what == "state":
            after = (WAITING, 0, False) if cell == HELD else (LOOKING, step + 1, False)
            yield "master", (semaphore, dead, parties, after)
        else:
            read = (place, cell, 0, holds) if what == "turns" else (place, cell, turns, 0)
            then = (*parties[:number], read, *parties[number + 1 :])
            yield "master", (semaphore, dead, then, (LOOKING, step + 1, False))

    def _judge_steps(self, state: State) -> Iterator[tuple[str, State]]:
        semaphore, dead, parties, (place, step, _looked) = state
        if step == len(self._judge):
            if place == JUDGING:
                yield self._done((semaphore + 1, dead, parties, REST), held=True)
            else:
                yield "master", (semaphore, dead, parties, (WAITING, 0, True))
            return
        what, number = self._judge[step]
        _place, cell, turns, holds = parties[number]
        after = (place, step + 1, True)
        if what == "moved" and holds:
            yield self._done((semaphore, dead, parties, REST), held=False)
            return
        if what == "waits" and cell == IDLE:
            after = (place, step + 2, True)  # how often it waited is no question
        elif (what == "waits" and cell == HELD) or (what == "turned" and turns < self.rules.vain_waits):
            after = (DOUBTING, step + 1, True)
        yield "master", (semaphore, dead, parties, after)

    def _done(self, state: State, *, held: bool) -> tuple[str, State]:
        """recover() returns: the dead one's state is cleared, and its successor begins."""
        semaphore, _dead, parties, _master = state
        if held != (parties[0][0] in HOLDING):
            raise Broken(f"recover() says {held}, the dead one was at {parties[0][0]}")
        return "master", (semaphore, False, (START_PARTY, *parties[1:]), REST)


def holders(state: State) -> int:
    """How many hold the mutex, the dead one included."""
    _semaphore, _dead, parties, (place, _step, _looked) = state
    return sum(party[0] in HOLDING for party in parties) + (place in (OWN, TOOK))


def relevant(state: State) -> State:
    """Forget the counters where nobody will compare them: states that differ only there are one."""
    semaphore, dead, parties, (place, step, looked) = state
    if looked or (place == LOOKING and step):
        kept = ((*parties[0][:2], 0, 0), *parties[1:])
    else:
        kept = tuple((at, cell, 0, 0) for at, cell, _turns, _holds in parties)
    return semaphore, dead, kept, (place, step, looked)


def explore(model: Model) -> tuple[set[State], list[str] | None]:
    """Visit every state; return them all, and the way to the first broken one."""
    came_from: dict[State, tuple[str, State] | None] = {model.start: None}
    edge = [model.start]
    while edge:
        next_edge: list[State] = []
        for state in edge:
            try:
                for what, reached in model.steps(state):
                    then = relevant(reached)
                    if then not in came_from:
                        came_from[then] = (what, state)
                        _check(then)
                        next_edge.append(then)
            except Broken as broken:
                return set(came_from), [*_way(came_from, state), str(broken)]
        edge = next_edge
    return set(came_from), None


def _check(state: State) -> None:
    """Free once, or held by one: anything else is a mutex that excludes nobody, or is lost."""
    if state[0] + holders(state) != 1:
        raise Broken(f"{holders(state)} holders, and the semaphore is {state[0]}")


def _way(came_from: dict[State, tuple[str, State] | None], state: State) -> list[str]:
    way: list[str] = []
    at: State | None = state
    while at is not None:
        before = came_from[at]
        way.append(f"{before[0] if before else 'start':8} -> {at}")
        at = before[1] if before else None
    return way[::-1]


def recovered_within(model: Model, state: State, rounds: int) -> int | None:
    """Let everybody who lives move on in turn, from a state in which the dead one holds; after how many is it freed?

    A wait that sleeps ends in vain in each round, and the master does not give up.
    """
    actors = ["master", *(f"party {number}" for number in range(1, len(state[2])))]
    for done in range(rounds):
        for actor in actors:
            ways = [then for what, then in model.steps(state) if what == actor]
            if actor == "master" and state[3][0] == AWAY:
                ways = [then for then in ways if then[3][0] != OWN]
            if ways:
                state = ways[0]
            if not state[1]:
                return done
    return None
