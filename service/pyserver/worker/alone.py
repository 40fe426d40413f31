"""What a worker arranges for its threads while it has only one.

Never:   fails: what cannot be had is a matter of speed and size.
Used by: worker.main.
"""

import contextlib
import ctypes
import fcntl
import os
from typing import Final

_M_ARENA_MAX: Final = -8  # malloc.h of glibc


def share_one_arena() -> None:
    """Let all threads allocate from the same arena (mallopt(3)).

    glibc gives threads arenas of their own, so that they need not wait for each other. Ours do not run at the same
    time, and what one of them frees is no use to another: answers that are renewed every second, by whichever thread
    leads, would take twice the memory.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none, nor arenas
    if set_option is not None:
        set_option(_M_ARENA_MAX, 1)


def make_room_for_descriptors(count: int, descriptor: int) -> None:
    """Let the kernel's table of our descriptors have room for so many now; `descriptor` is any that is open.

    It grows by doubling. When a process that has threads needs a larger one, the kernel makes it wait until no
    processor can be reading the old one any more (expand_fdtable(), an RCU grace period): 7 to 20 ms for the first
    client beyond 256, 512 and so on, and for all others with it.
    """
    with contextlib.suppress(OSError):
        os.close(fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, count - 1))
