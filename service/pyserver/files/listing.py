"""What lies in a folder, for a page that lists it.

Owns:    nothing: the descriptor of the folder is the caller's.
Never:   runs in the leader (every name may wait for the disk), follows a link but by the root's own way of opening,
         keeps more than limits.LISTING_NAMES_MAX names, or keeps the interpreter from the leader for long.
Fails:   OSError (the folder cannot be read).
Used by: files.look (reads), handlers.listing (shows).

What is listed is what would be served: links that lead outside or nowhere, FIFOs, sockets and devices are left out.
What of the rest is hidden is decided by who asks.
"""

import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from heapq import merge
from itertools import chain, islice
from typing import Any, Final, Literal, NamedTuple, TypeAlias, TypeVar

from pyserver import limits
from pyserver.files.resolve import OpenFile, Root

T = TypeVar("T")

Key: TypeAlias = Literal["name", "size", "time"]


class Order(NamedTuple):
    """By what a listing is sorted; folders come first in any case."""

    key: Key = "name"
    descending: bool = False


class Item(NamedTuple):
    """A file or a folder in the folder."""

    name: bytes
    is_folder: bool
    size: int
    modified_ns: int


class Folder(NamedTuple):
    """The first items of a folder, in order."""

    path: bytes  # in the site, with a slash at its end
    items: list[Item]
    total: int  # of items that were found, with those that are not among the first
    read_whole: bool  # False: there are more than we have read

    @property
    def shown_whole(self) -> bool:
        """Whether `items` are all."""
        return self.read_whole and len(self.items) == self.total

    def first(self, count: int) -> "Folder":
        """Return it with so many of `items` only."""
        return self._replace(items=self.items[:count])


class Lister(NamedTuple):
    """How folders are to be listed."""

    prefix: bytes  # of the paths in the root, to be those of the site
    order: Order
    hidden: Callable[[bytes], bool]  # of a path of the site

    def read(self, root: Root, path: bytes, folder: OpenFile) -> Folder:
        """List `folder`, which was opened as `path` (with a slash at its end) in `root`."""
        with os.scandir(folder.fd) as names:
            found = list(self._items(root, path, islice(names, limits.LISTING_NAMES_MAX)))
            read_whole = next(names, None) is None
        total = len(found)
        if self.order.key == "name":  # then only those that are shown need to be described
            found = [_described(folder, item) for item in resting(_first(found, self.order))]
        else:
            found = list(_first([_described(folder, item) for item in resting(found)], self.order))
        there = [item for item in found if item.size != _UNKNOWN]
        return Folder(self.prefix + path, there, total - (len(found) - len(there)), read_whole)

    def _items(self, root: Root, path: bytes, names: Iterable["os.DirEntry[str]"]) -> Iterator[Item]:
        """Yield what is to be listed, in no order, for the most part without size and time."""
        for entry in resting(names):
            name = os.fsencode(entry.name)
            if self.hidden(self.prefix + path + name):
                continue
            if entry.is_symlink():
                item = _followed(root, path, name)
                if item is not None:
                    yield item
            elif entry.is_file(follow_symlinks=False):
                yield Item(name, is_folder=False, size=_UNKNOWN, modified_ns=0)
            elif entry.is_dir(follow_symlinks=False):
                yield Item(name, is_folder=True, size=_UNKNOWN, modified_ns=0)


_UNKNOWN: Final = -1  # size of what is not described yet, or has gone


def resting(steps: Iterable[T]) -> Iterator[T]:
    """Yield each of `steps`, and let go of the interpreter now and then."""
    for number, step in enumerate(steps, 1):
        yield step
        if number % limits.LISTING_STEP_ROWS == 0:
            time.sleep(limits.LISTING_REST_S)


def _followed(root: Root, path: bytes, name: bytes) -> Item | None:
    """Return what a link leads to; None if nothing would be served by its name."""
    try:
        found = OpenFile(root.open(path + name, cached_only=False))
    except OSError:
        return None
    if not (found.is_regular or found.is_directory):
        return None
    return Item(name, found.is_directory, found.size, found.modified_ns)


def _described(folder: OpenFile, item: Item) -> Item:
    """Return `item` with its size and time; without, if it has gone meanwhile."""
    if item.size != _UNKNOWN:
        return item
    try:
        found = os.stat(item.name, dir_fd=folder.fd, follow_symlinks=False)
    except OSError:
        return item
    if stat.S_IFMT(found.st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
        return item
    return Item(item.name, stat.S_ISDIR(found.st_mode), found.st_size, found.st_mtime_ns)


# The key, and whether it is to be sorted by in reverse; what is equal comes by its name from A to Z.
_KEYS: Final[dict[Order, tuple[Callable[[Item], Any], bool]]] = {
    Order("name"): (lambda item: (item.name.lower(), item.name), False),
    Order("name", descending=True): (lambda item: (item.name.lower(), item.name), True),
    Order("size"): (lambda item: (item.size, item.name.lower()), False),
    Order("size", descending=True): (lambda item: (-item.size, item.name.lower()), False),
    Order("time"): (lambda item: (item.modified_ns, item.name.lower()), False),
    Order("time", descending=True): (lambda item: (-item.modified_ns, item.name.lower()), False),
}


def _first(items: list[Item], order: Order) -> Iterator[Item]:
    """Yield the first LISTING_ROWS_MAX of `items` in order."""
    folders = [item for item in items if item.is_folder]
    files = [item for item in items if not item.is_folder]
    # A folder's size says nothing: by that, folders stay sorted by name.
    inner = Order("name") if order.key == "size" else order
    return islice(chain(_sorted(folders, inner), _sorted(files, order)), limits.LISTING_ROWS_MAX)


def _sorted(items: list[Item], order: Order) -> Iterator[Item]:
    """Sort in steps, since one sort of all would not let go of the interpreter before its end."""
    (key, reverse), step = _KEYS[order], 8 * limits.LISTING_STEP_ROWS
    parts = []
    for start in range(0, len(items), step):
        parts.append(sorted(items[start : start + step], key=key, reverse=reverse))
        time.sleep(limits.LISTING_REST_S)
    return merge(*parts, key=key, reverse=reverse)
