"""Requests that took longer than the option log.slow, each with where its time went.

Owns:    the bound on how many a second are told, and the count of what exceeded it.
Never:   blocks (sd.journal). Where the option is 0 there is none of these, and nothing is measured for it.
Used by: worker.main (makes it), worker.records (tells).

The times of a request add up to what it took: `queue`, which its connection waited for a worker, if it is the first on
it; `reading`, from its first bytes to the end of its head or content, where that had to be waited for; `working`, which
threads needed that read the disk for it, and until one was free; `sending`, from then on until the client had room for
the last byte; `serving`, all else: the worker had others to see to.
"""

import logging
from typing import Final, NamedTuple

from pyserver.clock import Clock
from pyserver.limits import SLOW_TOLD_PER_S
from pyserver.sd.journal import NOTICE
from pyserver.worker.accesslog import escape, first_line
from pyserver.worker.failures import asked

log = logging.getLogger("pyserver")

_US: Final = 1_000_000


class Times(NamedTuple):
    """Where the time of a request went; seconds."""

    queue: float
    reading: float
    working: float
    sending: float
    serving: float

    @property
    def longest(self) -> str:
        """The phase that most of it went into."""
        return max(self._fields, key=self._asdict().__getitem__)


class Slow:
    """The slow requests of one worker."""

    def __init__(self, slot: int, after_s: float, clock: Clock) -> None:
        self.after_s = after_s
        self._slot = slot
        self._clock = clock
        self._second = clock.second
        self._told = 0  # in that second
        self._left_out = 0

    # -- called by the leader ------------------------------------------------------------------

    def note(self, peer: bytes, head: bytes, status: int, content_bytes: int, times: Times) -> None:
        """Tell of a request, unless this second has its share. `head` is as for the access log."""
        self.turn()
        if self._told >= SLOW_TOLD_PER_S:
            self._left_out += 1
            return
        self._told += 1
        line = first_line(head)
        took, client = sum(times), escape(peer).decode("ascii")
        fields = {
            **asked(line, status, content_bytes),
            "CLIENT": client,
            "WORKER": self._slot,
            "DURATION_US": int(took * _US),
            "SLOW_PHASE": times.longest,
            **{f"{name.upper()}_US": int(value * _US) for name, value in times._asdict().items()},
        }
        each = ", ".join(f"{name} {value:.3f}" for name, value in times._asdict().items())
        request = escape(line).decode("ascii") or "-"
        log.log(
            NOTICE, "%s %s: status %d after %.3f s, most of it %s (%s)",
            client, request, status, took, times.longest, each, extra={"fields": fields},
        )  # fmt: skip

    def turn(self) -> None:
        """Begin a new second, if it is one, and tell what the last one left out."""
        if self._clock.second != self._second:
            self._second, self._told = self._clock.second, 0
            self.close()

    def close(self) -> None:
        """Tell what was left out since it was told last."""
        if self._left_out:
            left_out, self._left_out = self._left_out, 0
            log.warning(
                "%d slow requests more than %d a second are not here", left_out, SLOW_TOLD_PER_S,
                extra={"fields": {"LEFT_OUT": left_out, "WORKER": self._slot}},
            )  # fmt: skip
