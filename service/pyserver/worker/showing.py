"""Which requests others see (ipc.activity): those that are not answered within their round.

Owns:    who has begun to wait for its client and is not shown yet: most have what they wait for before that.
Never:   costs anything for a request that is answered at once.
Used by: worker.connection, worker.holding; worker.pool, which has `activity` for its threads.
"""

from pyserver.clock import Clock
from pyserver.ipc.activity import Activity, Phase
from pyserver.limits import NS_PER_S, SHOWN_AFTER_S
from pyserver.worker import client
from pyserver.worker.client import Connection
from pyserver.worker.records import Records


class Showing:
    """Of one worker."""

    __slots__ = ("_clock", "_records", "activity", "soon")

    def __init__(self, clock: Clock, records: Records) -> None:
        self._clock = clock
        self._records = records
        self.activity = Activity()
        self.soon: dict[Connection, None] = {}  # who waits for its client, in the order in which that began

    def show(self, connection: Connection, phase: Phase, since: float) -> None:
        """Let others see what a request waits for, since that moment of the monotonic clock."""
        self.soon.pop(connection, None)
        request, reader, outgoing = connection.request, connection.reader, connection.outgoing
        began, first = connection.heard or connection.began or self._clock.now, connection.answered == 0
        connection.row = self.activity.show(
            connection.row,
            phase,
            since_ns=int(since * NS_PER_S),
            began_ns=int(began * NS_PER_S),
            waited_ns=connection.waited_ns if first else 0,
            sent=0 if outgoing is None else outgoing.sent,
            all_of_it=0 if outgoing is None else outgoing.all_of_it,
            status=0 if outgoing is None else outgoing.response.status,
            number=connection.answered + 1,
            client=self._records.client_of(connection, None if request is None else request.head),
            head=request.head if request is not None else reader.pending if reader is not None else b"",
        )

    def content(self, connection: Connection) -> None:
        """Its client is to send the content of its request."""
        if connection.row:
            self.show(connection, Phase.CONTENT, self._clock.now)
        else:
            self.soon[connection] = None

    def sending(self, connection: Connection, sent: int) -> None:
        """Its client is to take the rest of its answer, of which so much is out."""
        if not connection.row:
            self.soon[connection] = None
        elif self.activity.phase(connection.row) is Phase.SENDING:
            self.activity.sent(connection.row, sent)
        else:
            self.show(connection, Phase.SENDING, self._clock.now)

    def working(self, connection: Connection) -> None:
        """A follower has it."""
        self.show(connection, Phase.WORKING, self._clock.now)

    def over(self, connection: Connection) -> None:
        """It waits for nothing any more."""
        if connection.row:
            self.activity.leave(connection.row)
            connection.row = 0
        elif self.soon:
            self.soon.pop(connection, None)

    def turn(self) -> None:
        """Show what waits for its client for longer than a moment."""
        if not self.soon:
            return
        latest = self._clock.now - SHOWN_AFTER_S
        for connection in tuple(self.soon):
            sending = connection.phase is client.Phase.SENDING
            since = connection.sending + connection.worked if sending else connection.heard
            if since > latest:
                return  # and so did those after it
            beginning = Phase.READING if connection.request is None else Phase.CONTENT
            self.show(connection, Phase.SENDING if sending else beginning, since)
