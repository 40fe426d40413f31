"""How many clients may wait: fewer than there is room for, as long as more come than can be served.

Owns:    the lengths of the backlogs of TCP listeners for the public, how much of our queue may be used, and the count
         of attempts that found no room.
Never:   shortens the backlog of administrators, or of a UNIX socket, about which the kernel tells nothing; costs more
         than a look now and then while all can be served; loses a configured length, but where docs/robustness.md says.
Fails:   never: a length that cannot be changed stays, with one line in the log.
Used by: master.main; master.stopping (restore).

A client that is accepted only to be refused costs nearly as much as one that is served. When four times as many come as
can be served, to refuse three of four takes all the time there is. The one refusal that costs us nothing is the
kernel's: it drops what would open one connection more than the backlog may hold, and the client's kernel tries again
after a second. So queue and backlogs shall hold no more than are served within a part of server.queue_wait: then hardly
anybody is accepted who has waited for too long.

listen(2) on a socket that listens already changes how many may wait, and nothing for those who do. A socket of
systemd's outlives us, so the length that it came with stands in shared memory (ipc.lengths).
"""

import logging
import struct
from collections.abc import Iterable, Mapping, Sequence
from math import inf
from typing import Final

from pyserver import backlog
from pyserver.ipc import lengths
from pyserver.ipc.assignment import ADMIN
from pyserver.ipc.queue import Queue
from pyserver.ipc.segment import HEADER, LENGTHS, Segment
from pyserver.limits import BACKLOG_LOOK_MIN_S, BACKLOG_LOOK_S, BACKLOG_MIN, BACKLOG_WAIT_S, SHED_TOLD_S, TICK_S
from pyserver.master.listeners import Listener

log = logging.getLogger("pyserver")

# Parts of the bound. Who would wait for longer than the first is one too many, and then there is room for those who
# wait for the second. With less than the third more may come. Between them nothing changes: the lengths do not swing.
_TOO_LONG: Final = 0.5
_RIGHT: Final = 0.4
_SHORT: Final = 0.25

_GROWTH: Final = 0.25  # of what may wait, at each look
_RATE_OVER_S: Final = (0.5, 5.0)  # the rate is a mean over a part of the bound, within these
_QUEUE_SHARE: Final = 0.25  # of what may wait: in the queue. The kernel holds the others at no cost
_DROPS: Final = 1 << 32  # they are counted modulo that
_DROPPED_MAX: Final = 1 << 62


class Room:
    """For how many there shall be room: the law, of plain numbers."""

    def __init__(self, most: int, bound: float, room: int) -> None:
        self.most = most
        self.room = room
        self.rate: float | None = None  # taken a second, while some waited
        self._bound = bound = min(bound, BACKLOG_WAIT_S)
        self._over_s = min(max(_RATE_OVER_S[0], bound * _TOO_LONG), _RATE_OVER_S[1])
        self._seen_at = self._since = 0.0  # the last look; since when there was somebody who waited
        self._waiting = self._taken = 0  # then

    def see(self, now: float, waiting: int, taken: int) -> int:
        """Look at how many wait and how many workers have ever taken; return for how many there shall be room."""
        elapsed = now - self._seen_at
        if not self._waiting:
            self._since = now
        elif elapsed > 0:
            # A rate says what workers can do only while there is something for them to do.
            rate = max(0, taken - self._taken) / elapsed
            part = min(1.0, elapsed / self._over_s)
            self.rate = rate if self.rate is None else self.rate + (rate - self.rate) * part
        self._seen_at, self._waiting, self._taken = now, waiting, taken
        within = (self.rate or 0.0) * self._bound  # so many are served
        # Nobody can have waited for longer than there is somebody who waits: while a worker that hangs is being
        # replaced, or in the first moments of a crowd, a rate says nothing.
        too_many = waiting > max(within * _TOO_LONG, BACKLOG_MIN)
        if too_many and now - self._since > self._bound * _TOO_LONG:
            self.room = min(self.most, max(BACKLOG_MIN, int(within * _RIGHT)))
        elif waiting <= within * _SHORT:
            self.room = min(self.most, self.room + int(self.room * _GROWTH) + 1)
        return self.room


