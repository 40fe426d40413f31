"""The four named semaphores, and a mutex that survives the death of its holder.

Owns:    the semaphores' names (they follow the segment's) and the protocol of the cells beside a mutex.
Never:   waits without a bound: every acquire is timed, and a signal only makes it try again.
Fails:   Stuck when a mutex cannot be had within its patience (limits), or cannot be recovered yet.
Used by: ipc.queue; ipc.segment (the names); master, worker.pool (when one is stuck).

A POSIX semaphore has no owner (sem_overview(7)): killed between wait and post, a holder leaves it at 0 for ever. So
each party that may hold a mutex keeps three words in the segment, written by it alone:

    state   IDLE; WANTED before it waits; HELD after it got it; IDLE again after it gave it back
    turns   one more for each timed wait that ended without it
    holds   one more for each time it got it

From these the master can tell, after a death, whether the dead held it. See Mutex.recover for the argument.
"""

import time
from collections.abc import Callable, Iterable
from enum import IntEnum
from types import TracebackType
from typing import Final, Protocol, Self, cast

import posix_ipc

from pyserver.limits import MUTEX_PATIENCE_S, MUTEX_RECOVERY_S, MUTEX_TURN_S


class Semaphore(Protocol):
    """What we use of posix_ipc.Semaphore."""

    @property
    def value(self) -> int:
        """The present value (sem_getvalue(3))."""

    def acquire(self, timeout: float | None = None) -> None:
        """Take one: 0 tries, a float waits so long (sem_timedwait(3)); BusyError, SignalError."""

    def release(self) -> None:
        """Give one (sem_post(3))."""

    def close(self) -> None:
        """Drop this process's handle."""

    def unlink(self) -> None:
        """Remove the name."""


class Stuck(Exception):
    """A mutex can neither be taken nor proved to be held by the dead."""


NAMES: Final = ("empty_slots", "filled_slots", "queue_mutex", "stats_mutex")


def create(segment_name: str, name: str, value: int) -> Semaphore:
    """Create the semaphore `name` of a segment; raises posix_ipc.ExistentialError if there is one."""
    # Only the server's own processes touch it; readers of the segment need none.
    made = posix_ipc.Semaphore(f"{segment_name}.{name}", posix_ipc.O_CREX, mode=0o600, initial_value=value)
    return cast("Semaphore", made)


def attach(segment_name: str, name: str) -> Semaphore:
    """Open the semaphore `name` of a segment; raises posix_ipc.ExistentialError if there is none."""
    return cast("Semaphore", posix_ipc.Semaphore(f"{segment_name}.{name}"))


def try_acquire(semaphore: Semaphore) -> bool:
    """Take one if there is one, without waiting."""
    while True:
        try:
            semaphore.acquire(0)
        except posix_ipc.BusyError:
            return False
        except posix_ipc.SignalError:
            continue
        return True


def set_value(semaphore: Semaphore, target: int) -> None:
    """Bring a semaphore to `target`. Exact only while nobody else may move it."""
    while semaphore.value < target:
        semaphore.release()
    while semaphore.value > target:
        if not try_acquire(semaphore):
            return


class State(IntEnum):
    """Where a party stands towards a mutex."""

    IDLE = 0
    WANTED = 1
    HELD = 2


CELLS: Final = 3  # words a party needs for one mutex: state, turns, holds
_WORD: Final = (1 << 64) - 1  # turns and holds go round: others can write them too (T-61)


