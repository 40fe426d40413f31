"""Give up, for this thread and all that it starts, most of the rights to files and sockets (landlock(7)).

Owns:    which rights those are, by what this kernel's Landlock knows; and which files a worker has to read at all.
Never:   takes a right back once given up: there is no way to. Restricts other threads: call it before there are any.
Fails:   Unavailable, with nothing changed, where the kernel has no Landlock or something forbids it.
Used by: worker.main (confine), sandbox (version), files.resolve (whether it is in the way).

A rule is about a folder, whatever its path becomes, and all that is or will be below it. A root of a site that is
switched by a link or by renaming is another folder afterwards, so what has to be readable is the folder above:
`homes_of` says which those are.
"""

import contextlib
import ctypes
import errno
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

# Linux 5.13 gave them the same numbers on every architecture.
_SYS_CREATE_RULESET: Final = 444
_SYS_ADD_RULE: Final = 445
_SYS_RESTRICT_SELF: Final = 446

# linux/landlock.h
_CREATE_RULESET_VERSION: Final = 1
_RULE_PATH_BENEATH: Final = 1
_EXECUTE: Final = 1 << 0
_WRITE_FILE: Final = 1 << 1
_READ_FILE: Final = 1 << 2
_READ_DIR: Final = 1 << 3
_MAKE_REG: Final = 1 << 8
_FILE_RIGHTS: Final = _EXECUTE | _WRITE_FILE | _READ_FILE  # what a rule about a file may name

# All rights to files, to TCP, and the scopes, that a version of the interface knows, by the first one that does. What
# is not named here, like a chmod or a connection to a socket that has a path, Landlock does not forbid.
_FILES: Final = ((5, (1 << 16) - 1), (3, (1 << 15) - 1), (2, (1 << 14) - 1), (1, (1 << 13) - 1))
_TCP: Final = ((4, 0b11), (1, 0))  # bind, connect
_SCOPES: Final = ((6, 0b11), (1, 0))  # abstract UNIX sockets and signals to those outside

_PR_SET_NO_NEW_PRIVS: Final = 38  # prctl(2)

# What the interpreter and the C library may read at any time: modules, libraries, the time zone.
_PUBLIC: Final = (
    *("/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib", "/lib64", "/etc/ld.so.cache"),
    *("/usr/share/zoneinfo", "/etc/localtime"),
)

_libc: Final = ctypes.CDLL(None, use_errno=True)


class Unavailable(Exception):
    """There is no Landlock here; the text says why."""


class _Ruleset(ctypes.Structure):
    """struct landlock_ruleset_attr."""

    _fields_ = (("files", ctypes.c_uint64), ("tcp", ctypes.c_uint64), ("scopes", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    """struct landlock_path_beneath_attr."""

    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def version() -> int:
    """Return the version of the kernel's interface; 0 where there is none."""
    try:
        return _call(_SYS_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_CREATE_RULESET_VERSION))
    except OSError:
        return 0


def confine(readable: Iterable[str], writable: Iterable[str]) -> int:
    """Keep only: to read below `readable` and what the interpreter needs, to write files below `writable`.

    Whatever is open already stays usable. Returns the version of the interface.
    """
    known = version()
    if not known:
        raise Unavailable("the kernel has no Landlock, or does not allow it")
    files, tcp, scopes = (next(value for since, value in table if known >= since) for table in (_FILES, _TCP, _SCOPES))
    try:
        ruleset = _Ruleset(files, tcp, scopes)
        # A kernel takes a structure that is longer than its own as long as the rest is zero.
        descriptor = _call(
            _SYS_CREATE_RULESET, ctypes.byref(ruleset), ctypes.c_size_t(ctypes.sizeof(ruleset)), ctypes.c_uint32(0)
        )
        try:
            for path in (*_PUBLIC, *_code(), *readable):
                _allow(descriptor, path, _READ_FILE | _READ_DIR)
            for path in writable:
                _allow(descriptor, path, _WRITE_FILE | _MAKE_REG)
            if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0:
                raise OSError(ctypes.get_errno(), "prctl")
            _call(_SYS_RESTRICT_SELF, descriptor, ctypes.c_uint32(0))
        finally:
            os.close(descriptor)
    except OSError as error:
        raise Unavailable(f"Landlock fails here: {os.strerror(error.errno or 0)}") from error
    return known


def _code() -> Iterator[str]:
    """Yield where modules are; not the folder that somebody started us in, if that is the top of all."""
    return (path for path in sys.path if path and os.path.realpath(path) != "/")


def _allow(ruleset: int, path: str, rights: int) -> None:
    """Add a rule about what is at the path, if anything is."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= _FILE_RIGHTS
        rule = _PathBeneath(rights, descriptor)
        _call(_SYS_ADD_RULE, ruleset, _RULE_PATH_BENEATH, ctypes.byref(rule), ctypes.c_uint32(0))
    finally:
        os.close(descriptor)


def _call(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


# -- which folders -------------------------------------------------------------------------------


def homes_of(root: str) -> Iterator[str]:
    """Yield the folders below which this root is, and will be after it was switched.

    They are the one above the root, by its path and by where that leads, and the one above whatever a link on the way
    leads to: with /srv/site/current/public, where current is a link to releases/42, also /srv/site/releases. Not the
    top of the file system, below which everything is: a folder right there is served as long as it stays that folder.
    """
    path = Path(os.path.abspath(root))  # noqa: PTH100  links are looked at below
    yield _above(path)
    yield _above(path.resolve())
    for part in path.parents:
        if part.is_symlink():
            yield _above(part)
            yield _above(part.resolve())


def homes_of_log(log: str) -> Iterator[str]:
    """Yield the folders in which this log will be made anew; the file itself where it is none that can be."""
    for path in (Path(os.path.abspath(log)), Path(log).resolve()):  # noqa: PTH100  the link, and where it leads
        regular = True
        with contextlib.suppress(OSError):
            regular = stat.S_ISREG(path.stat().st_mode)
        yield _above(path) if regular else str(path)


def _above(path: Path) -> str:
    return str(path if path.parent == Path("/") else path.parent)


def forbids_reading(folder: int) -> bool:
    """Tell whether this folder, open by O_PATH, may be read by its mode and yet not by us."""
    if not os.access(".", os.R_OK, dir_fd=folder, effective_ids=True):
        return False
    try:
        os.close(os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder))
    except OSError as error:
        return error.errno == errno.EACCES
    return False
