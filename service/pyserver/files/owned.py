"""Follow only links that belong to whom their target belongs to: the policy `owner`, walked name by name.

Owns:    the descriptors of the folders on the way, until the walk ends.
Never:   looks at a name twice and believes that it is the same both times: each name is opened once, in the folder
         that is held open, and asked by its descriptor whether it is a link, whose it is and where it leads. The file
         that is returned is the one that was asked.
Fails:   OSError: ELOOP for a link of another owner, EXDEV for one that leaves the root, EBUSY when the file is replaced
         faster than it can be opened; all others as open(2).
Used by: files.resolve, where the kernel has said that there is a link on the way.

What is guaranteed: for every link that was followed, the user that owned the link owned what it led to at that moment,
through all further links, or the walk failed; and no name was looked up outside the folders walked through, whatever
others rename meanwhile. (Apache's SymLinksIfOwnerMatch asks by name and opens by name afterwards, as its documentation
says itself.) What is not: that the path as a whole existed at one moment. A folder that is moved out of the root while
somebody walks in it is finished; a further request does not find it.
"""

import errno
import os
import stat
from collections.abc import Callable
from typing import Final, NamedTuple

from pyserver import limits

# (folder, name, flags) -> a descriptor or the negated errno; never follows a link, nor leaves the folder.
OpenAt = Callable[[int, bytes, int], int]

_LOOK: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC

# As path_resolution(7): beyond so many links it is a ring, or meant as one.
_LINKS_MAX: Final = 40

# A file that was replaced between our asking and our opening it is looked for again, so often.
_TRIES: Final = 3


class _Place(NamedTuple):
    """One name on the way that is no link, open."""

    fd: int
    name: bytes
    found: os.stat_result


def open_owned(root: int, path: bytes, flags: int, open_at: OpenAt) -> int:
    """Open `path`, relative to the folder `root`, with `flags`; the caller owns the descriptor."""
    for _ in range(_TRIES):
        way: list[_Place] = []
        try:
            _walk(root, path, way, open_at)
            fd = _open_last(root, way, flags, open_at)
        finally:
            for place in way:
                os.close(place.fd)
        if fd is not None:
            return fd
    raise _error(errno.EBUSY, path)


def _walk(root: int, path: bytes, way: list[_Place], open_at: OpenAt) -> None:
    """Go from `root` along `path`; what was passed and not left again by ".." is in `way`."""
    links = 0
    # What is still to be done, last first: names, and behind the names of each link the user that owns it.
    todo: list[bytes | int] = [*reversed(path.split(b"/"))]
    while todo:
        name = todo.pop()
        here = way[-1].found if way else os.fstat(root)
        if isinstance(name, int):
            if here.st_uid != name:
                raise _error(errno.ELOOP, path)
            continue
        if not stat.S_ISDIR(here.st_mode):
            raise _error(errno.ENOTDIR, path)
        if name in (b"", b"."):
            continue
        if name == b"..":
            if not way:
                raise _error(errno.EXDEV, path)
            os.close(way.pop().fd)
            continue
        if len(way) == limits.LINKED_FOLDERS_MAX:
            raise _error(errno.ENAMETOOLONG, path)
        fd = _checked(open_at(way[-1].fd if way else root, name, _LOOK), path)
        way.append(_Place(fd, name, os.fstat(fd)))
        if stat.S_ISLNK(way[-1].found.st_mode):
            link = way.pop()
            try:
                text = os.readlink(b"", dir_fd=link.fd)
            finally:
                os.close(link.fd)
            links += 1
            if links > _LINKS_MAX:
                raise _error(errno.ELOOP, path)
            if text.startswith(b"/"):
                raise _error(errno.EXDEV, path)  # as RESOLVE_BENEATH: a full path begins outside, wherever it ends
            todo += [link.found.st_uid, *reversed(text.split(b"/"))]


def _open_last(root: int, way: list[_Place], flags: int, open_at: OpenAt) -> int | None:
    """Open the end of `way` for reading; None when the name leads to something else by now."""
    if not way:
        return _checked(open_at(root, b".", flags), b"/")
    *_, last = way
    fd = open_at(way[-2].fd if len(way) > 1 else root, last.name, flags)
    if fd in (-errno.ENOENT, -errno.ELOOP):
        return None
    _checked(fd, last.name)
    if os.path.samestat(os.fstat(fd), last.found):
        return fd
    os.close(fd)
    return None


def _checked(fd: int, path: bytes) -> int:
    if fd < 0:
        raise _error(-fd, path)
    return fd


def _error(number: int, path: bytes) -> OSError:
    return OSError(number, os.strerror(number), path)
