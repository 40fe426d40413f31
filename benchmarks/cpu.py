"""What a tree of processes has cost: CPU time to the nanosecond, and memory.

Owns:    nothing.
Never:   counts ticks: the kernel keeps a clock of each process (clock_getcpuclockid(3)) that holds user and
         system time of all its threads, also of those that have ended.
Fails:   Vanished, when a process that was counted is gone: its CPU can no longer be known.
Used by: benchmarks.measure, benchmarks.extras.
"""

import ctypes
import os
import time
from collections.abc import Iterable
from pathlib import Path

_libc = ctypes.CDLL(None)


class Vanished(Exception):
    """A process that was counted has ended."""


def parent_of(stat: str) -> int:
    """Return the parent's id out of /proc/PID/stat, whose second field may hold any character."""
    return int(stat.rpartition(")")[2].split()[1])


def family(root: int, parents: dict[int, int]) -> list[int]:
    """Return a process and all that descend from it, given each one's parent."""
    found = [root]
    for ancestor in found:
        found.extend(pid for pid, parent in parents.items() if parent == ancestor)
    return found


def tree(root: int) -> list[int]:
    """Return a running process and all that descend from it."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parents[int(folder.name)] = parent_of((folder / "stat").read_text(errors="replace"))
            except OSError:  # it ended meanwhile
                continue
    return family(root, parents)


def seconds_of(pids: Iterable[int]) -> float:
    """Return the CPU time, user and system, that these processes have used since they began."""
    return sum(_nanoseconds(pid) for pid in pids) / 1e9


def _nanoseconds(pid: int) -> int:
    clock = ctypes.c_int()
    error = _libc.clock_getcpuclockid(pid, ctypes.byref(clock))
    if error:
        raise Vanished(f"process {pid}: {os.strerror(error)}")
    try:
        return time.clock_gettime_ns(clock.value)
    except OSError as gone:
        raise Vanished(f"process {pid}: {gone.strerror}") from None


def proportional_kib(smaps_rollup: str) -> int:
    """Return the PSS out of /proc/PID/smaps_rollup: own memory, and a share of what several processes map."""
    for line in smaps_rollup.splitlines():
        name, _, value = line.partition(":")
        if name == "Pss":
            return int(value.split()[0])
    raise ValueError("no Pss in it")


def memory_kib(pids: Iterable[int]) -> int:
    """Return the PSS of these processes together."""
    return sum(proportional_kib(Path(f"/proc/{pid}/smaps_rollup").read_text()) for pid in pids)
