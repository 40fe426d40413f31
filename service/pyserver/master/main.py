"""The master: adopts the listeners, forks the workers, passes clients on, watches over all of it, ends it in order.

Owns:    every resource of the service: listeners, segment, queue, channels, children, the word to systemd.
Never:   looks at a client's bytes, has a second thread, blocks on a worker, on the log or on systemd.
Fails:   exit status 1 when the service cannot start, with the reason in the log.
Used by: cli.

Read `serve` first: it is the life of the process. What it looks after are objects of their own: master.acceptor passes
clients on, master.workers has the processes, master.succession is a reload, master.stopping the end. Policy over the
workers is in master.supervisor, mechanism in master.children.
"""

import contextlib
import errno
import faulthandler
import functools
import gc
import logging
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import setproctitle

from pyserver import __version__, sandbox, signals
from pyserver.config import Config
from pyserver.ipc import observe
from pyserver.ipc import segment as segments
from pyserver.ipc.assignment import Assignment, Origin
from pyserver.ipc.channel import Garbled, Gone, Kind, Message
from pyserver.ipc.clients import ClientTable
from pyserver.ipc.control import Control, address_of, answer
from pyserver.ipc.queue import Queue
from pyserver.ipc.segment import HEADER, Segment, SegmentError
from pyserver.ipc.semaphores import Stuck
from pyserver.limits import INTERRUPT_GRACE_S, SLOTS_MAX, START_TRIES, TICK_S
from pyserver.master import children, handover, standin, stored
from pyserver.master.acceptor import Acceptor
from pyserver.master.backlogs import Backlogs
from pyserver.master.handover import HandedConnections, HandedListener, Handover
from pyserver.master.listeners import CONTROL, Listener, ListenError, adopt_or_bind
from pyserver.master.pollset import PollSet
from pyserver.master.rehearsal import rehearse
from pyserver.master.reload import Reload
from pyserver.master.standing import Standing
from pyserver.master.stopping import Stopping
from pyserver.master.succession import Succession
from pyserver.master.supervisor import Place, Rules, State, decide, fresh, rest
from pyserver.master.workers import ACTING, Workers
from pyserver.sd import journal
from pyserver.sd.fdstore import Stored
from pyserver.sd.journal import NOTICE
from pyserver.sd.notify import Notifier

log = logging.getLogger("pyserver")

EnterWorker = Callable[[Assignment], int]

_EX_CONFIG: Final = 78  # sysexits.h: a worker found the configuration unusable


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
        if handed is not None:
            _retain()  # takes longer than the rest of our start: before anybody waits for us
            handed = standin.relieve(handed)
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


