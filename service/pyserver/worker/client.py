"""One client of a worker: what is known of its connection, and what it waits for.

Owns:    the socket, and all that is remembered between two of its events.
Never:   does anything; worker.connection does, in the leader, with worker.entrance and worker.holding.
Used by: worker.connection, worker.entrance, worker.holding; worker.pool (Job); worker.records, worker.showing and
         worker.admission, which read it.
"""

import socket
from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

from pyserver.http.reader import RequestReader
from pyserver.http.request import Request
from pyserver.ipc.activity import Work
from pyserver.ipc.clients import Places
from pyserver.worker.pace import Pace
from pyserver.worker.proxies import Via
from pyserver.worker.transport import Outgoing


class Phase(IntEnum):
    """What a connection is waiting for."""

    READING = 0  # the next request, or the rest of it
    SENDING = 1  # room in the socket for the rest of an answer
    WORKING = 2  # a job of a follower; it is not in epoll meanwhile
    LINGERING = 3  # the client's end, after an answer that closes
    CLOSED = 4
    RETURNING = 5  # nothing here: others shall go on with it
    GREETING = 6  # the PROXY header of a trusted peer


class Job(NamedTuple):
    """Work that may block: `run` in any thread, then `then` in the leader."""

    run: Callable[[], None]
    then: Callable[[], None]
    work: Work = Work.OTHER  # what it is, for whoever looks
    row: int = 0  # of the request that it is for (ipc.activity)


class Connection:
    """One client."""

    __slots__ = (
        "answered",
        "began",
        "bucket",
        "counted",
        "deadline",
        "fd",
        "head_of",
        "heard",
        "identity",
        "lingered",
        "mark",
        "origin",
        "outgoing",
        "pace",
        "peer",
        "phase",
        "reader",
        "received",
        "request",
        "row",
        "sending",
        "settled",
        "socket",
        "taken",
        "unblocked",
        "via",
        "waited_ns",
        "watched",
        "worked",
    )

    def __init__(self, client: socket.socket, fd: int, deadline: float, origin: int = 0, waited_ns: int = 0) -> None:
        self.socket = client
        self.origin = origin  # index of its listener
        self.fd = fd
        self.reader: RequestReader | None = None  # of what has come in part, or of several requests at once
        self.phase = Phase.READING
        # It waits in epoll between two requests, and whatever is known may be sent to it as it is (worker.connection).
        self.settled = False
        self.watched = 0  # what epoll watches it for; 0: not registered
        self.deadline = deadline
        self.bucket = 0
        self.answered = 0  # requests
        # The deadline is that of a head, and does not move, as long as this equals `answered`; below 0: of another.
        self.head_of = 0
        self.request: Request | None = None  # whose content is being discarded, or whose answer is under way
        self.outgoing: Outgoing | None = None  # an answer that did not go out at once
        self.mark = 0  # outgoing.sent when the stall deadline was set
        self.taken = 0  # and how much of that the client had by then
        self.began = 0.0  # monotonic: an answer that outlasts its round, which is timed for itself; 0: none does
        self.heard = 0.0  # monotonic: when the request began to come whose end was waited for; 0: it came at once
        self.worked = 0.0  # seconds that followers had of it so far, and until one was free
        self.sending = 0.0  # monotonic: an answer did not go out at once, from then on, less what was `worked` before
        self.lingered = 0  # bytes thrown away while lingering
        self.unblocked = False  # the socket is in non-blocking mode
        self.peer = b""  # address, when somebody asked; that of the client whom a PROXY header named
        self.via: Via | None = None  # if the peer is a trusted proxy
        self.counted: Places | None = None  # where its client is, if it has limits
        self.waited_ns = waited_ns  # in the queue, from accept on
        self.row = 0  # where others see the request that is under way (ipc.activity); 0: in none
        self.identity = b""  # of the request whose answer is under way, if they have some
        self.received = 0  # bytes, of what came in part
        self.pace: Pace[Connection] | None = None  # how fast it is, once it was waited for, if there is a minimum

    @property
    def idle(self) -> bool:
        """Whether nothing of a request is here and nothing of an answer is left."""
        return self.phase is Phase.READING and self.request is None and not self.begun

    @property
    def owes(self) -> bool:
        """Whether it is the client's turn: to send the rest of a request, or to take the rest of an answer."""
        if self.phase is Phase.READING:
            return self.request is not None or self.begun
        return self.phase is Phase.SENDING

    @property
    def stays(self) -> bool:
        """Whether it cannot go over to another worker: its PROXY header, which says who the client is, would not."""
        return self.via is not None and self.via.greeted

    @property
    def begun(self) -> bool:
        """Whether a request or its content has begun and is not complete."""
        return self.reader is not None and self.reader.started
