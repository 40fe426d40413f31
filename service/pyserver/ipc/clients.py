"""What each client took lately, in memory that all workers of the server share: rates, and connections that are open.

Owns:    the table, its secret, and the two steps on it: a mark in time for a rate, a cell for what is open.
Never:   knows an address (a client is a hash of its own), grows, locks, or trusts what stands in it: a worker can be
         killed at any instruction (T-54), and one that was broken into can write anything here.
Used by: worker (decides by it), master.main (makes it), master.workers (clears what the dead held), ipc.assignment.

A client has two places of PLACES, by a hash with a secret of this start, and what is kept of it stands in both. Another
client may stand in one of them; the smaller of the two is believed (a count-min sketch). So nobody is taken for less
than it is, and for more only where each of its places is shared with somebody who is at the limit: with 100 of those
one client in 26,000, with 1,000 one in 270. Nobody can choose with whom.

A rate is one word in each place: when the next would be due if they came evenly (GCRA, the virtual scheduling of ITU-T
I.371). Who comes no more than the burst too early is granted, and moves it on by one store; who is refused moves
nothing. Two workers that do so in the same microsecond may store the same time: then each but one has granted one too
many. It is never one too few.

What is open is counted in cells of which each has one writer: a row for each worker slot. The master clears the row of
a worker that is gone, so nothing leaks, whatever way it went. Here too each worker but one may let in one too many,
when they look at the same time.

The memory is anonymous and of one crew of workers: after a reload the new ones begin with an empty table, and
connections that come over to them are counted there.
"""

import mmap
import os
from typing import Final, NamedTuple

from pyserver.digest import blake2b
from pyserver.limits import NS_PER_S

# A power of two. With it a table has 512 KiB, and 128 KiB more for each worker that runs.
PLACES: Final = 1 << 15

_WORD: Final = 8
_CELL: Final = 4
_CELL_MAX: Final = (1 << 8 * _CELL) - 1

# The words: how many rows are in use, then the places of each rate.
_ROWS: Final = 0
_RATES: Final = 8  # a cache line
CONNECTIONS: Final = _RATES
REQUESTS: Final = _RATES + PLACES
_WORDS: Final = _RATES + 2 * PLACES

# Clocks are read once a round: a time may be ahead of ours by the length of one. What is further ahead nobody wrote.
_AHEAD_NS: Final = NS_PER_S

Places = tuple[int, int]


class Rate(NamedTuple):
    """How often a client may come."""

    period_ns: int  # from one to the next
    early_ns: int  # how much before its time one may come

    @classmethod
    def of(cls, per_second: int, burst: int) -> "Rate":
        """Return the rate of so many a second, of which `burst` may come at once."""
        period_ns = NS_PER_S // per_second
        return cls(period_ns, (burst - 1) * period_ns)


class ClientTable:
    """All clients at once, in as many bytes as none."""

    def __init__(self, slots: int) -> None:
        """Make one for the master and the workers that it will fork; pages that nobody touches take no memory."""
        self._secret = os.urandom(16)
        size = _WORDS * _WORD
        self._map = mmap.mmap(-1, size + slots * PLACES * _CELL)
        whole = memoryview(self._map)
        self._words = whole[:size].cast("Q")
        self._cells = whole[size:].cast("I")
        whole.release()

    def close(self) -> None:
        """Unmap."""
        self._words.release()
        self._cells.release()
        self._map.close()

    def places(self, client: bytes) -> Places:
        """Return where a client stands."""
        number = int.from_bytes(blake2b(client, digest_size=8, key=self._secret).digest(), "little")
        return number % PLACES, (number >> 32) % PLACES

    # -- rates: called by the leader of any worker ---------------------------------------------

    def take(self, what: int, places: Places, now_ns: int, rate: Rate) -> int:
        """Grant one of `what` (CONNECTIONS, REQUESTS): 0; or return by how many nanoseconds it is too early."""
        words, first, second = self._words, what + places[0], what + places[1]
        most = now_ns + rate.early_ns + rate.period_ns + _AHEAD_NS
        one, other = words[first], words[second]
        if one > most:
            one = 0
        if other > most:
            other = 0
        due = max(now_ns, min(one, other))
        too_early = due - now_ns - rate.early_ns
        if too_early > 0:
            return too_early
        due += rate.period_ns
        if one < due:
            words[first] = due
        if other < due:
            words[second] = due
        return 0

    # -- what is open: called by the leader of the worker whose slot it is -----------------------

    def open_now(self, places: Places) -> int:
        """Return how many connections a client has open, in all workers together."""
        cells, first, second = self._cells, *places
        rows = range(0, min(self._words[_ROWS] * PLACES, len(cells)), PLACES)
        return min(sum(cells[row + first] for row in rows), sum(cells[row + second] for row in rows))

    def enter(self, slot: int, places: Places) -> None:
        """Count a connection of this worker."""
        for place in {*places}:
            at = slot * PLACES + place
            self._cells[at] = min(self._cells[at] + 1, _CELL_MAX)

    def leave(self, slot: int, places: Places) -> None:
        """Count it no more."""
        for place in {*places}:
            at = slot * PLACES + place
            self._cells[at] = max(self._cells[at] - 1, 0)

    # -- called by the master --------------------------------------------------------------------

    def clear(self, slot: int) -> None:
        """Before a worker is forked into a slot, and when it is gone: it has nothing open."""
        rows = max(self._words[_ROWS], slot + 1)
        if rows != self._words[_ROWS]:
            self._words[_ROWS] = rows
        at = slot * PLACES
        if any(self._cells[at : at + PLACES]):
            self._cells[at : at + PLACES] = memoryview(bytes(PLACES * _CELL)).cast("I")
