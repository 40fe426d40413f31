"""The workers: a place, a process and a channel for each, and what is said and done to them.

Owns:    channels, children; the orders that a full channel did not take; the dead that are not mended after yet.
Never:   decides when a worker is wanted or has had its time: master.supervisor, master.stopping and master.succession
         do. Reads no report: whoever watches is called.
Fails:   OSError from spawn(), when it cannot fork; what a full channel does not take is sent again later.
Used by: master.main, master.succession, master.stopping, master.standing; master.standin (ACTING).

Workers come in crews, one crew for each configuration. One of them serves; while a reload is under way another is
coming, and those of earlier ones finish what they have.
"""

import functools
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Final

from pyserver.ipc import activity, observe
from pyserver.ipc.channel import Channel, Drain, Full, Gone, Kind, Message
from pyserver.ipc.clients import ClientTable
from pyserver.ipc.queue import Queue
from pyserver.ipc.segment import Segment
from pyserver.ipc.semaphores import Stuck
from pyserver.ipc.stats import index_of
from pyserver.limits import ABORT_GRACE_S, MEND_AGAIN_S, NS_PER_S, WORK_TOLD_MAX
from pyserver.master import children
from pyserver.master.children import Child
from pyserver.master.handover import HandedPlace
from pyserver.master.pollset import PollSet
from pyserver.master.supervisor import Event, Place, State, silent_for

log = logging.getLogger("pyserver")

# Among the slots that are not mended after: the one who acted as the master, who moved all of them (master.standin).
ACTING: Final = -1

_OPEN: Final = index_of("connections_open")


