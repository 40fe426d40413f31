"""A reload, step by step: a rehearsal, then the new code in this very process, then its workers instead of the earlier.

Owns:    the steps, and what may go wrong between two of them; what replaced workers give back until it is passed on.
Never:   lets go of workers that serve before those that follow them are ready.
Fails:   the reload, with the reason told to whoever asked for it; all else goes on.
Used by: master.main.

see_to() begins one, and rehearses it in another process. If that went well, execute(): the process is the new code from
there on, whose master.main takes up what was handed over, and enlists a coming crew. Until it accepts, a stand-in does.
When all of that crew are ready, came() makes them the crew that serves; those before finish what they have, give their
idle connections back, and are cleared.
"""

import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence

from pyserver import signals
from pyserver.ipc.assignment import Origin
from pyserver.ipc.channel import Channel, Drain, Garbled, Gone, Kind, Message
from pyserver.ipc.queue import Queue
from pyserver.ipc.segment import HEADER, Segment
from pyserver.limits import REPLACED_DRAIN_S, START_TRIES
from pyserver.master import handover, standin
from pyserver.master.acceptor import Acceptor
from pyserver.master.handover import Handover
from pyserver.master.pollset import PollSet
from pyserver.master.reload import Reload
from pyserver.master.standing import Standing
from pyserver.master.stopping import Stopping
from pyserver.master.supervisor import Place, State
from pyserver.master.workers import Workers
from pyserver.sd.notify import Notifier

log = logging.getLogger("pyserver")


