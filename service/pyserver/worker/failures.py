"""Failed requests as records of the journal, so many a second: `journalctl -u pyserver HTTP_STATUS=404`.

Owns:    this worker's share of the records that a second may have, and the count of what exceeded it.
Never:   blocks (sd.journal), is asked for answers below 400: those cost nothing here, and are in the access log.
Used by: worker.main (makes it), worker.records (notes), worker.connection (from which status on), worker.slow (asked).
"""

import logging
from typing import Final

from pyserver.clock import Clock
from pyserver.http.headers import field
from pyserver.worker.accesslog import escape, first_line

log = logging.getLogger("pyserver")

# From here on an answer says that the request failed.
FAILED: Final = 400

# Fields of a request that say where it came from; a record has those that the client sent.
_FIELDS: Final = {"HTTP_HOST": b"host", "HTTP_REFERER": b"referer", "HTTP_USER_AGENT": b"user-agent"}


def share_of(per_second: int, workers: int, slot: int) -> int:
    """Return how many of the service's records are this worker's: no less than one, if there shall be any."""
    if not per_second:
        return 0
    return max(1, per_second // workers + (slot % workers < per_second % workers))


def asked(line: bytes, status: int, content_bytes: int) -> dict[str, object]:
    """Return the fields of a record about a request whose head begins with this line."""
    method, _, target = line.rpartition(b" ")[0].partition(b" ")
    return {
        "HTTP_METHOD": escape(method),
        "HTTP_PATH": escape(target.partition(b"?")[0]),
        "HTTP_STATUS": status,
        "HTTP_BYTES": content_bytes,
    }


class Failures:
    """The records of one worker."""

    def __init__(self, slot: int, share: int, clock: Clock) -> None:
        self._slot = slot
        self._share = share  # of a second
        self._clock = clock
        self._second = clock.second
        self._noted = 0  # in that second
        self._left_out = 0

    # -- called by the leader ------------------------------------------------------------------

    def note(
        self,
        peer: bytes,
        head: bytes,
        status: int,
        content_bytes: int,
        *,
        request_id: bytes = b"",
        duration_us: int | None = None,
        queue_us: int | None = None,
    ) -> None:
        """Write a record, unless this second has its share. `head` is as for the access log."""
        self.turn()
        if self._noted >= self._share:
            self._left_out += 1
            return
        self._noted += 1
        line = first_line(head)
        fields = asked(line, status, content_bytes)
        fields |= {"CLIENT": peer, "WORKER": self._slot, "DURATION_US": duration_us, "QUEUE_US": queue_us}
        if request_id:
            fields["REQUEST_ID"] = request_id
        if len(line) < len(head):
            fields |= {name: escape(value) for name, of in _FIELDS.items() if (value := field(head, of))}
        level = logging.WARNING if status >= 500 else logging.INFO
        text = escape(line).decode("ascii") or "-"
        log.log(level, "%s: status %d", text, status, extra={"fields": fields})

    def turn(self) -> None:
        """Begin a new second, if it is one, and tell what the last one left out."""
        if self._clock.second == self._second:
            return
        self._second, self._noted = self._clock.second, 0
        if self._left_out:
            left_out, self._left_out = self._left_out, 0
            log.warning(
                "%d failed requests more than log.journal_requests are not here", left_out,
                extra={"fields": {"LEFT_OUT": left_out, "WORKER": self._slot}},
            )  # fmt: skip
