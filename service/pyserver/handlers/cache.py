"""Files that were asked for lately, ready to be sent again: bounded in entries, bytes and open descriptors.

Owns:    its entries; an entry owns its content, or the descriptor of a file too large for memory.
Never:   touches the disk, knows the time, or empties itself: it evicts singly, the longest unused first. (A cache that
         clears itself when it is full costs twice as much as soon as the working set is larger.)
Used by: handlers.router (makes it), handlers.static, handlers.entries, handlers.variants; one thread at a time, the
         leader. handlers.trace (what an entry was made of).
"""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Final, NamedTuple

from pyserver import limits
from pyserver.files.content import Stamp
from pyserver.files.resolve import OpenFile
from pyserver.http.fields import NO_LINES, NO_VALUE, FieldValue
from pyserver.http.response import Response
from pyserver.limits import NS_PER_S

# Answers that an entry holds ready, one for each value of Accept-Encoding: browsers send a handful of them. Others go
# the full way.
_READY_MAX: Final = 16
_READY_VALUE_MAX_BYTES: Final = 200

_NOTHING: Final = frozenset[bytes]()

# Beside its content, an entry is an object, a key, its fields and a prepared head: 1.6 kB by measurement (tracemalloc).
_ENTRY_BYTES: Final = 1600


class Entry:
    """One representation, as it was when it was last looked at. Only the leader changes it (handlers)."""

    __slots__ = (
        "absent",
        "added",
        "changed_at",
        "coding",
        "content",
        "etag",
        "fields",
        "file",
        "folder",
        "kept",
        "looked_at",
        "made",
        "makeable",
        "making",
        "media_type",
        "modified",
        "name",
        "negotiated",
        "path",
        "plain",
        "plain_at",
        "read_at",
        "ready",
        "settled",
        "siblings",
        "size",
        "stamp",
        "tag_coding",
        "told",
        "unchanged",
        "validators",
    )

    def __init__(self, path: bytes, name: bytes, stamp: Stamp, file: OpenFile | None, coding: bytes = b"") -> None:
        self.path = path  # that was asked for, cleaned: its key in the cache
        self.name = name  # of the file that was opened: with the index, where the path names a folder
        self.stamp = stamp  # of the file; equal means the same content
        self.changed_at = stamp[4] // NS_PER_S
        self.size = stamp[2]  # of the content
        self.content: bytes | memoryview | None = None
        self.file = file  # stays open as long as the content is not in memory
        self.looked_at = 0  # clock.second when the name was last opened
        self.read_at = 0  # clock.second when the content was last read
        self.plain: Response | None = None  # the answer to GET without conditions, HTTP/1.1, keep-alive
        self.plain_at = 0  # clock.second of its Date
        self.media_type = NO_VALUE
        self.settled = False  # the validators are strong ones (http.validators)
        self.etag: FieldValue | None = None
        self.modified: int | None = None  # Last-Modified, seconds since the epoch; None: the file has no credible time
        self.validators = NO_LINES  # the field lines of both
        self.added = NO_LINES  # the field lines that the site adds for its name (handlers.rules)
        self.kept = NO_LINES  # those of them that a 304 has
        self.unchanged = NO_LINES  # all field lines of a 304
        self.fields = NO_LINES  # all field lines of a 200 that depend on the file alone, but for Content-Length
        # Of a coded variant. It is an entry as well, in no cache: its source holds it.
        self.coding = coding  # empty: identity
        self.tag_coding = coding  # what its tag says of it
        self.told = 0  # what else its tag says, where the file's time says too little (http.validators)
        # Of a source that has variants, or may get them (handlers.variants). By coding, in our order:
        self.siblings: Mapping[bytes, Entry] = {}  # found beside the file
        self.made: Mapping[bytes, Entry] = {}  # made of the content
        self.makeable: tuple[bytes, ...] = ()  # may be made, or were
        self.making = _NOTHING  # are being made
        self.negotiated = False  # there are, or may be
        self.folder: Stamp | None = None  # of its folder, while no sibling can appear there unnoticed
        self.absent = _NOTHING  # codings that had no sibling there
        # Which of them is for a value of Accept-Encoding, or for no such field (None). None means this one itself: it
        # shall go with its last user and not wait for the collector.
        self.ready: dict[bytes | None, Entry | None] = {}

    def keep_content(self, content: bytes, second: int) -> None:
        """Hold the content, read at `second`; what was prepared from an earlier reading goes."""
        self.content = content
        self.size = len(content)
        self.file = None
        self.read_at = second
        self.forget_answers()

    def forget_answers(self) -> None:
        """Let go of what was prepared."""
        self.plain = None
        self.forget_ready()

    def forget_ready(self) -> None:
        """Let go of which variant is whose."""
        self.ready.clear()

    def keep_plain(self, answer: Response, head_bytes: int) -> None:
        """Hold the answer to a plain GET of the second of the last look; its wire is now the only copy."""
        self.plain = answer
        self.plain_at = self.looked_at
        if self.content is not None:
            self.content = memoryview(answer.wire)[head_bytes:]

    def keep_ready(self, accept_encoding: bytes | None, chosen: "Entry") -> None:
        """Hold which variant is for whoever accepts the same codings, until what there is changes."""
        if len(self.ready) < _READY_MAX and len(accept_encoding or b"") <= _READY_VALUE_MAX_BYTES:
            self.ready[accept_encoding] = None if chosen is self else chosen

    @property
    def weight(self) -> int:
        """Return the bytes of memory that this entry stands for. It does not change while the entry is in a cache."""
        own = _ENTRY_BYTES + (self.size if self.file is None else 0)
        return own + sum(variant.weight for variant in (*self.siblings.values(), *self.made.values()))


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

    def put(self, path: bytes, entry: Entry) -> bool:
        """Keep `entry`, now the most recently used, and evict what is too much; tell whether there is room for it."""
        self.drop(path)
        room, place = self._room, _Place(self, path, entry.weight)
        if place.weight > room.max_bytes:
            return False
        self._entries[path] = entry
        room.order[entry] = place
        room.bytes += place.weight
        if entry.file is not None:
            room.opened[entry] = place
        while len(room.opened) > room.max_open:
            next(iter(room.opened.values())).clear()
        while room.bytes > room.max_bytes or len(room.order) > room.max_entries:
            next(iter(room.order.values())).clear()
        return entry in room.order

    def touch(self, path: bytes) -> None:
        """Count an entry that is here as the most recently put."""
        room, entry = self._room, self._entries[path]
        room.order.move_to_end(entry)
        if entry.file is not None:
            room.opened.move_to_end(entry)

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
