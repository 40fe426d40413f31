"""The end of the service, in order: nobody new, everybody finishes, until the deadline; then those who remain are cut.

Owns:    the decision to stop, with exit status and deadline; idle connections that workers gave back for systemd.
Never:   waits: whoever asks is told whether it is over. Cuts anybody before the deadline, unless told a second time.
Used by: master.main; master.succession (whether it has begun).

Those who were accepted and wait for a worker are still served, so a worker may be started for their sake.
"""

import logging
import os
import signal
import time
from collections.abc import Iterator, Sequence

from pyserver.ipc.assignment import Origin
from pyserver.ipc.channel import Drain, Kind, Message
from pyserver.ipc.queue import Queue
from pyserver.ipc.segment import HEADER, Segment
from pyserver.limits import CUT_GRACE_S, STOP_MARGIN_S
from pyserver.master import stored
from pyserver.master.acceptor import Acceptor
from pyserver.master.backlogs import Backlogs
from pyserver.master.reload import Reload
from pyserver.master.supervisor import State
from pyserver.master.workers import Workers
from pyserver.sd.journal import NOTICE
from pyserver.sd.notify import Notifier

log = logging.getLogger("pyserver")


class Stopping:
    """The stop that is to come, or under way."""

    def __init__(
        self,
        drain: float,
        segment: Segment,
        queue: Queue,
        workers: Workers,
        acceptor: Acceptor,
        backlogs: Backlogs,
        origins: Sequence[Origin],
        reload: Reload,
        notifier: Notifier,
    ) -> None:
        self._drain = drain
        self._segment = segment
        self._words = segment.words
        self._queue = queue
        self._workers = workers
        self._acceptor = acceptor
        self._backlogs = backlogs
        self._origins = origins
        self._reload = reload
        self._notifier = notifier
        self.status: int | None = None  # the exit status, once it is decided to stop
        self.forced = False  # those that have not gone by now are killed
        self._deadline = 0.0  # of the drain
        self._ordered = False  # every worker was told to drain
        self._storing = False  # idle connections are left with systemd
        self._parked: list[tuple[int, int]] = []  # those: descriptor, listener

    @property
    def begun(self) -> bool:
        """Whether it is decided."""
        return self.status is not None

    def begin(self, why: str, status: int = 0, drain: float | None = None) -> None:
        """Begin to stop; told a second time, do not wait for anyone."""
        if self.status is not None:
            log.warning("%s: not waiting any longer", why)
            self.force()
            return
        self.status = status
        drain = self._drain if drain is None else min(drain, self._drain)
        self._deadline = time.monotonic() + drain
        self._words[HEADER["master_state"]] = 1
        open_now = self._queue.totals()["connections_open"]
        log.log(NOTICE, "%s: stopping, %d connections open, at most %g s", why, open_now, drain)
        self._segment.note("stopping", f"{why}: stopping, {open_now} connections open")
        self._notifier.stopping(f"draining, {open_now} connections open")
        self._notifier.extend_timeout(drain + STOP_MARGIN_S)
        # Whether another start follows is known to systemd alone: after a stop it closes what it was given.
        self._storing = status == 0 and why == signal.SIGTERM.name and self._notifier.wanted
        if self._storing:
            for descriptors, message in self._acceptor.give_up_returned():
                self._park(descriptors, message)
        self._backlogs.restore()
        self._acceptor.look_again()  # by that there may be room again for those who are still taken
        self._acceptor.finish()
        self._reload.cancel("the server is stopping")
        for place in self._workers.places.values():
            place.not_before = 0.0  # there may be somebody who cannot wait until it has rested

    def refill(self) -> list[int]:
        """Return the slots that shall have a worker still: for those who wait, in a channel or in our own hands."""
        if time.monotonic() >= self._deadline:
            return []
        wanted = self._workers.wanted()
        takers = (State.STARTING, State.READY)
        if self._acceptor.held and not any(place.state in takers for place in self._workers.places.values()):
            return wanted[:1]
        return [slot for slot in wanted if self._queue.waiting(slot)]

    def spawned(self, slot: int) -> None:
        """Tell a worker that was started after all others were told that it shall leave, too."""
        if self._ordered:
            self._workers.happened(self._workers.places[slot], "drain", time.monotonic())
            self._workers.drain(slot, self._deadline, Drain.CLOSE)

    def takes_parked(self, descriptors: list[int], message: Message) -> bool:
        """Take idle connections that a worker gives back for whoever follows; False if they are not for us."""
        if message.kind is not Kind.PARKED or not self._storing or message.listener >= len(self._origins):
            return False
        self._park(descriptors, message)
        return True

    def _park(self, descriptors: list[int], message: Message) -> None:
        self._parked += [(descriptor, message.listener) for descriptor in descriptors]

    def advance(self) -> bool:
        """Go on with the stop; True when it is complete."""
        now = time.monotonic()
        places = self._workers.places.values()
        if not self._ordered and not self._acceptor.held:
            self._ordered = True
            for place in places:
                if place.state in (State.STARTING, State.READY):
                    self._workers.happened(place, "drain", now)
                if place.state is State.DRAINING:  # by a reload perhaps, with far more time
                    self._workers.drain(place.slot, self._deadline, Drain.STORE if self._storing else Drain.CLOSE)
        running = [place for place in places if place.runs]
        held = self._acceptor.held
        over = now >= self._deadline + (CUT_GRACE_S if running else 0.0)
        if over and not self.forced and (running or held):
            cut = self._queue.totals()["connections_open"] + self._queue.depth + held
            log.warning("drain deadline passed, cutting %d connections", cut)
            self.force()
        return not running and (over or not (held or self.refill()))

    def next_times(self, now: float) -> Iterator[float]:
        """Yield when there is something to do if nothing happens."""
        if self.begun:
            yield from (at for at in (self._deadline, self._deadline + CUT_GRACE_S) if at > now)

    def force(self) -> None:
        """Wait for nobody any longer."""
        self._deadline = time.monotonic()
        self._ordered = self.forced = True
        for place in self._workers.places.values():
            self._workers.kill(place.slot)

    def finish(self) -> None:
        """Leave with systemd what whoever follows shall have: the last act."""
        parked, self._parked = self._parked, []
        stored.leave(parked, self._origins, self._notifier)

    def forget(self) -> None:
        """Close what is held: in a forked child."""
        for descriptor, _ in self._parked:
            os.close(descriptor)
