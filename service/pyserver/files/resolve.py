"""Open names below a root so that the kernel itself refuses every way out (openat2(2), RESOLVE_BENEATH).

Owns:    the descriptor of the root folder; OpenFile owns the descriptor it was built with.
Never:   checks a name and opens it afterwards, falls back to an open without RESOLVE_BENEATH, waits for a FIFO or a
         device, or waits for the disk where the caller said cached_only.
Fails:   RootError (the root is not usable, or this kernel cannot confine us), WouldBlock (only a thread that may wait
         can do this), OSError (STATUS_FOR_ERRNO tells what that is to a client).
Used by: files (opens, reads), handlers (a site's root; what an errno means to a client), worker.transport (in_memory,
         fd); worker.main, cli and compress (a root that is none).
"""

import contextlib
import ctypes
import errno
import os
import stat
import time
from pathlib import Path
from typing import Final, Literal, TypeAlias

from pyserver.files.owned import open_owned
from pyserver.landlock import forbids_reading
from pyserver.limits import RESIDENT_S

# Linux gave openat2 the same number on every architecture but alpha, which Python's wheels and Debian do not have.
_SYS_OPENAT2: Final = 437

# openat2(2), linux/openat2.h
_RESOLVE_NO_MAGICLINKS: Final = 0x02
_RESOLVE_NO_SYMLINKS: Final = 0x04
_RESOLVE_BENEATH: Final = 0x08
_RESOLVE_CACHED: Final = 0x20  # Linux 5.12

# O_NONBLOCK: a FIFO without a writer opens at once instead of holding the thread (T-6). O_NOCTTY: a terminal in the
# tree does not become ours. No O_NOATIME: it is EPERM for files of other owners.
_OPEN_FLAGS: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

# EAGAIN without RESOLVE_CACHED: a rename or mount elsewhere raced with a ".." on our way (openat2(2): try again), or
# somebody's lease on the file is being broken (fcntl(2); a Samba or NFS server gives it back within milliseconds).
_RETRY_AFTER_S: Final = (0, 0.001, 0.004, 0.016, 0.064)
_AGAIN: Final = frozenset((-errno.EAGAIN, -errno.EINTR))

# What a failed open or read is to a client (T-14). 404 where anything else would tell what exists outside the root
# (RFC 9110 15.5.4); 403 for what is inside and not ours to read; 503 for what passes; the rest is 500.
STATUS_FOR_ERRNO: Final = {
    errno.ENOENT: 404,
    errno.ENOTDIR: 404,  # "file/" is not "file"
    errno.EXDEV: 404,  # a link or ".." that leaves the root
    errno.ELOOP: 404,  # a ring of links, a magic link, or one that the policy does not follow
    errno.ENAMETOOLONG: 404,
    errno.EINVAL: 404,  # a name this file system cannot have (vfat, ntfs)
    errno.EILSEQ: 404,  # the same, where names must be UTF-8
    errno.ENXIO: 404,  # a socket, or a device without a driver
    errno.ENODEV: 404,
    errno.EISDIR: 404,
    errno.EACCES: 403,
    errno.EPERM: 403,
    errno.EMFILE: 503,
    errno.ENFILE: 503,
    errno.ENOMEM: 503,
    errno.EAGAIN: 503,
    errno.EBUSY: 503,  # changes faster than it can be read (files.look)
}


def status_for(error: OSError) -> int:
    """Return the status that answers `error`."""
    return STATUS_FOR_ERRNO.get(error.errno or 0, 500)


class RootError(Exception):
    """The root cannot be served: not a folder, not ours to search, or the kernel does not offer or allow openat2."""


class WouldBlock(Exception):
    """The disk is needed for this: repeat it without cached_only in a thread that may wait."""


