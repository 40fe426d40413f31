"""The connections that a worker holds: what each waits for in epoll and until when, and the ways on which they leave.

Owns:    the table of open connections; the epoll registrations of clients and their deadlines.
Never:   reads a request or writes an answer, or decides that a connection ends: it knows no one above it.
Fails:   never for what a client does.
Used by: worker.connection, worker.entrance; worker.pool, which sends on what is `returning`. All of it in the leader.

There are three ways out. A connection is closed at once; it lingers, where a close could take the last answer away; or
it is given back to the master, for another worker to go on with.
"""

import select
import socket
from typing import Final

from pyserver.clock import Clock
from pyserver.limits import BATCH_MAX, LINGER_MAX_BYTES, LINGER_S, PARKING_TICKS_PER_S, RECV_BYTES
from pyserver.worker.admission import Admission
from pyserver.worker.client import Connection, Phase
from pyserver.worker.pace import Paces
from pyserver.worker.parking import Parking
from pyserver.worker.records import Records
from pyserver.worker.showing import Showing

_DONTWAIT: Final = socket.MSG_DONTWAIT
_IN: Final = select.EPOLLIN


class Holding:
    """All open connections of a worker."""

    __slots__ = (
        "_admission",
        "_capacity",
        "_clock",
        "_paces",
        "_parking",
        "_poll",
        "_records",
        "_showing",
        "returning",
        "table",
    )

    def __init__(
        self,
        poll: select.epoll,
        capacity: int,
        clock: Clock,
        records: Records,
        showing: Showing,
        admission: Admission | None,
        paces: Paces[Connection] | None,
    ) -> None:
        self.table: dict[int, Connection] = {}  # by descriptor
        self.returning: dict[Connection, None] = {}  # for worker.pool: on their way back to the master
        self._poll = poll
        self._capacity = capacity
        self._clock = clock
        self._records = records
        self._showing = showing
        self._admission = admission
        self._paces = paces
        self._parking: Parking[Connection] = Parking(clock.now)

    # -- waiting -----------------------------------------------------------------------------------

    def watch(self, connection: Connection, events: int) -> None:
        """Wait in epoll for these events, until the deadline that the connection has."""
        if connection.watched != events:
            if connection.watched:
                self._poll.modify(connection.fd, events)
            else:
                self._poll.register(connection.fd, events)
            connection.watched = events
        # A deadline that moved later needs nothing: its bucket comes first, and looks again (worker.parking).
        if not connection.bucket or connection.deadline * PARKING_TICKS_PER_S < connection.bucket - 1:
            self._parking.put(connection)

    def unwatch(self, connection: Connection) -> None:
        """Wait for nothing in epoll any more."""
        if connection.watched:
            self._poll.unregister(connection.fd)
            connection.watched = 0

    def park(self, connection: Connection, deadline: float) -> None:
        """See to it that a connection is `due` by then."""
        connection.deadline = deadline
        self._parking.put(connection)

    def due(self, now: float) -> list[Connection]:
        """Return the connections whose deadline has passed; the caller ends each, or parks it again."""
        return self._parking.due(now)

    # -- the ways out ------------------------------------------------------------------------------

    def end(self, connection: Connection) -> None:
        """Close after an answer that says so; linger where bytes of the client may still be coming."""
        if connection.request is not None or connection.begun:
            self.linger(connection)
        else:
            self.close(connection)

    def linger(self, connection: Connection) -> None:
        """Close our direction, and read on for a while: a close now could reset the answer away (RFC 9112 9.6)."""
        try:
            connection.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.close(connection)
            return
        connection.phase = Phase.LINGERING
        self._showing.over(connection)
        connection.deadline = self._clock.now + LINGER_S
        self.watch(connection, _IN)

    def linger_on(self, connection: Connection) -> None:
        """Throw away what came, and close when that was all, or too much."""
        try:
            count = len(connection.socket.recv(RECV_BYTES, _DONTWAIT))
        except BlockingIOError:
            return
        except OSError:
            count = 0
        connection.lingered += count
        if count == 0 or connection.lingered > LINGER_MAX_BYTES:
            self.close(connection)

    def close(self, connection: Connection) -> None:
        """Close at once."""
        if connection.phase is Phase.CLOSED:
            return
        outgoing, request = connection.outgoing, connection.request
        if outgoing is not None and request is not None:  # an answer that is cut short
            self._records.note(connection, request.head, outgoing.response.status, outgoing.content_sent)
        at_work = connection.phase is Phase.WORKING
        connection.phase = Phase.CLOSED
        if connection.bucket:
            self._parking.remove(connection)
        self.returning.pop(connection, None)
        self._showing.over(connection)
        del self.table[connection.fd]
        if connection.counted is not None:
            assert self._admission is not None
            self._admission.leave(connection.counted)
        if connection.pace is not None:
            assert self._paces is not None
            self._paces.forget(connection)
        if not at_work:  # a follower may be sending on it; see was_closed
            connection.socket.close()  # and with it, out of epoll

    @staticmethod
    def was_closed(connection: Connection) -> bool:
        """After a job: whether the connection was closed meanwhile, whose descriptor had to stay open for it."""
        if connection.phase is Phase.CLOSED:
            connection.socket.close()
            return True
        return False

    def give_back(self, connection: Connection) -> None:
        """Leave a connection of which nothing is here to others (worker.pool sends it)."""
        self.unwatch(connection)
        if connection.bucket:
            self._parking.remove(connection)
        connection.settled = False
        connection.phase = Phase.RETURNING
        self.returning[connection] = None

    def to_return(self) -> list[Connection]:
        """Return some that go back to the master together: of one listener."""
        batch: list[Connection] = []
        for connection in self.returning:
            if batch and connection.origin != batch[0].origin:
                break
            batch.append(connection)
            if len(batch) == BATCH_MAX:
                break
        return batch

    # -- room --------------------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        """Whether a further batch might not fit into our limit of open files."""
        return len(self.table) + BATCH_MAX > self._capacity

    def make_room(self) -> None:
        """Close the idle connections that would be closed first anyway, for one batch of new ones."""
        found = 0
        for connection in self._parking.earliest():
            if found == BATCH_MAX:
                return
            if connection.idle and connection.answered:
                self.close(connection)
                found += 1
