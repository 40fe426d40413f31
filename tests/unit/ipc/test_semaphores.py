"""The mutex that survives its holder: by argument (a model, every state visited) and by killing real holders."""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import cast

import posix_ipc
import pytest
from tests.unit.ipc import mutex_model
from tests.unit.ipc.mutex_model import Model, Rules, State, explore, holders, recovered_within
from tests.unit.processes import at_step, die, forked, steps_of, stop, wait_until

from pyserver.ipc import semaphores
from pyserver.ipc.segment import SHM, Segment
from pyserver.ipc.semaphores import Mutex, Semaphore, Stuck, create, set_value, try_acquire
from pyserver.limits import MUTEX_TURN_S

MUTEX_CODES = (Mutex.__enter__.__code__, Mutex.__exit__.__code__)


@pytest.fixture
def semaphore(segment: Segment) -> Iterator[Semaphore]:
    made = create(segment.name, "queue_mutex", 1)
    yield made
    made.unlink()
    made.close()


def cells(segment: Segment, slot: int) -> int:
    return segment.row(slot, "queue_mutex_state")


def said(segment: Segment, slot: int) -> list[int]:
    """What a party's three cells say."""
    at = cells(segment, slot)
    return segment.words[at : at + semaphores.CELLS].tolist()


# -- semaphores -----------------------------------------------------------------------------------


def test_a_name_is_made_once_and_for_its_owner_alone(segment: Segment, semaphore: Semaphore) -> None:
    file = SHM / f"sem.{segment.name[1:]}.queue_mutex"
    assert file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(posix_ipc.ExistentialError):
        create(segment.name, "queue_mutex", 1)


def test_try_acquire_takes_one_if_there_is_one(semaphore: Semaphore) -> None:
    assert try_acquire(semaphore)
    assert not try_acquire(semaphore)
    assert semaphore.value == 0


@pytest.mark.parametrize(("before", "target"), [(0, 5), (5, 0), (3, 3), (1, 2)])
def test_set_value(semaphore: Semaphore, before: int, target: int) -> None:
    while semaphore.value < before:
        semaphore.release()
    set_value(semaphore, target)
    assert semaphore.value == target


# -- the mutex, by one party ----------------------------------------------------------------------


def test_cells_tell_where_a_party_is(segment: Segment, semaphore: Semaphore) -> None:
    mutex = Mutex(semaphore, segment.words, cells(segment, 0))
    assert said(segment, 0) == [semaphores.State.IDLE, 0, 0]
    with mutex:
        assert said(segment, 0) == [semaphores.State.HELD, 0, 1]
        assert semaphore.value == 0
    assert said(segment, 0) == [semaphores.State.IDLE, 0, 1]
    assert semaphore.value == 1


def test_an_error_inside_gives_the_mutex_back(segment: Segment, semaphore: Semaphore) -> None:
    with pytest.raises(ZeroDivisionError), Mutex(semaphore, segment.words, cells(segment, 0)):
        _ = 1 / 0
    assert semaphore.value == 1
    assert said(segment, 0) == [semaphores.State.IDLE, 0, 1]


def test_waits_in_vain_are_counted_and_end(segment: Segment, semaphore: Semaphore) -> None:
    semaphore.acquire(0)
    began = time.monotonic()
    with pytest.raises(Stuck, match=r"^no turn at a mutex within 0\.1 s$"):
        Mutex(semaphore, segment.words, cells(segment, 0), patience_s=0.1).__enter__()
    assert 0.1 <= time.monotonic() - began < 5
    assert said(segment, 0) == [semaphores.State.IDLE, 0.1 / MUTEX_TURN_S, 0]
    assert semaphore.value == 0


def test_a_signal_during_the_wait_makes_it_try_again(segment: Segment, semaphore: Semaphore) -> None:
    seen = []

    def give(number: int, _frame: object) -> None:
        seen.append(number)
        if len(seen) == 5:
            semaphore.release()

    before = signal.signal(signal.SIGALRM, give)
    try:
        semaphore.acquire(0)
        signal.setitimer(signal.ITIMER_REAL, 0.003, 0.003)
        with Mutex(semaphore, segment.words, cells(segment, 0), patience_s=5):
            signal.setitimer(signal.ITIMER_REAL, 0)
        assert len(seen) >= 5
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# -- the argument: a model of the protocol, every state visited ----------------------------------


