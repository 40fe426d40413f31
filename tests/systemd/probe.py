"""Try to get out of the sandbox that this runs in: prints a JSON object, what was tried and how it ended.

Used by: tests.systemd.test_walls, which runs it by a copy of pyserver.service that differs in the program alone.
"""

import ctypes
import errno
import json
import mmap
import os
import socket
from collections.abc import Callable
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWUSER = 0x10000000
ROOT = "/var/www/pyserver"


def execute(program: str) -> None:
    """Run a program; OSError when it cannot be."""
    pid = os.fork()
    if pid == 0:
        try:
            os.execv(program, [program, "-c", "exit 0"])
        except OSError as error:
            os._exit(error.errno or 255)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        raise OSError(status, os.strerror(status))


def libc(name: str, *arguments: object) -> None:
    """Call a function that returns -1 and sets errno."""
    if getattr(LIBC, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def read(path: str) -> None:
    os.read(os.open(path, os.O_RDONLY), 1)


def write(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))


def writable_code() -> None:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)


ATTEMPTS: dict[str, Callable[[], object]] = {
    "an INET socket": lambda: socket.socket(socket.AF_INET),
    "an INET6 socket": lambda: socket.socket(socket.AF_INET6),
    "a netlink socket": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "a packet socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
    "another program": lambda: execute("/bin/sh"),
    "a program of its own": lambda: execute(made("/tmp/program")),
    "a file in the root": lambda: write(f"{ROOT}/new"),
    "a file at the top": lambda: write("/new"),
    "a file in /run": lambda: write("/run/new"),
    "a file in /usr": lambda: write("/usr/new"),
    "a change of the configuration": lambda: write("/etc/pyserver/pyserver.toml"),
    "/etc/shadow": lambda: read("/etc/shadow"),
    "/etc/passwd": lambda: read("/etc/passwd"),
    "/home": lambda: list(Path("/home").iterdir()),
    "/root": lambda: list(Path("/root").iterdir()),
    "a process of another user": lambda: read("/proc/1/cmdline"),
    "a signal to it": lambda: os.kill(1, 0),
    "the kernel's log": lambda: read("/dev/kmsg"),
    "the kernel's settings": lambda: write("/proc/sys/kernel/domainname"),
    "another account": lambda: os.setuid(0),
    "a file for another account": lambda: os.chown(made("/tmp/file"), 0, 0),
    "a user namespace": lambda: libc("unshare", CLONE_NEWUSER),
    "a mount": lambda: libc("mount", b"none", b"/tmp", b"tmpfs", 0, None),
    "a device": lambda: os.mknod("/tmp/device", 0o020600, os.makedev(1, 3)),
    "the host's name": lambda: socket.sethostname("other"),
    "memory to write and to run": writable_code,
    "more priority": lambda: os.nice(-1),
    # What it must be able to do, or the rest proves nothing.
    "allowed: a file in its log folder": lambda: write("/var/log/pyserver/new"),
    "allowed: a file in /tmp": lambda: write("/tmp/new"),
    "allowed: shared memory": lambda: write("/dev/shm/probe"),
    "allowed: a page of the root": lambda: read(f"{ROOT}/index.html"),
    "allowed: its own /proc": lambda: read("/proc/self/status"),
}


def made(path: str) -> str:
    Path(path).write_text("#!/bin/sh\n")
    Path(path).chmod(0o700)
    return path


def outcome(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return "done"


if __name__ == "__main__":
    print(json.dumps({what: outcome(attempt) for what, attempt in ATTEMPTS.items()}), flush=True)
