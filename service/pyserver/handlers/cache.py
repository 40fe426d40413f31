"""Files that were asked for lately, ready to be sent again: bounded in entries, bytes and open descriptors.

Owns:    its entries; an entry owns its content, or the descriptor of a file too large for memory.
Never:   touches the disk, knows the time, or empties itself: it evicts singly, the longest unused first. (A cache that
         clears itself when it is full costs twice as much as soon as the working set is larger.)
Used by: handlers.static; one thread at a time, the leader.
"""

from collections import OrderedDict
from typing import Final

from pyserver import limits
from pyserver.files.resolve import OpenFile
from pyserver.http.response import Response

# Beside its content, an entry is an object, a key, its fields and a prepared head: 1.6 kB by measurement (tracemalloc).
_ENTRY_BYTES: Final = 1600


class Entry:
    """One representation, as it was when it was last looked at. Only the leader changes it (handlers.static)."""

    __slots__ = (
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


class FileCache:
    """Entries by cleaned path, least recently put first.

    Being put is being used: static puts an entry again in every second in which it is asked for, so the order is true
    to the second and a hit moves nothing.
    """

    def __init__(self, max_bytes: int, max_entries: int, max_open: int = limits.FILES_KEPT_OPEN_MAX) -> None:
        self._max_bytes = max_bytes
        self._max_entries = max_entries
        self._max_open = max_open
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()
        self._open: OrderedDict[bytes, None] = OrderedDict()  # the paths of entries that hold a descriptor
        self.bytes = 0
        self.get = self._entries.get  # one call less on the hot path

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, path: bytes, entry: Entry) -> None:
        """Keep `entry`, now the most recently used, and evict what is too much."""
        self.drop(path)
        if entry.weight > self._max_bytes:
            return
        self._entries[path] = entry
        self.bytes += entry.weight
        if entry.file is not None:
            self._open[path] = None
        while len(self._open) > self._max_open:
            self.drop(next(iter(self._open)))
        while self.bytes > self._max_bytes or len(self._entries) > self._max_entries:
            self.drop(next(iter(self._entries)))

    def close_unused(self, since: int) -> None:
        """Forget open files last looked at before `since`: the room of a deleted one is not free before."""
        while self._open:
            path = next(iter(self._open))
            if self._entries[path].looked_at >= since:
                return
            self.drop(path)

    def drop(self, path: bytes) -> None:
        """Forget `path`, if it is known. Whoever still sends the entry's content or file keeps that alive."""
        entry = self._entries.pop(path, None)
        if entry is None:
            return
        self.bytes -= entry.weight
        if entry.file is not None:
            del self._open[path]

    def clear(self) -> None:
        """Forget everything: it is the content of another site now."""
        self._entries.clear()
        self._open.clear()
        self.bytes = 0
