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
import socket
import sys
import time
from collections.abc import Callable
from typing import Final

import setproctitle

from pyserver import __version__, sandbox, signals
from pyserver.config import Config
from pyserver.ipc import segment as segments
from pyserver.ipc.assignment import Assignment, Origin
from pyserver.ipc.channel import Channel, Drain, Full, Garbled, Gone, Kind, Message
from pyserver.ipc.clients import ClientTable
from pyserver.ipc.control import Control, address_of, answer
from pyserver.ipc.queue import Queue
from pyserver.ipc.segment import HEADER, Segment, SegmentError
from pyserver.ipc.semaphores import Stuck
from pyserver.ipc.stats import index_of
from pyserver.limits import (
    ABORT_GRACE_S,
    CUT_GRACE_S,
    INTERRUPT_GRACE_S,
    MEND_AGAIN_S,
    REPLACED_DRAIN_S,
    SLOTS_MAX,
    START_TRIES,
    STOP_MARGIN_S,
    STORE_WITHIN_S,
    STORED_BATCH_MAX,
    STORED_MAX,
    TICK_S,
)
from pyserver.master import children, handover
from pyserver.master.acceptor import Acceptor
from pyserver.master.children import Child
from pyserver.master.handover import HandedConnections, HandedListener, HandedPlace, Handover
from pyserver.master.listeners import CONTROL, Listener, ListenError, adopt_or_bind
from pyserver.master.rehearsal import rehearse
from pyserver.master.reload import Reload
from pyserver.master.supervisor import Event, Place, Rules, State, decide, fresh, rest, silent_for
from pyserver.sd import fdstore, journal
from pyserver.sd.fdstore import Stored
from pyserver.sd.journal import NOTICE
from pyserver.sd.notify import Notifier

log = logging.getLogger("pyserver")

EnterWorker = Callable[[Assignment], int]

_EX_CONFIG: Final = 78  # sysexits.h: a worker found the configuration unusable
_OPEN: Final = index_of("connections_open")
_NS: Final = 1_000_000_000


