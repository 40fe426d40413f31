"""Time as one round of a worker sees it: read once per round, the same for all that happens in it.

Owns:    the readings of the wall clock (whole seconds, the tick of caches and of Date) and of the monotonic clock.
Never:   formats; http.dates does.
Used by: worker (turns it), handlers (read it).
"""

import time


class Clock:
    """The readings of the current round."""

    __slots__ = ("now", "second")

    second: int  # wall clock, whole seconds since the epoch
    now: float  # CLOCK_MONOTONIC, seconds; for deadlines

    def __init__(self) -> None:
        self.turn()

    def turn(self) -> None:
        """Read both clocks again; called once a round."""
        self.second = int(time.time())
        self.now = time.monotonic()
