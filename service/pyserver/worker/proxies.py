"""Which peers are proxies that are trusted, and who the client behind one is: the options of [proxies], applied.

Owns:    the trusted networks and listeners; what is said in the log of proxies that do not say who their client is.
Never:   believes a peer that is not named there (T-41); closes anything: worker.entrance does.
Used by: worker.main (makes one if any peer is trusted), worker.connection, worker.entrance, worker.admission,
         worker.records; worker.client (Via).

There are two ways. A PROXY header says once, before all else, who the client of the whole connection is; that is kept
with the connection. A field says so in each request; it is read when somebody wants to know, a limit or a log, out of
the bytes of the head, and nothing of it is kept but a pure function's results. So the memo (handlers.memo) goes on to
answer by the bytes of the head alone, in both ways: the client is not among what it returns.
"""

import ipaddress
import logging
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Final

from pyserver.clock import Clock
from pyserver.config import Proxies as Options
from pyserver.http import forwarded
from pyserver.http.headers import joined
from pyserver.http.proxy import UNIX
from pyserver.ipc.assignment import ADMIN, Origin
from pyserver.limits import FORWARDED_KEPT_MAX, FORWARDED_MAX_BYTES, PROXY_TOLD_S

log = logging.getLogger("pyserver")

_Hops = Callable[[bytes], Iterator[bytes | None]]

_FIELDS: Final[Mapping[str, tuple[bytes, _Hops]]] = {
    "forwarded": (b"forwarded", forwarded.hops_of_forwarded),
    "x-forwarded-for": (b"x-forwarded-for", forwarded.hops_of_x_forwarded_for),
}


class Via:
    """A connection that a trusted proxy made."""

    __slots__ = ("greeted", "key", "received")

    def __init__(self) -> None:
        self.received = b""  # of its PROXY header, as long as that is not complete
        self.greeted = False  # that was read: who the client is, only this process knows
        self.key: bytes | None = None  # what worker.admission knows by whom a header named


class Proxies:
    """The trusted peers of one worker."""

    def __init__(self, options: Options, origins: Sequence[Origin], clock: Clock) -> None:
        self._clock = clock
        networks = [text for text in options.trusted if not text.startswith("unix:")]
        listeners = {text.removeprefix("unix:") for text in options.trusted if text.startswith("unix:")}
        self._networks = [ipaddress.ip_network(text) for text in networks]
        self._trusted_at = [
            origin.family == socket.AF_UNIX and origin.name in listeners and origin.name != ADMIN for origin in origins
        ]
        self.by_header = options.protocol == "proxy"
        field, hops = _FIELDS.get(options.protocol, (b"", None))
        self._field = field
        # A method's cache would be one of all instances; and who is trusted belongs to this one.
        self.trusts = lru_cache(maxsize=FORWARDED_KEPT_MAX)(self._is_trusted)
        self._client = lru_cache(maxsize=FORWARDED_KEPT_MAX)(self._walk)
        self._hops = hops
        self._told_at = -PROXY_TOLD_S
        self._untold = 0

    # -- called by the leader ------------------------------------------------------------------

    @property
    def by_field(self) -> bool:
        """Whether each request says who its client is."""
        return self._hops is not None

    def via(self, origin: int, family: int, peer: bytes) -> Via | None:
        """Return what is kept of a connection whose peer is trusted; None: the peer is a client as others are."""
        trusted = self._trusted_at[origin] if family == socket.AF_UNIX else self.trusts(peer)
        return Via() if trusted else None

    def client(self, head: bytes, peer: bytes) -> bytes:
        """Return the address of the client of a whole good head that a trusted peer sent."""
        value = joined(head, self._field)
        if value is None:
            return peer
        # Of what is longer only the end counts, and who sends it ever longer is not to fill the cache's memory.
        return self._client(value[-FORWARDED_MAX_BYTES - 1 :], peer)

    def complain(self, peer: bytes, why: str) -> None:
        """Tell of a PROXY header that did not come as it should, once in a while."""
        if self._clock.now - self._told_at < PROXY_TOLD_S:
            self._untold += 1
            return
        more = f"; {self._untold} more like it since the last such line" if self._untold else ""
        log.warning("%s sent no PROXY header: %s, closed%s", peer.decode("ascii", "replace"), why, more)
        self._told_at, self._untold = self._clock.now, 0

    # -- small steps -------------------------------------------------------------------------------

    def _walk(self, value: bytes, peer: bytes) -> bytes:
        assert self._hops is not None
        return forwarded.client(self._hops(value), peer, self.trusts)

    def _is_trusted(self, host: bytes) -> bool:
        if host == UNIX:
            return False
        try:
            address = ipaddress.ip_address(host.partition(b"%")[0].decode("ascii"))
        except ValueError:  # of a peer that is gone
            return False
        return any(address in network for network in self._networks)
