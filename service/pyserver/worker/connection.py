"""The connections of one worker: the requests of each, from the first one to the last answer.

Owns:    every client's phase and deadline while it is served, and what becomes of all when the worker leaves.
Never:   blocks, or keeps a thread for a slow client: whatever has to wait waits in epoll with a deadline; what has to
         wait for the disk becomes a Job for a follower.
Fails:   never for what a client or the disk does. An exception is a bug; worker.pool logs it and closes the client.
Used by: worker.main (makes it), worker.pool. All of it runs in the leader, one thread at a time.

`serve` is the spine: read requests, answer each, wait for more. The rest are the ways a step can end. What comes before
the first request is in worker.entrance; where a connection waits, and how it is closed, in worker.holding.
"""

import logging
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from math import inf
from typing import Final, cast

from pyserver.clock import Clock
from pyserver.config import Limits
from pyserver.handlers.memo import Memo
from pyserver.handlers.router import Handler
from pyserver.handlers.static import LookAgain, Pending
from pyserver.http import lifecycle
from pyserver.http.dates import imf_fixdate
from pyserver.http.errors import ProtocolError
from pyserver.http.fields import Lines
from pyserver.http.reader import RequestReader
from pyserver.http.request import Request, parse_head
from pyserver.http.response import CONTINUE, Response, error_response
from pyserver.ipc.activity import Work
from pyserver.ipc.assignment import Origin
from pyserver.ipc.messages import Drain
from pyserver.ipc.stats import Tally
from pyserver.limits import (
    DRAIN_GRACE_S,
    NS_PER_S,
    PAUSE_TOLD_EVERY_S,
    RECV_BYTES,
    RELIEF_S,
    ROOT_MISSED_REST_S,
    STALL_BYTES,
    TARGET_MAX_BYTES,
)
from pyserver.worker.admission import Admission
from pyserver.worker.client import Connection, Job, Phase
from pyserver.worker.entrance import Entrance
from pyserver.worker.failures import FAILED
from pyserver.worker.holding import Holding
from pyserver.worker.pace import Paces
from pyserver.worker.proxies import Proxies
from pyserver.worker.records import Records
from pyserver.worker.shedding import Shedding
from pyserver.worker.showing import Showing
from pyserver.worker.tracing import Tracing
from pyserver.worker.transport import SEND, SEND_MORE, Outcome, Outgoing, send_at_once, untaken

log = logging.getLogger("pyserver")

_DONTWAIT: Final = socket.MSG_DONTWAIT
_IN: Final = select.EPOLLIN
_OUT: Final = select.EPOLLOUT

# Methods whose answer does not depend on whether we would take content: it is read and thrown away first.
_PATIENT: Final = frozenset((b"GET", b"HEAD", b"OPTIONS"))


# What can happen to a file that is being sent, so that the rest of it must not be.
_SPOILT: Final = {
    Outcome.SHRANK: "became shorter",
    Outcome.CHANGED: "changed",
    Outcome.UNREAD: "could not be read",
}


# The type below socket.socket, whose Python part (files, copies, enumerations) nobody here uses: it would cost every
# connection two microseconds.
_Socket: Final = cast("type[socket.socket]", socket.SocketType)


JOB: Final = -1  # no descriptor

# Those that are compared for each event, as plain names.
_READING: Final = Phase.READING
_SENDING: Final = Phase.SENDING
_LINGERING: Final = Phase.LINGERING
_GREETING: Final = Phase.GREETING


