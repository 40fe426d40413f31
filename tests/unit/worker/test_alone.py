"""What a worker arranges before it has threads, seen in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

import pyserver

SERVICE: Final = str(Path(pyserver.__file__).parents[1])

_ARENAS: Final = """
import ctypes, sys, threading
from pyserver.worker.alone import share_one_arena

if sys.argv[1] == "shared":
    share_one_arena()
here, kept = threading.Barrier(5), []

def allocate():
    kept.append([bytearray(50_000) for _ in range(20)])
    here.wait()  # all of them at once, so that none takes over what another has left
    here.wait()

threads = [threading.Thread(target=allocate) for _ in range(4)]
for thread in threads:
    thread.start()
here.wait()
libc = ctypes.CDLL(None)
libc.fdopen.restype = ctypes.c_void_p
stream = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, stream)
libc.fflush(stream)
here.wait()
"""

_DESCRIPTORS: Final = """
import os, sys
from pathlib import Path
from pyserver.worker.alone import make_room_for_descriptors

before = sorted(os.listdir("/proc/self/fd"))
make_room_for_descriptors(int(sys.argv[1]), 0)
assert sorted(os.listdir("/proc/self/fd")) == before
print(*(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("FDSize:")))
"""


def said(script: str, argument: str) -> str:
    """What a process prints that runs this."""
    command = [sys.executable, "-c", script, argument]
    environ = {**os.environ, "PYTHONPATH": SERVICE}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True, timeout=30)
    return done.stdout


def test_all_threads_share_one_arena() -> None:
    if "<heap" not in said(_ARENAS, "own"):
        pytest.skip("this C library does not tell of arenas")
    assert said(_ARENAS, "own").count("<heap nr=") > 1
    assert said(_ARENAS, "shared").count("<heap nr=") == 1


@pytest.mark.parametrize("count", [16, 900])
def test_the_table_of_descriptors_has_room_before_they_are_there(count: int) -> None:
    """FDSize of proc(5)."""
    assert int(said(_DESCRIPTORS, str(count)).split()[1]) >= count


def test_more_descriptors_than_there_may_be_are_no_error() -> None:
    assert int(said(_DESCRIPTORS, str(1 << 30)).split()[1]) >= 64