class _OpenHow(ctypes.Structure):
    """struct open_how of linux/openat2.h."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_BENEATH: Final = _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS

# Which links are followed: all that stay in the root; those of the owner of their target (files.owned); none.
Links: TypeAlias = Literal["beneath", "owner", "none"]

_RESOLVE: Final = {
    "beneath": _BENEATH,
    "owner": _BENEATH | _RESOLVE_NO_SYMLINKS,  # at first; when there is a link after all, it is looked at
    "none": _BENEATH | _RESOLVE_NO_SYMLINKS,
}
_WAITING: Final = {links: _OpenHow(_OPEN_FLAGS, 0, resolve) for links, resolve in _RESOLVE.items()}
_AT_ONCE: Final = {links: _OpenHow(_OPEN_FLAGS, 0, resolve | _RESOLVE_CACHED) for links, resolve in _RESOLVE.items()}
_ROOT_FLAGS: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_ROOT_AT_ONCE: Final = _OpenHow(_ROOT_FLAGS, 0, _RESOLVE_CACHED)  # the administrator's own path may lead anywhere
_AT_FDCWD: Final = -100

_PROBE_WAITING: Final = _OpenHow(os.O_PATH | os.O_CLOEXEC, 0, _BENEATH)
_PROBE_AT_ONCE: Final = _OpenHow(os.O_PATH | os.O_CLOEXEC, 0, _BENEATH | _RESOLVE_CACHED)


def _openat2(folder: int, name: bytes, how: _OpenHow) -> int:
    """Return a descriptor, or the negated errno.

    Gives the interpreter lock up meanwhile: a virus scanner may hold up even an open from memory (fanotify(7)).
    """
    fd: int = _syscall(_SYS_OPENAT2, folder, name, how, ctypes.sizeof(how))
    return fd if fd >= 0 else -ctypes.get_errno()


def _open_no_link(folder: int, name: bytes, flags: int) -> int:
    """Open `name` in `folder`, also by O_PATH | O_NOFOLLOW a link itself, never what it leads to."""
    how = _OpenHow(flags, 0, _RESOLVE["none"])
    for rest in _RETRY_AFTER_S:
        time.sleep(rest)
        fd = _openat2(folder, name, how)
        if fd not in _AGAIN:
            break
    return fd


_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(_OpenHow), ctypes.c_size_t)
_syscall.restype = ctypes.c_long


class Root:
    """The folder that is served. Names are bytes, absolute in it (`/a/b`), cleaned by http.target.

    It stays the folder that it was when it was opened, whatever becomes of the path: files.generation looks again.
    """

    __slots__ = ("_at_once", "_cached", "_fd", "_waiting", "identity", "links", "path")

    def __init__(self, path: str | os.PathLike[str], links: Links = "beneath") -> None:
        self._fd = -1
        self.path = os.fspath(path)
        self.links = links
        self._waiting, self._at_once = _WAITING[links], _AT_ONCE[links]
        try:
            self._fd = os.open(self.path, _ROOT_FLAGS)
            # May we search it? Asked first, so that EACCES from the probe can only mean a filter.
            os.stat(".", dir_fd=self._fd)
            self.identity = _identity(self._fd)
        except OSError as error:
            self.close()  # now: whoever keeps the error keeps us
            raise RootError(f"root {self.path}: {error.strerror}") from error
        if forbids_reading(self._fd):
            self.close()
            raise RootError(f"root {self.path} leads to where this worker may not read (server.landlock); restart")
        self._cached = self._probe()

    def again(self, *, cached_only: bool) -> "Root":
        """Return the root that the path leads to now: this one, or another. Any thread may call it.

        Fails with RootError, or with cached_only, by which another one is never opened, with WouldBlock.
        """
        if cached_only:
            if self._leads_here_at_once():
                return self
            raise WouldBlock
        found = Root(self.path, self.links)
        return self if found.identity == self.identity else found

    def open(self, path: bytes, *, cached_only: bool) -> int:
        """Open `path` for reading and return its descriptor, which the caller owns.

        With cached_only the kernel does it from memory or not at all: WouldBlock. That is the answer also where links
        have to be looked at one by one.
        """
        name = path.removeprefix(b"/") or b"."
        if b"\0" in name:  # C would open the part before it (http.target has refused it already)
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        if cached_only and not self._cached:
            raise WouldBlock
        fd = _openat2(self._fd, name, self._at_once if cached_only else self._waiting)
        if fd in _AGAIN:
            fd = self._open_again(name, cached_only=cached_only)
        if fd == -errno.ELOOP and self.links == "owner":
            if cached_only:
                raise WouldBlock
            return open_owned(self._fd, name, _OPEN_FLAGS, _open_no_link)
        if fd < 0:
            raise OSError(-fd, os.strerror(-fd), path)
        return fd

    def holds(self, path: str | os.PathLike[str]) -> bool:
        """Tell whether `path` is the root or lies in it, by whatever name: a key or a log there is public (T-15)."""
        root = os.fstat(self._fd)
        real = Path(path).resolve()
        return any(folder.exists() and os.path.samestat(root, folder.stat()) for folder in (real, *real.parents))

    def close(self) -> None:
        """Give the root folder back; open files stay open."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        self.close()

    def _leads_here_at_once(self) -> bool:
        """Tell whether the path is known, from memory, to lead to this root still."""
        fd = _openat2(_AT_FDCWD, os.fsencode(self.path), _ROOT_AT_ONCE) if self._cached else -1
        if fd < 0:
            return False
        try:
            return _identity(fd) == self.identity
        except OSError:  # its file system is gone: whoever opens it anew says so
            return False
        finally:
            os.close(fd)

    def _open_again(self, name: bytes, *, cached_only: bool) -> int:
        if cached_only:
            raise WouldBlock
        fd = -errno.EAGAIN
        for rest in _RETRY_AFTER_S:
            time.sleep(rest)
            fd = _openat2(self._fd, name, self._waiting)
            if fd not in _AGAIN:
                break
        return fd

    def _probe(self) -> bool:
        """Make sure by real calls that openat2 confines us; return whether it knows RESOLVE_CACHED."""
        fd = _openat2(self._fd, b".", _PROBE_WAITING)
        if fd < 0:
            raise RootError(_REFUSALS.get(-fd, "openat2 fails here ({})").format(errno.errorcode.get(-fd, -fd)))
        os.close(fd)
        fd = _openat2(self._fd, b".", _PROBE_AT_ONCE)
        if fd >= 0:
            os.close(fd)
        return fd != -errno.EINVAL


