"""Signals become readable numbers: handlers note and wake, the loop acts.

Owns:    the wake-up pipe, and the dispositions of the signals it was given; close() puts all back.
Never:   logs, locks or decides inside a handler.
Used by: master.main.
"""

import os
import signal
from collections.abc import Iterable
from types import FrameType


def _noted(number: int, frame: FrameType | None) -> None:
    """Do nothing: the interpreter has already written the number to the wake-up descriptor."""


class Signals:
    """The signals of this process as a descriptor to poll and numbers to read (signal(7), set_wakeup_fd)."""

    def __init__(self, numbers: Iterable[int]) -> None:
        self._readable, self._writable = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before_fd = signal.set_wakeup_fd(self._writable, warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, _noted) for number in numbers}

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when a signal has arrived."""
        return self._readable

    def take(self) -> list[signal.Signals]:
        """Return the signals that arrived since the last call, oldest first; never blocks."""
        try:
            return [signal.Signals(number) for number in os.read(self._readable, 512)]
        except BlockingIOError:
            return []

    def forget(self) -> None:
        """Close the pipe and leave the dispositions: in a forked child, which has set its own."""
        os.close(self._readable)
        os.close(self._writable)

    def close(self, *, deaf: bool = False) -> None:
        """Restore what was in force before; or be deaf from now on, in a process that is about to exit.

        Otherwise a signal in its last moments would end it, and its exit status would tell of that.
        """
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_IGN if deaf else handler)
        signal.set_wakeup_fd(self._before_fd)
        os.close(self._readable)
        os.close(self._writable)
