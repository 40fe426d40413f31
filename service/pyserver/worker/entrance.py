"""What happens to a client before its first request: it is let in, asked by whom it comes, or refused.

Owns:    connections while they wait for the PROXY header of a trusted peer (Phase.GREETING), and the refusal of those
         that waited too long in the queue.
Never:   reads a byte of a request that will be served, or knows who serves it: it says whom it let in.
Fails:   never for what a client does.
Used by: worker.connection, where there is something to see to: most workers let everybody in.

Who waited too long is refused, whatever it wants. Then comes the PROXY header, which says who the client is, and then
the limits of that client (worker.admission).
"""

import select
import socket
from typing import Final

from pyserver.http import proxy
from pyserver.ipc.stats import Tally
from pyserver.limits import PROXY_HEADER_MAX_BYTES, RECV_BYTES, TARGET_MAX_BYTES
from pyserver.worker.admission import Admission
from pyserver.worker.client import Connection, Phase
from pyserver.worker.holding import Holding
from pyserver.worker.proxies import Proxies
from pyserver.worker.records import GONE, Records, peer_name
from pyserver.worker.shedding import Shedding
from pyserver.worker.transport import SEND

_DONTWAIT: Final = socket.MSG_DONTWAIT
_PEEK: Final = socket.MSG_DONTWAIT | socket.MSG_PEEK
_IN: Final = select.EPOLLIN


class Entrance:
    """That of one worker."""

    def __init__(
        self,
        holding: Holding,
        shedding: Shedding,
        tally: Tally,
        records: Records,
        admission: Admission | None,
        proxies: Proxies | None,
    ) -> None:
        self.guarded = admission is not None or proxies is not None  # so each client is looked at
        self.leaving = False  # the worker is: that a header does not come any more is nobody's fault
        self._holding = holding
        self._shedding = shedding
        self._tally = tally
        self._records = records
        self._admission = admission  # None: no client has limits
        self._proxies = proxies  # None: each peer is a client

    def lets_in(self, connection: Connection, *, parked: bool, overdue: bool) -> bool:
        """Tell whether a client that has come is served now; if not, it was refused, or greet() will tell.

        `parked`: another worker has let it in. `overdue`: it has waited too long.
        """
        if overdue:
            self._shed(connection)
            return False
        if self._proxies is not None and self._comes_by_proxy(connection, self._proxies, parked=parked):
            return self.greet(connection)
        return self._admits(connection, parked=parked)

    def greet(self, connection: Connection) -> bool:
        """Take the PROXY header of a trusted peer, and no byte of what follows; True when its client is served now."""
        via, client = connection.via, connection.socket
        if via is None:
            self._holding.close(connection)
            return False
        try:
            data = client.recv(PROXY_HEADER_MAX_BYTES, _PEEK)
            begun = via.received + data
            header = proxy.parse(begun)
            count = len(data) if header is None else header.length - len(via.received)
            taken = len(client.recv(count, _DONTWAIT)) if count else 0
        except BlockingIOError:
            self._holding.watch(connection, _IN)
            return False
        except OSError:
            self._holding.close(connection)
            return False
        except proxy.Malformed as error:
            self._close_without_header(connection, str(error))
            return False
        self._tally.bytes_received += taken
        if header is not None:
            via.greeted, via.received = True, b""
            connection.peer = header.client or connection.peer
            connection.phase = Phase.READING
            return self._admits(connection, parked=False)
        if data:
            via.received = begun
            self._holding.watch(connection, _IN)
        elif begun:
            self._close_without_header(connection, f"it ends after {len(begun)} bytes")
        else:  # it only looked whether somebody listens
            self._holding.close(connection)
        return False

    def too_late(self, connection: Connection) -> None:
        """End a connection whose PROXY header did not come by its deadline."""
        self._close_without_header(connection, "it did not come in time")

    # -- small steps -------------------------------------------------------------------------------

    @staticmethod
    def _comes_by_proxy(connection: Connection, proxies: Proxies, *, parked: bool) -> bool:
        """Tell whether a PROXY header has to come first, or nobody can say so any more: the peer is gone."""
        connection.peer = peer_name(connection.socket)
        if connection.peer == GONE:
            return True
        connection.via = proxies.via(connection.origin, connection.socket.family, connection.peer)
        if connection.via is not None and proxies.by_header and not parked:
            connection.phase = Phase.GREETING
            return True
        # On one that was served before, under a configuration in which this peer was a client, none comes any more.
        return False

    def _admits(self, connection: Connection, *, parked: bool) -> bool:
        """Tell whether the limits let a client in; close it if not."""
        if self._admission is None or self._admission.admit(connection, parked=parked):
            return True
        self._holding.close(connection)
        return False

    def _close_without_header(self, connection: Connection, why: str) -> None:
        assert self._proxies is not None
        if not self.leaving:
            self._proxies.complain(connection.peer, why)
        self._holding.close(connection)

    def _shed(self, connection: Connection) -> None:
        """Refuse a client that has waited too long, whatever it wants: the time is for those that still wait."""
        tally = self._tally
        tally.shed += 1
        try:
            data = connection.socket.recv(RECV_BYTES, _DONTWAIT)
        except BlockingIOError:
            data = b""
        except OSError:
            self._holding.close(connection)
            return
        response = self._shedding.answer(head_only=data.startswith(b"HEAD "))
        tally.bytes_received += len(data)
        tally.requests += 1
        tally.memo_misses += 1
        tally.apart += 1  # how long it took is in the queue's wait
        tally.classes[5] += 1
        tally.asked_by(data.partition(b" ")[0])
        head = data[:TARGET_MAX_BYTES]
        self._records.note(connection, head, response.status, response.content_bytes, good=False, timed=False)
        try:
            sent = connection.socket.send(response.wire, SEND)
        except OSError:
            self._holding.close(connection)
            return
        tally.bytes_sent += sent
        if data.endswith(b"\r\n\r\n"):  # all is read that will come: no reset can take the answer away
            self._holding.close(connection)
        else:
            self._holding.linger(connection)
