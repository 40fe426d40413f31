"""The queue between master and workers: its four semaphores, its ledger, and how both are mended after a death.

Owns:    empty_slots, filled_slots, queue_mutex, stats_mutex, and the ledger's words in the segment.
Never:   holds connections: those wait in the channels. This is their accounting.
Fails:   semaphores.Stuck (see there); SegmentError when the semaphores cannot be made.
Used by: master (the master's verbs), ipc.assignment; worker.pool (the worker's).

Invariant, whenever nobody holds queue_mutex:

    empty_slots + filled_slots + in_hand = capacity        filled_slots = sum of (sent - received) over all slots

Both semaphores move only under queue_mutex, but for one: the master, which alone takes from empty_slots, takes before
it accepts, and says so in `in_hand` first. A worker killed anywhere leaves at most its own row and the mutex wrong,
and the master has what it needs to mend both: the number on the first message still waiting in the channel.

stats_mutex the master alone takes, for the fold and for its status line: workers publish their counters without it, so
that none of them waits for another, and readers of the segment go by the fold counter (ipc.observe).

What the master computes with is its own: `sent` and `in_hand` stand in the segment for others to read, and for itself
only where one that acted for it has died with its own (go_on_from_words). Of what workers write (T-61: one that was
taken over writes anything, anywhere in the segment) it believes no more than can be.
"""

import contextlib
import os
from collections.abc import Collection
from typing import Final, Self

import posix_ipc

from pyserver.ipc import semaphores, stats
from pyserver.ipc.segment import HEADER, ROW, TOTALS, Segment, SegmentError
from pyserver.ipc.semaphores import Mutex, Semaphore, Stuck, set_value, try_acquire
from pyserver.limits import MUTEX_PATIENCE_MASTER_S

_IN_HAND: Final = HEADER["in_hand"]
_SATURATED: Final = HEADER["saturated"]
_SENT: Final = ROW["sent"]
_RECEIVED: Final = ROW["received"]

# More than anybody passes on while an interpreter starts, and far from what would not fit into a word.
_SENT_MEANWHILE_MAX: Final = 1 << 32


