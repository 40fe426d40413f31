"""Who has waited too long to be served, and what he hears: the option server.queue_wait.

Owns:    who that is, the answer that refuses it, and a line in the log for many of them.
Never:   closes or sends anything; worker.entrance does.
Used by: worker.connection (who), worker.entrance (what); worker.pool (while it takes nobody else).

When more clients come than can be served, those that are served first have waited longest, and leave just before
their turn, or just after: all the work is for nobody. So who waited for longer than the bound gets 503, which costs
little, until those are at their turn that have not.

Its wait begins with its accept, or before that, where the master had no room for it (master.acceptor). Those that came
together have one time for all of them, that of the oldest, so each is looked at for itself (backlog).
"""

import logging
from math import ceil, inf

from pyserver import backlog
from pyserver.clock import Clock
from pyserver.http import lifecycle
from pyserver.http.dates import imf_fixdate
from pyserver.http.fields import Lines
from pyserver.http.response import Response, error_response
from pyserver.limits import NS_PER_S, SHED_TOLD_S

log = logging.getLogger("pyserver")


class Shedding:
    """The bound of one worker."""

    def __init__(self, bound: float, clock: Clock) -> None:
        """Allow so many seconds; 0: any."""
        self.bound = bound or inf
        self.bound_ns = self.bound * NS_PER_S
        self._clock = clock
        self._second = -1  # of the answers
        self._answers: dict[bool, Response] = {}
        self._untold = 0  # clients that were refused since it was last told
        self._tell_at = clock.now

    def overdue(self, client: int) -> bool:
        """Tell whether a client has waited too long that came out of the queue with one that has, or is that."""
        alone = backlog.untouched(client)
        return alone is None or alone > self.bound

    def answer(self, *, head_only: bool) -> Response:
        """Return what refuses one more client."""
        self._untold += 1
        if self._second != self._clock.second:
            self._second = self._clock.second
            self._answers.clear()
        answer = self._answers.get(head_only)
        if answer is None:
            # By then everybody who waits now has been served or refused.
            after = Lines(b"Retry-After: %d\r\n" % max(1, ceil(self.bound)))
            answer = self._answers[head_only] = error_response(
                503,
                date=imf_fixdate(self._second),
                connection=lifecycle.CLOSE,
                head_only=head_only,
                fields=(after,),
            )
        return answer

    def turn(self) -> None:
        """Tell how many were refused, if it is time."""
        if self._untold and self._clock.now >= self._tell_at:
            log.warning("%d clients refused, which had waited for more than %g s", self._untold, self.bound)
            self._untold = 0
            self._tell_at = self._clock.now + SHED_TOLD_S
