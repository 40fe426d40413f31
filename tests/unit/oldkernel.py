"""A kernel that does not know some options of sockets: for this process and its children, and for good.

A filter of seccomp(2) has getsockopt(2) fail as a kernel of before they were there does: ENOPROTOOPT. As a program it
becomes another one under such a kernel: oldkernel.py OPTION,... COMMAND...
"""

import ctypes
import errno
import os
import socket
import struct
import sys
from collections.abc import Iterable

_GETSOCKOPT = {"x86_64": 55}.get(os.uname().machine, 209)  # that of asm-generic/unistd.h

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _SECCOMP_MODE_FILTER = 22, 38, 2  # prctl(2)
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_LOAD, _EQUAL, _GIVE = 0x20, 0x15, 0x06  # BPF_LD | BPF_W | BPF_ABS; BPF_JMP | BPF_JEQ | BPF_K; BPF_RET | BPF_K
_NUMBER_AT, _LEVEL_AT, _OPTION_AT = 0, 24, 32  # struct seccomp_data; of an argument the lower half


def forget(options: Iterable[int]) -> None:
    """Know these options of SOL_SOCKET no more."""
    steps = []
    for option in options:
        steps += [
            (_LOAD, 0, 0, _NUMBER_AT),
            (_EQUAL, 0, 5, _GETSOCKOPT),
            (_LOAD, 0, 0, _LEVEL_AT),
            (_EQUAL, 0, 3, socket.SOL_SOCKET),
            (_LOAD, 0, 0, _OPTION_AT),
            (_EQUAL, 0, 1, option),
            (_GIVE, 0, 0, _ERRNO | errno.ENOPROTOOPT),
        ]
    steps.append((_GIVE, 0, 0, _ALLOW))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    for call in ((_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, program, 0, 0)):
        if prctl(*call) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    forget(map(int, sys.argv[1].split(",")))
    os.execv(sys.argv[2], sys.argv[2:])