class Queue:
    """The accounting, as the process that made or inherited it sees it."""

    def __init__(self, segment: Segment, made: dict[str, Semaphore], capacity: int) -> None:
        self._segment = segment
        self._words = segment.words
        self._made = made
        self._empty = made["empty_slots"]
        self._filled = made["filled_slots"]
        self._capacity = capacity
        self._withheld = 0  # the master's: room that there is, and that it does not use
        self._sent = [0] * segment.slots  # the master's: connections ever put into each slot's channel
        self._in_hand = 0  # the master's: connections that it has room for and has not published
        patience_s = MUTEX_PATIENCE_MASTER_S
        self._mutex = Mutex(made["queue_mutex"], self._words, HEADER["queue_mutex_state"], patience_s=patience_s)
        self._stats_mutex = Mutex(made["stats_mutex"], self._words, HEADER["stats_mutex_state"], patience_s=patience_s)

    @classmethod
    def create(cls, segment: Segment, capacity: int) -> Self:
        """Make the four semaphores beside a new segment; raises SegmentError, and then leaves none."""
        values = {"empty_slots": capacity, "filled_slots": 0, "queue_mutex": 1, "stats_mutex": 1}
        made: dict[str, Semaphore] = {}
        try:
            for name in semaphores.NAMES:
                made[name] = semaphores.create(segment.name, name, values[name])
        except (OSError, posix_ipc.Error) as error:
            _remove(made)
            raise SegmentError(f"cannot make the semaphores of {segment.name}: {error}") from error
        return cls(segment, made, capacity)

    @classmethod
    def adopt(cls, segment: Segment, capacity: int, sent: dict[int, int], in_hand: int) -> Self:
        """Take up the queue again that this process made before it executed itself; raises SegmentError."""
        try:
            made = {name: semaphores.attach(segment.name, name) for name in semaphores.NAMES}
        except (OSError, posix_ipc.Error) as error:
            raise SegmentError(f"cannot open the semaphores of {segment.name}: {error}") from error
        queue = cls(segment, made, capacity)
        queue.go_on(sent, in_hand)
        return queue

    @classmethod
    def private(cls, segment: Segment, capacity: int) -> Self:
        """Make the semaphores of a segment without a name; theirs are gone at once."""
        queue = cls.create(segment, capacity)
        for semaphore in queue._made.values():  # noqa: SLF001  of this class
            # A server that starts in this moment takes them for what a dead one left (segment.sweep): no segment has
            # their name. Then they are gone already, and ours all the same.
            with contextlib.suppress(posix_ipc.ExistentialError):
                semaphore.unlink()
        return queue

    def close(self) -> None:
        """Remove the names and drop the handles; for the master."""
        _remove(self._made)

    # -- looks, by anyone ----------------------------------------------------------------------

    @property
    def depth(self) -> int:
        """How many connections wait for a worker."""
        return self._filled.value

    @property
    def room(self) -> int:
        """How many more may be accepted."""
        return max(0, self._empty.value - self._withheld)

    @property
    def capacity(self) -> int:
        """How many connections may wait."""
        return self._capacity

    @property
    def in_hand(self) -> int:
        """How many the master has made room for and not yet passed on."""
        return self._in_hand

    def waiting(self, slot: int) -> int:
        """Return how many connections wait in one slot's channel, by the ledger."""
        # `received` is what the worker says: never below nothing nor above all, whatever stands there.
        said = self._sent[slot] - self._words[self._segment.row(slot) + _RECEIVED]
        return min(max(0, said), self._capacity)

    def number(self, slot: int) -> int:
        """Return how many connections were ever published for a slot: the next message's `number`."""
        return self._sent[slot]

    # -- the master's verbs ----------------------------------------------------------------------

    @property
    def gone(self) -> int:
        """How many connections workers have taken; fewer than that when the ledger of a slot has begun anew."""
        return sum(self._sent) - self.depth

    def narrow(self, most: int) -> None:
        """Let no more than so many connections wait from now on, although there may be room for more."""
        self._withheld = max(0, self._capacity - most)

    def take_room(self, count: int = 1) -> int:
        """Take room for connections before accepting them; return for how many: `count`, or fewer where it is full."""
        if self._withheld:
            count = min(count, self._empty.value - self._withheld)
            if count <= 0:
                return 0
        self._in_hand += count
        self._words[_IN_HAND] = self._in_hand
        take = self._empty.acquire
        for taken in range(count):
            try:
                take(0)  # as try_acquire() does, for every connection
            except posix_ipc.Error:
                if not try_acquire(self._empty):
                    self._hold(taken - count)
                    return taken
        return count

    def return_room(self, count: int = 1) -> None:
        """Give back room that was taken and not needed."""
        for _ in range(count):
            self._empty.release()
        self._hold(-count)

    def publish(self, slot: int, count: int) -> int:
        """Count connections as waiting in a slot's channel, just before they are sent; return the message's number.

        Before and not after the sending: a worker may have them in hand a microsecond later, and must find them
        counted rather than wait for the count. If the channel refuses them, withdraw() undoes it. Raises
        semaphores.Stuck, with nothing changed, when a worker died or stopped inside: it is to be mended first.
        """
        words, row, give = self._words, self._segment.row(slot), self._filled.release
        number = self._sent[slot]
        with self._mutex:
            self._sent[slot] = words[row + _SENT] = number + count
            for _ in range(count):
                give()
            self._in_hand -= count
            words[_IN_HAND] = self._in_hand
        return number

    def withdraw(self, slot: int, count: int) -> None:
        """Undo publish() for connections that the channel did not take."""
        try:
            with self._mutex:
                self._take_back(slot, count)
        except Stuck:
            # A worker died or stopped inside since publish(). What changes here is the master's own, or atomic; it is
            # under the mutex for the sake of mend(), which the master does not do at the same time.
            self._take_back(slot, count)

    def _take_back(self, slot: int, count: int) -> None:
        self._send(slot, -count)
        for _ in range(count):
            try_acquire(self._filled)
        self._hold(count)

    def _send(self, slot: int, count: int) -> None:
        self._sent[slot] += count
        self._words[self._segment.row(slot) + _SENT] = self._sent[slot]

    def _hold(self, count: int) -> None:
        self._in_hand += count
        self._words[_IN_HAND] = self._in_hand

    def forget(self, slot: int) -> None:
        """Begin the ledger of a slot anew, which has no worker, and whose channel is empty and gone."""
        self._sent[slot] = 0
        row = self._segment.row(slot)
        self._words[row + _SENT] = self._words[row + _RECEIVED] = 0

    def resize(self, capacity: int) -> bool:
        """Bring the queue to another capacity; True when it is there. Raises semaphores.Stuck.

        What waits already is not sent away: a queue that is to be smaller than that gets there as workers take it.
        """
        with self._mutex:
            while self._capacity < capacity:
                self._empty.release()
                self._capacity += 1
            while self._capacity > capacity and try_acquire(self._empty):
                self._capacity -= 1
            self._words[HEADER["capacity"]] = self._capacity
        return self._capacity == capacity

    def want_room(self) -> bool:
        """Ask the workers for a message when there is room; True when there is some already."""
        self._words[_SATURATED] = 1
        # A worker may have given room between our last try and the flag, and seen no flag.
        if self._empty.value > self._withheld:
            self._words[_SATURATED] = 0
            return True
        return False

    def go_on(self, sent: dict[int, int], in_hand: int) -> None:
        """As the master, know what another life of it or a stand-in has done."""
        for slot, count in sent.items():
            self._sent[slot] = count
        self._in_hand = in_hand

    def go_on_from_words(self, slots: Collection[int]) -> None:
        """The same after one who acted as the master and died with what it knew: its last words are in the segment.

        `slots` are those in use; in the rows of others nobody but a forger can have written (T-61). One who claims more
        for a slot in use makes the queue fuller than it is, at worst full, until the worker of that slot ends.

        Where it died between publish() and the sending, the row claims more than its channel got, a message at most.
        That is set right with the rest of the row when the slot's worker ends. mend_after_acting() is to follow.
        """
        for slot, before in enumerate(self._sent):
            if slot not in slots:
                self._sent[slot] = 0
                continue
            said = self._words[self._segment.row(slot) + _SENT]
            self._sent[slot] = said if before <= said <= before + _SENT_MEANWHILE_MAX else before  # T-61

    def mend_after_acting(self, living: list[int]) -> None:
        """After the death of one who acted as the master: free the mutex, set both semaphores right. Raises Stuck."""
        at = HEADER["queue_mutex_state"]
        # Its cells are ours: what they said at its death may be gone.
        self._words[at] = semaphores.State.HELD
        self._mutex.recover(at, [self._segment.row(each, "queue_mutex_state") for each in living])
        with self._mutex:
            for slot in range(self._segment.slots):
                self._send(slot, 0)
            self._hold(0)
            self._settle()

    def mend(self, slot: int, first_waiting: int | None, living: list[int]) -> bool:
        """After the death of a slot's worker: free its mutexes, settle its ledger row, set both semaphores right.

        `first_waiting` is the number of the first message in its channel, None if there is none; `living` are the
        slots of other workers that still run. Returns whether anything was amiss. Raises semaphores.Stuck.
        """
        held = self._recover(self._mutex, slot, living, "queue_mutex_state")
        held |= self._recover(self._stats_mutex, slot, living, "stats_mutex_state")
        words, row = self._words, self._segment.row(slot)
        with self._mutex:
            taken = self._sent[slot] if first_waiting is None else first_waiting
            amiss = words[row + _RECEIVED] != taken
            words[row + _RECEIVED] = taken
            amiss |= self._settle()
        return held or amiss

    def _settle(self) -> bool:
        """Bring both semaphores to what the ledger says, under the mutex; tell whether they were elsewhere."""
        waiting = min(sum(self.waiting(each) for each in range(self._segment.slots)), self._capacity)
        room = max(0, self._capacity - waiting - self._in_hand)
        amiss = (self._filled.value, self._empty.value) != (waiting, room)
        set_value(self._filled, waiting)
        set_value(self._empty, room)
        return amiss

    def fold(self, slot: int) -> None:
        """Add a dead worker's counters to the totals."""
        with self._stats_mutex:
            stats.fold(self._words, HEADER["fold"], TOTALS, self._segment.counters(slot))

    def totals(self) -> dict[str, int]:
        """Return all counters, summed up; no fold is under way meanwhile, so that none is counted twice or missed."""
        with self._stats_mutex:
            rows = [self._segment.counters(slot) for slot in range(self._segment.slots)]
            return stats.read(self._words, TOTALS, rows)[0]

    def _recover(self, mutex: Mutex, slot: int, living: list[int], cell: str) -> bool:
        at = self._segment.row(slot, cell)
        return mutex.recover(at, [self._segment.row(each, cell) for each in living])

    # -- the worker's verbs ------------------------------------------------------------------------

    def for_worker(self, slot: int) -> "Queue":
        """Return the same queue as the worker of a slot must use it: with that worker's own cells."""
        theirs = Queue(self._segment, self._made, self._capacity)
        master = self._words[HEADER["master_pid"]]

        def mutex(name: str) -> Mutex:
            at = self._segment.row(slot, f"{name}_state")
            # Dead, the master recovers nothing any more, and this process is somebody else's child.
            return Mutex(self._made[name], self._words, at, abandoned=lambda: os.getppid() != master)

        theirs._mutex, theirs._stats_mutex = mutex("queue_mutex"), mutex("stats_mutex")
        return theirs

    def taken(self, slot: int, count: int) -> bool:
        """Count connections that came out of a slot's channel; True if the master waits for a message ROOM."""
        words, received = self._words, self._segment.row(slot) + _RECEIVED
        take, give = self._filled.acquire, self._empty.release
        with self._mutex:
            words[received] += count
            for _ in range(count):
                try:
                    take(0)
                except posix_ipc.Error:  # none, which mend() sees to, or a signal
                    try_acquire(self._filled)
                give()
        return words[_SATURATED] == 1

    def room_told(self) -> None:
        """Take back the wish for a message ROOM; for the master, when it came."""
        self._words[_SATURATED] = 0


def _remove(made: dict[str, Semaphore]) -> None:
    for semaphore in made.values():
        with contextlib.suppress(posix_ipc.ExistentialError):
            semaphore.unlink()
        semaphore.close()
