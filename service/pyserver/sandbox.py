"""Look at the sandbox that this process is in: which walls stand between it and the rest of the machine.

Owns:    the table of protections, each with the way to see that it is there.
Never:   changes anything, waits, or takes a unit's word for it: each is seen by what this process can do, or what the
         kernel says of it.
Fails:   never; what cannot be seen counts as off.
Used by: master.main (looks, and tells), ipc.observe (names).
"""

import errno
import mmap
import os
import re
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from pyserver import landlock


class Protection(NamedTuple):
    """One row: what is kept from the process, and how that is seen."""

    name: str
    text: str
    stands: Callable[[], bool]


def _status(field: str) -> str:
    """Return a field of /proc/self/status (proc(5))."""
    found = re.search(rf"^{field}:\s*(\S+)", Path("/proc/self/status").read_text(), re.MULTILINE)
    return found[1] if found else ""


def _no_capability() -> bool:
    return int(_status("CapEff"), 16) == int(_status("CapBnd"), 16) == 0


def _no_network() -> bool:
    interfaces = re.findall(r"^\s*(\S+):", Path("/proc/self/net/dev").read_text(), re.MULTILINE)
    return set(interfaces) <= {"lo"}


def _no_sockets() -> bool:
    try:
        socket.socket(socket.AF_INET).close()
    except OSError as error:
        return error.errno in (errno.EAFNOSUPPORT, errno.EPERM, errno.EACCES)
    return False


def _no_code_from_data() -> bool:
    try:
        mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()
    except OSError:
        return True
    return False


def _only_harmless_devices() -> bool:
    block_or_memory = re.compile(r"mem|kmem|port|kmsg|(?:sd|vd|nvme|dm-|loop)\w*\d?|rtc\d*|input|dri|tty\d+")
    return not any(block_or_memory.fullmatch(name) for name in os.listdir("/dev"))  # noqa: PTH208  names


# The order is that of the bits in the segment: new ones come last.
PROTECTIONS: Final = (
    Protection("account", "not root", lambda: os.geteuid() != 0),
    Protection("privileges", "none can be gained by executing a file", lambda: _status("NoNewPrivs") == "1"),
    Protection("capabilities", "none, and none to be had", _no_capability),
    Protection("system calls", "filtered", lambda: _status("Seccomp") == "2"),
    Protection("network", "no interface but its own loopback", _no_network),
    Protection("sockets", "none for the Internet can be made", _no_sockets),
    Protection("files", "the file system is read-only", lambda: bool(os.statvfs("/").f_flag & os.ST_RDONLY)),
    Protection("root", "its own, not the host's", lambda: not Path("/etc/passwd").exists()),
    Protection("homes", "of users are not to be seen", lambda: not os.access("/home", os.R_OK)),
    Protection("programs", "no shell that could be run", lambda: not os.access("/bin/sh", os.X_OK)),
    Protection("memory", "what was written cannot be run", _no_code_from_data),
    Protection("devices", "none but harmless ones", _only_harmless_devices),
    Protection("processes", "of others are not to be seen", lambda: os.getpid() != 1 and not Path("/proc/1").exists()),
    Protection("landlock", "workers keep only the rights to files that they need", lambda: landlock.version() > 0),
)


def look(*, with_landlock: bool) -> int:
    """Return what stands, a bit for each row of the table."""
    found = 0
    for bit, protection in enumerate(PROTECTIONS):
        if protection.name == "landlock" and not with_landlock:
            continue
        try:
            found |= protection.stands() << bit
        except (OSError, ValueError):
            continue
    return found


def by_name(found: int) -> dict[str, bool]:
    """Return which protections stand, of what look() found."""
    return {protection.name: bool(found >> bit & 1) for bit, protection in enumerate(PROTECTIONS)}


def told(stands: Mapping[str, bool]) -> str:
    """Return it as one line."""
    on, off = ([name for name in stands if stands[name] is wanted] for wanted in (True, False))
    return "; ".join(f"{word} {', '.join(which)}" for word, which in (("on:", on), ("off:", off)) if which)
