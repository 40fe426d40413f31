"""The one way in which tests wait for a thing to happen: they ask for it until it has.

Used by: tests of all kinds, which have it from here, or from what they drive (harness, processes, machine).
"""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T], within: float = 10.0, why: str = "") -> T:
    """Return what `condition` returns as soon as it is true; the only polling there is."""
    began = time.monotonic()
    while True:
        found = condition()
        if found:
            return found
        waited = time.monotonic() - began
        if waited > within:
            raise AssertionError(f"not within {within} s: {why or condition}")
        time.sleep(min(max(waited / 10, 0.0005), 0.01))  # a tenth too late at most, and no core is spent on long waits
