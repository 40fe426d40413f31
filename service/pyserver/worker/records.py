"""What is written down of each answer: in the access log, in the journal if it failed, and apart if it took long.

Owns:    who is named as the client, and from when to when a request is timed.
Never:   blocks; each of the three bounds what it takes, and tells what it left out.
Used by: worker.main (makes it), worker.connection, worker.entrance and worker.holding, for every answer that ends;
         worker.showing (names of peers).
"""

import socket
import time
from typing import Final

from pyserver.clock import Clock
from pyserver.http import proxy
from pyserver.limits import NS_PER_S
from pyserver.worker.accesslog import AccessLog, Details
from pyserver.worker.client import Connection
from pyserver.worker.failures import FAILED, Failures
from pyserver.worker.proxies import Proxies
from pyserver.worker.slow import Slow, Times

GONE: Final = b"-"  # the name of a peer that nobody can tell any more


class Records:
    """The records of one worker's answers; None of the four: there is no such thing."""

    def __init__(
        self,
        clock: Clock,
        access: AccessLog | None = None,
        failures: Failures | None = None,
        slow: Slow | None = None,
        proxies: Proxies | None = None,
    ) -> None:
        self._clock = clock
        self._access = access
        self._failures = failures
        self._slow = slow
        self._proxies = proxies
        self.of_each = access is not None or slow is not None  # answer, and not only of those that failed
        # Nothing but its client, its head and what it was answered stands in the record of one that did not fail.
        self.are_brief = slow is None and proxies is None and (access is None or not access.detailed)

    def turn(self) -> None:
        """Another second has begun."""
        if self._failures is not None:
            self._failures.turn()
        if self._slow is not None:
            self._slow.turn()

    def brief(self, client: socket.socket, head: bytes, status: int, content_bytes: int) -> None:
        """Write down an answer to one that never became a Connection, while they `are_brief`."""
        if self._access is not None:
            self._access.record(peer_name(client), head, status, content_bytes)

    def note(
        self,
        connection: Connection,
        head: bytes,
        status: int,
        content_bytes: int,
        *,
        good: bool = True,
        timed: bool = True,
    ) -> None:
        """Write an answer down.

        `good`: the head is one, so what it says of its client counts. `timed`: it is that of a whole request.
        """
        access, failures = self._access, self._failures if status >= FAILED else None
        times = None if self._slow is None else self._times(connection, self._slow.after_s)
        if access is None and failures is None and times is None:
            return
        peer = self.client_of(connection, head if good else None)
        if access is not None:
            access.record(
                peer, head, status, content_bytes, self._details(connection, timed) if access.detailed else None
            )
        if failures is not None:
            failures.note(
                peer,
                head,
                status,
                content_bytes,
                request_id=connection.identity,
                duration_us=self._duration_ns(connection) // 1000,
                queue_us=None if connection.answered else connection.waited_ns // 1000,
            )
        if times is not None:
            assert self._slow is not None
            self._slow.note(peer, head, status, content_bytes, times)

    def client_of(self, connection: Connection, head: bytes | None) -> bytes:
        """Return the name of who asked, as far as a trusted proxy tells; None: no good head says it."""
        if not connection.peer:
            connection.peer = peer_name(connection.socket)
        if head is None or connection.via is None:
            return connection.peer
        assert self._proxies is not None
        return self._proxies.client(head, connection.peer) if self._proxies.by_field else connection.peer

    def _details(self, connection: Connection, timed: bool) -> Details:  # noqa: FBT001
        duration_ns = self._duration_ns(connection) if timed else None
        return Details(duration_ns, None if connection.answered else connection.waited_ns, connection.identity)

    def _duration_ns(self, connection: Connection) -> int:
        """Return how long a request took, from the end of its head on, or from its beginning if it had no end."""
        began = connection.began or connection.heard or self._clock.now
        return max(0, time.monotonic_ns() - int(began * NS_PER_S))

    def _times(self, connection: Connection, after_s: float) -> Times | None:
        """Return where the time of a request went that took so long; None if it did not."""
        now, began = time.monotonic(), connection.began or self._clock.now
        queue = 0.0 if connection.answered else connection.waited_ns / NS_PER_S
        heard = connection.heard or began
        took = queue + now - heard
        if took < after_s:
            return None
        sending = max(0.0, now - connection.worked - connection.sending) if connection.sending else 0.0
        known = Times(queue, max(0.0, began - heard), connection.worked, sending, 0.0)
        return known._replace(serving=max(0.0, took - sum(known)))


def peer_name(client: socket.socket) -> bytes:
    """Return a client's address for a log: without port, IPv4 as such also on a dual-stack listener."""
    try:
        address = client.getpeername()
    except OSError:
        return GONE
    if client.family == socket.AF_UNIX:
        return proxy.UNIX
    host = str(address[0])
    return host.removeprefix("::ffff:").encode() if "." in host else host.encode()