@pytest.fixture(scope="module")
def two_living() -> tuple[Model, set[State], list[str] | None]:
    model = Model(Rules(), others=2)
    return model, *explore(model)


def test_with_one_living_party_exclusion_holds_in_every_state() -> None:
    states, way = explore(Model(Rules(), others=1))
    assert way is None, "\n".join(way)
    assert len(states) > 2_000


def test_with_two_living_parties_exclusion_holds_in_every_state(
    two_living: tuple[Model, set[State], list[str] | None],
) -> None:
    _model, states, way = two_living
    assert way is None, "\n".join(way)
    assert len(states) > 200_000
    assert any(dead and parties[0][0] == mutex_model.INSIDE for _, dead, parties, _ in states)


def test_a_dead_holder_is_always_recovered_when_the_living_move_on(
    two_living: tuple[Model, set[State], list[str] | None],
) -> None:
    model, states, _way = two_living
    lost = [state for state in states if state[1] and state[2][0][0] in mutex_model.HOLDING]
    assert lost
    assert all(holders(state) == 1 and state[0] == 0 for state in lost)
    rounds = [recovered_within(model, state, 40) for state in lost]
    assert None not in rounds


@pytest.mark.parametrize(
    "weaker",
    [
        Rules(held_before_counted=False),
        Rules(holds_before_states=False),
        Rules(turns_after_states=False),
        Rules(states_before_holds=False),
        Rules(vain_waits=1),
    ],
    ids=lambda rules: next(name for name in Rules._fields if getattr(rules, name) != getattr(Rules(), name)),
)
def test_each_rule_is_needed(weaker: Rules) -> None:
    _states, way = explore(Model(weaker, others=2))
    assert way is not None


class Traced:
    """The words of a segment, and the semaphore beside them, which note in what order they are used."""

    def __init__(self, words: memoryview, semaphore: Semaphore, names: dict[int, str]) -> None:
        self.words, self.semaphore, self.names = words, semaphore, names
        self.log: list[str] = []

    def __getitem__(self, at: int) -> int:
        self.log.append(f"read {self.names[at]}")
        return int(self.words[at])

    def __setitem__(self, at: int, value: int) -> None:
        self.log.append(f"{self.names[at]} = {value}")
        self.words[at] = value

    def acquire(self, timeout: float) -> None:
        self.log.append("acquire")
        self.semaphore.acquire(timeout)

    def release(self) -> None:
        self.log.append("release")
        self.semaphore.release()


@pytest.fixture
def traced(segment: Segment, semaphore: Semaphore) -> Traced:
    names = {}
    for slot, who in ((0, "dead"), (1, "a"), (2, "b")):
        for offset, what in enumerate(("state", "turns", "holds")):
            names[cells(segment, slot) + offset] = f"{who}.{what}"
    return Traced(segment.words, semaphore, names)


def mutex_over(traced: Traced, at: int) -> Mutex:
    return Mutex(cast("Semaphore", traced), cast("memoryview", traced), at, patience_s=0.001)


