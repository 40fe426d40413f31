"""Answer one request as the server would, and keep what was decided on the way.

Owns:    nothing: it puts together what answers, with a Trace in it, and asks once.
Never:   decides anything by itself, sends, or leaves a file open.
Fails:   RootError (a root cannot be served).
Used by: cli, for `pyserver explain`.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from pyserver.clock import Clock
from pyserver.config import Config
from pyserver.handlers import router
from pyserver.handlers.static import Pending
from pyserver.handlers.trace import Step, Trace
from pyserver.http import lifecycle
from pyserver.http.dates import imf_fixdate
from pyserver.http.errors import ProtocolError
from pyserver.http.request import parse_head
from pyserver.http.response import Response, error_response
from pyserver.http.scanner import Bounds


class Explanation(NamedTuple):
    """An answer, and why it is this one."""

    steps: Sequence[Step]
    response: Response

    @property
    def head(self) -> bytes:
        """The head of the answer, with its empty line."""
        return self.response.wire[: self.response.wire.index(b"\r\n\r\n") + 4]


def explain(config: Config, head: bytes) -> Explanation:
    """Return the answer to a request whose head is `head`; content may follow, and is not looked at."""
    clock, trace = Clock(), Trace()
    submit = _declined if config.server.threads > 1 else None  # as in worker.main
    sites = router.build(config.sites, config.limits, clock, trace=trace, submit=submit)
    try:
        limits = config.limits
        request = parse_head(head, bounds=Bounds(limits.head_bytes, limits.target_bytes, limits.head_fields))
    except ProtocolError as error:
        trace.refused(error)
        date = imf_fixdate(clock.second)
        return Explanation(trace.steps, error_response(error.status, date=date, connection=lifecycle.CLOSE))
    answer = sites.respond(request, lifecycle.persistence(request, False))
    while isinstance(answer, Pending):
        answer.run()
        answer = answer.finish()
    return Explanation(trace.steps, answer)


def _declined(_run: Callable[[], None], _then: Callable[[], None]) -> bool:
    """Take no work: what would be made for later answers is told, and not made."""
    return False
