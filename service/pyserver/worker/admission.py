"""Whether a client may have one more connection or request: the options of [clients], applied.

Owns:    who counts as one client, who is exempt, and what is said of a refusal: counted each time, logged once per
         client and period.
Never:   answers or closes: worker.connection and worker.entrance do.
Used by: worker.main (makes one if any limit is set), worker.entrance (asks before it lets one in), worker.connection
         (before it answers one), worker.holding (tells who left).

The client of a connection is its peer, or whom a trusted proxy names: once, or in each request another one.
One client is an IPv4 address, or the /64 of an IPv6 address, which is what a subscriber has at least (RFC 6177) and
can move about in. Peers on UNIX sockets have no address: they are exempt, as are the networks that the option names.
"""

import ipaddress
import logging
import socket
from typing import Final, TypeAlias

from pyserver.clock import Clock
from pyserver.config import Clients
from pyserver.ipc import clients
from pyserver.ipc.clients import ClientTable, Places, Rate
from pyserver.ipc.stats import Tally
from pyserver.limits import CLIENTS_TOLD_MAX, CLIENTS_TOLD_S, NS_PER_S
from pyserver.worker.client import Connection
from pyserver.worker.proxies import Proxies

log = logging.getLogger("pyserver")

# Stands for where a client is counted, where each request of a connection has another one.
EACH_REQUEST: Final[Places] = (-1, -1)

_V4_IN_V6: Final = bytes(10) + b"\xff\xff"  # RFC 4291 2.5.5.2: how a dual-stack listener sees IPv4

# Who asks: a connection of its own, or whom a proxy named, as what it is known by.
Who: TypeAlias = socket.socket | bytes