class Mutex:
    """A binary semaphore for a known set of parties, each of which may be killed at any instruction."""

    __slots__ = ("_abandoned", "_at", "_patience_s", "_semaphore", "_words")

    def __init__(
        self,
        semaphore: Semaphore,
        words: memoryview,
        at: int,
        *,
        patience_s: float = MUTEX_PATIENCE_S,
        abandoned: Callable[[], bool] = bool,
    ) -> None:
        self._semaphore = semaphore
        self._words = words
        self._at = at  # index of this party's first cell in the segment's words
        self._patience_s = patience_s
        self._abandoned = abandoned  # whether nobody is left to recover it, so that waiting is vain

    def __enter__(self) -> Self:
        words, at = self._words, self._at
        words[at] = 1  # State.WANTED; plain numbers here: this runs for every batch of connections
        waited_s = 0.0
        while True:
            try:
                self._semaphore.acquire(MUTEX_TURN_S)
                break
            except posix_ipc.BusyError:
                words[at + 1] = (words[at + 1] + 1) & _WORD
                waited_s += MUTEX_TURN_S
                if waited_s >= self._patience_s or self._abandoned():
                    words[at] = State.IDLE
                    raise Stuck(f"no turn at a mutex within {waited_s:.2g} s") from None
            except posix_ipc.SignalError:
                continue
        # In this order: who has counted this hold has said HELD before. recover() rests on it.
        words[at] = 2  # State.HELD
        words[at + 2] = (words[at + 2] + 1) & _WORD
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._semaphore.release()
        # After the release, not before: killed in between, we seem to hold what is free, which recover() finds
        # out. The other order would seem free what is held, and nobody would ever look.
        self._words[self._at] = 0  # State.IDLE

    def recover(self, dead: int, living: Iterable[int], within_s: float = MUTEX_RECOVERY_S) -> bool:
        """Release the mutex if the party whose cells begin at `dead` died holding it; tell whether it did.

        Called by the master, which does not hold it. `living` are the first cells of the parties that may still
        move. Raises Stuck if neither can be shown within `within_s`: then a living party has stopped inside the
        critical section (SIGSTOP), and the watch over heartbeats will end it.

        Why this is sound. The look reads every living party's `holds`, then their states, of which none may say HELD,
        then their `turns`. So whoever holds the mutex when the look is complete has not counted that hold yet (it
        would have said HELD first), and a wait that begins after `turns` moved once more is later than the look.

        Assume that the dead party does not hold it, that our own wait after the look was in vain, and that the
        judgement below passes. During our wait a living X held the mutex, and by the last reading of `holds` it had
        not counted that; so it held it until then, and at the reading before said WANTED, not yet HELD. Then `turns`
        of X moved twice since the look: a wait of X began and failed after the look, before X got it. So before X
        another Y held it after the look and did not count it, and still holds it: both X and Y do, a contradiction.

        Conversely, if we get the mutex, or anybody counted a hold, the dead one does not hold it.

        The order of all these accesses matters: tests/unit/ipc/mutex_model.py visits every state that can come of it,
        and finds the hole when any of them is turned round.
        """
        words = self._words
        if words[dead] == State.IDLE:
            return False
        living = tuple(living)
        end = time.monotonic() + within_s
        look: tuple[list[int], list[int]] | None = None
        while time.monotonic() < end:
            if look is None:
                look = self._look(living)
            if self._free_within(MUTEX_TURN_S * 2):
                words[dead] = State.IDLE
                return False
            if look is None:
                continue
            holds, turns = look
            waits = all(
                words[at] == State.IDLE or (words[at] == State.WANTED and words[at + 1] >= before + 2)
                for at, before in zip(living, turns, strict=True)
            )
            if any(words[at + 2] != before for at, before in zip(living, holds, strict=True)):
                words[dead] = State.IDLE
                return False
            if waits:
                words[dead] = State.IDLE
                self._semaphore.release()
                return True
        raise Stuck("a mutex is held, and not provably by the dead")

    def _look(self, living: tuple[int, ...]) -> tuple[list[int], list[int]] | None:
        """Return each living party's holds and turns, read in the order that recover() needs; None if one says HELD."""
        words = self._words
        holds = [words[at + 2] for at in living]
        if any(words[at] == State.HELD for at in living):
            return None
        return holds, [words[at + 1] for at in living]

    def _free_within(self, seconds: float) -> bool:
        """Take it and give it back; tell whether it became free within `seconds`."""
        try:
            self._semaphore.acquire(seconds)
        except (posix_ipc.BusyError, posix_ipc.SignalError):
            return False
        self._semaphore.release()
        return True