class Workers:
    """All of them, of every crew."""

    def __init__(
        self,
        segment: Segment,
        queue: Queue,
        clients: ClientTable | None,
        poll: PollSet,
        *,
        on_report: Callable[[int], object],
        on_exit: Callable[[int], object],
    ) -> None:
        self._segment = segment
        self._words = segment.words
        self._queue = queue
        self._clients = clients
        self._poll = poll
        self._on_report = on_report
        self._on_exit = on_exit
        self.channels: dict[int, Channel] = {}
        self.places: dict[int, Place] = {}
        self._children: dict[int, Child] = {}
        self.crew = 1  # the workers that serve
        self.coming: int | None = None  # those that shall follow them: they have not all said READY yet
        self.owed: list[tuple[int, Kind]] = []  # orders that a full channel did not take
        self.unmended: list[int] = []  # slots whose dead worker may still hold a mutex, next to try first
        self.replaced: list[int] = []  # slots of an earlier crew whose worker has gone, to be cleared
        self._mend_at = 0.0  # monotonic: when to try again after an attempt that failed

    # -- who there is -----------------------------------------------------------------------------

    def of(self, crew: int) -> list[Place]:
        """Return the places of a crew."""
        return [place for place in self.places.values() if place.crew == crew]

    def followed(self, place: Place) -> bool:
        """Tell whether a worker that goes has a successor in its place: it is of the crew that serves, or comes."""
        return place.crew in (self.crew, self.coming)

    def wanted(self) -> list[int]:
        """Return the slots that have a worker as long as the service lives."""
        return [
            place.slot for place in self.places.values() if self.followed(place) and place.slot not in self.unmended
        ]

    def loads(self) -> dict[int, int]:
        """Return what each ready worker has: connections waiting in its channel, and open."""
        words, segment, queue = self._words, self._segment, self._queue
        return {
            place.slot: queue.waiting(place.slot) + words[segment.counters(place.slot) + _OPEN]
            for place in self.places.values()
            if place.serves and place.crew == self.crew
        }

    def read_beats(self) -> None:
        """Take note of every worker's last sign of life."""
        for place in self.places.values():
            self._read_beat(place)

    def _read_beat(self, place: Place) -> None:
        place.beat = self._words[self._segment.row(place.slot, "beat_ns")] / NS_PER_S

    def weigh(self) -> None:
        """Write down how much memory each worker has: they cannot see it of each other (landlock)."""
        for slot, child in self._children.items():
            self._words[self._segment.row(slot, "rss_bytes")] = observe.resident_of(child.pid)

    def has_beaten(self, slot: int) -> bool:
        """Tell whether the worker that is, or was last, here has ever given a sign of life."""
        return bool(self._words[self._segment.row(slot, "beat_ns")])

    def open_connections(self, slot: int) -> int:
        """Return how many connections a worker has, or had when it died."""
        return self._words[self._segment.counters(slot) + _OPEN]

    def next_times(self, now: float) -> Iterator[float]:
        """Yield when there is something to do for them if nothing happens."""
        if self.unmended:
            yield self._mend_at
        for place in self.places.values():
            if not place.runs and place.not_before > now:
                yield place.not_before
            if place.state is State.ABORTED:
                yield place.since + ABORT_GRACE_S

    # -- they come --------------------------------------------------------------------------------

    def enlist(self, crew: int, wanted: int) -> bool:
        """Make places for a crew, in free slots; False if there are too few."""
        free = [slot for slot in range(self._segment.slots) if slot not in self.places]
        if len(free) < wanted:
            return False
        for slot in free[:wanted]:
            self.channels[slot] = Channel()
            place = self.places[slot] = Place(slot, crew=crew)
            words, row = self._words, functools.partial(self._segment.row, slot)
            words[row("state")], words[row("crew")], words[row("generation")] = place.state, crew, 0
            self.watch_reports(slot)
        return True

    def watch_reports(self, slot: int) -> None:
        """Hear what a worker says."""
        descriptor = self.channels[slot].master_end.fileno()
        if not self._poll.watches(descriptor):
            self._poll.watch(descriptor, functools.partial(self._on_report, slot))

    def spawn(self, slot: int, become: Callable[[], int]) -> None:
        """Fork a worker; raises OSError, with everything ready for another attempt."""
        place, words = self.places[slot], self._words
        now = time.monotonic()
        place.generation += 1
        place.spawned_at, place.beat = now, 0.0
        if self._clients is not None:
            self._clients.clear(slot)
        for word in ("beat_ns", "round_ns", "unlisted", "reopen_ns", "drain_by_ns", "drain_how", "rss_bytes"):
            words[self._segment.row(slot, word)] = 0
        activity.clear(words, self._segment.activity(slot))
        words[self._segment.row(slot, "generation")] = place.generation
        words[self._segment.row(slot, "since_ns")] = time.monotonic_ns()
        words[self._segment.row(slot, "started")] = int(time.time())
        child = self._children[slot] = children.spawn(become)
        words[self._segment.row(slot, "pid")] = child.pid
        self.happened(place, "spawned", now)
        self._poll.watch(child.pidfd, functools.partial(self._on_exit, slot))
        self.watch_reports(slot)

    def let_go_but(self, slot: int) -> None:
        """In a forked child: close what is the master's, and what is of other workers than the one it becomes."""
        for each, channel in self.channels.items():
            channel.master_end.close()
            if each != slot:
                channel.worker_end.close()
        self.let_go()

    def let_go(self) -> None:
        """In a forked child: watch over nobody."""
        for child in self._children.values():
            os.close(child.pidfd)

    # -- they are told ----------------------------------------------------------------------------

    def happened(self, place: Place, event: Event, now: float) -> None:
        """Move a place to its next state, for all to see."""
        place.happened(event, now)
        self._words[self._segment.row(place.slot, "state")] = place.state

    def reopen(self, slot: int) -> None:
        """Tell a worker to open its log files again."""
        self._words[self._segment.row(slot, "reopen_ns")] = time.monotonic_ns()
        self._ring(slot, Kind.REOPEN)

    def drain(self, slot: int, by: float, how: Drain) -> None:
        """Tell a worker to finish what it has, and to leave."""
        # An order is a word in its row, which holds, and a message, which makes it look there.
        self._words[self._segment.row(slot, "drain_how")] = how
        self._words[self._segment.row(slot, "drain_by_ns")] = int(by * NS_PER_S)
        self._ring(slot, Kind.DRAIN)

    def ring_owed(self) -> None:
        """Send again what a full channel did not take."""
        owed, self.owed = self.owed, []
        for slot, kind in owed:
            self._ring(slot, kind)

    def _ring(self, slot: int, kind: Kind) -> None:
        """Send an order's message, now or when the channel has room."""
        message = Message(kind, self.places[slot].generation, number=self._queue.number(slot))
        try:
            self.channels[slot].master_end.send(message)
        except Full:
            self.owed.append((slot, kind))
        except Gone:
            log.debug("%s did not reach worker %d: it has shut its channel down", kind.name, slot)

    # -- they go ----------------------------------------------------------------------------------

    def abort(self, slot: int) -> None:
        """End a worker that hangs: it writes its stacks first."""
        place = self.places[slot]
        now = time.monotonic()
        text = "worker %d (generation %d) silent for %.1f s, killing it"  # as in sd.events
        what = (slot, place.generation, silent_for(place, now))
        log.error(text, *what, extra=self.at_work(slot, WORKER=slot))
        self._segment.note("hung", text % what)
        self.happened(place, "hung", now)
        children.abort(self._children[slot])

    def at_work(self, slot: int, **fields: object) -> dict[str, object]:
        """Return what a record about a worker says besides: what its threads do, or did, and for whom."""
        threads, requests = observe.of_slot_as_lines(self._segment, slot, WORK_TOLD_MAX)
        fields |= {"THREADS": "\n".join(threads), "REQUESTS": "\n".join(requests)}
        return {"fields": {name: value for name, value in fields.items() if value != ""}, "lines": threads + requests}

    def pids(self) -> set[int]:
        """Return the numbers of all processes of workers."""
        return {child.pid for child in self._children.values()}

    def kill(self, slot: int) -> None:
        """End a worker now, if it runs."""
        place = self.places[slot]
        if place.runs and place.state is not State.KILLED:
            self.happened(place, "killed", time.monotonic())
            children.send_signal(self._children[slot], signal.SIGKILL)

    def reap(self, slot: int) -> tuple[int, str] | None:
        """Return the process id of a worker that has ended, and how; None while it runs."""
        child = self._children[slot]
        ending = children.reap(child)
        if ending is None:
            return None
        self._poll.gone(child.pidfd)
        del self._children[slot]
        if self._clients is not None:
            self._clients.clear(slot)
        return child.pid, ending

    def mend_after(self, slot: int, now: float) -> None:
        """Mend after one that has just died."""
        self.unmended.insert(0, slot)
        self.mend_all(now)

    def mend_all(self, now: float) -> None:
        """Mend after those who died. An attempt that fails has cost time that clients wait: one is enough for now."""
        while self.unmended and now >= self._mend_at:
            slot = self.unmended.pop(0)
            if self._mend(slot):
                if slot != ACTING and not self.followed(self.places[slot]):
                    self.replaced.append(slot)
            else:
                self.unmended.append(slot)  # perhaps it is another of the dead that holds
                self._mend_at = time.monotonic() + MEND_AGAIN_S

    def _mend(self, slot: int) -> bool:
        """Set right what a dead worker may have left half done in memory that we share; tell whether it could be."""
        living = [place.slot for place in self.places.values() if place.runs]
        try:
            if slot == ACTING:
                self._queue.mend_after_acting(living)
                return True
            amiss = self._queue.mend(slot, self.channels[slot].worker_end.first_number(), living)
        except Stuck as error:
            who = "the stand-in" if slot == ACTING else f"worker {slot}"
            log.error("cannot mend the queue after %s yet: %s", who, error)  # noqa: TRY400
            return False
        self._queue.fold(slot)
        if amiss:
            log.info("worker %d died inside the queue's accounting, mended", slot)
        return True

    def clear(self, slot: int) -> None:
        """Give the slot of a replaced worker free, with all that was its own."""
        channel = self.channels[slot]
        self._poll.unwatch(channel.master_end.fileno())
        channel.close()
        self._queue.forget(slot)
        self.replaced.remove(slot)
        del self.channels[slot], self.places[slot]
        for word in ("crew", "state", "pid"):
            self._words[self._segment.row(slot, word)] = 0

    def close(self) -> None:
        """Close the channels."""
        for channel in self.channels.values():
            channel.close()

    # -- they are handed over -----------------------------------------------------------------------

    def handed(self) -> list[HandedPlace]:
        """Return what the next life of this process has to know of each."""
        return [self._handed_place(place) for place in self.places.values()]

    def _handed_place(self, place: Place) -> HandedPlace:
        child, channel = self._children.get(place.slot), self.channels[place.slot]
        return HandedPlace(
            slot=place.slot,
            crew=place.crew,
            state=place.state,
            generation=place.generation,
            since=place.since,
            spawned_at=place.spawned_at,
            early_deaths=place.early_deaths,
            not_before=place.not_before,
            drain_by=place.drain_by,
            pid=0 if child is None else child.pid,
            sent=self._queue.number(place.slot),
            master_end=channel.master_end.fileno(),
            worker_end=channel.worker_end.fileno(),
        )

    def take_up(self, each: HandedPlace) -> None:
        """Go on with a worker of an earlier life of this process."""
        place = self.places[each.slot] = Place(
            slot=each.slot,
            crew=each.crew,
            state=State(each.state),
            generation=each.generation,
            since=each.since,
            spawned_at=each.spawned_at,
            early_deaths=each.early_deaths,
            not_before=each.not_before,
            drain_by=each.drain_by,
        )
        self.channels[each.slot] = Channel.adopt(each.master_end, each.worker_end)
        self.watch_reports(each.slot)
        if each.pid:
            # It is our child, living or not yet reaped: nobody else can have its number.
            child = self._children[each.slot] = Child(each.pid, os.pidfd_open(each.pid))
            self._poll.watch(child.pidfd, functools.partial(self._on_exit, each.slot))
        self._read_beat(place)
