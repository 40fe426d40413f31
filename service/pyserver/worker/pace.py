"""Clients that send or take fewer bytes than they must: the options limits.receive_rate and limits.send_rate.

Owns:    what each client that is waited for had sent or taken when its period began, and the ends of these periods.
Never:   ends anything, or looks at a client that is not waited for: who is quick enough never gets here.
Used by: worker.connection (tells whom it waits for; asks between two rounds who was too slow); worker.holding,
         worker.client.

A period has as many bytes to it as the rate says; who moves fewer in one is too slow. It begins anew with each request
and each answer. Time in which the client waits for us does not count: while a follower reads the disk for it, or when
it has all that was sent.
"""

import socket as sockets
from collections.abc import Iterator
from typing import Any, Generic, Protocol, TypeVar

from pyserver.clock import Clock
from pyserver.config import Limits
from pyserver.worker.parking import Parking
from pyserver.worker.transport import Outgoing, untaken


class Waited(Protocol):
    """What is needed of a connection."""

    socket: sockets.socket
    answered: int  # requests
    received: int  # bytes
    outgoing: Outgoing | None  # an answer that is under way
    pace: "Pace[Any] | None"

    @property
    def owes(self) -> bool:
        """Whether it is the client's turn: to send the rest of a request, or to take the rest of an answer."""


W = TypeVar("W", bound=Waited)


class Pace(Generic[W]):
    """One client that is waited for."""

    __slots__ = ("bucket", "client", "deadline", "moved", "of")

    def __init__(self, client: W) -> None:
        self.client = client
        self.bucket = 0
        self.deadline = 0.0  # end of the period
        self.moved = 0  # bytes, when it began
        self.of = _of(client)


class Paces(Generic[W]):
    """All of a worker's."""

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self._clock = clock
        self._period = limits.rate_period
        self._to_receive = int(limits.receive_rate * limits.rate_period)
        self._to_send = int(limits.send_rate * limits.rate_period)
        self._parking: Parking[Pace[W]] = Parking(clock.now)

    def watch(self, client: W) -> None:
        """See how fast a client is from now on, unless that is done already."""
        pace = client.pace
        if pace is None:
            client.pace = pace = Pace(client)
        elif pace.of == _of(client):
            return
        self._begin(pace)

    def forget(self, client: W) -> None:
        """Look at a client no more."""
        if client.pace is not None:
            self._parking.remove(client.pace)
            client.pace = None

    def too_slow(self, now: float) -> Iterator[W]:
        """Yield the clients whose period is over and had fewer bytes than it must; the caller ends them."""
        for pace in self._parking.due(now):
            client = pace.client
            if pace.of == _of(client) and client.owes:
                at_least = self._to_receive if client.outgoing is None else self._to_send
                if _moved(client) - pace.moved < at_least and (client.outgoing is None or untaken(client.socket)):
                    client.pace = None
                    yield client
                    continue
            elif client.outgoing is None and not client.owes:
                client.pace = None
                continue
            self._begin(pace)

    def _begin(self, pace: Pace[W]) -> None:
        pace.of, pace.moved = _of(pace.client), _moved(pace.client)
        pace.deadline = self._clock.now + self._period
        self._parking.put(pace)


def _of(client: Waited) -> tuple[int, bool]:
    """Return which request, and which half of its exchange, a client is at."""
    return client.answered, client.outgoing is not None


def _moved(client: Waited) -> int:
    """Return the bytes that it has sent, or taken of what is under way."""
    if client.outgoing is None:
        return client.received
    return client.outgoing.sent - untaken(client.socket)
