"""What a test needs of processes: a child without rights or under a filter for good, and a count of descriptors.

Used by: tests of files and handlers, ipc.test_channel (the count). The superuser may read everything: what a closed
         file is to a client cannot be seen as root.
"""

import ctypes
import errno
import gc
import os
import traceback
from collections.abc import Callable
from pathlib import Path

_NOBODY = 65534

_SYS_OPENAT2 = 437
_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2
_SECCOMP_RET_ALLOW = 0x7FFF0000
_SECCOMP_RET_ERRNO = 0x00050000


def open_descriptors() -> set[int]:
    """Return all that are open, but the one that reads the folder, and what tests or tracebacks left in rings."""
    gc.collect()
    return {int(path.name) for path in Path("/proc/self/fd").iterdir() if path.exists()}


def in_child(body: Callable[[], None]) -> None:
    """Run `body` in a child process; fail with its traceback if it fails."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            body()
            status = 0
        except BaseException:  # noqa: BLE001  # the parent tells it
            os.write(writable, traceback.format_exc().encode()[-4000:])
        finally:
            os._exit(status)
    os.close(writable)
    with os.fdopen(readable, "rb") as report:
        told = report.read().decode()
    _, waited = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(waited) == 0, told


def as_nobody(body: Callable[[], None]) -> None:
    """Run `body` in a child process without the superuser's rights."""

    def dropped() -> None:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(_NOBODY)
            os.setuid(_NOBODY)
        body()

    in_child(dropped)


class _Instruction(ctypes.Structure):
    """struct sock_filter of linux/filter.h."""

    _fields_ = (("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    """struct sock_fprog of linux/filter.h."""

    _fields_ = (("len", ctypes.c_uint16), ("filter", ctypes.POINTER(_Instruction)))


def forbid_openat2(number: int) -> None:
    """Make openat2 fail with `number` in this process, as old kernels and containers do. For good: only in a child."""
    instructions = (_Instruction * 4)(
        _Instruction(0x20, 0, 0, 0),  # load the number of the system call
        _Instruction(0x15, 0, 1, _SYS_OPENAT2),
        _Instruction(0x06, 0, 0, _SECCOMP_RET_ERRNO | number),
        _Instruction(0x06, 0, 0, _SECCOMP_RET_ALLOW),
    )
    program = _Program(len(instructions), instructions)
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    for call in (
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0),
    ):
        if prctl(*call) != 0:
            raise OSError(ctypes.get_errno(), errno.errorcode[ctypes.get_errno()])
