"""Signals become readable numbers: handlers note and wake, the loop acts.

Owns:    ORDERS, what an administrator may say; the wake-up pipe, and the dispositions of the signals it was given;
         close() puts all back.
Never:   logs, locks or decides inside a handler.
Used by: master.main, master.succession; cli (held_back).
"""

import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

ORDERS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


@contextmanager
def held_back(numbers: Iterable[int] = ORDERS) -> Iterator[None]:
    """Keep signals waiting until a Signals takes them up, or until the end of the block.

    During a start they would end us with something half made, or, as KeyboardInterrupt, be swallowed by an import.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _noted(number: int, frame: FrameType | None) -> None:
    """Do nothing: the interpreter has already written the number to the wake-up descriptor."""


class Signals:
    """The signals of this process as a descriptor to poll and numbers to read (signal(7), set_wakeup_fd)."""

    def __init__(self, numbers: Iterable[int]) -> None:
        self._readable, self._writable = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before_fd = signal.set_wakeup_fd(self._writable, warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, _noted) for number in numbers}
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._before)  # what held_back() kept arrives now

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