_FORBIDDEN: Final = "a seccomp filter forbids openat2 ({}); allow it in SystemCallFilter= or in the container's profile"
_REFUSALS: Final = {
    errno.ENOSYS: "this kernel has no openat2 ({}), which keeps files outside the root inside; run Linux 5.6 or later",
    errno.EPERM: _FORBIDDEN,
    errno.EACCES: _FORBIDDEN,
}


# preadv2(2) with RWF_NOWAIT: it is on the disk; or this file system (tmpfs, many over the network) never says.
_CANNOT_TELL: Final = frozenset((errno.EAGAIN, errno.EOPNOTSUPP))


def _identity(fd: int) -> tuple[int, int]:
    """Return what tells an open file from all others that are."""
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


class OpenFile:
    """An open descriptor and what fstat(2) said of it. The descriptor is closed with the last reference.

    Several threads may read through it: every read names its offset.
    """

    __slots__ = (
        "_resident",
        "_resident_until",
        "changed_at",
        "fd",
        "is_directory",
        "is_regular",
        "modified_ns",
        "size",
        "stamp",
    )

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._resident = (0, -1)  # what was in memory, offset and count
        self._resident_until = 0.0  # monotonic: and is taken to be
        self._describe(os.fstat(fd))

    def refresh(self) -> bool:
        """Look at the same open file again; return whether it changed since the last time."""
        before = self.stamp
        self._describe(os.fstat(self.fd))
        return self.stamp != before

    def read_all(self, *, cached_only: bool) -> bytes:
        """Return the content, `size` bytes; less only if the file shrank (and never with cached_only: WouldBlock)."""
        return self._read_at_once() if cached_only else self._read_waiting()

    def in_memory(self, offset: int, count: int) -> bool:
        """Tell whether sendfile of this part need not wait for the disk, by its first and its last byte.

        What lies between can have been evicted, and then the leader waits for the disk once. That is rare: the kernel
        reads ahead and evicts in long runs, and a part is 1 MiB at most. To be certain would cost every part more than
        sending it: RWF_NOWAIT copies what it reads, mincore(2) wants a mapping (T-50), and cachestat(2) is there since
        Linux 6.5 only.
        """
        part, now = (offset, count), time.monotonic()
        if part == self._resident and now < self._resident_until:
            return True
        one = bytearray(1)
        try:
            os.preadv(self.fd, [one], offset, os.RWF_NOWAIT)
            os.preadv(self.fd, [one], offset + max(count, 1) - 1, os.RWF_NOWAIT)
        except OSError:  # _CANNOT_TELL, or what sendfile will say better
            return False
        self._resident, self._resident_until = part, now + RESIDENT_S
        return True

    def read_part(self, offset: int, count: int) -> bytes | None:
        """Return this part, or None when the disk is needed for it or the file ends before."""
        content = bytearray(count)
        try:
            got = os.preadv(self.fd, [content], offset, os.RWF_NOWAIT)
        except OSError:  # _CANNOT_TELL, or what the attempt to send it will say better
            return None
        return bytes(content) if got == count else None

    def overwritten(self, since: tuple[int, int, int, int, int]) -> bool:
        """Tell whether content was replaced in place since the stamp `since`. Any thread may call this.

        A file that is larger is taken for one that grew at its end, whose announced part is as it was: its time changes
        then as well, so what was rewritten and became larger cannot be told from it. Nor does the time of the inode
        count: it changes too when a deploy unlinks the file or gives it another mode.
        """
        _, _, size, modified_ns, _ = since
        found = os.fstat(self.fd)
        return found.st_size <= size and found.st_mtime_ns != modified_ns

    def close(self) -> None:
        """Close the descriptor now; again is harmless."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):  # of a disk that is gone (close(2)): it is closed
                os.close(fd)

    def __del__(self) -> None:
        self.close()

    def _describe(self, found: os.stat_result) -> None:
        kind = stat.S_IFMT(found.st_mode)
        self.is_regular = kind == stat.S_IFREG
        self.is_directory = kind == stat.S_IFDIR
        self.size = found.st_size
        self.modified_ns = found.st_mtime_ns
        self.changed_at = int(found.st_ctime)
        # What changes whenever the content may have changed.
        self.stamp = found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns

    def _read_at_once(self) -> bytes:
        content = bytearray(self.size)
        try:
            got = os.preadv(self.fd, [content], 0, os.RWF_NOWAIT)
        except OSError as error:
            if error.errno not in _CANNOT_TELL:
                raise
            raise WouldBlock from None
        if got < self.size:  # partly in memory, or shorter than it was; waiting will tell
            raise WouldBlock
        return bytes(content)

    def _read_waiting(self) -> bytes:
        content = os.pread(self.fd, self.size, 0)
        while len(content) < self.size:
            more = os.pread(self.fd, self.size - len(content), len(content))
            if not more:
                break
            content += more
        return content
