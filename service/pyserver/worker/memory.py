"""How a worker's memory is laid out by the C library.

Never:   fails: where the C library has no such setting, memory is laid out as it likes.
Used by: worker.main, before there is a second thread.
"""

import ctypes
from typing import Final

_M_ARENA_MAX: Final = -8  # malloc.h of glibc


def keep_in_one_arena() -> None:
    """Let all threads allocate from the same arena (mallopt(3)).

    glibc gives threads arenas of their own, so that they need not wait for each other. Ours do not run at the same
    time, and what one of them frees is no use to another: answers that are renewed every second, by whichever thread
    leads, would take twice the memory.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none, nor arenas
    if set_option is not None:
        set_option(_M_ARENA_MAX, 1)