class Drops:
    """How many attempts found no room at a listener, by what the kernel counts: that, and other things."""

    def __init__(self, listener: Listener, index: int, accepted: Sequence[int]) -> None:
        self.listener = listener
        self._index = index
        self._accepted = accepted
        self._each = 0  # drops for a client that was not refused: 1 where the kernel counts one (backlog.dropped)
        self._excess = 0  # accepted before their drops were seen, or after
        self._before = backlog.dropped(listener.socket), accepted[index]

    def count(self, *, full: bool) -> int:
        """Return how many more there are; `full`: if there may have been any."""
        dropped, accepted = now = backlog.dropped(self.listener.socket), self._accepted[self._index]
        drops, clients = (dropped - self._before[0]) % _DROPS, accepted - self._before[1]
        self._before = now
        if not full:
            if clients:
                self._each = int(drops > clients // 2)
            self._excess = 0
            return 0
        found = drops - self._each * clients + self._excess
        self._excess = min(0, found)
        return max(0, found)


class Backlogs:
    """Those of all listeners."""

    def __init__(
        self,
        listeners: Sequence[Listener],
        queue: Queue,
        segment: Segment,
        accepted: Sequence[int],  # ever, of each listener
        bound: float,  # seconds that anybody may wait; 0: any time
        left: Iterable[Mapping[int, int]],
    ) -> None:
        """Begin as things are; `left` are lengths that killed masters have noted, besides those in the segment."""
        self._queue = queue
        self._words = segment.words
        self._bound = bound
        self._every_s = min(BACKLOG_LOOK_S, max(BACKLOG_LOOK_MIN_S, bound / 4)) if bound else TICK_S
        public = [one for one in listeners if one.name != ADMIN]
        numbers = {one: number for one in public if (number := _number(one)) is not None}
        found = {one: backlog.held(one.socket)[1] for one in numbers}
        # Of a UNIX socket nobody knows who waits there, nor for how long: it is better to have them in our queue.
        self._narrows = len(found) == len(public)
        kept = [lengths.read(self._words, LENGTHS), *left]
        self._lengths = {
            one: max(length, *(each.get(numbers[one], 0) for each in kept)) for one, length in found.items()
        }
        lengths.write(self._words, LENGTHS, {numbers[one]: length for one, length in self._lengths.items()})
        self._drops = {one: Drops(one, listeners.index(one), accepted) for one in found}
        # Of an earlier life; from here on what counts is ours, whatever somebody writes there (T-61).
        self._dropped = self._words[HEADER["backlog_drops"]] % _DROPPED_MAX
        configured, now = sum(self._lengths.values()), sum(found.values())
        most = queue.capacity + configured
        self._short = now < configured  # by an earlier life of ours, or a killed master
        self._law = Room(most, bound, now if self._short else most)
        if self._short and bound:  # else they would come into our queue by the time of the first look
            queue.narrow(self._here(now))
        self._refused: set[Listener] = set()  # whose length cannot be changed
        self.due = 0.0 if found else inf  # monotonic: when to look again; asked for each time that clients come
        self._waits = False  # somebody did, at the last look
        self._tell_at = 0.0  # monotonic: when it is worth a line in the log again
        self._told: int | None = None  # the drops by the time that it was told
        self._show(found.values())

    @property
    def wake_at(self) -> float | None:
        """When to look again although nobody comes; None: it has time until somebody does."""
        return self.due if self._short or self._waits else None

    def look(self, now: float) -> None:
        """See how many wait, and let more or fewer do so."""
        if now < self.due:
            return
        self.due = now + self._every_s
        held = {one: backlog.held(one.socket) for one in self._lengths}
        for one, (waiting, length) in held.items():
            self._dropped += self._drops[one].count(full=self._short or waiting > length)
        queue = self._queue
        waiting = queue.depth + queue.in_hand + sum(waiting for waiting, _ in held.values())
        self._waits = waiting > 0
        self._words[HEADER["backlog_drops"]] = self._dropped
        law, most = self._law, queue.capacity + sum(self._lengths.values())
        if not self._short:
            law.room = most  # a queue that was made larger is no overload
        law.most = most
        # Without a bound nothing is shortened; what was by an earlier life, which had one, becomes long again.
        self._let_wait(law.see(now, waiting, queue.gone) if self._bound else most, held, now)

    def _let_wait(self, room: int, held: Mapping[Listener, tuple[int, int]], now: float) -> None:
        short = room < self._law.most
        if not (short or self._short):
            return
        here = self._here(room) if short else self._queue.capacity
        self._queue.narrow(here)
        busy = sum(waiting > 0 for waiting, _ in held.values()) or 1
        there = max(BACKLOG_MIN // 2, room - here) // busy
        wanted = {one: min(length, there) if short else length for one, length in self._lengths.items()}
        for one, length in wanted.items():
            if one not in self._refused:
                self._listen(one, held[one][1], length)
        self._show(wanted.values())
        # One that began too soon after another to be told is told later, if it lasts.
        if short != self._short or (short and self._told is None and self._waits):
            self._short = short
            self._tell(now)

    def _here(self, room: int) -> int:
        """Return how many of those for whom there is room may wait in our queue."""
        capacity = self._queue.capacity
        return min(capacity, max(BACKLOG_MIN // 2, int(room * _QUEUE_SHARE))) if self._narrows else capacity

    def _listen(self, listener: Listener, now: int, length: int) -> None:
        """Let so many wait at a listener. One that was shut down (0 may) would be opened again by that."""
        if now in (0, length):
            return
        try:
            listener.socket.listen(length)
        except OSError as error:  # forbidden, or shut down in this moment, and another has its address
            if listener not in self._refused:
                self._refused.add(listener)
                log.warning("%s: as many may wait as before: %s", listener, error.strerror)

    def _tell(self, now: float) -> None:
        """Tell that it has begun, every so often at most, and that it is over."""
        if self._short and now >= self._tell_at:
            self._tell_at, self._told = now + SHED_TOLD_S, self._dropped
            law = self._law
            log.warning("more clients come than can be served, %d may wait instead of %d", law.room, law.most)
        elif not self._short and self._told is not None:
            log.info("as many clients as ever may wait again; %d attempts found no room", self._dropped - self._told)
            self._told = None

    def _show(self, wanted: Iterable[int]) -> None:
        self._words[HEADER["backlog"]] = sum(wanted)

    def restore(self) -> None:
        """Give the listeners their lengths back for whoever follows, and look no more."""
        for one, length in self._lengths.items():
            if one.fileno() >= 0:
                self._listen(one, backlog.held(one.socket)[1], length)
        self._lengths = {}
        self.due, self._short, self._waits = inf, False, False
        self._queue.narrow(self._queue.capacity)


def _number(listener: Listener) -> int | None:
    """Return the kernel's number of a listener of which it tells all that is asked here; None: of this it does not."""
    try:
        backlog.dropped(listener.socket)
        return backlog.cookie(listener.socket) if backlog.held(listener.socket)[1] else None
    except (OSError, struct.error):
        return None


__all__ = ["Backlogs", "Drops", "Room"]