def run(config: Config, enter_worker: EnterWorker) -> int:
    """Run the service until it is told to stop; return the exit status of the process."""
    rehearsing = os.environ.pop(handover.REHEARSAL, "")
    try:
        handed = handover.receive(os.environ)
    except handover.Foreign as error:
        print(error, file=sys.stderr)
        return 1
    if rehearsing:
        rehearse(config, enter_worker)
    if handed is not None:
        handed.claim()
    journal.configure("master")
    faulthandler.enable()
    setproctitle.setproctitle(f"{config.title}: master")
    _raise_descriptor_limit()
    notifier = Notifier(os.environ)
    try:
        master = Master(config, enter_worker, notifier, handed)
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

    def __init__(
        self, config: Config, enter_worker: EnterWorker, notifier: Notifier, handed: Handover | None = None
    ) -> None:
        self._config = config
        self._enter_worker = enter_worker
        self._notifier = notifier
        server = config.server
        self._rules = Rules(server.start_within, server.hung_after, server.respawn_delay_max)
        self._crew = 1  # the workers that serve
        self._coming: int | None = None  # those that shall follow them: they have not all said READY yet
        self._handed = handed
        self._restarts = 0

        with contextlib.ExitStack() as undo:
            self._open(undo, handed)
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
        self._status: int | None = None  # the exit status, once it is decided to stop
        self._deadline = 0.0  # of the drain
        self._forced = False  # those that have not gone by now are killed
        self._ordered = False  # every worker was told to drain
        self._owed: list[tuple[int, Kind]] = []  # orders that a full channel did not take
        self._unmended: list[int] = []  # slots whose dead worker may still hold a mutex, next to try first
        self._mend_at = 0.0  # monotonic: when to try again after an attempt that failed
        self._failed_coming = 0  # workers of a coming crew that died before they were ready
        self._replaced: list[int] = []  # slots of an earlier crew whose worker has gone, to be cleared
        self._unheard: set[int] = set()  # slots that give connections back faster than they can be passed on
        if handed is not None:
            self._take_up(handed)

    def _open(self, undo: contextlib.ExitStack, handed: Handover | None) -> None:
        """Take up all that has to be given back; `undo` knows how, at whatever step this fails."""
        stored: list[Stored] = []
        listeners = (
            adopt_or_bind(os.environ, self._config.listen, stored) if handed is None else _handed_listeners(handed)
        )
        for listener in listeners:
            undo.callback(listener.close)
        self._listeners = [listener for listener in listeners if listener.name != CONTROL]
        if handed is None:
            removed = segments.sweep()
            if removed:
                log.info("removed what a killed server had left in shared memory: %s", ", ".join(removed))
            capacity = self._config.server.queue
            self._segment = Segment.create(SLOTS_MAX, capacity)
            undo.callback(self._segment.close)
            self._queue = Queue.create(self._segment, capacity)
        else:
            self._segment = Segment.adopt(handed.segment, handed.segment_descriptors, handed.slots)
            undo.callback(self._segment.close)
            sent = {place.slot: place.sent for place in handed.places}
            self._queue = Queue.adopt(self._segment, handed.capacity, sent, handed.in_hand)
        undo.callback(self._queue.close)
        self._words = self._segment.words
        # Of this life's workers: those of an earlier one, which drain, have theirs.
        self._clients = ClientTable(SLOTS_MAX) if self._config.clients.limited else None
        if self._clients is not None:
            undo.callback(self._clients.close)
        self._poll = select.epoll()
        undo.callback(self._poll.close)
        self._readers: dict[int, Callable[[], object]] = {}  # descriptor -> what to do when it is readable
        self._channels: dict[int, Channel] = {}
        undo.callback(self._close_channels)
        self._acceptor = Acceptor(self._listeners, self._queue, self._channels, self._poll, self._loads)
        undo.callback(self._acceptor.close)
        self._origins = tuple(Origin(one.name, one.socket.family) for one in self._listeners)
        self._places: dict[int, Place] = {}
        self._children: dict[int, Child] = {}
        if handed is None:
            self._enlist(self._crew)
            self._words[HEADER["crew"]] = self._crew

        self._signals = signals.Signals(signals.ORDERS)
        undo.callback(self._signals.close, deaf=True)
        self._watch(self._signals.fileno(), self._on_signals)
        for index, listener in enumerate(self._listeners):
            # Registered by the acceptor, as long as a client could be taken.
            self._readers[listener.fileno()] = functools.partial(self._on_clients, index)
        self._parked: list[
            tuple[int, int]
        ] = []  # on the way out: descriptor, listener of who waits between two requests
        self._storing = False
        if handed is None:
            self._take_stored(stored)
        self._reload = Reload(self._notifier, self._rules.start_within, handed)
        undo.callback(self._reload.forget)
        self._control = self._open_control(undo, listeners)

    def _take_stored(self, stored: list[Stored]) -> None:
        """Go on with what an earlier start has left with systemd, and leave there what the next one shall have."""
        connections = 0
        for one in stored:
            if one.name == fdstore.SEGMENT:
                self._segment.inherit(one.descriptor)
                os.close(one.descriptor)
            else:
                connections += self._take_stored_connection(one)
        if connections:
            log.info("%d idle connections of an earlier start go on", connections)
        for name in {one.name for one in stored}:
            self._notifier.unstore(name)
        self._restarts = self._words[HEADER["restarts"]]
        self._notifier.store(fdstore.SEGMENT, [self._segment.descriptors()[0]])

    def _take_stored_connection(self, one: Stored) -> bool:
        try:
            client = socket.socket(fileno=one.descriptor)
        except OSError:
            os.close(one.descriptor)
            return False
        client.set_inheritable(False)
        for index, origin in enumerate(self._origins):
            if fdstore.parked_name(origin.name) == one.name and origin.family == client.family:
                message = Message(Kind.PARKED, 0, index, 1, 0, time.monotonic_ns())
                self._acceptor.carry_on([client.detach()], message, counted=False)
                return True
        client.close()
        return False

    def _open_control(self, undo: contextlib.ExitStack, listeners: list[Listener]) -> Control | None:
        """Listen for orders: where systemd says, or else at the address that follows the segment's name."""
        found = next((listener for listener in listeners if listener.name == CONTROL), None)
        if found is None:
            listening = socket.socket(socket.AF_UNIX)
            try:
                listening.bind(address_of(self._segment.name))
                listening.listen()
            except OSError as error:
                listening.close()
                log.warning("no control socket (%s): only SIGHUP reloads", error.strerror)
                return None
            listening.setblocking(False)
        else:
            listening = found.socket
        control = Control(listening, self._watch, self._unwatch, self._on_reload_order)
        undo.callback(control.close)
        return control

    def _enlist(self, crew: int) -> bool:
        """Make places for a crew, in free slots; False if there are too few."""
        free = [slot for slot in range(self._segment.slots) if slot not in self._places]
        wanted = self._config.worker_count()
        if len(free) < wanted:
            return False
        for slot in free[:wanted]:
            self._channels[slot] = Channel()
            place = self._places[slot] = Place(slot, crew=crew)
            words, row = self._words, functools.partial(self._segment.row, slot)
            words[row("state")], words[row("crew")], words[row("generation")] = place.state, crew, 0
            self._watch_reports(slot)
        return True

    def _close_channels(self) -> None:
        for channel in self._channels.values():
            channel.close()

    # -- the spine ---------------------------------------------------------------------------

    def serve(self) -> int:
        """Live: until told to stop, and then until every worker is gone."""
        for listener in self._listeners if self._handed is None else ():
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
        self._store_parked()
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
        self._clear_replaced()
        self._acceptor.look_again()
        self._see_to_reload(now)
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
        if self._readers.pop(descriptor, None) is not None:
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
                for place in self._places.values():
                    if place.runs:
                        self._order(place.slot, Kind.REOPEN)
            elif number == signal.SIGHUP:
                self._reload.wish()

    def _on_reload_order(self, who: socket.socket) -> None:
        self._attend_at = 0.0
        if self._status is None:
            self._reload.wish(who)
        else:
            answer(who, done=False, text="the server is stopping")

    def _on_report(self, slot: int) -> bool:
        """A worker says something; False if it does not."""
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
            return isinstance(error, Garbled)
        if received is None:
            return False
        message, descriptors = received
        if message.kind is Kind.PARKED and self._takes_back(place, message):
            self._acceptor.take_back(descriptors, message)
            if self._acceptor.laden:
                self._unwatch(end.fileno())
                self._unheard.add(slot)
            return True
        if message.kind is Kind.PARKED and self._storing and message.listener < len(self._origins):
            self._parked += [(descriptor, message.listener) for descriptor in descriptors]
            return True
        for descriptor in descriptors:
            os.close(descriptor)
        if message.kind is Kind.ROOM:
            self._queue.room_told()
        elif message.generation != place.generation or not place.runs:
            log.debug("stale %s of worker %d (generation %d)", message.kind.name, slot, message.generation)
        elif message.kind is Kind.READY and place.state in (State.STARTING, State.DRAINING):
            self._on_ready(place)
        else:
            log.warning("worker %d says %s while %s, ignored", slot, message.kind.name, place.state.name)
        return True

    def _takes_back(self, place: Place, message: Message) -> bool:
        """Tell whether a worker may give connections back, and somebody is there to go on with them."""
        known = message.listener < len(self._origins)
        return self._status is None and place.crew not in (self._crew, self._coming) and known

    def _on_ready(self, place: Place) -> None:
        now = time.monotonic()
        self._happened(place, "ready", now)
        log.info(
            "worker %d (generation %d) ready after %.2f s", place.slot, place.generation, now - place.spawned_at,
            extra=_fields(WORKER=place.slot),
        )  # fmt: skip
        if self._coming is not None:
            if place.crew == self._coming and all(each.serves for each in self._of(self._coming)):
                self._change_crews()
        elif not self._ready and all(each.serves for each in self._of(self._crew)):
            self._ready = True
            self._told, self._told_at = self._line(0.0), now
            self._notifier.ready(self._told)
            log.log(NOTICE, "ready, %d workers of %d threads", len(self._places), self._config.server.threads)

    def _on_exit(self, slot: int) -> None:
        """A worker's pidfd is readable: it is gone."""
        self._attend_at = 0.0
        while self._on_report(slot):  # what it gave back before it went
            pass
        child = self._children[slot]
        pidfd = child.pidfd
        ending = children.reap(child)
        if ending is None:
            return
        # The descriptor is closed, and with it gone from the poll set.
        del self._readers[pidfd], self._children[slot]
        place = self._places[slot]
        now = time.monotonic()
        if self._clients is not None:
            self._clients.clear(slot)
        drained = place.state is State.DRAINING
        cut = place.state is State.KILLED and (self._forced or place.drain_by > 0)
        serving = place.crew in (self._crew, self._coming)
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
            if self._status is None and serving:
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
        if never_ready and place.crew == self._coming and self._status is None:
            self._failed_coming += 1
            if self._failed_coming >= START_TRIES:
                self._give_up_coming(f"no worker comes up ({ending})")

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
            if self._mend(slot):
                if self._places[slot].crew not in (self._crew, self._coming):
                    self._replaced.append(slot)
            else:
                self._unmended.append(slot)  # perhaps it is another of the dead that holds
                self._mend_at = time.monotonic() + MEND_AGAIN_S

    def _mend(self, slot: int) -> bool:
        """Set right what a dead worker may have left half done in memory that we share; tell whether it could be."""
        living = [place.slot for place in self._places.values() if place.runs]
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
        if self._reload.began:
            until.append(self._reload.by)
        places = self._places.values()
        until.extend(place.not_before for place in places if not place.runs and place.not_before > now)
        until.extend(place.since + ABORT_GRACE_S for place in places if place.state is State.ABORTED)
        return min(until)

    def _tick(self) -> None:
        """What is done once a period: judge heartbeats, tell systemd, retry what was owed."""
        now = time.monotonic()
        elapsed = now - self._ticked
        self._ticked = now
        if elapsed > self._period + min(self._rules.hung_after, self._rules.start_within) / 2:
            # We stood still (SIGSTOP, a frozen cgroup), and so perhaps did the workers: they get time to beat first.
            self._judge_from = now + TICK_S
        if os.getpid() == 1:
            self._bury_orphans()
        self._read_beats()
        owed, self._owed = self._owed, []
        for slot, kind in owed:
            self._ring(slot, kind)
        words = self._words
        words[HEADER["master_beat"]] = time.monotonic_ns()
        if self._queue.capacity != self._config.server.queue and self._coming is None:
            with contextlib.suppress(Stuck):
                self._queue.resize(self._config.server.queue)
        words[HEADER["accept_pauses"]] = self._acceptor.pauses
        words[HEADER["saturations"]] = self._acceptor.saturations
        well = now < self._judge_from or fresh(self._places.values(), now, self._rules)
        if self._notifier.watchdog_period is not None and well:
            self._notifier.watchdog()
        if self._ready and self._status is None and now - self._told_at >= TICK_S:
            self._tell(now - self._told_at)
            self._told_at = now

    def _bury_orphans(self) -> None:
        """In a container we are init: whoever loses the parent becomes our child, and nobody else can reap it."""
        ours = {child.pid for child in self._children.values()}
        if self._reload.rehearsal is not None:
            ours.add(self._reload.rehearsal.pid)
        for pid in children.bury(ours):
            log.debug("process %d, which is none of ours, has ended", pid)

    def _tell(self, elapsed: float) -> None:
        """Tell systemd how things stand, if they changed."""
        line = self._line(elapsed)
        if line != self._told and self._notifier.status(line):
            self._told = line

    def _line(self, elapsed: float) -> str:
        totals = self._queue.totals()
        requests, self._requests = totals["requests"] - self._requests, totals["requests"]
        rate = requests / elapsed if elapsed > 0 else 0.0
        crew = self._of(self._crew)
        line = (
            f"serving {sum(place.serves for place in crew)}/{len(crew)} workers, {rate:.0f} req/s, "
            f"{totals['connections_open']} open, queue {self._queue.depth}"
        )
        return f"{line}; reload failed: {self._reload.failure}" if self._reload.failure else line

    # -- workers ------------------------------------------------------------------------------------

    def _of(self, crew: int) -> list[Place]:
        return [place for place in self._places.values() if place.crew == crew]

    def _loads(self) -> dict[int, int]:
        """Return what each ready worker has: connections waiting in its channel, and open."""
        words, segment, queue = self._words, self._segment, self._queue
        return {
            place.slot: queue.waiting(place.slot) + words[segment.counters(place.slot) + _OPEN]
            for place in self._places.values()
            if place.serves and place.crew == self._crew
        }

    def _read_beats(self) -> None:
        for place in self._places.values():
            place.beat = self._words[self._segment.row(place.slot, "beat_ns")] / _NS

    def _supervise(self) -> None:
        """Do what the policy says."""
        now = time.monotonic()
        judge = now >= self._judge_from
        for action in decide(self._places.values(), now, self._rules, refill=self._refill(), judge=judge):
            if action.verb == "spawn":
                self._spawn(action.slot)
            elif action.verb == "kill":
                self._kill(action.slot)
            else:
                self._abort(action.slot)

    def _refill(self) -> list[int]:
        """Return the slots that shall have a worker."""
        crews = (self._crew, self._coming)
        wanted = [
            place.slot for place in self._places.values() if place.crew in crews and place.slot not in self._unmended
        ]
        if self._status is None:
            return wanted
        # On the way out only for the sake of those who wait already: in a channel, or in our own hands.
        if time.monotonic() >= self._deadline:
            return []
        takers = (State.STARTING, State.READY)
        if self._acceptor.held and not any(place.state in takers for place in self._places.values()):
            return wanted[:1]
        return [slot for slot in wanted if self._queue.waiting(slot)]

    def _spawn(self, slot: int) -> None:
        place, words = self._places[slot], self._words
        now = time.monotonic()
        place.generation += 1
        place.spawned_at, place.beat = now, 0.0
        if self._clients is not None:
            self._clients.clear(slot)
        for word in ("beat_ns", "reopen_ns", "drain_by_ns", "drain_how"):
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
            self._drain(slot, self._deadline, Drain.CLOSE)

    def _become_worker(self, slot: int) -> int:
        """In the forked child: let go of what is the master's, and be a worker."""
        self._poll.close()
        self._signals.forget()
        self._notifier.close()
        self._acceptor.close()
        self._reload.forget()
        if self._control is not None:
            self._control.close()
        for each, channel in self._channels.items():
            channel.master_end.close()
            if each != slot:
                channel.worker_end.close()
        for child in self._children.values():
            os.close(child.pidfd)
        for descriptor, _ in self._parked:
            os.close(descriptor)
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
                clients=self._clients,
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
        self._ring(slot, kind)

    def _drain(self, slot: int, by: float, how: Drain) -> None:
        """Tell a worker to finish what it has, and to leave."""
        self._words[self._segment.row(slot, "drain_how")] = how
        self._words[self._segment.row(slot, "drain_by_ns")] = int(by * _NS)
        self._order(slot, Kind.DRAIN)

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

    # -- reload -------------------------------------------------------------------------------------

    def _see_to_reload(self, now: float) -> None:
        """Begin what is wished for, and end what takes too long."""
        if self._reload.due and self._ready and self._status is None:
            self._reload.begin(now)
            self._rehearse()
        elif self._reload.began and now >= self._reload.by:
            if self._reload.rehearsal is not None:
                self._reload.rehearsal.kill()
            elif self._coming is not None:
                self._give_up_coming(f"no worker was ready within {now - self._reload.began:.1f} s")

    def _rehearse(self) -> None:
        """Let another process start a worker with the new configuration and the new code, before anything changes."""
        document = -1
        try:
            document = handover.write(self._handover())
            rehearsal = self._reload.rehearse(document)
        except OSError as error:
            self._reload_failed(f"no rehearsal: {error.strerror}")
            return
        finally:
            if document >= 0:
                os.close(document)
        self._watch(rehearsal.fileno(), self._on_rehearsed)

    def _on_rehearsed(self) -> None:
        """The rehearsal has ended."""
        rehearsal = self._reload.rehearsal
        assert rehearsal is not None
        pidfd = rehearsal.fileno()
        outcome = rehearsal.outcome()
        if outcome is None:
            return
        self._attend_at = 0.0
        del self._readers[pidfd]  # the descriptor is closed, and with it gone from the poll set
        self._reload.rehearsal = None
        well, said = outcome
        if self._status is not None:
            return
        if not well:
            for line in said[:-1]:
                log.info("rehearsal: %s", line)
            self._reload_failed(said[-1])
        else:
            self._execute()

    def _execute(self) -> None:
        """Become the new code. Returns only if that is not to be."""
        # From here on signals wait for whoever comes next; those that are noted already are obeyed first.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signals.ORDERS)
        self._on_signals()
        if self._status is None:
            document = -1
            try:
                handed = self._handover()
                document = handover.write(handed)
                environ = {**os.environ, **self._notifier.environment(), handover.VARIABLE: str(document)}
                handover.execute([*handed.descriptors(), document], environ)
            except OSError as error:
                self._reload_failed(f"cannot execute {handover.command()[0]}: {error.strerror}")
            finally:
                if document >= 0:
                    os.close(document)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _handover(self) -> Handover:
        """Return all that the next life of this process has to know."""
        acceptor = self._acceptor

        def listener(one: Listener) -> HandedListener:
            return HandedListener(one.name, one.fileno(), one.adopted)

        return Handover(
            version=__version__,
            ticked=self._ticked,
            crew=self._crew,
            listeners=[listener(one) for one in self._listeners],
            control=None if self._control is None else HandedListener(CONTROL, self._control.listener.fileno(), True),
            segment=self._segment.name,
            segment_descriptors=self._segment.descriptors(),
            slots=self._segment.slots,
            capacity=self._queue.capacity,
            in_hand=self._queue.in_hand,
            places=[self._handed_place(place) for place in self._places.values()],
            connections=[
                HandedConnections(descriptors, message.kind, message.listener, message.stamp_ns, counted)
                for descriptors, message, counted in acceptor.carried
            ],
            owed=[(slot, int(kind)) for slot, kind in self._owed],
            unmended=self._unmended,
            replaced=self._replaced,
            restarts=self._restarts,
            requests=self._requests,
            pauses=acceptor.pauses,
            saturations=acceptor.saturations,
            listen=[address.text for address in self._config.listen],
            **self._reload.handed(),  # type: ignore[arg-type]
        )

    def _handed_place(self, place: Place) -> HandedPlace:
        child, channel = self._children.get(place.slot), self._channels[place.slot]
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

    def _take_up(self, handed: Handover) -> None:
        """Go on where the earlier life of this process ended, and enlist the new crew."""
        self._crew, self._ready, self._ticked = handed.crew, True, handed.ticked
        self._restarts, self._requests = handed.restarts, handed.requests
        self._acceptor.pauses, self._acceptor.saturations = handed.pauses, handed.saturations
        self._owed = [(slot, Kind(kind)) for slot, kind in handed.owed]
        self._unmended, self._replaced = handed.unmended, handed.replaced
        for each in handed.places:
            self._take_up_place(each)
        for carried in handed.connections:
            message = Message(Kind(carried.kind), 0, carried.listener, len(carried.descriptors), 0, carried.stamp_ns)
            self._acceptor.carry_on(carried.descriptors, message, counted=carried.counted)
        bound = any(not listener.adopted for listener in self._listeners)
        if bound and handed.listen != [address.text for address in self._config.listen]:
            log.warning("the addresses to listen on have changed: that takes a restart")
        log.info("version %s follows version %s, its workers start", __version__, handed.version)
        self._coming = 1 + max(place.crew for place in self._places.values())
        if not self._enlist(self._coming):
            self._coming = None
            self._reload_failed("too many workers of earlier reloads have not finished yet")

    def _take_up_place(self, each: HandedPlace) -> None:
        place = self._places[each.slot] = Place(
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
        self._channels[each.slot] = Channel.adopt(each.master_end, each.worker_end)
        self._watch_reports(each.slot)
        if each.pid:
            # It is our child, living or not yet reaped: nobody else can have its number.
            child = self._children[each.slot] = Child(each.pid, os.pidfd_open(each.pid))
            self._watch(child.pidfd, functools.partial(self._on_exit, each.slot))
        place.beat = self._words[self._segment.row(each.slot, "beat_ns")] / _NS

    def _change_crews(self) -> None:
        """The new workers are ready: they serve from now on, and the others finish what they have."""
        assert self._coming is not None
        now = time.monotonic()
        before, self._crew, self._coming = self._crew, self._coming, None
        self._failed_coming = 0
        words = self._words
        words[HEADER["crew"]] = self._crew
        words[HEADER["reloads"]] += 1
        words[HEADER["reloaded"]] = int(time.time())
        for place in self._of(before):
            place.drain_by = now + REPLACED_DRAIN_S
            if place.state in (State.STARTING, State.READY):
                self._happened(place, "drain", now)
                self._drain(place.slot, place.drain_by, Drain.MOVE)
            elif not place.runs and place.slot not in self._unmended:
                self._replaced.append(place.slot)
        self._told, self._told_at = "", now
        took = now - self._reload.began
        workers, threads = len(self._of(self._crew)), self._config.server.threads
        text = f"reloaded within {took:.2f} s: {workers} workers of {threads} threads"
        self._reload.done(self._line(0.0), text)

    def _give_up_coming(self, why: str) -> None:
        """The new workers do not come up, although one did in the rehearsal: those that serve go on."""
        assert self._coming is not None
        coming, self._coming = self._of(self._coming), None
        self._failed_coming = 0
        for place in coming:
            place.drain_by = time.monotonic()
            if place.runs:
                self._kill(place.slot)
            elif place.slot not in self._unmended:
                self._replaced.append(place.slot)
        self._reload_failed(f"{why}; the workers that serve go on")

    def _reload_failed(self, why: str) -> None:
        self._reload.failed(self._line(0.0), why)

    def _clear_replaced(self) -> None:
        """Clear the slots of workers that have gone and nobody follows: what waits in their channels is for others."""
        for slot in self._unheard.copy():
            if not self._acceptor.laden:
                self._unheard.remove(slot)
                self._watch_reports(slot)
        for slot in self._replaced.copy():
            channel = self._channels[slot]
            descriptor = channel.master_end.fileno()
            while not self._acceptor.laden and self._on_report(slot):
                pass
            if self._acceptor.laden:
                return
            self._take_out(slot, channel)
            self._unwatch(descriptor)
            channel.close()
            self._queue.forget(slot)
            self._replaced.remove(slot)
            self._unheard.discard(slot)
            del self._channels[slot], self._places[slot]
            for word in ("crew", "state", "pid"):
                self._words[self._segment.row(slot, word)] = 0

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
        # Whether another start follows is known to systemd alone: after a stop it closes what it was given.
        self._storing = status == 0 and why == signal.SIGTERM.name and self._notifier.wanted
        if self._storing:
            for descriptors, message in self._acceptor.give_up_returned():
                self._parked += [(descriptor, message.listener) for descriptor in descriptors]
        self._acceptor.finish()
        self._reload.cancel("the server is stopping")
        for place in self._places.values():
            place.not_before = 0.0  # there may be somebody who cannot wait until it has rested

    def _advance_stop(self) -> bool:
        """Go on with the stop; True when it is complete."""
        now = time.monotonic()
        if not self._ordered and not self._acceptor.held:
            self._ordered = True
            for place in self._places.values():
                if place.state in (State.STARTING, State.READY):
                    self._happened(place, "drain", now)
                if place.state is State.DRAINING:  # by a reload perhaps, with far more time
                    self._drain(place.slot, self._deadline, Drain.STORE if self._storing else Drain.CLOSE)
        running = [place for place in self._places.values() if place.runs]
        held = self._acceptor.held
        over = now >= self._deadline + (CUT_GRACE_S if running else 0.0)
        if over and not self._forced and (running or held):
            cut = self._queue.totals()["connections_open"] + self._queue.depth + held
            log.warning("drain deadline passed, cutting %d connections", cut)
            self._force()
        return not running and (over or not (held or self._refill()))

    def _store_parked(self) -> None:
        """Leave those who wait between two requests with systemd, for a server that may follow: the newest of them."""
        for descriptor, _ in self._parked[:-STORED_MAX]:
            os.close(descriptor)
        self._parked = self._parked[-STORED_MAX:]
        until = time.monotonic() + STORE_WITHIN_S
        for listener, origin in enumerate(self._origins):
            name = fdstore.parked_name(origin.name)
            descriptors = [descriptor for descriptor, of in self._parked if of == listener]
            for at in range(0, len(descriptors), STORED_BATCH_MAX):
                batch = descriptors[at : at + STORED_BATCH_MAX]
                if not self._notifier.store_within(name, batch, until - time.monotonic()):
                    log.warning("systemd did not take %d idle connections in time, closing them", len(descriptors) - at)
                    break
        for descriptor, _ in self._parked:
            os.close(descriptor)
        if self._parked:
            log.info("%d idle connections left with systemd", len(self._parked))

    def _force(self) -> None:
        self._deadline = time.monotonic()
        self._ordered = self._forced = True
        for place in self._places.values():
            self._kill(place.slot)


def _handed_listeners(handed: Handover) -> list[Listener]:
    """Return the listeners of an earlier life of this process."""
    listeners = [*handed.listeners, *([handed.control] if handed.control else [])]
    found = []
    for one in listeners:
        listening = socket.socket(fileno=one.descriptor)
        listening.setblocking(False)
        found.append(Listener(one.name, listening, adopted=one.adopted))
    return found


def _fields(**values: object) -> dict[str, dict[str, object]]:
    """Return logging's `extra` with fields for the journal."""
    return {"fields": values}