class Succession:
    """New code and new workers in the place of earlier ones."""

    def __init__(
        self,
        segment: Segment,
        queue: Queue,
        workers: Workers,
        acceptor: Acceptor,
        origins: Sequence[Origin],
        reload: Reload,
        stopping: Stopping,
        standing: Standing,
        notifier: Notifier,
        poll: PollSet,
        *,
        threads: int,
        hand_over: Callable[[], Handover],
        stand_in: Callable[[socket.socket], int],
        go_on: Callable[[Handover], object],
        obey: Callable[[], object],
        hear: Callable[[int], bool],
    ) -> None:
        self._segment = segment
        self._words = segment.words
        self._queue = queue
        self._workers = workers
        self._acceptor = acceptor
        self._origins = origins
        self._reload = reload
        self._stopping = stopping
        self._standing = standing
        self._notifier = notifier
        self._poll = poll
        self._threads = threads  # of a worker
        self._hand_over = hand_over  # returns all that the next life of this process has to know
        self._stand_in = stand_in  # in a forked child, accepts meanwhile
        self._go_on = go_on  # takes up what a stand-in has changed of what was handed over
        self._obey = obey  # takes the signals that wait
        self._hear = hear  # reads a report of a worker; False if there is none
        self._failed_coming = 0  # workers of a coming crew that died before they were ready
        self._unheard: set[int] = set()  # slots that give connections back faster than they can be passed on

    # -- the new code -------------------------------------------------------------------------------

    def see_to(self, now: float) -> None:
        """Begin what is wished for, and end what takes too long."""
        if self._reload.due and self._standing.ready and not self._stopping.begun:
            self._reload.begin(now)
            self._rehearse()
        elif self._reload.began and now >= self._reload.by:
            if self._reload.rehearsal is not None:
                self._reload.rehearsal.kill()
            elif self._workers.coming is not None:
                self._give_up_coming(f"no worker was ready within {now - self._reload.began:.1f} s")

    def _rehearse(self) -> None:
        """Let another process start a worker with the new configuration and the new code, before anything changes."""
        document = -1
        try:
            document = handover.write(self._hand_over())
            rehearsal = self._reload.rehearse(document)
        except (OSError, ImportError) as error:
            self._failed(f"no rehearsal: {_reason(error)}")
            return
        finally:
            if document >= 0:
                os.close(document)
        self._poll.watch(rehearsal.fileno(), self._on_rehearsed)

    def _on_rehearsed(self) -> None:
        """The rehearsal has ended."""
        rehearsal = self._reload.rehearsal
        assert rehearsal is not None
        pidfd = rehearsal.fileno()
        outcome = rehearsal.outcome()
        if outcome is None:
            return
        self._poll.soon()
        self._poll.gone(pidfd)
        self._reload.rehearsal = None
        well, said = outcome
        if self._stopping.begun:
            return
        if not well:
            for line in said[:-1]:
                log.info("rehearsal: %s", line)
            self._failed(said[-1])
        else:
            self._execute()

    def _execute(self) -> None:
        """Become the new code. Returns only if that is not to be."""
        # From here on signals wait for whoever comes next; those that are noted already are obeyed first.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signals.ORDERS)
        self._obey()
        if not self._stopping.begun:
            document, handed = -1, None
            try:
                handed = self._hand_over()
                if self._acceptor.polling:
                    # From here on the queue is in the hands of the stand-in, until it is relieved.
                    handed = handed._replace(stand_in=standin.start(self._stand_in))
                document = handover.write(handed)
                environ = {**os.environ, **self._notifier.environment(), handover.VARIABLE: str(document)}
                handover.execute([*handed.descriptors(), document], environ)
            except (OSError, ImportError) as error:
                if handed is not None and handed.stand_in is not None:
                    self._go_on(standin.relieve(handed))
                self._failed(f"cannot execute {handover.command()[0]}: {_reason(error)}")
            finally:
                if document >= 0:
                    os.close(document)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    # -- the new workers ----------------------------------------------------------------------------

    def enlist(self, wanted: int) -> None:
        """As the new code: make places for the workers that shall serve."""
        workers = self._workers
        workers.coming = 1 + max(place.crew for place in workers.places.values())
        if not workers.enlist(workers.coming, wanted):
            workers.coming = None
            self._failed("too many workers of earlier reloads have not finished yet")

    def came(self, place: Place) -> None:
        """While a crew is coming, a worker said READY: perhaps it was the last of them."""
        coming = self._workers.coming
        assert coming is not None
        if place.crew == coming and all(each.serves for each in self._workers.of(coming)):
            self._change_crews()

    def died_early(self, ending: str) -> None:
        """A coming worker died before it was ready."""
        self._failed_coming += 1
        if self._failed_coming >= START_TRIES:
            self._give_up_coming(f"no worker comes up ({ending})")

    def _change_crews(self) -> None:
        """The new workers are ready: they serve from now on, and the others finish what they have."""
        workers = self._workers
        assert workers.coming is not None
        now = time.monotonic()
        before, workers.crew, workers.coming = workers.crew, workers.coming, None
        self._failed_coming = 0
        words = self._words
        words[HEADER["crew"]] = workers.crew
        words[HEADER["reloads"]] += 1
        words[HEADER["reloaded"]] = int(time.time())
        for place in workers.of(before):
            place.drain_by = now + REPLACED_DRAIN_S
            if place.state in (State.STARTING, State.READY):
                workers.happened(place, "drain", now)
                workers.drain(place.slot, place.drain_by, Drain.MOVE)
            elif not place.runs and place.slot not in workers.unmended:
                workers.replaced.append(place.slot)
        self._standing.told_otherwise(now)
        took = now - self._reload.began
        text = f"reloaded within {took:.2f} s: {len(workers.of(workers.crew))} workers of {self._threads} threads"
        self._segment.note("reloaded", text)
        self._reload.done(self._standing.line(), text)

    def _give_up_coming(self, why: str) -> None:
        """The new workers do not come up, although one did in the rehearsal: those that serve go on."""
        workers = self._workers
        assert workers.coming is not None
        coming, workers.coming = workers.of(workers.coming), None
        self._failed_coming = 0
        for place in coming:
            place.drain_by = time.monotonic()
            if place.runs:
                workers.kill(place.slot)
            elif place.slot not in workers.unmended:
                workers.replaced.append(place.slot)
        self._failed(f"{why}; the workers that serve go on")

    def _failed(self, why: str) -> None:
        self._segment.note("reload failed", why)
        self._reload.failed(self._standing.line(), why)

    # -- the workers before -------------------------------------------------------------------------

    def takes_back(self, place: Place, descriptors: list[int], message: Message) -> bool:
        """Take idle connections that a replaced worker gives back, and pass them on; False if they are not for us."""
        known = message.listener < len(self._origins)
        if message.kind is not Kind.PARKED or self._stopping.begun or self._workers.followed(place) or not known:
            return False
        self._acceptor.take_back(descriptors, message)
        if self._acceptor.laden:
            self._poll.unwatch(self._workers.channels[place.slot].master_end.fileno())
            self._unheard.add(place.slot)
        return True

    def clear_replaced(self) -> None:
        """Clear the slots of workers that have gone and nobody follows: what waits in their channels is for others."""
        for slot in self._unheard.copy():
            if not self._acceptor.laden:
                self._unheard.remove(slot)
                self._workers.watch_reports(slot)
        for slot in self._workers.replaced.copy():
            while not self._acceptor.laden and self._hear(slot):
                pass
            if self._acceptor.laden:
                return
            self._take_out(slot, self._workers.channels[slot])
            self._unheard.discard(slot)
            self._workers.clear(slot)

    def _take_out(self, slot: int, channel: Channel) -> None:
        """Take what nobody has taken out of a channel, to pass it on."""
        with contextlib.suppress(Gone, Garbled):  # shut down by its worker
            while (received := channel.worker_end.receive()) is not None:
                message, descriptors = received
                if message.kind not in (Kind.CONNECTIONS, Kind.PARKED):
                    continue
                self._queue.withdraw(slot, message.carried)
                self._queue.return_room(message.carried - len(descriptors))  # dropped by the kernel: no descriptors
                if descriptors:
                    message = Message(message.kind, 0, message.listener, len(descriptors), 0, message.stamp_ns)
                    self._acceptor.carry_on(descriptors, message, counted=True)


def _reason(error: OSError | ImportError) -> str:
    """Return why it failed. What only a reload needs is imported by it, and may have gone from the disk."""
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
