"""Deadlines of many connections, cheap to move: buckets of time, looked at when their time comes.

Owns:    which connection is to be looked at when.
Never:   closes or answers anything; worker.connection decides what a passed deadline means.
Used by: worker.holding; worker.pace, for periods.

Moving a deadline later, which every answered request does, is one store into the connection: its bucket stays, and
when that comes, the connection is put into the bucket of its present deadline. So a connection is touched once per
period of waiting and not once per tick, and ten thousand idle ones cost next to nothing.
"""

from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

from pyserver.limits import PARKING_TICKS_PER_S


class Parked(Protocol):
    """What parking needs of a connection."""

    deadline: float  # on the monotonic clock, seconds
    bucket: int  # where it is enrolled; 0: nowhere


P = TypeVar("P", bound=Parked)


def _tick(now: float) -> int:
    return int(now * PARKING_TICKS_PER_S)


class Parking(Generic[P]):
    """All deadlines of a worker."""

    __slots__ = ("_buckets", "_swept")

    def __init__(self, now: float) -> None:
        self._buckets: dict[int, dict[P, None]] = {}
        self._swept = _tick(now)

    def put(self, connection: P) -> None:
        """See to it that a connection is looked at by its deadline, and not much later."""
        tick = max(_tick(connection.deadline), self._swept) + 1
        if connection.bucket:
            if connection.bucket <= tick:
                return
            self.remove(connection)
        self._buckets.setdefault(tick, {})[connection] = None
        connection.bucket = tick

    def remove(self, connection: P) -> None:
        """Forget a connection."""
        bucket = self._buckets.get(connection.bucket)
        if bucket is not None:
            bucket.pop(connection, None)
        connection.bucket = 0

    def due(self, now: float) -> list[P]:
        """Return the connections whose deadline has passed; the caller removes or moves each."""
        tick = _tick(now)
        if tick == self._swept:
            return []
        passed = []
        # After a suspended machine wakes there are more ticks than buckets.
        ticks = range(self._swept + 1, tick + 1)
        self._swept = tick
        for each in ticks if len(ticks) < len(self._buckets) else sorted(set(self._buckets).intersection(ticks)):
            for connection in self._buckets.pop(each, {}):
                connection.bucket = 0
                if connection.deadline <= now:
                    passed.append(connection)
                else:
                    self.put(connection)
        return passed

    def earliest(self) -> Iterator[P]:
        """Yield connections, those with the earliest buckets first."""
        for tick in sorted(self._buckets):
            yield from tuple(self._buckets.get(tick, ()))
