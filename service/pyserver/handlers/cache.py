"""Files that were asked for lately, ready to be sent again: bounded in entries, bytes and open descriptors.

Owns:    its entries; an entry owns its content, or the descriptor of a file too large for memory.
Never:   touches the disk, knows the time, or empties itself: it evicts singly, the longest unused first. (A cache that
         clears itself when it is full costs twice as much as soon as the working set is larger.)
Used by: handlers.static; one thread at a time, the leader.
"""

from collections import OrderedDict
from typing import Final, NamedTuple

from pyserver import limits
from pyserver.files.resolve import OpenFile
from pyserver.http.response import Response

# Beside its content, an entry is an object, a key, its fields and a prepared head: 1.6 kB by measurement (tracemalloc).
_ENTRY_BYTES: Final = 1600


class Entry:
    """One representation, as it was when it was last looked at. Only the leader changes it (handlers.static)."""

    __slots__ = (
        "added",
        "changed_at",
        "content",
        "etag",
        "fields",
        "file",
        "looked_at",
        "media_type",
        "modified",
        "name",
        "plain",
        "plain_at",
        "read_at",
        "settled",
        "size",
        "stamp",
        "unchanged",
        "validators",
    )

    def __init__(self, name: bytes, file: OpenFile, *, large: bool) -> None:
        self.name = name  # of the file that was opened: with the index, where the path names a folder
        self.stamp = file.stamp  # equal means the same content
        self.changed_at = file.changed_at
        self.size = file.size
        self.content: bytes | memoryview | None = None
        self.file = file if large else None  # what is too large for memory stays open instead
        self.looked_at = 0  # clock.second when the name was last opened
        self.read_at = 0  # clock.second when the content was last read
        self.plain: Response | None = None  # the answer to GET without conditions, HTTP/1.1, keep-alive
        self.plain_at = 0  # clock.second of its Date
        self.media_type = b""
        self.settled = False  # the validators are strong ones (http.validators)
        self.etag: bytes | None = None
        self.modified: int | None = None  # Last-Modified, seconds since the epoch; None: the file has no credible time
        self.validators = b""  # the field lines of both
        self.added = b""  # the field lines that the site adds for its name (handlers.rules)
        self.unchanged = b""  # all field lines of a 304
        self.fields = b""  # all field lines of a 200 that depend on the file alone, but for Content-Length

    def keep_content(self, content: bytes, second: int) -> None:
        """Hold the content, read at `second`; what was prepared from an earlier reading goes."""
        self.content = content
        self.read_at = second
        self.plain = None

    def keep_plain(self, answer: Response, head_bytes: int) -> None:
        """Hold the answer to a plain GET of the second of the last look; its wire is now the only copy."""
        self.plain = answer
        self.plain_at = self.looked_at
        if self.content is not None:
            self.content = memoryview(answer.wire)[head_bytes:]

    @property
    def weight(self) -> int:
        """Return the bytes of memory that this entry stands for."""
        return _ENTRY_BYTES + (self.size if self.file is None else 0)


class _Room:
    """What all caches of a worker hold together: the bounds, and the order in which entries were put."""

    __slots__ = ("bytes", "max_bytes", "max_entries", "max_open", "opened", "order")

    def __init__(self, max_bytes: int, max_entries: int, max_open: int) -> None:
        self.max_bytes = max_bytes
        self.max_entries = max_entries
        self.max_open = max_open
        self.bytes = 0
        self.order: OrderedDict[Entry, _Place] = OrderedDict()
        self.opened: OrderedDict[Entry, _Place] = OrderedDict()  # those that hold a descriptor


class _Place(NamedTuple):
    cache: "FileCache"
    path: bytes
    weight: int  # what was counted for the entry

    def clear(self) -> None:
        self.cache.drop(self.path)


class FileCache:
    """The entries of one site by cleaned path, evicted least recently put first.

    Being put is being used: static puts an entry again in every second in which it is asked for, so the order is true
    to the second and a hit moves nothing.

    The sites of a worker share one room: no site has a part of its own, and of all entries of all sites the longest
    unused goes first. So a busy site may fill what an idle one does not need, and the bounds hold for the sum.
    """

    def __init__(self, max_bytes: int, max_entries: int, max_open: int = limits.FILES_KEPT_OPEN_MAX) -> None:
        self._room = _Room(max_bytes, max_entries, max_open)
        self._entries: dict[bytes, Entry] = {}
        self.get = self._entries.get  # one call less on the hot path

    def beside(self) -> "FileCache":
        """Return an empty cache that shares the room of this one, for another site."""
        other = FileCache(0, 0)
        other._room = self._room
        return other

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def weight(self) -> int:
        """Return the bytes that the caches that share the room stand for."""
        return self._room.bytes

    def put(self, path: bytes, entry: Entry) -> None:
        """Keep `entry`, now the most recently used, and evict what is too much."""
        self.drop(path)
        room, place = self._room, _Place(self, path, entry.weight)
        if place.weight > room.max_bytes:
            return
        self._entries[path] = entry
        room.order[entry] = place
        room.bytes += place.weight
        if entry.file is not None:
            room.opened[entry] = place
        while len(room.opened) > room.max_open:
            next(iter(room.opened.values())).clear()
        while room.bytes > room.max_bytes or len(room.order) > room.max_entries:
            next(iter(room.order.values())).clear()

    def close_unused(self, since: int) -> None:
        """Forget open files last looked at before `since`: the room of a deleted one is not free before."""
        opened = self._room.opened
        while opened:
            entry, place = next(iter(opened.items()))
            if entry.looked_at >= since:
                return
            place.clear()

    def drop(self, path: bytes) -> None:
        """Forget `path`, if it is known. Whoever still sends the entry's content or file keeps that alive."""
        entry = self._entries.pop(path, None)
        if entry is None:
            return
        room = self._room
        room.bytes -= room.order.pop(entry).weight
        room.opened.pop(entry, None)

    def clear(self) -> None:
        """Forget everything: it is the content of another site now."""
        while self._entries:
            self.drop(next(iter(self._entries)))
