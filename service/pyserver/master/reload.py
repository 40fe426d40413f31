"""One reload after the other: who asked for it, until when it has to be decided, its rehearsal, and what is told.

Owns:    the connections of those who wait for the outcome, in both lives of the master; the rehearsal's process.
Never:   touches listeners, workers or the segment: master.succession does, between begin() and done() or failed().
Used by: master.main, which makes it; master.succession, master.stopping, master.standing.

Asked for again while one is under way, it is done once more afterwards: what was changed meanwhile may not be in it.
"""

import logging
import socket

from pyserver.ipc import control
from pyserver.limits import RELOAD_SHARE
from pyserver.master.handover import Handover
from pyserver.master.rehearsal import Rehearsal
from pyserver.sd.journal import NOTICE
from pyserver.sd.notify import Notifier

log = logging.getLogger("pyserver")


class Reload:
    """The reload that is wished for, under way, or was the last."""

    def __init__(self, notifier: Notifier, start_within: float, handed: Handover | None) -> None:
        self._notifier = notifier
        self._within = start_within * RELOAD_SHARE
        self._waiting: list[socket.socket] = []
        self._waiting_next: list[socket.socket] = []
        self._wished = False
        self.began = 0.0  # monotonic; 0: none is under way
        self.rehearsal: Rehearsal | None = None
        self.failure = ""  # why the last one failed
        if handed is not None:
            self.began, self._wished = handed.began, handed.again
            self._waiting = [socket.socket(fileno=each) for each in handed.waiting]
            self._waiting_next = [socket.socket(fileno=each) for each in handed.waiting_next]

    def wish(self, who: socket.socket | None = None) -> None:
        """Ask for a reload; `who` is answered when it is decided."""
        self._wished = True
        if who is not None:
            self._waiting_next.append(who)

    @property
    def due(self) -> bool:
        """Whether one shall begin."""
        return self._wished and not self.began

    @property
    def by(self) -> float:
        """When the one that is under way is decided at the latest, on the monotonic clock."""
        return self.began + self._within

    def begin(self, now: float) -> None:
        """Take up the wish."""
        self.began, self._wished = now, False
        self._waiting, self._waiting_next = self._waiting_next, []
        self._notifier.reloading("reloading")

    def rehearse(self, document: int) -> Rehearsal:
        """Start the rehearsal; raises OSError."""
        self.rehearsal = Rehearsal(document, self._within)
        return self.rehearsal

    def done(self, status: str, text: str) -> None:
        """Tell everybody that the new workers serve."""
        self.began, self.failure = 0.0, ""
        log.log(NOTICE, "%s", text)
        # systemd first: when its ExecReload= ends, it is to know already that we are ready.
        self._notifier.ready(status)
        self._answer(done=True, text=text)

    def failed(self, status: str, why: str) -> None:
        """Tell everybody that all is as it was."""
        self.began, self.failure = 0.0, why
        log.error("reload failed: %s", why)
        self._notifier.ready(f"{status}; reload failed: {why}")
        self._answer(done=False, text=why)

    def cancel(self, why: str) -> None:
        """End it, with all wishes, because the service ends."""
        if self.rehearsal is not None:
            self.rehearsal.kill()
        self._wished, self.began = False, 0.0
        self._waiting += self._waiting_next
        self._waiting_next = []
        self._answer(done=False, text=why)

    def handed(self) -> dict[str, list[int] | float | bool]:
        """Return what is to be handed over of it."""
        return {
            "began": self.began,
            "waiting": [each.fileno() for each in self._waiting],
            "waiting_next": [each.fileno() for each in self._waiting_next],
            "again": self._wished,
        }

    def forget(self) -> None:
        """Close everything: in a forked child, and at the end."""
        for connection in (*self._waiting, *self._waiting_next):
            connection.close()
        if self.rehearsal is not None:
            self.rehearsal.forget()

    def _answer(self, *, done: bool, text: str) -> None:
        for connection in self._waiting:
            control.answer(connection, done=done, text=text)
        self._waiting = []