@pytest.mark.usefixtures("quick_turns")
class TestTheCodeTakesTheModelsSteps:
    def test_entering_and_leaving(self, segment: Segment, traced: Traced) -> None:
        with mutex_over(traced, cells(segment, 1)):
            pass
        assert traced.log == [
            "a.state = 1",
            "acquire",
            "a.state = 2",
            "read a.holds",
            "a.holds = 1",
            "release",
            "a.state = 0",
        ]

    def test_a_wait_in_vain(self, segment: Segment, traced: Traced) -> None:
        traced.semaphore.acquire(0)
        with pytest.raises(Stuck):
            mutex_over(traced, cells(segment, 1)).__enter__()
        assert traced.log == ["a.state = 1", "acquire", "read a.turns", "a.turns = 1", "a.state = 0"]

    def test_recovering(self, segment: Segment, traced: Traced) -> None:
        segment.words[cells(segment, 0)] = semaphores.State.HELD
        segment.words[cells(segment, 1)] = semaphores.State.WANTED
        traced.semaphore.acquire(0)
        waits = 0

        def move_on(timeout: float) -> None:
            nonlocal waits
            waits += 1
            if waits == 2:
                segment.words[cells(segment, 1) + 1] += 2
            traced.log.append("acquire")
            traced.semaphore.acquire(timeout)

        traced.acquire = move_on  # type: ignore[method-assign]
        master = mutex_over(traced, segment.row(3, "queue_mutex_state"))
        assert master.recover(cells(segment, 0), [cells(segment, 1), cells(segment, 2)])
        look = ["read a.holds", "read b.holds", "read a.state", "read b.state", "read a.turns", "read b.turns"]
        assert traced.log == [
            "read dead.state",
            *look,
            "acquire",
            # It waits, but has not waited twice: no judgement yet.
            *("read a.state", "read a.state", "read a.turns", "read a.holds", "read b.holds"),
            "acquire",
            *("read a.state", "read a.state", "read a.turns", "read b.state", "read a.holds", "read b.holds"),
            "dead.state = 0",
            "release",
        ]


# -- real parties, really killed -------------------------------------------------------------------


class Ring:
    """Parties that enter the mutex all the time, and would notice another one inside."""

    def __init__(self, segment: Segment, semaphore: Semaphore) -> None:
        self._segment = segment
        self.semaphore = semaphore
        self.words = segment.words
        self._flags = segment.counters(3)  # words that nobody else uses
        self._errors = self._flags + 8

    def mutex(self, slot: int) -> Mutex:
        return Mutex(self.semaphore, self.words, cells(self._segment, slot), patience_s=10.0)

    def turn(self, slot: int) -> None:
        with self.mutex(slot):
            self.words[self._flags + slot] = 1
            if sum(self.words[self._flags : self._flags + 3]) != 1:
                self.words[self._errors] += 1
            self.words[self._flags + slot] = 0

    def party(self, slot: int) -> Callable[[], None]:
        def run() -> None:
            while True:
                self.turn(slot)
                os.sched_yield()  # a semaphore is not fair: who has just given it back would have it again

        return run

    def recover(self, slot: int, living: list[int]) -> bool:
        self.words[self._flags + slot] = 0  # it is dead, and if it was inside, nobody is yet
        return self.mutex(slot).recover(cells(self._segment, slot), [cells(self._segment, each) for each in living])

    def holds(self, slot: int) -> int:
        return self.words[cells(self._segment, slot) + 2]

    def assert_in_order(self, living: list[int]) -> None:
        """Everybody gets on, and nobody ever met another one inside."""
        before = [self.holds(slot) for slot in living]
        wait_until(lambda: all(self.holds(slot) > was for slot, was in zip(living, before, strict=True)))
        assert self.words[self._errors] == 0


@pytest.fixture
def ring(segment: Segment, semaphore: Semaphore) -> Ring:
    return Ring(segment, semaphore)


@pytest.mark.usefixtures("quick_turns")
@pytest.mark.parametrize("living", [[], [1], [1, 2]], ids=["alone", "beside one", "beside two"])
def test_killed_at_every_bytecode(ring: Ring, living: list[int]) -> None:
    codes = (*MUTEX_CODES, Ring.turn.__code__)
    steps = steps_of(codes, lambda: ring.turn(0))
    assert steps > 80
    held = 0
    with ExitStack() as others:
        for slot in living:
            others.enter_context(forked(ring.party(slot)))
        for step in range(1, steps + 1):

            def run(step: int = step) -> None:
                at_step(codes, step, die)
                ring.turn(0)

            with forked(run) as child:
                assert child.wait() == -signal.SIGKILL
            held += ring.recover(0, living)
            ring.assert_in_order(living)
            if not living:
                assert ring.semaphore.value == 1
    # Each bytecode between the semaphore's two calls, and none of the others.
    assert 30 < held < steps - 10


