"""The threads of one worker, leaders and followers: one at a time leads, and only the leader runs the server.

Owns:    t_mutex, the shutdown flag, the poll set, the order of a round.
Never:   lets two threads touch a connection; lets the leader block (but in epoll): what may block is a Job, for which
         the leader hands leadership on and becomes a follower again when the job is done.
Fails:   an exception of one event is logged with its traceback, its connection closed, and the thread goes on.
Used by: worker.main.

Schmidt et al., "Leader/Followers" (Pattern-Oriented Software Architecture 2): no thread hands work to another through a
queue; the thread that finds the work does it. Here one more reason: threads that run Python in turns, and not against
each other, do not wait for the interpreter lock.
"""

import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial

from pyserver.clock import Clock
from pyserver.ipc.activity import Work
from pyserver.ipc.assignment import Assignment
from pyserver.ipc.channel import Drain, Full, Garbled, Gone, Kind, Message
from pyserver.ipc.messages import DOOMED_FROM
from pyserver.ipc.semaphores import Stuck
from pyserver.ipc.stats import Tally
from pyserver.limits import BATCH_MAX, EVENTS_MAX, MUTEX_PATIENCE_S, NS_PER_S, ROUND_S, TEND_EVERY_S
from pyserver.sd.journal import NOTICE, Output
from pyserver.worker.accesslog import AccessLog
from pyserver.worker.client import Job
from pyserver.worker.connection import Connections

log = logging.getLogger("pyserver")


