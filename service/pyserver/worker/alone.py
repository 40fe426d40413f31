"""What a worker arranges for its threads while it has only one.

Never:   fails: what cannot be had is a matter of speed and size.
Used by: worker.main.
"""

import contextlib
import ctypes
import fcntl
import os
from typing import Final

# malloc.h of glibc
_M_TOP_PAD: Final = -2
_M_ARENA_MAX: Final = -8

_SPARE_BYTES: Final = 4 << 20
_PIECE_BYTES: Final = 100_000  # less than glibc takes for large


def share_one_arena() -> None:
    """Let all threads allocate from the same arena (mallopt(3)).

    glibc gives threads arenas of their own, so that they need not wait for each other. Ours do not run at the same
    time, and what one of them frees is no use to another: answers that are renewed every second, by whichever thread
    leads, would take twice the memory.

    What threads had of their own was also address space that they had not used yet. Where that is limited (LimitAS=),
    it is what small things are made of when there is no room for a large one, such as the answer that says so. So the
    arena has megabytes to spare, which are no memory before they are used, and what is large stays out of it: glibc
    keeps to its threshold for that (128 KiB) from here on.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none, nor arenas
    if set_option is not None:
        set_option(_M_ARENA_MAX, 1)
        set_option(_M_TOP_PAD, _SPARE_BYTES)
        _ = [bytes(_PIECE_BYTES) for _ in range(4)]  # more than is left of before: so it grows now


def make_room_for_descriptors(count: int, descriptor: int) -> None:
    """Let the kernel's table of our descriptors have room for so many now; `descriptor` is any that is open.

    It grows by doubling. When a process that has threads needs a larger one, the kernel makes it wait until no
    processor can be reading the old one any more (expand_fdtable(), an RCU grace period): 7 to 20 ms for the first
    client beyond 256, 512 and so on, and for all others with it.
    """
    with contextlib.suppress(OSError):
        os.close(fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, count - 1))