class Admission:
    """The limits of one worker's clients."""

    def __init__(
        self,
        options: Clients,
        table: ClientTable,
        slot: int,
        clock: Clock,
        tally: Tally,
        proxies: Proxies | None = None,
    ) -> None:
        self._proxies = proxies  # None: each peer is a client
        self._table = table
        self._slot = slot
        self._clock = clock
        self._tally = tally
        self._dry = options.dry_run
        self._connections = options.connections
        self._connection_rate = _rate(options.connection_rate, options.connection_burst)
        self._request_rate = _rate(options.request_rate, options.request_burst)
        self._connection_limits = (
            f"more than {options.connections} connections",
            f"more than {options.connection_rate} connections a second",
        )
        self._request_limit = f"more than {options.request_rate} requests a second"
        self._exempt = [_Network(text) for text in options.exempt]
        self._told: set[bytes] = set()  # clients, in this period
        self._told_until = clock.now + CLIENTS_TOLD_S
        self._untold = 0  # refusals of clients that were not told of

    # -- called by the leader, of a connection -------------------------------------------------

    def admit(self, connection: Connection, *, parked: bool) -> bool:
        """Tell whether a client may have this connection, and count it if so. One that another worker let in stays."""
        client: Who = connection.socket
        if connection.via is not None:
            assert self._proxies is not None
            if self._proxies.by_field:
                connection.counted = EACH_REQUEST
                return True
            connection.via.key = key_of_name(connection.peer)
            if connection.via.key is None:
                return True
            client = connection.via.key
        places = self.places_of(client)
        if places is None:
            return True
        if parked:
            self.keep(places)
        elif not self.enter(places, client):
            return False
        connection.counted = places
        return True

    def asks(self, connection: Connection, head: bytes) -> int:
        """Return 0 if a request of a counted connection is answered, else after how many seconds its client may ask."""
        client: Who = connection.socket
        places = connection.counted
        if connection.via is not None:
            if places is EACH_REQUEST:
                assert self._proxies is not None
                connection.via.key = key_of_name(self._proxies.client(head, connection.peer))
                places = None if connection.via.key is None else self.places_of(connection.via.key)
            client = connection.via.key or client
        return 0 if places is None else self.request(places, client)

    # -- of a client -------------------------------------------------------------------------------

    def places_of(self, client: Who) -> Places | None:
        """Return where a client is counted; None: it is exempt, or gone already."""
        key = client if isinstance(client, bytes) else key_of(client)
        if key is None or any(network.has(key) for network in self._exempt):
            return None
        return self._table.places(key)

    def enter(self, places: Places, client: Who) -> bool:
        """Tell whether a client may have one more connection, and count it if so."""
        if self._connections and self._table.open_now(places) >= self._connections:
            self._tally.limited_open += 1
            if self._refuse(client, self._connection_limits[0]):
                return False
        elif self._connection_rate is not None and self._take(clients.CONNECTIONS, places, self._connection_rate):
            self._tally.limited_connections += 1
            if self._refuse(client, self._connection_limits[1]):
                return False
        self.keep(places)
        return True

    def keep(self, places: Places) -> None:
        """Count a connection that was let in before."""
        self._table.enter(self._slot, places)

    def leave(self, places: Places) -> None:
        """Count a connection no more, if it was."""
        if places is not EACH_REQUEST:
            self._table.leave(self._slot, places)

    def request(self, places: Places, client: Who) -> int:
        """Return 0 if a client may have a request answered, else after how many seconds it may come again."""
        if self._request_rate is None:
            return 0
        too_early = self._take(clients.REQUESTS, places, self._request_rate)
        if not too_early:
            return 0
        self._tally.limited_requests += 1
        return -(-too_early // NS_PER_S) if self._refuse(client, self._request_limit) else 0

    def turn(self) -> None:
        """Begin a new period of the log, if it is time, and tell what the last one left out."""
        if self._clock.now < self._told_until:
            return
        if self._untold:
            log.warning("%d refusals of further clients by the limits of [clients]", self._untold)
        self._told.clear()
        self._told_until, self._untold = self._clock.now + CLIENTS_TOLD_S, 0

    # -- small steps -------------------------------------------------------------------------------

    def _take(self, what: int, places: Places, rate: Rate) -> int:
        return self._table.take(what, places, int(self._clock.now * NS_PER_S), rate)

    def _refuse(self, client: Who, why: str) -> bool:
        """Say so, once for each client in a period; tell whether to do it."""
        key = client if isinstance(client, bytes) else key_of(client) or b""
        if key not in self._told:
            if len(self._told) < CLIENTS_TOLD_MAX:
                self._told.add(key)
                what = "would be refused (dry run)" if self._dry else "refused"
                log.warning("client %s wants %s, %s", named(key), why, what)
            else:
                self._untold += 1
        return not self._dry


class _Network:
    """A network whose clients are exempt."""

    def __init__(self, text: str) -> None:
        network = ipaddress.ip_network(text)
        # A client of IPv6 is known by the first half of its address.
        self._bytes = 4 if network.version == 4 else 8
        bits = min(network.prefixlen, 8 * self._bytes)
        self._shift = 8 * self._bytes - bits
        self._prefix = int.from_bytes(network.network_address.packed[: self._bytes], "big") >> self._shift

    def has(self, key: bytes) -> bool:
        return len(key) == self._bytes and int.from_bytes(key, "big") >> self._shift == self._prefix


def _rate(per_second: int, burst: int) -> Rate | None:
    return Rate.of(per_second, burst) if per_second else None


def key_of(client: socket.socket) -> bytes | None:
    """Return what a connection's client is known by: the address, of IPv6 the first half; None if it has none."""
    if client.family == socket.AF_UNIX:
        return None
    try:
        address = client.getpeername()
    except OSError:
        return None
    return key_of_address(str(address[0]))


def key_of_name(name: bytes) -> bytes | None:
    """Return what a client is known by whose name in a log this is; None if that is no address."""
    return None if name in (b"unix:", b"-") else key_of_address(name.decode("ascii"))


def key_of_address(host: str) -> bytes:
    """Return what the client of an address is known by."""
    if ":" not in host:
        return socket.inet_pton(socket.AF_INET, host)
    packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    return packed[12:] if packed.startswith(_V4_IN_V6) else packed[:8]


def named(key: bytes) -> str:
    """Return how a log names a client."""
    if len(key) == 4:
        return socket.inet_ntop(socket.AF_INET, key)
    return f"{socket.inet_ntop(socket.AF_INET6, key + bytes(8))}/64" if key else "that is gone"