class Pool:
    """A worker's threads around its connections."""

    def __init__(
        self,
        assignment: Assignment,
        connections: Connections,
        clock: Clock,
        tally: Tally,
        access: AccessLog | None,
        poll: select.epoll,
        leave: Callable[[], object],
        output: Output | None = None,
    ) -> None:
        self._output = output  # whose losses are told
        self._leave = leave  # ends the process at once, whatever its threads are at
        self._slot = assignment.slot
        self._generation = assignment.generation
        self._end = assignment.end
        self._queue = assignment.queue
        self._words = assignment.segment.words
        self._beat_at = assignment.segment.row(assignment.slot, "beat_ns")
        self._round_at = assignment.segment.row(assignment.slot, "round_ns")
        self._counters_at = assignment.segment.counters(assignment.slot)
        tally.attach(self._words, self._counters_at)
        self._activity = connections.showing.activity
        self._activity.attach(
            self._words,
            assignment.segment.activity(assignment.slot),
            assignment.segment.row(assignment.slot, "unlisted"),
        )
        self._drain_s = assignment.config.server.drain
        self._connections = connections
        self._holding = connections.holding
        self._clock = clock
        self._tally = tally
        self._access = access
        self._poll = poll
        self._threads = assignment.config.server.threads  # this one included; later, how many there are

        self.t_mutex = threading.Lock()  # held by the leader
        self._shutdown = False  # read and written by the leader
        self._round_ns = time.monotonic_ns()  # when the last round began
        self._tend_from_ns = 0  # from then on the end of a round has more to do
        self._busy = 0  # threads that run a job; counted by the leader
        self._events: Iterator[tuple[int, int]] = iter(())  # of this round, not yet seen to
        self._done: deque[Job] = deque()  # jobs that were run; the one thing followers write
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._channel = self._end.fileno()
        self._taking = True  # the channel is polled for messages, and not only for its end
        self._orphaned = False  # the master is gone, and the channel is not polled at all
        self._read_out = False  # nothing will come through the channel any more
        self._uncounted = 0  # connections taken out of the channel that the queue's ledger does not know of yet
        self._settle_at = 0.0  # not before, after it was not to be had
        self._look_again_at = 0.0  # for idle connections, when it is not
        self._leave_by: float | None = None  # draining: when we go, at the latest
        self._reopen_at = assignment.segment.row(assignment.slot, "reopen_ns")
        self._state_at = assignment.segment.row(assignment.slot, "state")
        self._drain_at = assignment.segment.row(assignment.slot, "drain_by_ns")
        self._drain_how_at = assignment.segment.row(assignment.slot, "drain_how")
        self._reopened = 0  # the last order to do so that we followed
        poll.register(self._wake, select.EPOLLIN)
        poll.register(self._channel, select.EPOLLIN)

    def run(self) -> None:
        """Be the pool, this thread included, until the worker has drained."""
        self._publish()
        self._words[self._beat_at] = time.monotonic_ns()  # who is ready has been alive
        others = self._start_others()
        if not others:
            self._report(Kind.READY)
        self.worker_thread()
        for thread in others:
            thread.join()
        self._publish()

    def _start_others(self) -> list[threading.Thread]:
        """Start the other threads. With the first of them we are ready: it leads while the others come."""
        wished, others = self._threads, list[threading.Thread]()
        for number in range(1, wished):
            self._threads = number + 1  # before it may lead
            thread = threading.Thread(target=self.worker_thread, args=(number,), name=f"pool-{number}")
            try:
                thread.start()
            except RuntimeError:  # the limit of tasks, or no memory for a stack: some are better than none
                self._threads = number
                log.error("only %d of %d threads could be started (TasksMax=)", number, wished)  # noqa: TRY400
                break
            others.append(thread)
            if number == 1:
                self._report(Kind.READY)
        return others

    def worker_thread(self, number: int = 0) -> None:
        """Follow, lead, do what may block, and follow again: the life of each thread."""
        activity = self._activity
        activity.thread_begins(number, threading.get_native_id())
        while True:
            activity.thread_does(number, Work.FOLLOWING)
            with self.t_mutex:
                activity.thread_does(number, Work.LEADING)
                job = self._lead()
            if job is None:
                activity.thread_does(number, Work.NOTHING)
                return
            activity.thread_does(number, job.work, job.row)
            try:
                job.run()
            except MemoryError:
                log.error("no memory for a job")  # noqa: TRY400  it tells nothing by where it came
            except Exception:
                log.exception("a job failed")
            self._done.append(job)
            del job  # what it holds open is not to stay open until this thread has another
            os.eventfd_write(self._wake, 1)

    # -- the leader: t_mutex is held ---------------------------------------------------------------

    def _lead(self) -> Job | None:
        """Serve until there is a job for this thread; None when the worker is done."""
        assert self.t_mutex.locked()
        while True:
            try:
                return self._serve()
            except MemoryError:  # for the list of events, for instance: epoll tells of them again
                self._connections.relieve()

    def _serve(self) -> Job | None:
        connections = self._connections
        jobs = connections.jobs
        while not self._shutdown:
            while self._done:
                self._busy -= 1
                self._shielded(self._done.popleft().then)
            # The last thread leads on: somebody must. A job waits until a follower is back.
            if jobs and self._has_follower:
                job = jobs.popleft()
                if job.work is Work.ANSWERING:  # perhaps by numbers: none of this worker's shall be missing
                    self._publish()
                if self._threads > 1:
                    self._busy += 1
                    return job
                self._run_inline(job)
                continue
            descriptor = connections.see_to(self._events)
            if descriptor is None:
                longest = self._end_round()
                if longest is None:
                    break
                self._events = iter(self._poll.poll(longest, EVENTS_MAX))
                self._clock.turn()
                self._round_ns = self._words[self._round_at] = int(self._clock.now * NS_PER_S)
            elif descriptor == self._channel:
                self._shielded(self._receive)
            elif descriptor == self._wake:
                self._shielded(self._woken)
        if self._busy:
            self._abandon()
        return None

    def _end_round(self) -> float | None:
        """Do what is done between two polls; return how long the next may wait, None when the worker has drained."""
        now_ns = time.monotonic_ns()
        self._tally.round_ends(now_ns - self._round_ns)
        self._words[self._beat_at] = now_ns
        connections, holding = self._connections, self._holding
        # Under load a round lasts some hundred microseconds or less, and the rest can wait until a millisecond is over,
        # but for what the next round needs: room, and that what was taken is accounted for.
        pressing = self._uncounted or holding.returning or holding.full or not self._taking
        if now_ns < self._tend_from_ns and self._leave_by is None and not pressing:
            return TEND_EVERY_S
        self._tend_from_ns = now_ns + int(TEND_EVERY_S * NS_PER_S)
        self._tend()
        if self._shutdown:
            return None
        return 0.0 if connections.jobs and self._has_follower else ROUND_S

    @property
    def _has_follower(self) -> bool:
        """Whether a thread is there for a job: all but the leader and those that have one, or the only one."""
        return self._threads == 1 or self._busy < self._threads - 1

    def _tend(self) -> None:
        """See to numbers, deadlines, log, room, and whether the worker has drained."""
        self._publish()
        connections, holding = self._connections, self._holding
        now = self._clock.now
        self._shielded(partial(connections.expire, now))
        if self._access is not None:
            batch = self._access.take()
            if batch is not None:
                connections.jobs.append(Job(batch.run, partial(self._access.written, batch), Work.LOGGING))
        if (holding.full or not self._taking) and not self._orphaned:
            self._take_or_not(now)
            if not self._taking:
                self._obey()
                self._shed()
        if self._uncounted and time.monotonic() >= self._settle_at:
            self._settle()
        if holding.returning:
            self._give_back()
        if self._leave_by is not None and self._has_drained(now):
            self._shutdown = True

    def _abandon(self) -> None:
        """Leave while a job hangs, perhaps in the main thread: nobody is waited for, and what can be written is."""
        if self._access is not None:
            self._access.close()
        self._publish()
        self._leave()

    def _publish(self) -> None:
        tally = self._tally
        tally.connections_open = len(self._connections.table)
        tally.threads_busy = self._busy
        if self._access is not None:
            tally.log_lines_dropped = self._access.dropped
        if self._output is not None:
            tally.log_records_dropped = self._output.dropped
        tally.publish(self._words, self._counters_at)

    def _take_or_not(self, now: float) -> None:
        """Near our limit of open files leave new connections in the channel, and idle ones make room."""
        holding = self._holding
        # When nobody was idle, it takes a walk over all to find out whether somebody is by now: not in every round.
        if holding.full and (self._taking or now >= self._look_again_at):
            holding.make_room()
            self._look_again_at = now + ROUND_S
        if holding.full and self._taking:
            # Of no events: its end, the master's death, is reported all the same (EPOLLHUP, epoll_ctl(2)).
            self._poll.modify(self._channel, 0)
            self._taking = False
        elif not holding.full and not self._taking:
            self._poll.modify(self._channel, select.EPOLLIN)
            self._taking = True

    def _shed(self) -> None:
        """While we leave new connections in the channel, refuse those that have waited too long: they cost no place."""
        bound, table = self._connections.shedding.bound, self._connections.table
        most = len(table) + BATCH_MAX  # among those that came with one that is too old may be some that are not
        while len(table) < most and self._words[self._state_at] < DOOMED_FROM:
            try:
                first = self._end.first()
            except Garbled:  # told when it is taken
                return
            if (
                first is None
                or first.kind is not Kind.CONNECTIONS
                or time.monotonic_ns() - first.stamp_ns <= bound * NS_PER_S
            ):
                return
            self._receive()

    def _has_drained(self, now: float) -> bool:
        connections = self._connections
        if self._leave_by is None or now < self._leave_by:
            return self._read_out and not (connections.table or connections.jobs or self._busy)
        if connections.table:
            log.warning("drain deadline passed, cutting %d connections", len(connections.table))
        if self._busy:
            log.warning("drain deadline passed, not waiting for %d jobs", self._busy)
        for connection in tuple(connections.table.values()):
            self._holding.close(connection)
        return True

    # -- the channel -------------------------------------------------------------------------------

    def _receive(self) -> None:
        """Take one message from the master, unless it is about to end us (after SIGSTOP, all threads wake for that)."""
        if self._words[self._state_at] >= DOOMED_FROM:
            return
        try:
            received = self._end.receive()
        except Garbled as error:
            log.error("the master sent %s, ignored", error)  # noqa: TRY400
            return
        except Gone:
            self._master_gone()
            return
        if received is None:
            return
        message, descriptors = received
        if message.kind in (Kind.CONNECTIONS, Kind.PARKED):
            self._adopt(message, descriptors)
        elif message.generation != self._generation:
            log.debug("stale %s for generation %d, ignored", message.kind.name, message.generation)
        elif message.kind in (Kind.DRAIN, Kind.REOPEN):
            self._read_out |= message.kind is Kind.DRAIN
            self._obey()

    def _obey(self) -> None:
        """Follow the orders in our row that are new: the messages of them only make us look."""
        reopen, drain_by = self._words[self._reopen_at], self._words[self._drain_at]
        if reopen != self._reopened:
            self._reopened = reopen
            if self._access is not None:
                self._access.reopen()
        if drain_by and drain_by / NS_PER_S != self._leave_by:
            self._leave_by = drain_by / NS_PER_S
            self._connections.drain(self._words[self._drain_how_at])

    def _adopt(self, message: Message, descriptors: list[int]) -> None:
        """Take connections: settle the queue's accounting first, then serve each."""
        self._uncounted += message.carried
        if time.monotonic() >= self._settle_at:
            self._settle()
        waited_ns = time.monotonic_ns() - message.stamp_ns
        self._tally.waited(waited_ns, message.carried)
        lost = message.carried - len(descriptors)
        if lost:
            self._tally.connections_lost += lost
            log.error("%d connections lost: the limit of open files is reached (LimitNOFILE=)", lost)
        for descriptor in descriptors:
            try:
                self._connections.adopt(
                    descriptor, message.listener, parked=message.kind is Kind.PARKED, waited_ns=waited_ns
                )
            except Exception as error:  # noqa: BLE001  failed() logs it
                self._connections.failed(error)
                connection = self._connections.table.get(descriptor)
                if connection is not None:
                    self._holding.close(connection)

    def _settle(self) -> None:
        """Tell the queue's ledger what came out of the channel; later, if its mutex is not to be had now."""
        try:
            if self._queue.taken(self._slot, self._uncounted):
                self._report(Kind.ROOM)
            self._uncounted = 0
        except Stuck as error:  # the clients are here and shall have their answers all the same
            log.error("the queue's accounting is not to be had: %s", error)  # noqa: TRY400
            self._settle_at = time.monotonic() + MUTEX_PATIENCE_S

    def _give_back(self) -> None:
        """Send connections that others shall go on with to the master; what its channel has no room for, next round."""
        holding = self._holding
        while batch := holding.to_return():
            origin = batch[0].origin
            message = Message(Kind.PARKED, self._generation, origin, len(batch), 0, time.monotonic_ns())
            try:
                self._end.send(message, [each.fd for each in batch])
            except Gone:
                self._connections.drain(Drain.CLOSE)
                return
            except (Full, OSError):  # ETOOMANYREFS: too many are under way, unix(7)
                return
            for each in batch:
                holding.close(each)

    def _master_gone(self) -> None:
        log.log(NOTICE, "the master is gone, draining")
        self._poll.unregister(self._channel)
        self._taking = False
        self._orphaned = self._read_out = True
        if self._leave_by is None:
            self._leave_by = self._clock.now + self._drain_s
        self._connections.drain(Drain.CLOSE)

    def _report(self, kind: Kind) -> None:
        try:
            self._end.send(Message(kind, self._generation))
        except (Full, Gone):
            log.debug("%s did not reach the master", kind.name)

    # -- small steps ---------------------------------------------------------------------------------

    def _run_inline(self, job: Job) -> None:
        """With a single thread there is nobody to hand over to."""
        self._activity.thread_does(0, job.work, job.row)
        self._shielded(job.run)
        self._activity.thread_does(0, Work.LEADING)
        self._shielded(job.then)

    def _shielded(self, step: Callable[[], object]) -> None:
        try:
            step()
        except Exception as error:  # noqa: BLE001  failed() logs it
            self._connections.failed(error)

    def _woken(self) -> None:
        """A follower has done its job, or wants us to look."""
        os.eventfd_read(self._wake)
