"""The master: adopts the listeners, forks the workers, passes clients on, watches over all of it, ends it in order.

Owns:    every resource of the service: listeners, segment, queue, channels, children, the word to systemd.
Never:   looks at a client's bytes, has a second thread, blocks on a worker, on the log or on systemd.
Fails:   exit status 1 when the service cannot start, with the reason in the log.
Used by: cli.

Read `serve` first: it is the life of the process. Policy is in master.supervisor, mechanism in master.children.
"""

import contextlib
import errno
import faulthandler
import functools
import gc
import logging
import os
import resource
import select
import signal
import time
from collections.abc import Callable
from typing import Final

import setproctitle

from pyserver import sandbox, signals
from pyserver.config import Config
from pyserver.ipc import segment as segments
from pyserver.ipc.assignment import Assignment, Origin
from pyserver.ipc.channel import Channel, Full, Garbled, Gone, Kind, Message
from pyserver.ipc.queue import Queue
from pyserver.ipc.segment import HEADER, Segment, SegmentError
from pyserver.ipc.semaphores import Stuck
from pyserver.ipc.stats import index_of
from pyserver.limits import (
    ABORT_GRACE_S,
    CUT_GRACE_S,
    INTERRUPT_GRACE_S,
    MEND_AGAIN_S,
    START_TRIES,
    STOP_MARGIN_S,
    TICK_S,
)
from pyserver.master import children
from pyserver.master.acceptor import Acceptor
from pyserver.master.children import Child
from pyserver.master.listeners import ListenError, adopt_or_bind
from pyserver.master.supervisor import Event, Place, Rules, State, decide, fresh, rest, silent_for
from pyserver.sd import journal
from pyserver.sd.journal import NOTICE
from pyserver.sd.notify import Notifier

log = logging.getLogger("pyserver")

EnterWorker = Callable[[Assignment], int]

_EX_CONFIG: Final = 78  # sysexits.h: a worker found the configuration unusable
_OPEN: Final = index_of("connections_open")
_NS: Final = 1_000_000_000


def run(config: Config, enter_worker: EnterWorker) -> int:
    """Run the service until it is told to stop; return the exit status of the process."""
    journal.configure("master")
    faulthandler.enable()
    setproctitle.setproctitle(f"{config.title}: master")
    _raise_descriptor_limit()
    notifier = Notifier(os.environ)
    try:
        master = Master(config, enter_worker, notifier)
    except (ListenError, SegmentError) as error:
        return _cannot_start(str(error), notifier)
    except OSError as error:
        more = "; raise the limit of open files (LimitNOFILE=)" if error.errno == errno.EMFILE else ""
        return _cannot_start(f"cannot start: {error.strerror}{more}", notifier)
    with contextlib.closing(master):
        return master.serve()


def _cannot_start(why: str, notifier: Notifier) -> int:
    log.error("%s", why)  # one line for the administrator, not our stack
    notifier.status(why)
    notifier.close()
    return 1