def _retain() -> None:
    """Keep the code of workers for those that come later; whoever hears that we are ready may replace the files."""
    from pyserver import retained  # noqa: PLC0415  as late as the rest of it

    retained.retain(sys.modules["pyserver"])


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
        self._handed = handed
        self._restarts = 0

        with contextlib.ExitStack() as undo:
            self._open(undo, handed)
            self._closing = undo.pop_all()

        self._period = min(TICK_S, notifier.watchdog_period or TICK_S)
        self._ticked = time.monotonic()
        self._judge_from = 0.0  # monotonic: until then a silent worker proves nothing
        self._failed_starts = 0
        if handed is not None:
            self._take_up(handed)

    def _open(self, undo: contextlib.ExitStack, handed: Handover | None) -> None:
        """Take up all that has to be given back; `undo` knows how, at whatever step this fails."""
        self._left: list[Stored] = []  # by an earlier start with systemd: clients who wait, until there is a worker
        listeners = (
            adopt_or_bind(os.environ, self._config.listen, self._left) if handed is None else _handed_listeners(handed)
        )
        for listener in listeners:
            undo.callback(listener.close)
        undo.callback(stored.close, self._left)
        self._listeners = [listener for listener in listeners if listener.name != CONTROL]
        noted: dict[str, dict[int, int]] = {}  # lengths of backlogs, by segments of killed servers
        removed = segments.sweep(noted) if handed is None else []
        self._open_segment(undo, handed)
        self._words = self._segment.words
        # Of this life's workers: those of an earlier one, which drain, have theirs.
        self._clients = ClientTable(SLOTS_MAX) if self._config.clients.limited else None
        if self._clients is not None:
            undo.callback(self._clients.close)
        self._poll = PollSet()
        undo.callback(self._poll.close)
        self._workers = Workers(
            self._segment, self._queue, self._clients, self._poll, on_report=self._on_report, on_exit=self._on_exit
        )
        undo.callback(self._workers.close)
        self._acceptor = Acceptor(
            self._listeners, self._queue, self._workers.channels, self._poll.epoll, self._workers.loads
        )
        undo.callback(self._acceptor.close)
        self._origins = tuple(Origin(one.name, one.socket.family) for one in self._listeners)
        if handed is None:
            self._workers.enlist(self._workers.crew, self._config.worker_count())
            self._words[HEADER["crew"]] = self._workers.crew

        self._signals = signals.Signals(signals.ORDERS)
        undo.callback(self._signals.close, deaf=True)
        self._poll.watch(self._signals.fileno(), self._on_signals)
        for index, listener in enumerate(self._listeners):
            # Registered by the acceptor, as long as a client could be taken.
            self._poll.expect(listener.fileno(), functools.partial(self._on_clients, index))
        if handed is None:
            stored.inherit(self._left, self._segment, self._notifier)
            self._restarts = self._words[HEADER["restarts"]]
        bound, accepted = self._config.server.queue_wait, self._acceptor.accepted
        self._backlogs = Backlogs(self._listeners, self._queue, self._segment, accepted, bound, noted.values())
        undo.callback(self._backlogs.restore)
        # Only now, when what they say is noted anew: else we were killed in between, and nobody knew it.
        removed += segments.discard(noted.keys() - {self._segment.name[1:]})
        if removed:
            log.info("removed what a killed server had left in shared memory: %s", ", ".join(removed))
        self._reload = Reload(self._notifier, self._rules.start_within, handed)
        undo.callback(self._reload.forget)
        self._arrange()
        self._control = self._open_control(undo, listeners)

    def _open_segment(self, undo: contextlib.ExitStack, handed: Handover | None) -> None:
        """Take up what is shared with the workers: a new segment and queue, or those of an earlier life."""
        if handed is None:
            capacity = self._config.server.queue
            self._segment = Segment.create(SLOTS_MAX, capacity)
            undo.callback(self._segment.close)
            self._queue = Queue.create(self._segment, capacity)
        else:
            self._segment = Segment.adopt(handed.segment, handed.segment_descriptors, handed.slots)
            undo.callback(self._segment.close)
            sent = {place.slot: place.sent for place in handed.places}
            self._queue = Queue.adopt(self._segment, handed.capacity, sent, handed.in_hand)
            if ACTING in handed.unmended:
                self._queue.go_on_from_words(sent)
        undo.callback(self._queue.close)

    def _arrange(self) -> None:
        """Make those who tell systemd, stop and reload; there is nothing in them to give back yet."""
        server = self._config.server
        self._standing = Standing(self._queue, self._workers, self._reload, self._notifier)
        self._stopping = Stopping(
            server.drain,
            self._segment,
            self._queue,
            self._workers,
            self._acceptor,
            self._backlogs,
            self._origins,
            self._reload,
            self._notifier,
        )
        self._succession = Succession(
            self._segment,
            self._queue,
            self._workers,
            self._acceptor,
            self._origins,
            self._reload,
            self._stopping,
            self._standing,
            self._notifier,
            self._poll,
            threads=server.threads,
            hand_over=self._hand_over,
            stand_in=self._stand_in,
            go_on=self._go_on_after_stand_in,
            obey=self._on_signals,
            hear=self._on_report,
        )

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
        control = Control(listening, self._poll.watch, self._poll.unwatch, self._on_reload_order)
        undo.callback(control.close)
        return control

    # -- the spine ---------------------------------------------------------------------------

    def serve(self) -> int:
        """Live: until told to stop, and then until every worker is gone."""
        for listener in self._listeners if self._handed is None else ():
            how = "adopted from systemd" if listener.adopted else "bound"
            log.info("listening on %s (%s)", listener, how, extra=_fields(LISTENER=str(listener)))
        if self._handed is not None:
            # Nobody has accepted since the stand-in was relieved: clients come before all else.
            self._acceptor.look_again()
            self._poll.turn()
        access = self._config.log.access
        self._segment.note_log("" if access in ("off", "-") else str(Path(access).absolute()))
        if self._handed is None:
            self._segment.note("started", f"version {__version__}, process {os.getpid()}")
        gc.freeze()  # of what a start leaves little is garbage, and who waits for it waits for a collection too
        gc.enable()
        self._attend()
        self._while_workers_start()
        while self._attend():
            self._poll.turn()
        self._stopping.finish()
        log.info("stopped")
        return self._stopping.status or 0

    def _while_workers_start(self) -> None:
        """Do what can wait until they are forked, and cannot until we are ready."""
        if self._handed is None:  # else it was done while the stand-in accepted
            _retain()
        found = sandbox.look(with_landlock=self._config.server.landlock == "auto")
        self._words[HEADER["protections"]] = found
        log.info("sandbox %s", sandbox.told(sandbox.by_name(found)))
        for warning in self._config.warnings:
            log.warning("%s", warning)

    def _attend(self) -> bool:
        """Between two polls see to all but clients, if it is time or something happened; False when all is done."""
        now = time.monotonic()
        if now < self._poll.due:
            return True
        if now - self._ticked >= self._period:
            self._tick()
        self._workers.mend_all(now)
        self._supervise()
        self._succession.clear_replaced()
        self._backlogs.look(now)
        self._acceptor.look_again()
        self._succession.see_to(now)
        if self._stopping.begun and self._stopping.advance():
            return False
        self._poll.due = self._next_time()
        return True

    def close(self) -> None:
        """Leave nothing behind: no name, no socket file, no descriptor."""
        self._closing.close()
        self._notifier.close()

    # -- what the poll set reports --------------------------------------------------------------

    def _on_clients(self, listener: int) -> None:
        self._acceptor.accept(listener)
        self._poll.by(self._backlogs.due)
        if self._acceptor.wake_at is not None:
            self._poll.by(self._acceptor.wake_at)

    def _on_signals(self) -> None:
        self._poll.soon()
        for number in self._signals.take():
            if number == signal.SIGTERM:
                self._stopping.begin(number.name)
            elif number == signal.SIGINT:
                self._stopping.begin(number.name, drain=INTERRUPT_GRACE_S)
            elif number == signal.SIGUSR1:
                log.info("%s: workers open their log files again", number.name)
                for place in self._workers.places.values():
                    if place.runs:
                        self._workers.reopen(place.slot)
            elif number == signal.SIGHUP:
                self._reload.wish()

    def _on_reload_order(self, who: socket.socket) -> None:
        self._poll.soon()
        if not self._stopping.begun:
            self._reload.wish(who)
        else:
            answer(who, done=False, text="the server is stopping")

    def _on_report(self, slot: int) -> bool:
        """A worker says something; False if it does not."""
        place = self._workers.places[slot]
        end = self._workers.channels[slot].master_end
        try:
            received = end.receive()
        except (Garbled, Gone) as error:
            self._poll.soon()
            if isinstance(error, Gone):
                # Nothing was closed, we hold both ends: it said nothing, or shut the channel down and says so for ever.
                self._poll.unwatch(end.fileno())
            log.error("worker %d sent %s, killing it", slot, error)  # noqa: TRY400
            self._workers.kill(slot)
            return isinstance(error, Garbled)
        if received is None:
            return False
        message, descriptors = received
        if message.kind is Kind.ROOM and not descriptors:
            self._on_room()
            return True
        self._poll.soon()
        if self._succession.takes_back(place, descriptors, message):
            return True
        if self._stopping.takes_parked(descriptors, message):
            return True
        for descriptor in descriptors:
            os.close(descriptor)
        if message.generation != place.generation or not place.runs:
            log.debug("stale %s of worker %d (generation %d)", message.kind.name, slot, message.generation)
        elif message.kind is Kind.READY and place.state in (State.STARTING, State.DRAINING):
            self._on_ready(place)
        else:
            log.warning("worker %d says %s while %s, ignored", slot, message.kind.name, place.state.name)
        return True

    def _on_room(self) -> None:
        """A worker has taken somebody out of a queue that was full. While many wait, that is hundreds a second."""
        self._queue.room_told()
        if self._stopping.begun or self._acceptor.held or self._acceptor.laden:
            self._poll.soon()  # others wait for those, too
            return
        self._acceptor.look_again()
        if self._acceptor.wake_at is not None:
            self._poll.by(self._acceptor.wake_at)

    def _on_ready(self, place: Place) -> None:
        now = time.monotonic()
        self._workers.happened(place, "ready", now)
        log.info(
            "worker %d (generation %d) ready after %.2f s", place.slot, place.generation, now - place.spawned_at,
            extra=_fields(WORKER=place.slot),
        )  # fmt: skip
        if self._left and not self._stopping.begun:  # else systemd keeps them, for the next
            stored.go_on(self._left, self._acceptor, self._origins, self._notifier)
        workers = self._workers
        if place.generation > 1:
            self._segment.note("replaced", f"worker {place.slot} (generation {place.generation}) ready")
        if workers.coming is not None:
            self._succession.came(place)
        elif not self._standing.ready and all(each.serves for each in workers.of(workers.crew)):
            self._standing.tell_ready(now)
            log.log(NOTICE, "ready, %d workers of %d threads", len(self._workers.places), self._config.server.threads)

    def _on_exit(self, slot: int) -> None:
        """A worker's pidfd is readable: it is gone."""
        self._poll.soon()
        while self._on_report(slot):  # what it gave back before it went
            pass
        reaped = self._workers.reap(slot)
        if reaped is None:
            return
        pid, ending = reaped
        place = self._workers.places[slot]
        now = time.monotonic()
        drained = place.state is State.DRAINING
        hung = place.state in (State.ABORTED, State.KILLED)  # what it was at was told when that was found
        cut = place.state is State.KILLED and (self._stopping.forced or place.drain_by > 0)
        followed = self._workers.followed(place)
        never_ready = not self._workers.has_beaten(slot)
        self._workers.happened(place, "exited", now)
        lost = self._workers.open_connections(slot)
        self._workers.mend_after(slot, now)
        delay = rest(place, now, self._rules)
        place.not_before = now + delay
        waiting = self._queue.waiting(slot)
        if drained and not lost:
            log.info("worker %d (generation %d) drained and %s", slot, place.generation, ending)
        elif cut:
            log.info("worker %d (generation %d) %s, %d connections cut", slot, place.generation, ending, lost)
        else:
            respawn = ""
            if not self._stopping.begun and followed:
                self._restarts += 1
                self._words[HEADER["restarts"]] = self._restarts
                respawn = f", respawn in {delay:.2f} s"
            text = (  # as in sd.events
                "worker %d (generation %d, pid %d) %s after %.1f s: %d connections lost, %d wait for its successor%s"
            )
            what = (slot, place.generation, pid, ending, now - place.spawned_at, lost, waiting)
            fields = {"WORKER": slot, "CONNECTIONS_LOST": lost}
            extra = _fields(**fields) if hung or never_ready else self._workers.at_work(slot, **fields)
            log.error(text, *what, respawn, extra=extra)
            self._segment.note("died", text % (*what, ""))
        if never_ready and not self._standing.ready and not self._stopping.begun:
            self._on_failed_start(ending)
        if never_ready and place.crew == self._workers.coming and not self._stopping.begun:
            self._succession.died_early(ending)

    def _on_failed_start(self, ending: str) -> None:
        """Before the service was ever ready a worker that dies at its start says more about the service."""
        self._failed_starts += 1
        unusable = ending == f"exited with status {_EX_CONFIG}"
        if unusable or self._failed_starts >= START_TRIES:
            log.error("no worker comes up (%s), giving up", ending)
            self._stopping.begin("failed start", _EX_CONFIG if unusable else 1)
            self._stopping.force()

    # -- time ---------------------------------------------------------------------------------------

    def _next_time(self) -> float:
        """Return when to attend to things again if nothing happens."""
        now = time.monotonic()
        until = [self._ticked + self._period, *self._workers.next_times(now), *self._stopping.next_times(now)]
        if self._acceptor.wake_at is not None:
            until.append(self._acceptor.wake_at)
        if self._backlogs.wake_at is not None:
            until.append(self._backlogs.wake_at)
        if self._reload.began:
            until.append(self._reload.by)
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
        self._workers.read_beats()
        self._workers.ring_owed()
        words = self._words
        words[HEADER["master_beat"]] = time.monotonic_ns()
        if self._queue.capacity != self._config.server.queue and self._workers.coming is None:
            with contextlib.suppress(Stuck):
                self._queue.resize(self._config.server.queue)
        words[HEADER["accept_pauses"]] = self._acceptor.pauses
        words[HEADER["saturations"]] = self._acceptor.saturations
        words[HEADER["master_rss_bytes"]] = observe.resident_of(os.getpid())
        words[HEADER["master_open_fds"]] = observe.open_descriptors()
        self._workers.weigh()
        well = now < self._judge_from or fresh(self._workers.places.values(), now, self._rules)
        if self._notifier.watchdog_period is not None and well:
            self._notifier.watchdog()
        if not self._stopping.begun:
            self._standing.tell(now)

    def _bury_orphans(self) -> None:
        """In a container we are init: whoever loses the parent becomes our child, and nobody else can reap it."""
        ours = self._workers.pids()
        if self._reload.rehearsal is not None:
            ours.add(self._reload.rehearsal.pid)
        for pid in children.bury(ours):
            log.debug("process %d, which is none of ours, has ended", pid)

    # -- workers ------------------------------------------------------------------------------------

    def _supervise(self) -> None:
        """Do what the policy says."""
        now = time.monotonic()
        refill = self._stopping.refill() if self._stopping.begun else self._workers.wanted()
        judge = now >= self._judge_from
        self._workers.read_beats()  # those of the last tick may be older than a worker may be silent
        for action in decide(self._workers.places.values(), now, self._rules, refill=refill, judge=judge):
            if action.verb == "spawn":
                self._spawn(action.slot)
            elif action.verb == "kill":
                self._workers.kill(action.slot)
            else:
                self._workers.abort(action.slot)

    def _spawn(self, slot: int) -> None:
        try:
            self._workers.spawn(slot, functools.partial(self._become_worker, slot))
        except OSError as error:
            place = self._workers.places[slot]
            place.early_deaths += 1
            place.not_before = place.spawned_at + self._rules.respawn_delay_max
            log.error("cannot fork worker %d: %s, trying again", slot, error.strerror)  # noqa: TRY400
            return
        self._stopping.spawned(slot)

    def _become_worker(self, slot: int) -> int:
        """In the forked child: let go of what is the master's, and be a worker."""
        self._let_go()
        self._acceptor.close()
        stored.close(self._left)
        self._workers.let_go_but(slot)
        place = self._workers.places[slot]
        return self._enter_worker(
            Assignment(
                slot=slot,
                generation=place.generation,
                config=self._config,
                end=self._workers.channels[slot].worker_end,
                segment=self._segment,
                queue=self._queue.for_worker(slot),
                origins=self._origins,
                clients=self._clients,
            )
        )

    def _let_go(self) -> None:
        """In a forked child: close what the master alone has a use for."""
        self._poll.close()
        self._signals.forget()
        self._notifier.close()
        self._reload.forget()
        if self._control is not None:
            self._control.close()
        self._stopping.forget()

    # -- from one life of this process to the next ----------------------------------------------------

    def _stand_in(self, way: socket.socket) -> int:
        """In the forked child: let go of all but what accepting takes, and do that."""
        setproctitle.setproctitle(f"{self._config.title}: stand-in")
        self._let_go()
        self._workers.let_go()
        return standin.serve(way, self._acceptor, self._queue, self._listeners, list(self._workers.places))

    def _hand_over(self) -> Handover:
        """Return all that the next life of this process has to know."""
        acceptor, workers = self._acceptor, self._workers

        def listener(one: Listener) -> HandedListener:
            return HandedListener(one.name, one.fileno(), one.adopted)

        return Handover(
            version=__version__,
            ticked=self._ticked,
            crew=workers.crew,
            listeners=[listener(one) for one in self._listeners],
            control=None if self._control is None else HandedListener(CONTROL, self._control.listener.fileno(), True),
            segment=self._segment.name,
            segment_descriptors=self._segment.descriptors(),
            slots=self._segment.slots,
            capacity=self._queue.capacity,
            in_hand=self._queue.in_hand,
            places=workers.handed(),
            connections=[
                HandedConnections(descriptors, message.kind, message.listener, message.stamp_ns, counted)
                for descriptors, message, counted in acceptor.carried
            ],
            owed=[(slot, int(kind)) for slot, kind in workers.owed],
            unmended=workers.unmended,
            replaced=workers.replaced,
            restarts=self._restarts,
            requests=self._standing.requests,
            pauses=acceptor.pauses,
            saturations=acceptor.saturations,
            listen=[address.text for address in self._config.listen],
            **self._reload.handed(),  # type: ignore[arg-type]
        )

    def _take_up(self, handed: Handover) -> None:
        """Go on where the earlier life of this process ended, and enlist the new crew."""
        workers, standing = self._workers, self._standing
        workers.crew, standing.ready, self._ticked = handed.crew, True, handed.ticked
        self._restarts, standing.requests = handed.restarts, handed.requests
        self._acceptor.pauses, self._acceptor.saturations = handed.pauses, handed.saturations
        workers.owed = [(slot, Kind(kind)) for slot, kind in handed.owed]
        workers.unmended, workers.replaced = handed.unmended, handed.replaced
        for each in handed.places:
            workers.take_up(each)
        self._carry_on(handed)
        bound = any(not listener.adopted for listener in self._listeners)
        if bound and handed.listen != [address.text for address in self._config.listen]:
            log.warning("the addresses to listen on have changed: that takes a restart")
        log.info("version %s follows version %s, its workers start", __version__, handed.version)
        self._succession.enlist(self._config.worker_count())

    def _go_on_after_stand_in(self, handed: Handover) -> None:
        """Go on in the same life, where the next was not to be."""
        sent = {place.slot: place.sent for place in handed.places}
        self._queue.go_on(sent, handed.in_hand)
        self._workers.unmended = handed.unmended
        if ACTING in handed.unmended:
            self._queue.go_on_from_words(sent)
        self._acceptor.pauses, self._acceptor.saturations = handed.pauses, handed.saturations
        self._carry_on(handed)

    def _carry_on(self, handed: Handover) -> None:
        for carried in handed.connections:
            message = Message(Kind(carried.kind), 0, carried.listener, len(carried.descriptors), 0, carried.stamp_ns)
            self._acceptor.carry_on(carried.descriptors, message, counted=carried.counted)


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
