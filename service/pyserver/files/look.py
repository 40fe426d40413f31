"""Look at what a path names: a file, the index of a folder, or what should be asked for instead.

Owns:    the descriptors it opens, until they are handed over in Found or closed with their last reference.
Never:   knows HTTP or a cache; keeps a name that it has not opened.
Fails:   WouldBlock (with cached_only), ToBeListed (without a lister), OSError (resolve.STATUS_FOR_ERRNO).
Used by: handlers.static: by the leader with cached_only, by any thread without; handlers.entries (what was found).
"""

import errno
import os
from typing import Final, NamedTuple

from pyserver.files.content import Stamp, read_small
from pyserver.files.listing import Folder, Lister
from pyserver.files.mediatypes import is_packed, media_type
from pyserver.files.policy import hidden
from pyserver.files.resolve import OpenFile, Root, WouldBlock, status_for
from pyserver.files.variants import NOTHING_KNOWN, KnownSiblings, Siblings, is_fresh, look_beside

# What a clean URL leaves out.
_PAGE: Final = b".html"


class Known(NamedTuple):
    """What the one who asks has already: if this file still has this stamp, its content need not be read again."""

    name: bytes
    stamp: Stamp | None  # None: the content is to be read in any case
    siblings: KnownSiblings = NOTHING_KNOWN


class Found(NamedTuple):
    """What a path names: a file; a folder that is listed; or, without both, the path to ask for instead."""

    name: bytes  # of the file, or that path
    file: OpenFile | None
    content: bytes | None  # None: as Known, or too large for memory
    siblings: Siblings | None = None  # None: not looked for
    folder: Folder | None = None


class ToBeListed(Exception):
    """It is a folder that is to be listed, by a thread that may wait, and when others have had their turn."""


class Look:
    """One look at the disk, with all that is needed for it, so that it can be repeated by another thread."""

    __slots__ = ("_clean", "_index", "_known", "_listed", "_lister", "_path", "_precompressed", "_root")

    def __init__(
        self,
        root: Root,
        path: bytes,
        index: tuple[bytes, ...],
        known: Known | None,
        *,
        clean: bool = False,
        precompressed: bool = False,
        listed: bool = False,
        lister: Lister | None = None,
    ) -> None:
        self._root = root
        self._path = path
        self._index = index
        self._known = known
        self._clean = clean  # URLs: /a.html is /a
        self._precompressed = precompressed  # variants beside the file are looked for
        self._listed = listed  # folders without an index are, instead of being not there
        self._lister = lister  # None: it is not our turn to list one

    def take(self, *, cached_only: bool) -> Found:
        """Open, describe, and read what is small and not known."""
        if self._path.endswith(b"/"):
            found = self._find_index(self._path, cached_only=cached_only)
            if found is None:
                return self._list(cached_only=cached_only)
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
        if file.is_directory and (
            self._listed or self._find_index(self._path + b"/", cached_only=cached_only) is not None
        ):
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

    def _list(self, *, cached_only: bool) -> Found:
        """List the folder, if folders are listed."""
        if not self._listed:
            raise _not_found(self._path)
        folder = OpenFile(self._root.open(self._path, cached_only=cached_only))
        if not folder.is_directory:
            raise _not_found(self._path)
        if self._lister is None or cached_only:  # nobody knows how many names there are, nor where they lie
            raise ToBeListed
        return Found(self._path, None, None, folder=self._lister.read(self._root, self._path, folder))

    def _read(self, name: bytes, file: OpenFile, *, cached_only: bool) -> Found:
        """Read `file` if it is small and not known, after a look at what lies beside it."""
        known = self._known if self._known is not None and self._known.name == name else None
        siblings = None
        if self._precompressed and not is_packed(media_type(name)):
            beside = NOTHING_KNOWN if known is None else known.siblings
            siblings = look_beside(self._root, name, file, beside, cached_only=cached_only)
        before = file.stamp
        content = read_small(name, file, None if known is None else known.stamp, cached_only=cached_only)
        if siblings is not None and file.stamp != before:  # it changed while we looked: so did what is fresh
            siblings = siblings._replace(found=tuple(each for each in siblings.found if is_fresh(each.file, file)))
        return Found(name, file, content, siblings)


def stamp_at_once(root: Root, name: bytes, *, directory: bool = False) -> Stamp | None:
    """Return the stamp of the file (or folder) of this name; None if it cannot be told from memory, or is no such."""
    try:
        file = OpenFile(root.open(name, cached_only=True))
    except (OSError, WouldBlock):
        return None
    return file.stamp if (file.is_directory if directory else file.is_regular) else None


def _not_found(path: bytes) -> OSError:
    return OSError(errno.ENOENT, os.strerror(errno.ENOENT), path)
