"""What the master waits for: descriptors with whoever reads them, and the time when it looks at all else.

Owns:    the epoll set, the table of readers.
Never:   reads a descriptor itself, or closes one that is not its own.
Used by: master.main, whose loop it turns; master.workers, master.succession, ipc.control (watch); master.acceptor
         registers the listeners by itself, as long as a client could be taken.
"""

import select
import time
from collections.abc import Callable


class PollSet:
    """The poll set of the one thread."""

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self.due = 0.0  # monotonic: when to attend to all that is not an event
        self._readers: dict[int, Callable[[], object]] = {}  # descriptor -> what to do when it is readable

    def turn(self) -> None:
        """Wait until something is readable or due, and let each that is readable be read."""
        for descriptor, _events in self.epoll.poll(max(0.0, self.due - time.monotonic())):
            reader = self._readers.get(descriptor)
            if reader is not None:  # it may have gone with an earlier event of this round
                reader()

    def soon(self) -> None:
        """Something happened that is not just a client: attend to all before the next wait."""
        self.due = 0.0

    def by(self, at: float) -> None:
        """Attend to all at `at`, if not earlier."""
        self.due = min(self.due, at)

    def watch(self, descriptor: int, reader: Callable[[], object]) -> None:
        """Call `reader` whenever the descriptor is readable."""
        self._readers[descriptor] = reader
        self.epoll.register(descriptor, select.EPOLLIN)

    def expect(self, descriptor: int, reader: Callable[[], object]) -> None:
        """Call `reader` whenever the descriptor is readable, while somebody else has it registered."""
        self._readers[descriptor] = reader

    def watches(self, descriptor: int) -> bool:
        """Tell whether the descriptor has a reader."""
        return descriptor in self._readers

    def unwatch(self, descriptor: int) -> None:
        """Look at the descriptor no more; it is open still."""
        if self._readers.pop(descriptor, None) is not None:
            self.epoll.unregister(descriptor)

    def gone(self, descriptor: int) -> None:
        """Drop a descriptor that was closed, and with that has left the set."""
        del self._readers[descriptor]

    def close(self) -> None:
        """Give the set up; what was in it stays open."""
        self.epoll.close()
