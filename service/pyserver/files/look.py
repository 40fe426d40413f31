"""Look at what a path names: a file, the index of a folder, or what should be asked for instead.

Owns:    the descriptors it opens, until they are handed over in Found or closed with their last reference.
Never:   knows HTTP or a cache; keeps a name that it has not opened.
Fails:   WouldBlock (with cached_only), OSError (resolve.STATUS_FOR_ERRNO).
Used by: handlers.static: by the leader with cached_only, by any thread without.
"""

import errno
import os
from typing import Final, NamedTuple

from pyserver import limits
from pyserver.files.policy import hidden
from pyserver.files.resolve import OpenFile, Root, status_for

# A file that changed between our looking at it and our having read it is read again, so often. Then it is 503: it
# changes faster than it can be read.
_READ_TRIES: Final = 3

# What a clean URL leaves out.
_PAGE: Final = b".html"


class Known(NamedTuple):
    """What the one who asks has already: if this file still has this stamp, its content need not be read again."""

    name: bytes
    stamp: tuple[int, int, int, int, int]


class Found(NamedTuple):
    """What a path names: a regular file; or, without `file`, another path by which it should be asked for."""

    name: bytes  # of the file, or that path
    file: OpenFile | None
    content: bytes | None  # None: as Known, or too large for memory


class Look:
    """One look at the disk, with all that is needed for it, so that it can be repeated by another thread."""

    __slots__ = ("_clean", "_index", "_known", "_path", "_root")

    def __init__(
        self, root: Root, path: bytes, index: tuple[bytes, ...], known: Known | None, *, clean: bool = False
    ) -> None:
        self._root = root
        self._path = path
        self._index = index
        self._known = known
        self._clean = clean  # URLs: /a.html is /a

    def take(self, *, cached_only: bool) -> Found:
        """Open, describe, and read what is small and not known."""
        if self._path.endswith(b"/"):
            found = self._find_index(self._path, cached_only=cached_only)
            if found is None:
                raise _not_found(self._path)
            return self._read(*found, cached_only=cached_only)
        try:
            file = OpenFile(self._root.open(self._path, cached_only=cached_only))
        except PermissionError:
            # A folder that may be searched but not read (mode 0711) has its pages all the same.
            if self._find_index(self._path + b"/", cached_only=cached_only) is None:
                raise
            return Found(self._path + b"/", None, None)
        except FileNotFoundError:
            page = self._find_page(cached_only=cached_only) if self._clean else None
            if page is None:
                raise
            return self._read(self._path + _PAGE, page, cached_only=cached_only)
        if file.is_regular:
            cleaner = self._find_cleaner(cached_only=cached_only) if self._clean else None
            if cleaner is not None:
                return Found(cleaner, None, None)
            return self._read(self._path, file, cached_only=cached_only)
        if file.is_directory and self._find_index(self._path + b"/", cached_only=cached_only) is not None:
            return Found(self._path + b"/", None, None)
        raise _not_found(self._path)  # a folder without an index, a FIFO, a device: nothing that we serve

    def _find_index(self, folder: bytes, *, cached_only: bool) -> tuple[bytes, OpenFile] | None:
        """Open the first index that is a regular file in `folder` (which ends with a slash)."""
        for index in self._index:
            try:
                file = OpenFile(self._root.open(folder + index, cached_only=cached_only))
            except OSError as error:
                if status_for(error) != 404:
                    raise
                continue
            if file.is_regular:
                return folder + index, file
        return None

    def _find_page(self, *, cached_only: bool) -> OpenFile | None:
        """Open the page that is meant by a path under which nothing is."""
        try:
            file = OpenFile(self._root.open(self._path + _PAGE, cached_only=cached_only))
        except OSError as error:
            if status_for(error) != 404:
                raise
            return None
        return file if file.is_regular else None

    def _find_cleaner(self, *, cached_only: bool) -> bytes | None:
        """Return the path by which the file that was found should be asked for; None: by its own."""
        folder, slash, name = self._path.rpartition(b"/")
        if name in self._index:
            index = self._find_index(folder + slash, cached_only=cached_only)
            if index is not None and index[0] == self._path:
                return folder + slash
        cleaner = self._path.removesuffix(_PAGE)
        # What nobody may ask for (a page called x.bak.html) has no cleaner path, and neither has ".html".
        if cleaner == self._path or cleaner.endswith(b"/") or hidden(cleaner, dot_files=True):
            return None
        try:
            OpenFile(self._root.open(cleaner, cached_only=cached_only))
        except FileNotFoundError:
            return cleaner
        except OSError:  # something is there
            return None
        return None

    def _read(self, name: bytes, file: OpenFile, *, cached_only: bool) -> Found:
        """Read `file` if it is small and not known, and make sure that the content is what its stamp says."""
        for _ in range(_READ_TRIES):
            if file.size > limits.FILE_IN_MEMORY_MAX_BYTES:
                return Found(name, file, None)
            if self._known is not None and self._known.stamp == file.stamp and self._known.name == name:
                return Found(name, file, None)
            content = file.read_all(cached_only=cached_only)
            # Content of one moment under the stamp of another would stay in the cache as long as the file does.
            if not file.refresh() and len(content) == file.size:
                return Found(name, file, content)
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), name)


def _not_found(path: bytes) -> OSError:
    return OSError(errno.ENOENT, os.strerror(errno.ENOENT), path)