class Connections:
    """All clients of a worker, and what happens to them."""

    def __init__(
        self,
        sites: Handler,
        origins: Sequence[Origin],
        limits: Limits,
        clock: Clock,
        tally: Tally,
        records: Records,
        poll: select.epoll,
        capacity: int,
        memo: Memo,
        admission: Admission | None = None,
        others: Mapping[int, Handler] | None = None,
        proxies: Proxies | None = None,
        tracing: Tracing | None = None,
        queue_wait: float = 0.0,
    ) -> None:
        self.jobs: deque[Job] = deque()  # for worker.pool
        self.draining = False  # what is answered is closed
        self._moving = False  # what is answered goes back to the master
        self._leaving = False  # either
        self._sites = sites
        self._origins = origins
        # What answers instead of the sites, by the index of a listener: past the memo, which knows no listener.
        self._others = {} if others is None else others
        self._limits = limits
        self._clock = clock
        self._tally = tally
        self.records = records
        self.showing = Showing(clock, records)
        self._admission = admission  # None: no client has limits
        # A client has no limits and no proxy, and its answer is what it is for all.
        alike = admission is None and proxies is None and tracing is None
        self._meets = alike and records.are_brief
        self._settles = tracing is None  # an answer is what it is for each request
        self._tracing = tracing  # None: answers say nothing of their request
        self._memo = memo
        self.shedding = Shedding(queue_wait, clock)
        self._bounds = memo.bounds
        self._paces: Paces[Connection] | None = None  # None: a client may be as slow as its deadlines let it
        if limits.receive_rate or limits.send_rate:
            self._paces = Paces(limits, clock)
        self._requests = limits.requests  # of one connection; 0: as many as it likes
        # What head_of is between two requests. If they are counted, each wait goes the full way: the last is not to be
        # answered from the memo, which does not know that it is the last.
        self._between = -2 if limits.requests else -1
        self.holding = Holding(poll, capacity, clock, records, self.showing, admission, self._paces)
        self.table = self.holding.table  # by descriptor
        self._watch = self.holding.watch  # at hand: each new client that is to send more comes by here
        self._entrance = Entrance(self.holding, self.shedding, tally, records, admission, proxies)
        self._tidied = clock.second
        self._tidy_at = inf  # sooner than in the next second
        self._memory_told_at = 0.0  # monotonic: when that there is none is worth a line in the log again

    # -- events, called by worker.pool ---------------------------------------------------------

    def adopt(self, fd: int, origin: int, *, parked: bool = False, waited_ns: int = 0) -> None:
        """Take over a client that the master passed on, and read from it at once.

        `waited_ns`: in the queue, it or one of those that came with it.
        """
        client = _Socket(self._origins[origin].family, socket.SOCK_STREAM, 0, fd)
        overdue = waited_ns > self.shedding.bound_ns and not parked and self.shedding.overdue(fd)
        if self._meets and not (parked or overdue or origin in self._others):
            self._meet(client, fd, origin, waited_ns)
            return
        connection = self._enter(client, fd, origin, waited_ns)
        if parked:  # another worker has counted it, and perhaps answered it before: its time is that of an idle one
            connection.answered = 1
        else:
            self._tally.connections += 1
        if origin in self._others:
            # No limit for administrators, who look when there is too much of all; who has a reader goes the full way.
            connection.reader = RequestReader(self._bounds)
        elif (overdue or self._entrance.guarded) and not self._entrance.lets_in(
            connection, parked=parked, overdue=overdue
        ):
            return
        self._begin(connection)

    def _begin(self, connection: Connection) -> None:
        """Read from a client that is let in, and serve what came."""
        if (self._requests and self._is_last(connection)) or (self._leaving and connection.stays):
            connection.reader = RequestReader(self._bounds)
        self.readable(connection)

    def _meet(self, client: socket.socket, fd: int, origin: int, waited_ns: int) -> None:
        """Read from a new client about whom there is nothing else to see to, and serve what came.

        One that asks for a known answer and no more (`Connection: close`) has it here and is gone: it never becomes a
        Connection. What happens is what readable(), _at_once(), _send() and close() would do one after the other.
        """
        tally, clock, memo = self._tally, self._clock, self._memo
        tally.connections += 1
        try:
            data = client.recv(RECV_BYTES, _DONTWAIT)
        except BlockingIOError:
            connection = self._enter(client, fd, origin, waited_ns)
            self._wait(connection)
            return
        except OSError:
            data = b""
        if not data:
            client.close()
            return
        if memo.second != clock.second:
            memo.turn(clock.second)
        known = memo.answers.get(data)
        if known is None or not known[1].close or known[1].status >= FAILED:
            self._received(self._enter(client, fd, origin, waited_ns), data)
            return
        request, response = known
        tally.bytes_received += len(data)
        tally.requests += 1
        tally.classes[response.status // 100] += 1
        wire = response.wire
        try:
            # What follows is our end (FIN), in the same segment. By shutdown(2): close(2) does nothing until the last
            # copy of a socket is closed, and the master may have one still.
            sent = client.send(wire, SEND_MORE)
            if sent == len(wire):
                client.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            sent = 0
        except OSError:
            sent = -1
        if 0 <= sent < len(wire):
            tally.bytes_sent += sent
            self._send_rest(self._enter(client, fd, origin, waited_ns), request, response, sent)
            return
        if sent < 0:
            tally.apart += 1
        else:
            tally.bytes_sent += sent
        self.records.brief(client, request.head, response.status, response.content_bytes if sent > 0 else 0)
        client.close()

    def _enter(self, client: socket.socket, fd: int, origin: int, waited_ns: int) -> Connection:
        connection = Connection(client, fd, self._clock.now + self._limits.head_deadline, origin, waited_ns)
        self.table[fd] = connection
        return connection

    def see_to(self, events: Iterator[tuple[int, int]]) -> int | None:
        """See to the clients that epoll reports, until there is a job; return a descriptor that is no client's.

        JOB: there is one, and there may be more events; None: there are none.

        Most clients have settled: they ask for one known answer after the other. For them all that ready(), readable(),
        _received(), _at_once(), _send(), _sent() and _wait() would do is done right here: without a call of ours where
        the whole head is known, with one (Memo.find) where its line and section are.
        """
        table, jobs, memo, tally, note = self.table, self.jobs, self._memo, self._tally, self.records.note
        clock, of_each, staying = self._clock, self.records.of_each, not self._leaving
        if memo.second != clock.second:
            memo.turn(clock.second)
        known, find, deadline = memo.answers, memo.find, clock.now + self._limits.keep_alive
        fine = received = sent_in_all = 0  # answers of 200, bytes
        request: Request | None
        response: Response | None
        try:
            for descriptor, _ in events:
                if descriptor not in table:
                    return descriptor
                connection = table[descriptor]
                try:
                    if connection.settled and staying:
                        client = connection.socket
                        try:
                            data = client.recv(RECV_BYTES, _DONTWAIT)
                        except BlockingIOError:
                            continue
                        except OSError:
                            data = b""
                        if data in known:
                            request, response = known[data]
                        else:
                            response, request = find(data)
                        if response is not None:
                            wire, status = response.wire, response.status
                            received += len(data)
                            if status == 200:
                                fine += 1
                            else:
                                tally.requests += 1
                                tally.classes[status // 100] += 1
                            try:
                                sent = client.send(wire, SEND)
                            except BlockingIOError:
                                sent = 0
                            except OSError:
                                sent = -1
                            if sent == len(wire) and not response.close:
                                sent_in_all += sent
                                if of_each or status >= FAILED:
                                    note(connection, data, status, response.content_bytes)
                                connection.answered += 1
                                connection.deadline = deadline
                                continue
                            connection.settled = False
                            if request is None:  # it was found by its line
                                request = parse_head(data, bounds=self._bounds)
                            self._sent_otherwise(connection, request, response, sent)
                        else:
                            connection.settled = False
                            if request is not None:
                                received += len(data)
                                if self._respond(connection, request):
                                    self._wait(connection)
                            elif data:
                                connection.reader = RequestReader(self._bounds)  # for that is what it takes
                                self._received(connection, data)
                            else:
                                self.holding.close(connection)
                    else:
                        self.ready(connection)
                except Exception as error:  # noqa: BLE001  failed() logs it
                    self.failed(error)
                    self.holding.close(connection)
                if jobs:
                    return JOB
        finally:
            tally.requests += fine
            tally.classes[2] += fine
            tally.bytes_received += received
            tally.bytes_sent += sent_in_all
        return None

    def failed(self, error: Exception) -> None:
        """Tell and count an error of ours."""
        self._tally.failures += 1
        if isinstance(error, MemoryError):  # which tells nothing by where it came
            log.error("no memory, a connection is closed")
            return
        log.error("an error of ours, its connection is closed", exc_info=error)

    def _sent_otherwise(self, connection: Connection, request: Request, response: Response, sent: int) -> None:
        """Go on after a known answer that is not out as a whole, or is the last one; `sent` bytes, -1: it cannot be."""
        if sent < 0:
            self._tally.apart += 1
            self.records.note(connection, request.head, response.status, 0)
            self.holding.close(connection)
            return
        self._tally.bytes_sent += sent
        if sent < len(response.wire):
            goes_on = self._send_rest(connection, request, response, sent)
        else:
            goes_on = self._sent(connection, request, response)
        if goes_on:
            self._wait(connection)

    def ready(self, connection: Connection) -> None:
        """Go on with a connection that epoll reports."""
        connection.settled = False
        phase = connection.phase
        if phase is _READING:
            if connection.watched:
                self.readable(connection)
        elif phase is _SENDING:
            self._send_on(connection)
        elif phase is _LINGERING:
            self.holding.linger_on(connection)
        elif phase is _GREETING and self._entrance.greet(connection):
            self._begin(connection)
        # Else it was reported before something else in this round gave it to a follower, or gave its number to another.

    def readable(self, connection: Connection) -> None:
        """Receive once, and serve what came."""
        try:
            data = connection.socket.recv(RECV_BYTES, _DONTWAIT)
        except BlockingIOError:
            self._wait(connection)
            return
        except OSError:
            self.holding.close(connection)
            return
        if not data:
            self.holding.close(connection)
            return
        self._received(connection, data)

    def _received(self, connection: Connection, data: bytes) -> None:
        """Serve what came."""
        self._tally.bytes_received += len(data)
        reader = connection.reader
        if reader is None:
            if self._at_once(connection, data):
                return
            reader = connection.reader = RequestReader(self._bounds)
        connection.received += len(data)
        reader.feed(data)
        self.serve(connection)

    def _at_once(self, connection: Connection, data: bytes) -> bool:
        """Answer bytes that are one whole good head without content; False for all else: go the full way.

        The short way of most requests (handlers.memo): what is sent is what the full way would send.
        """
        memo, second = self._memo, self._clock.second
        if memo.second != second:
            memo.turn(second)
        known = memo.answers.get(data)
        if known is not None:
            if connection.counted is not None:  # before the memo: it knows no clients
                too_many = self._too_many(connection, known[0])
                if too_many is not None:
                    self._tally.memo_misses += 1
                    known = known[0], too_many
            goes_on = self._send(connection, *known)
        else:
            request = memo.request(data)
            if request is None:
                return False
            goes_on = self._respond(connection, request)
        if goes_on:
            self._wait(connection)
        return True

    def expire(self, now: float) -> None:
        """End every connection whose deadline has passed; once a second let go of files that nobody wants."""
        if self._clock.second != self._tidied or now >= self._tidy_at:
            self._tidied = self._clock.second
            self._tidy_at = inf
            self.records.turn()
            if self._admission is not None:
                self._admission.turn()
            self.shedding.turn()
            looks = self._sites.tidy()
            self.jobs += [Job(look.run, partial(self._looked_again, look), Work.LOOKING) for look in looks]
        self.showing.turn()
        for connection in self.holding.due(now):
            phase = connection.phase
            # A follower has it: its disk is slow, the client is not. Or the client takes what it is sent, slowly.
            if phase is Phase.WORKING or (phase is _SENDING and self._takes(connection)):
                self.holding.park(connection, now + self._limits.send_stall)
                continue
            self._tally.deadlines += phase is not _LINGERING
            self._too_late(connection)
        if self._paces is not None:
            for connection in self._paces.too_slow(now):
                self._tally.too_slow += 1
                self._too_late(connection)

    def _too_late(self, connection: Connection) -> None:
        if connection.phase is _GREETING:
            self._entrance.too_late(connection)
        elif connection.phase is Phase.READING and (connection.begun or connection.request is not None):
            # RFC 9110 15.5.9: it began a request and did not finish it in time.
            self._refuse(connection, 408)
        else:
            self.holding.close(connection)

    def drain(self, how: int) -> None:
        """Finish what is under way, and take nothing new; said again, it may be another way."""
        self._moving = how == Drain.MOVE
        self.draining = not self._moving
        self._leaving = self._entrance.leaving = True
        if self._moving:
            for connection in [each for each in self.table.values() if each.idle]:
                self._return(connection)
            return
        self._memo.close()
        if how == Drain.STORE:
            for connection in [each for each in self.table.values() if each.idle and each.answered]:
                self._return(connection)
        else:
            for connection in tuple(self.holding.returning):
                self.holding.close(connection)
        grace = self._clock.now + DRAIN_GRACE_S
        for connection in [each for each in self.table.values() if each.idle]:
            # Its next request may have arrived this moment: look, and answer it with `Connection: close`.
            self.readable(connection)
        for connection in [each for each in self.table.values() if each.idle or each.phase is _GREETING]:
            self.holding.park(connection, min(connection.deadline, grace))

    def submit(self, run: Callable[[], None], then: Callable[[], None]) -> bool:
        """Take work of a handler that no client waits for; False when the worker is about to leave."""
        if not self._leaving:
            self.jobs.append(Job(run, then, Work.CODING))
        return not self._leaving

    # -- the spine -------------------------------------------------------------------------------

    def serve(self, connection: Connection) -> None:
        """Answer every request that is here, then wait for more."""
        reader = connection.reader
        if reader is None:  # after an answer that was sent in parts: nothing else has come
            self._wait(connection)
            return
        try:
            while True:
                request = connection.request
                if request is None:
                    request = reader.next()
                    if request is None:
                        break
                    if request.has_body:
                        connection.request = request
                        if not self._wants_content(connection, request):
                            return
                if connection.request is not None:
                    if not reader.discard_body():
                        self._wait(connection)
                        return
                    connection.request = None
                if not self._respond(connection, request):
                    return
                connection.heard = 0.0
        except ProtocolError as error:
            self._refuse(connection, error.status)
            return
        self._wait(connection)

    def _respond(self, connection: Connection, request: Request) -> bool:
        """Answer one request; True when the answer is out and the connection goes on."""
        if connection.counted is not None:
            too_many = self._too_many(connection, request)
            if too_many is not None:
                self._tally.memo_misses += 1
                return self._send(connection, request, too_many)
        sites = self._others.get(connection.origin, self._sites) if self._others else self._sites
        leaves = self._leaving and (self.draining or connection.stays)
        last = self._requests > 0 and self._is_last(connection)
        try:
            answer = sites.respond(request, lifecycle.persistence(request, leaves or last))
        except MemoryError:
            return self._send(connection, request, self._without_memory(connection, request))
        if isinstance(answer, Pending):
            self._tally.file_cache_misses += sites is self._sites
            self._hand_over(connection, request, answer)
            return False
        self._tally.memo_misses += 1
        # Requests by another method than GET are counted where the memo's answers do not pass (_send).
        if request.method == b"GET" and sites is self._sites and leaves is self.draining and not last:
            self._memo.keep(request, answer, self._clock.second)
        return self._send(connection, request, answer)

    def _is_last(self, connection: Connection) -> bool:
        """Whether the next request of a connection is the last one it may have, where there is such a limit."""
        return connection.answered + 1 >= self._requests and connection.origin not in self._others

    def _too_many(self, connection: Connection, request: Request) -> Response | None:
        """Return the answer to a request that is one too many of its client (RFC 6585 4), None if it is not."""
        assert self._admission is not None
        after = self._admission.asks(connection, request.head)
        return self._error(connection, request, 429, (Lines(b"Retry-After: %d\r\n" % after),)) if after else None

    def _ends_with_this(self, connection: Connection) -> bool:
        """Tell whether the connection ends after the next answer, whatever the client wishes."""
        leaves = self._leaving and (self.draining or connection.stays)
        return leaves or (self._requests > 0 and self._is_last(connection))

    def _without_memory(self, connection: Connection, request: Request) -> Response:
        """Return the answer to a request that there is no memory for (RFC 9110 15.6.4): it passes."""
        self._tell_no_memory("an answer", "refusing by 503")
        return self._error(connection, request, 503)

    def _error(self, connection: Connection, request: Request, status: int, fields: tuple[Lines, ...] = ()) -> Response:
        """Return an answer to a good request that no handler gives."""
        keep = lifecycle.persistence(request, self._ends_with_this(connection))
        return error_response(
            status,
            date=imf_fixdate(self._clock.second),
            connection=lifecycle.connection_field(request.minor, keep),
            head_only=request.method == b"HEAD",
            fields=fields,
        )

    def relieve(self) -> None:
        """Where there is no memory for the next round let go of what is there for speed alone, and rest."""
        self._memo.forget()
        time.sleep(RELIEF_S)
        self._tell_no_memory("a round", "its clients wait")

    def _tell_no_memory(self, purpose: str, outcome: str) -> None:
        if self._clock.now >= self._memory_told_at:
            self._memory_told_at = self._clock.now + PAUSE_TOLD_EVERY_S
            log.error("no memory for %s (MemoryMax=, or the machine's), %s", purpose, outcome)

    def _send(self, connection: Connection, request: Request, response: Response, *, looked: bool = True) -> bool:
        """Send an answer; True when all of it is out and the connection goes on.

        `looked`: a file that it comes from was looked at a moment ago, not by a follower some time before.
        """
        if self._tracing is not None:
            response = self._traced(connection, request.head, response, self._tracing)
        tally, wire = self._tally, response.wire
        tally.requests += 1
        if request.method != b"GET":
            tally.asked_by(request.method)
        tally.classes[response.status // 100] += 1
        all_of_it = len(wire)
        try:
            if response.source is None:
                sent = connection.socket.send(wire, SEND)
            else:
                if not connection.unblocked:
                    connection.socket.setblocking(False)  # sendfile(2) has no flag for it
                    connection.unblocked = True
                sent = connection.socket.send(wire, SEND_MORE)
                if looked and sent == all_of_it:
                    sent += send_at_once(connection.socket, response)
                all_of_it += response.count
        except BlockingIOError:
            sent = 0
        except OSError:
            tally.apart += not connection.began
            self.records.note(connection, request.head, response.status, 0)
            connection.began = 0.0
            self.holding.close(connection)
            return False
        tally.bytes_sent += sent
        if sent == all_of_it and not response.more:
            return self._sent(connection, request, response)
        return self._send_rest(connection, request, response, sent)

    def _send_rest(self, connection: Connection, request: Request, response: Response, sent: int) -> bool:
        """Send what an answer has left after `sent` bytes of it, as the client takes it; True when all is out."""
        if not connection.began:
            self._tally.apart += 1
            connection.began = self._clock.now
        connection.request = request
        connection.sending = time.monotonic() - connection.worked
        connection.outgoing = Outgoing(response, sent)
        connection.mark = connection.taken = 0
        connection.phase = Phase.SENDING
        connection.deadline = self._clock.now + self._limits.send_stall
        return self._send_on(connection, resume=False)

    def _traced(self, connection: Connection, head: bytes, response: Response, tracing: Tracing) -> Response:
        """Return an answer that says whose it is; `head`: of the request, b"" of what is none."""
        via = connection.via
        # What follows a PROXY header is the client's, as far as we know.
        believed = via is not None and not via.greeted
        connection.identity = tracing.identity(head if believed else b"")
        waited_ns = None if connection.answered else connection.waited_ns
        return response.with_lines(tracing.lines(connection.identity, connection.began or self._clock.now, waited_ns))

    def _sent(self, connection: Connection, request: Request, response: Response) -> bool:
        """Note an answer that is out; True when the connection goes on."""
        if self.records.of_each or response.status >= FAILED:
            self.records.note(connection, request.head, response.status, response.content_bytes)
        connection.answered += 1
        if response.close:
            self.holding.end(connection)
            return False
        return True

    # -- ways a step can end -------------------------------------------------------------------------

    def _wait(self, connection: Connection) -> None:
        """Wait in epoll for the next bytes, with the deadline that fits."""
        limits, now = self._limits, self._clock.now
        if (
            connection.head_of == -1
            and connection.reader is None
            and connection.request is None
            and connection.watched == _IN
            and connection.bucket
            and not self._leaving
        ):
            # Most wait so: between two requests, as before the last one, so the deadline only moves later.
            connection.deadline = now + limits.keep_alive
            connection.settled = self._settles and connection.counted is None
            return
        if self._paces is not None and (connection.request is not None or connection.begun):
            self._paces.watch(connection)
        if connection.request is not None:
            if connection.mark == 0:  # content: one budget for all of it, from its first wait on
                connection.mark = 1
                connection.deadline = now + limits.body_deadline
                connection.heard = connection.heard or now
                self.showing.content(connection)
        elif connection.begun:
            if connection.head_of != connection.answered:  # a head has begun: one budget for all of it
                connection.head_of = connection.answered
                connection.deadline = now + limits.head_deadline
            if not connection.heard:
                connection.heard = now
                self.showing.over(connection)
                self.showing.soon[connection] = None
        elif connection.answered:
            self.showing.over(connection)
            if self.draining:
                self.holding.close(connection)
                return
            if self._moving:
                self._return(connection)
                return
            full_way = connection.origin in self._others or (self._requests > 0 and self._is_last(connection))
            connection.reader = RequestReader(self._bounds) if full_way else None
            connection.head_of = self._between
            connection.mark = 0
            connection.deadline = now + limits.keep_alive
        elif self._moving:
            self._return(connection)
            return
        self._watch(connection, _IN)

    def _wants_content(self, connection: Connection, request: Request) -> bool:
        """See to a request that has content; False when it was answered before that is here."""
        connection.mark = 0
        if request.method not in _PATIENT and (request.expects_continue or self._is_large(request)):
            # RFC 9110 10.1.1: the final answer at once. Whether the content still comes is the client's choice, so
            # the next request could not be found: the connection ends.
            too_many = None if connection.counted is None else self._too_many(connection, request)
            if too_many is not None:
                # The end of it is not found here, so the connection ends whatever this answer says.
                too_many.close = True
                self._tally.memo_misses += 1
                self._send(connection, request, too_many)
                return False
            answer = self._others.get(connection.origin, self._sites).respond(request, False)
            if isinstance(answer, Pending):  # the error has a page of the site
                self._hand_over(connection, request, answer)
            else:
                self._tally.memo_misses += 1
                self._send(connection, request, answer)
            return False
        if request.expects_continue:
            try:
                connection.socket.send(CONTINUE, SEND)
            except OSError:
                self.holding.close(connection)
                return False
            self._tally.classes[1] += 1
        return True

    @staticmethod
    def _is_large(request: Request) -> bool:
        return request.chunked or request.length > RECV_BYTES

    def _hand_over(self, connection: Connection, request: Request, pending: Pending) -> None:
        """Let a follower do what may block; the connection is nobody's but its own meanwhile."""
        connection.phase = Phase.WORKING
        connection.request = request
        connection.began = connection.began or self._clock.now
        handed = time.monotonic()
        self.holding.unwatch(connection)
        self.holding.park(connection, self._clock.now + self._limits.send_stall)
        self.showing.working(connection)

        def then() -> None:
            if self.holding.was_closed(connection):
                return
            connection.phase = Phase.READING
            connection.request = None
            connection.worked += time.monotonic() - handed
            try:
                try:
                    answer = pending.finish()
                except MemoryError:
                    answer = self._without_memory(connection, request)
                if isinstance(answer, Pending):  # something else stands in for what is not there, and is on the disk
                    self._hand_over(connection, request, answer)
                else:
                    self._tally.apart += 1
                    self._tally.memo_misses += 1
                    goes_on = self._send(connection, request, answer, looked=False)
                    if connection.began and connection.outgoing is None:
                        self._took(connection)
                    if goes_on:
                        self.serve(connection)
                self._look_soon()
            except Exception:
                self.holding.close(connection)
                raise

        pending.begin(partial(self._start, connection.row), then)

    def _start(self, row: int, run: Callable[[], None], then: Callable[[], None]) -> None:
        self.jobs.append(Job(run, then, Work.ANSWERING, row))

    def _looked_again(self, look: LookAgain) -> None:
        """Take what was seen of a folder that nobody asked for."""
        look.finish()
        self._look_soon()

    def _look_soon(self) -> None:
        """Where a folder is missing, a release is being switched: do not serve the old one on for a second."""
        if self._sites.misses_root:
            self._tidy_at = min(self._tidy_at, self._clock.now + ROOT_MISSED_REST_S)

    def _send_on(self, connection: Connection, *, resume: bool = True) -> bool:
        """Go on sending; True when all is out and the connection goes on (then, to `resume`, it is served on)."""
        outgoing = connection.outgoing
        assert outgoing is not None
        before = outgoing.sent
        outcome = outgoing.advance(connection.socket)
        self._tally.bytes_sent += outgoing.sent - before
        return self._sent_on(connection, outgoing, outcome, resume=resume)

    def _sent_on(self, connection: Connection, outgoing: Outgoing, outcome: Outcome, *, resume: bool) -> bool:
        request, response = connection.request, outgoing.response
        assert request is not None
        if outcome is Outcome.DONE:
            connection.outgoing = connection.request = None
            connection.phase = Phase.READING
            goes_on = self._sent(connection, request, response)
            self._took(connection)
            if goes_on and resume:
                self.serve(connection)
            return goes_on
        if outcome in (Outcome.SOCKET, Outcome.TURN):
            if outgoing.sent - connection.mark >= STALL_BYTES:
                connection.mark = outgoing.sent
                connection.taken = outgoing.sent - untaken(connection.socket)
                connection.deadline = self._clock.now + self._limits.send_stall
            self.showing.sending(connection, outgoing.sent)
            if self._paces is not None:
                self._paces.watch(connection)
            self._watch(connection, _OUT)
        elif outcome is Outcome.DISK:
            self._hand_over_sending(connection, outgoing)
        else:
            if outcome in _SPOILT:
                log.warning(
                    "%s %s while it was sent, closing after %d of %d bytes",
                    request.target.decode("latin-1"), _SPOILT[outcome], outgoing.content_sent, response.content_bytes,
                )  # fmt: skip
            self.holding.close(connection)
        return False

    def _took(self, connection: Connection) -> None:
        """Note how long an answer took that was not out in the round that began it."""
        self._tally.took(max(0, time.monotonic_ns() - int(connection.began * NS_PER_S)))
        connection.began = connection.heard = connection.worked = connection.sending = 0.0
        self.showing.over(connection)

    @staticmethod
    def _takes(connection: Connection) -> bool:
        """Whether a client has taken enough since its deadline was set, out of a buffer that had no room for more.

        The kernel wakes us when a third of it is free, and it may hold megabytes: minutes for a slow reader.
        """
        assert connection.outgoing is not None
        taken = connection.outgoing.sent - untaken(connection.socket)
        if taken - connection.taken < STALL_BYTES:
            return False
        connection.taken = taken
        return True

    def _hand_over_sending(self, connection: Connection, outgoing: Outgoing) -> None:
        """Let a follower send one part of a file that has to be read from the disk first."""
        connection.phase = Phase.WORKING
        self.holding.unwatch(connection)
        self.holding.park(connection, self._clock.now + self._limits.send_stall)
        self.showing.working(connection)
        outcome = Outcome.GONE
        before, handed = outgoing.sent, time.monotonic()

        def run() -> None:
            nonlocal outcome
            outcome = outgoing.advance(connection.socket, may_block=True)

        def then() -> None:
            self._tally.bytes_sent += outgoing.sent - before
            if not self.holding.was_closed(connection):
                connection.phase = Phase.SENDING
                connection.worked += time.monotonic() - handed
                self._sent_on(connection, outgoing, outcome, resume=True)

        self.jobs.append(Job(run, then, Work.SENDING, connection.row))

    def _refuse(self, connection: Connection, status: int) -> None:
        """Answer what is no request, and end the connection: where the next one begins is not known."""
        response = error_response(status, date=imf_fixdate(self._clock.second), connection=lifecycle.CLOSE)
        if self._tracing is not None:
            head = b"" if connection.request is None else connection.request.head
            response = self._traced(connection, head, response, self._tracing)
        self._tally.requests += 1
        self._tally.memo_misses += 1
        self._tally.asked_by(b"" if connection.request is None else connection.request.method)
        self._tally.apart += 1  # it has no head, or no end of one, to be timed from
        self._tally.classes[status // 100] += 1
        reader = connection.reader
        if connection.request is not None:
            self.records.note(connection, connection.request.head, status, response.content_bytes, timed=False)
        else:
            head = b"" if reader is None else reader.pending[:TARGET_MAX_BYTES]
            self.records.note(connection, head, status, response.content_bytes, good=False, timed=False)
        try:
            self._tally.bytes_sent += connection.socket.send(response.wire, SEND)
        except OSError:
            self.holding.close(connection)
            return
        self.holding.linger(connection)

    def _return(self, connection: Connection) -> None:
        """Leave a connection of which nothing is here to others, if it can go over to them."""
        if connection.stays:
            self._stay(connection)
        else:
            self.holding.give_back(connection)

    def _stay(self, connection: Connection) -> None:
        """Let it have one more answer, which says that the connection ends, if a request comes soon."""
        connection.reader = connection.reader or RequestReader(
            self._bounds
        )  # the full way: in the memo is what goes on
        connection.deadline = min(connection.deadline, self._clock.now + DRAIN_GRACE_S)
        self._watch(connection, _IN)
