"""How things stand, in one line for systemd, told when it changes.

Owns:    the line that was told last; the count of requests that its rate is taken from.
Never:   tells anything before the service is ready, or more often than it is asked to.
Used by: master.main, master.succession.
"""

from pyserver.ipc.queue import Queue
from pyserver.limits import TICK_S
from pyserver.master.reload import Reload
from pyserver.master.workers import Workers
from pyserver.sd.notify import Notifier


class Standing:
    """The line."""

    def __init__(self, queue: Queue, workers: Workers, reload: Reload, notifier: Notifier) -> None:
        self._queue = queue
        self._workers = workers
        self._reload = reload
        self._notifier = notifier
        self.ready = False  # READY=1 was said
        self.requests = 0  # at the last line
        self._told = ""
        self._told_at = 0.0

    def tell_ready(self, now: float) -> None:
        """Say that the service serves."""
        self.ready = True
        self._told, self._told_at = self.line(), now
        self._notifier.ready(self._told)

    def tell(self, now: float) -> None:
        """Tell how things stand, if it is time and they changed."""
        elapsed = now - self._told_at
        if not self.ready or elapsed < TICK_S:
            return
        line = self.line(elapsed)
        if line != self._told and self._notifier.status(line):
            self._told = line
        self._told_at = now

    def told_otherwise(self, now: float) -> None:
        """Somebody else told systemd something: the next line is news in any case."""
        self._told, self._told_at = "", now

    def line(self, elapsed: float = 0.0) -> str:
        """Return the line; `elapsed` is the time since the last one, by which the rate of requests goes."""
        totals = self._queue.totals()
        requests, self.requests = totals["requests"] - self.requests, totals["requests"]
        rate = requests / elapsed if elapsed > 0 else 0.0
        crew = self._workers.of(self._workers.crew)
        line = (
            f"serving {sum(place.serves for place in crew)}/{len(crew)} workers, {rate:.0f} req/s, "
            f"{totals['connections_open']} open, queue {self._queue.depth}"
        )
        return f"{line}; reload failed: {self._reload.failure}" if self._reload.failure else line