def _raise_descriptor_limit() -> None:
    """Use all the descriptors we may have: a connection is one."""
    # A sandbox may forbid even asking (SystemCallFilter=~@resources); then what we have must do.
    with contextlib.suppress(OSError, ValueError):
        _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Master:
    """The service."""

    def __init__(self, config: Config, enter_worker: EnterWorker, notifier: Notifier) -> None:
        self._config = config
        self._enter_worker = enter_worker
        self._notifier = notifier
        server = config.server
        self._rules = Rules(server.start_within, server.hung_after, server.respawn_delay_max)
        slots = config.worker_count()

        with contextlib.ExitStack() as undo:
            self._open(undo, slots)
            self._closing = undo.pop_all()

        self._attend_at = 0.0  # monotonic; brought forward to 0 by whatever happens that is not just a client
        self._period = min(TICK_S, notifier.watchdog_period or TICK_S)
        self._ticked = time.monotonic()
        self._judge_from = 0.0  # monotonic: until then a silent worker proves nothing
        self._told = ""
        self._told_at = 0.0
        self._requests = 0
        self._ready = False  # READY=1 was said
        self._failed_starts = 0
        self._restarts = 0
        self._status: int | None = None  # the exit status, once it is decided to stop
        self._deadline = 0.0  # of the drain
        self._forced = False  # those that have not gone by now are killed
        self._ordered = False  # every worker was told to drain
        self._owed: list[tuple[int, Kind]] = []  # orders that a full channel did not take
        self._unmended: list[int] = []  # slots whose dead worker may still hold a mutex, next to try first
        self._mend_at = 0.0  # monotonic: when to try again after an attempt that failed

    def _open(self, undo: contextlib.ExitStack, slots: int) -> None:
        """Take up all that has to be given back; `undo` knows how, at whatever step this fails."""
        self._listeners = adopt_or_bind(os.environ, self._config.listen)
        for listener in self._listeners:
            undo.callback(listener.close)
        removed = segments.sweep()
        if removed:
            log.info("removed what a killed server had left in shared memory: %s", ", ".join(removed))
        capacity = self._config.server.queue
        self._segment = Segment.create(slots, capacity)
        undo.callback(self._segment.close)
        self._queue = Queue.create(self._segment, capacity)
        undo.callback(self._queue.close)
        self._words = self._segment.words
        self._channels: list[Channel] = []
        for _ in range(slots):
            self._channels.append(Channel())
            undo.callback(self._channels[-1].close)
        self._poll = select.epoll()
        undo.callback(self._poll.close)
        self._acceptor = Acceptor(self._listeners, self._queue, self._channels, self._poll, self._loads)
        undo.callback(self._acceptor.close)
        self._origins = tuple(Origin(one.name, one.socket.family) for one in self._listeners)
        self._places = [Place(slot) for slot in range(slots)]
        self._children: dict[int, Child] = {}

        self._signals = signals.Signals(signals.ORDERS)
        undo.callback(self._signals.close, deaf=True)
        self._readers: dict[int, Callable[[], object]] = {}  # descriptor -> what to do when it is readable
        self._watch(self._signals.fileno(), self._on_signals)
        for slot in range(slots):
            self._watch_reports(slot)
        for index, listener in enumerate(self._listeners):
            # Registered by the acceptor, as long as a client could be taken.
            self._readers[listener.fileno()] = functools.partial(self._on_clients, index)

    # -- the spine ---------------------------------------------------------------------------

    def serve(self) -> int:
        """Live: until told to stop, and then until every worker is gone."""
        for listener in self._listeners:
            how = "adopted from systemd" if listener.adopted else "bound"
            log.info("listening on %s (%s)", listener, how, extra=_fields(LISTENER=str(listener)))
        found = sandbox.look(with_landlock=self._config.server.landlock == "auto")
        self._words[HEADER["protections"]] = found
        log.info("sandbox %s", sandbox.told(sandbox.by_name(found)))
        for warning in self._config.warnings:
            log.warning("%s", warning)
        gc.collect()
        gc.freeze()
        while self._attend():
            for descriptor, _events in self._poll.poll(max(0.0, self._attend_at - time.monotonic())):
                reader = self._readers.get(descriptor)
                if reader is not None:  # it may have gone with an earlier event of this round
                    reader()
        log.info("stopped")
        return self._status or 0

    def _attend(self) -> bool:
        """Between two polls see to all but clients, if it is time or something happened; False when all is done."""
        now = time.monotonic()
        if now < self._attend_at:
            return True
        if now - self._ticked >= self._period:
            self._tick()
        self._mend_all(now)
        self._supervise()
        self._acceptor.look_again()
        if self._status is not None and self._advance_stop():
            return False
        self._attend_at = self._next_time()
        return True

    def close(self) -> None:
        """Leave nothing behind: no name, no socket file, no descriptor."""
        self._closing.close()
        self._notifier.close()

    # -- what the poll set reports --------------------------------------------------------------

    def _watch(self, descriptor: int, reader: Callable[[], object]) -> None:
        self._readers[descriptor] = reader
        self._poll.register(descriptor, select.EPOLLIN)

    def _watch_reports(self, slot: int) -> None:
        descriptor = self._channels[slot].master_end.fileno()
        if descriptor not in self._readers:
            self._watch(descriptor, functools.partial(self._on_report, slot))

    def _unwatch(self, descriptor: int) -> None:
        del self._readers[descriptor]
        self._poll.unregister(descriptor)

    def _on_clients(self, listener: int) -> None:
        self._acceptor.accept(listener)
        if self._acceptor.wake_at is not None:
            self._attend_at = min(self._attend_at, self._acceptor.wake_at)

    def _on_signals(self) -> None:
        self._attend_at = 0.0
        for number in self._signals.take():
            if number == signal.SIGTERM:
                self._stop(number.name)
            elif number == signal.SIGINT:
                self._stop(number.name, drain=INTERRUPT_GRACE_S)
            elif number == signal.SIGUSR1:
                log.info("%s: workers open their log files again", number.name)
                for place in self._places:
                    if place.runs:
                        self._order(place.slot, Kind.REOPEN)
            elif number == signal.SIGHUP:
                log.warning("%s ignored: systemctl restart takes a new configuration", number.name)

    def _on_report(self, slot: int) -> None:
        """A worker says something."""
        self._attend_at = 0.0
        place = self._places[slot]
        end = self._channels[slot].master_end
        try:
            received = end.receive()
        except (Garbled, Gone) as error:
            if isinstance(error, Gone):
                # Nothing was closed, we hold both ends: it said nothing, or shut the channel down and says so for ever.
                self._unwatch(end.fileno())
            log.error("worker %d sent %s, killing it", slot, error)  # noqa: TRY400
            self._kill(slot)
            return
        if received is None:
            return
        message, descriptors = received
        for descriptor in descriptors:  # no report carries any
            os.close(descriptor)
        if message.kind is Kind.ROOM:
            self._queue.room_told()
        elif message.generation != place.generation or not place.runs:
            log.debug("stale %s of worker %d (generation %d)", message.kind.name, slot, message.generation)
        elif message.kind is Kind.READY and place.state in (State.STARTING, State.DRAINING):
            self._on_ready(place)
        else:
            log.warning("worker %d says %s while %s, ignored", slot, message.kind.name, place.state.name)

    def _on_ready(self, place: Place) -> None:
        now = time.monotonic()
        self._happened(place, "ready", now)
        log.info(
            "worker %d (generation %d) ready after %.2f s", place.slot, place.generation, now - place.spawned_at,
            extra=_fields(WORKER=place.slot),
        )  # fmt: skip
        if not self._ready and all(each.serves for each in self._places):
            self._ready = True
            self._told, self._told_at = self._line(0.0), now
            self._notifier.ready(self._told)
            log.log(NOTICE, "ready, %d workers of %d threads", len(self._places), self._config.server.threads)

    def _on_exit(self, slot: int) -> None:
        """A worker's pidfd is readable: it is gone."""
        self._attend_at = 0.0
        child = self._children[slot]
        pidfd = child.pidfd
        ending = children.reap(child)
        if ending is None:
            return
        # The descriptor is closed, and with it gone from the poll set.
        del self._readers[pidfd], self._children[slot]
        place = self._places[slot]
        now = time.monotonic()
        drained, cut = place.state is State.DRAINING, place.state is State.KILLED and self._forced
        never_ready = not self._words[self._segment.row(slot, "beat_ns")]
        self._happened(place, "exited", now)
        lost = self._words[self._segment.counters(slot) + _OPEN]
        self._unmended.insert(0, slot)
        self._mend_all(now)
        delay = rest(place, now, self._rules)
        place.not_before = now + delay
        waiting = self._queue.waiting(slot)
        if drained and not lost:
            log.info("worker %d (generation %d) drained and %s", slot, place.generation, ending)
        elif cut:
            log.info("worker %d (generation %d) %s, %d connections cut", slot, place.generation, ending, lost)
        else:
            respawn = ""
            if self._status is None:
                self._restarts += 1
                self._words[HEADER["restarts"]] = self._restarts
                respawn = f", respawn in {delay:.2f} s"
            log.error(
                "worker %d (generation %d, pid %d) %s after %.1f s: %d connections lost, %d wait for its successor%s",
                slot, place.generation, child.pid, ending, now - place.spawned_at, lost, waiting, respawn,
                extra=_fields(WORKER=slot, CONNECTIONS_LOST=lost),
            )  # fmt: skip
        if never_ready and not self._ready and self._status is None:
            self._on_failed_start(ending)

    def _on_failed_start(self, ending: str) -> None:
        """Before the service was ever ready a worker that dies at its start says more about the service."""
        self._failed_starts += 1
        unusable = ending == f"exited with status {_EX_CONFIG}"
        if unusable or self._failed_starts >= START_TRIES:
            log.error("no worker comes up (%s), giving up", ending)
            self._stop("failed start", _EX_CONFIG if unusable else 1)
            self._force()

    def _mend_all(self, now: float) -> None:
        """Mend after those who died. An attempt that fails has cost time that clients wait: one is enough for now."""
        while self._unmended and now >= self._mend_at:
            slot = self._unmended.pop(0)
            if not self._mend(slot):
                self._unmended.append(slot)  # perhaps it is another of the dead that holds
                self._mend_at = time.monotonic() + MEND_AGAIN_S

    def _mend(self, slot: int) -> bool:
        """Set right what a dead worker may have left half done in memory that we share; tell whether it could be."""
        living = [place.slot for place in self._places if place.runs]
        try:
            amiss = self._queue.mend(slot, self._channels[slot].worker_end.first_number(), living)
        except Stuck as error:
            log.error("cannot mend the queue after worker %d yet: %s", slot, error)  # noqa: TRY400
            return False
        self._queue.fold(slot)
        if amiss:
            log.info("worker %d died inside the queue's accounting, mended", slot)
        return True

    # -- time ---------------------------------------------------------------------------------------

    def _next_time(self) -> float:
        """Return when to attend to things again if nothing happens."""
        now = time.monotonic()
        until = [self._ticked + self._period]
        if self._acceptor.wake_at is not None:
            until.append(self._acceptor.wake_at)
        if self._unmended:
            until.append(self._mend_at)
        if self._status is not None:
            until.extend(at for at in (self._deadline, self._deadline + CUT_GRACE_S) if at > now)
        until.extend(place.not_before for place in self._places if not place.runs and place.not_before > now)
        until.extend(place.since + ABORT_GRACE_S for place in self._places if place.state is State.ABORTED)
        return min(until)

    def _tick(self) -> None:
        """What is done once a period: judge heartbeats, tell systemd, retry what was owed."""
        now = time.monotonic()
        elapsed = now - self._ticked
        self._ticked = now
        if elapsed > self._period + min(self._rules.hung_after, self._rules.start_within) / 2:
            # We stood still (SIGSTOP, a frozen cgroup), and so perhaps did the workers: they get time to beat first.
            self._judge_from = now + TICK_S
        self._read_beats()
        owed, self._owed = self._owed, []
        for slot, kind in owed:
            self._ring(slot, kind)
        words = self._words
        words[HEADER["master_beat"]] = time.monotonic_ns()
        words[HEADER["accept_pauses"]] = self._acceptor.pauses
        words[HEADER["saturations"]] = self._acceptor.saturations
        well = now < self._judge_from or fresh(self._places, now, self._rules)
        if self._notifier.watchdog_period is not None and well:
            self._notifier.watchdog()
        if self._ready and self._status is None and now - self._told_at >= TICK_S:
            self._tell(now - self._told_at)
            self._told_at = now

    def _tell(self, elapsed: float) -> None:
        """Tell systemd how things stand, if they changed."""
        line = self._line(elapsed)
        if line != self._told and self._notifier.status(line):
            self._told = line

    def _line(self, elapsed: float) -> str:
        totals = self._queue.totals()
        requests, self._requests = totals["requests"] - self._requests, totals["requests"]
        rate = requests / elapsed if elapsed > 0 else 0.0
        serving = sum(place.serves for place in self._places)
        return (
            f"serving {serving}/{len(self._places)} workers, {rate:.0f} req/s, "
            f"{totals['connections_open']} open, queue {self._queue.depth}"
        )

    # -- workers ------------------------------------------------------------------------------------

    def _loads(self) -> dict[int, int]:
        """Return what each ready worker has: connections waiting in its channel, and open."""
        words, segment, queue = self._words, self._segment, self._queue
        return {
            place.slot: queue.waiting(place.slot) + words[segment.counters(place.slot) + _OPEN]
            for place in self._places
            if place.serves
        }

    def _read_beats(self) -> None:
        for place in self._places:
            place.beat = self._words[self._segment.row(place.slot, "beat_ns")] / _NS

    def _supervise(self) -> None:
        """Do what the policy says."""
        now = time.monotonic()
        for action in decide(self._places, now, self._rules, refill=self._refill(), judge=now >= self._judge_from):
            if action.verb == "spawn":
                self._spawn(action.slot)
            elif action.verb == "kill":
                self._kill(action.slot)
            else:
                self._abort(action.slot)

    def _refill(self) -> list[int]:
        """Return the slots that shall have a worker."""
        wanted = [place.slot for place in self._places if place.slot not in self._unmended]
        if self._status is None:
            return wanted
        # On the way out only for the sake of those who wait already: in a channel, or in our own hands.
        if time.monotonic() >= self._deadline:
            return []
        if self._acceptor.held and not any(place.state in (State.STARTING, State.READY) for place in self._places):
            return wanted[:1]
        return [slot for slot in wanted if self._queue.waiting(slot)]

    def _spawn(self, slot: int) -> None:
        place, words = self._places[slot], self._words
        now = time.monotonic()
        place.generation += 1
        place.spawned_at, place.beat = now, 0.0
        for word in ("beat_ns", "reopen_ns", "drain_by_ns"):
            words[self._segment.row(slot, word)] = 0
        words[self._segment.row(slot, "generation")] = place.generation
        words[self._segment.row(slot, "since_ns")] = time.monotonic_ns()
        try:
            child = children.spawn(functools.partial(self._become_worker, slot))
        except OSError as error:
            place.early_deaths += 1
            place.not_before = now + self._rules.respawn_delay_max
            log.error("cannot fork worker %d: %s, trying again", slot, error.strerror)  # noqa: TRY400
            return
        self._children[slot] = child
        words[self._segment.row(slot, "pid")] = child.pid
        self._happened(place, "spawned", now)
        self._watch(child.pidfd, functools.partial(self._on_exit, slot))
        self._watch_reports(slot)
        if self._ordered:
            self._happened(place, "drain", now)
            self._order(slot, Kind.DRAIN)

    def _become_worker(self, slot: int) -> int:
        """In the forked child: let go of what is the master's, and be a worker."""
        self._poll.close()
        self._signals.forget()
        self._notifier.close()
        self._acceptor.close()
        for each, channel in enumerate(self._channels):
            channel.master_end.close()
            if each != slot:
                channel.worker_end.close()
        for child in self._children.values():
            os.close(child.pidfd)
        place = self._places[slot]
        return self._enter_worker(
            Assignment(
                slot=slot,
                generation=place.generation,
                config=self._config,
                end=self._channels[slot].worker_end,
                segment=self._segment,
                queue=self._queue.for_worker(slot),
                origins=self._origins,
            )
        )

    def _abort(self, slot: int) -> None:
        place = self._places[slot]
        now = time.monotonic()
        log.error(
            "worker %d (generation %d) silent for %.1f s, killing it",
            slot, place.generation, silent_for(place, now), extra=_fields(WORKER=slot),
        )  # fmt: skip
        self._happened(place, "hung", now)
        children.abort(self._children[slot])

    def _kill(self, slot: int) -> None:
        place = self._places[slot]
        if place.runs and place.state is not State.KILLED:
            self._happened(place, "killed", time.monotonic())
            children.send_signal(self._children[slot], signal.SIGKILL)

    def _order(self, slot: int, kind: Kind) -> None:
        """Tell a worker something: by a word in its row, which holds, and a message, which makes it look there."""
        if kind is Kind.REOPEN:
            self._words[self._segment.row(slot, "reopen_ns")] = time.monotonic_ns()
        else:
            self._words[self._segment.row(slot, "drain_by_ns")] = int(self._deadline * _NS)
        self._ring(slot, kind)

    def _ring(self, slot: int, kind: Kind) -> None:
        """Send an order's message, now or when the channel has room."""
        message = Message(kind, self._places[slot].generation, number=self._queue.number(slot))
        try:
            self._channels[slot].master_end.send(message)
        except Full:
            self._owed.append((slot, kind))
        except Gone:
            log.debug("%s did not reach worker %d: it has shut its channel down", kind.name, slot)

    def _happened(self, place: Place, event: Event, now: float) -> None:
        place.happened(event, now)
        self._words[self._segment.row(place.slot, "state")] = place.state

    # -- the end ------------------------------------------------------------------------------------

    def _stop(self, why: str, status: int = 0, drain: float | None = None) -> None:
        """Begin to stop; told a second time, do not wait for anyone."""
        if self._status is not None:
            log.warning("%s: not waiting any longer", why)
            self._force()
            return
        self._status = status
        drain = self._config.server.drain if drain is None else min(drain, self._config.server.drain)
        self._deadline = time.monotonic() + drain
        self._words[HEADER["master_state"]] = 1
        open_now = self._queue.totals()["connections_open"]
        log.log(NOTICE, "%s: stopping, %d connections open, at most %g s", why, open_now, drain)
        self._notifier.stopping(f"draining, {open_now} connections open")
        self._notifier.extend_timeout(drain + STOP_MARGIN_S)
        self._acceptor.finish()
        for place in self._places:
            place.not_before = 0.0  # there may be somebody who cannot wait until it has rested

    def _advance_stop(self) -> bool:
        """Go on with the stop; True when it is complete."""
        now = time.monotonic()
        if not self._ordered and not self._acceptor.held:
            self._ordered = True
            for place in self._places:
                if place.state in (State.STARTING, State.READY):
                    self._happened(place, "drain", now)
                    self._order(place.slot, Kind.DRAIN)
        running = [place for place in self._places if place.runs]
        held = self._acceptor.held
        over = now >= self._deadline + (CUT_GRACE_S if running else 0.0)
        if over and not self._forced and (running or held):
            cut = self._queue.totals()["connections_open"] + self._queue.depth + held
            log.warning("drain deadline passed, cutting %d connections", cut)
            self._force()
        return not running and (over or not (held or self._refill()))

    def _force(self) -> None:
        self._deadline = time.monotonic()
        self._ordered = self._forced = True
        for place in self._places:
            self._kill(place.slot)


def _fields(**values: object) -> dict[str, dict[str, object]]:
    """Return logging's `extra` with fields for the journal."""
    return {"fields": values}