@pytest.mark.usefixtures("quick_turns")
def test_killed_at_random_among_two_others(ring: Ring) -> None:
    chance = random.Random(1)
    held = 0

    def slow_party() -> None:
        at_step(MUTEX_CODES, 0, die)  # never; but traced, it is inside for most of its time
        ring.party(0)()

    with forked(ring.party(1)), forked(ring.party(2)):
        for _ in range(150):
            with forked(slow_party) as child:
                before = ring.holds(0)
                wait_until(lambda before=before: ring.holds(0) > before)  # type: ignore[misc]
                time.sleep(chance.uniform(0, 0.001))
                child.kill()
            held += ring.recover(0, [1, 2])
            ring.assert_in_order([1, 2])
    assert held > 5


@pytest.mark.usefixtures("quick_turns")
def test_killed_while_the_others_wait(ring: Ring) -> None:
    """The plain case: it dies inside, two others wait outside."""

    def die_inside() -> None:
        with ring.mutex(0):
            die()

    with forked(die_inside) as child:
        assert child.wait() == -signal.SIGKILL
    with forked(ring.party(1)), forked(ring.party(2)):
        wait_until(lambda: all(ring.words[cells(ring._segment, slot)] == semaphores.State.WANTED for slot in (1, 2)))
        assert ring.recover(0, [1, 2])
        ring.assert_in_order([1, 2])


def test_recovery_at_the_real_pace_takes_a_few_turns(ring: Ring) -> None:
    def die_inside() -> None:
        with ring.mutex(0):
            die()

    with forked(die_inside) as child:
        child.wait()
    with forked(ring.party(1)):
        wait_until(lambda: ring.words[cells(ring._segment, 1)] == semaphores.State.WANTED)
        began = time.monotonic()
        assert ring.recover(0, [1])
        assert time.monotonic() - began < 10 * MUTEX_TURN_S


@pytest.mark.usefixtures("quick_turns")
def test_a_living_party_that_stopped_inside_is_never_robbed(ring: Ring, segment: Segment) -> None:
    """Stopped before every line from the wait to the release, also between the semaphore and its cells."""
    codes = MUTEX_CODES
    lines = steps_of(codes, lambda: ring.turn(1), opcodes=False)
    stuck = 0
    for line in range(1, lines + 1):

        def run(line: int = line) -> None:
            at_step(codes, line, stop, opcodes=False)
            ring.turn(1)

        with forked(run) as child:
            assert child.wait_stopped()
            segment.words[cells(segment, 0)] = semaphores.State.WANTED  # somebody died while it waited
            if ring.semaphore.value == 0:
                with pytest.raises(Stuck, match=r"^a mutex is held, and not provably by the dead$"):
                    ring.mutex(0).recover(cells(segment, 0), [cells(segment, 1)], within_s=0.02)
                assert segment.words[cells(segment, 0)] == semaphores.State.WANTED
                assert ring.semaphore.value == 0
                stuck += 1
            child.signal(signal.SIGCONT)
            assert child.wait() == 0
            assert not ring.recover(0, [1])
            assert ring.semaphore.value == 1
            ring.turn(2)
    assert stuck >= 5
    ring.assert_in_order([])


def test_two_dead_at_once(ring: Ring) -> None:
    """One died inside, one outside; whoever is recovered first, the mutex is free once and not twice."""
    for first, second in ((0, 1), (1, 0)):

        def die_inside() -> None:
            with ring.mutex(0):
                die()

        with forked(die_inside) as inside:
            inside.wait()
        with forked(ring.party(1)) as outside:
            wait_until(lambda: ring.words[cells(ring._segment, 1)] == semaphores.State.WANTED)
            outside.kill()
        assert [ring.recover(first, []), ring.recover(second, [])] == [True, False]
        assert ring.semaphore.value == 1


def test_a_dead_party_that_said_idle_is_no_question(ring: Ring) -> None:
    with ring.mutex(1):
        assert not ring.recover(0, [1])
    assert ring.semaphore.value == 1
