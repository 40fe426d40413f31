"""Which representation of a file a request gets, and the making of those that are not there yet.

Owns:    the choice between identity, the variants beside the file and those made of its content; what waits to be made.
Never:   keeps anybody waiting for a variant: until it is made, the answer is one that is there. Makes one twice of the
         same content while the first is remembered, more than one at a time, in the leader, or keeps one that is no
         smaller than identity.
Fails:   never; a variant that could not be made (worker.pool logs why) is not tried again for this content.
Used by: handlers.static, handlers.router (the workshop). All by the leader, but _Work.run(), which any thread may call.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Final

from pyserver import limits
from pyserver.digest import blake2b
from pyserver.files.codings import BY_NAME
from pyserver.handlers import entries
from pyserver.handlers.cache import Entry, FileCache
from pyserver.http import conditional, negotiation, validators
from pyserver.http.request import Request

# Takes what may block, for any thread, and what comes after it, for the leader; False when nothing more is taken.
Submit = Callable[[Callable[[], None], Callable[[], None]], bool]

# Browsers send a handful of different values; longer ones are read each time.
_REMEMBERED_MAX: Final = 512
_REMEMBERED_MAX_BYTES: Final = 200

# Conditions by which a client names representations that it knows (RFC 9110 13.1.1, 13.1.2, 13.1.5), in the order in
# which they are decided (13.2.2): the first that names one of ours counts.
_NAMING: Final = (b"if-match", b"if-none-match", b"if-range")


class Variants:
    """The variants of the entries of one site's cache."""

    __slots__ = ("_cache", "_workshop", "are_made")

    def __init__(self, cache: FileCache, workshop: "Workshop | None") -> None:
        self._cache = cache
        self._workshop = workshop  # None: only what lies beside files is used
        self.are_made = workshop is not None

    def select(self, request: Request, entry: Entry, second: int) -> Entry:
        """Return the representation of `entry` that answers `request` (RFC 9110 12.1).

        A client that names one by its tag gets that one, if it may be sent at all: what it has is still good, although
        by now there may be a better one. So a download goes on with the bytes that it began with.
        """
        if not entry.negotiated:
            return entry
        fields = request.fields
        accepted = fields.get(b"accept-encoding")
        ranged = request.method == b"GET" and b"range" in fields  # RFC 9110 14.2: no other method has ranges (T-29)
        chosen = self._prefer(entry, accepted, ranged=ranged)
        for name in _NAMING:
            # RFC 9110 13.1.5: without a Range that counts, If-Range is nothing.
            if name in fields and (ranged or name != b"if-range"):
                named = _named(fields, fields[name], entry, chosen, request.method, second)
                if named is not None:
                    return named
        return chosen

    def _prefer(self, entry: Entry, accepted: bytes | None, *, ranged: bool) -> Entry:
        """Return the best variant that there is, and see to it that there will be a better one."""
        coding = _choose(accepted, tuple(entry.siblings))
        if coding is not None:
            return entry.siblings[coding]
        # A part of what may be made or dropped any moment is only for who names it: else the next part that this
        # client asks for might be of another representation (T-31).
        if ranged:
            return entry
        coding = _choose(accepted, entry.makeable)
        if coding is not None and coding not in entry.made:
            if self._workshop is not None:
                self._workshop.order(self._cache, entry, coding)
            coding = _choose(accepted, tuple(entry.made))
        return entry if coding is None else entry.made[coding]


class Workshop:
    """Where the variants of all sites of a worker are made, one after the other: other threads are for the disk."""

    __slots__ = ("_at_work", "_outcomes", "_submit", "_waiting")

    def __init__(self, submit: Submit, outcomes_max_bytes: int = 0) -> None:
        self._submit = submit
        self._outcomes = _Outcomes(outcomes_max_bytes)
        self._waiting: deque[_Work] = deque()
        self._at_work = False

    def order(self, cache: FileCache, entry: Entry, coding: bytes) -> None:
        """Have a variant made, unless that is under way or in vain: what is not in the cache is not asked for again."""
        work = _Work(cache, entry, coding)
        if coding not in entry.making and len(self._waiting) < limits.CODINGS_WAITING_MAX and work.is_wanted:
            entry.making |= {coding}
            self._waiting.append(work)
            self._next()

    def _next(self) -> None:
        """Hand the next one to a follower."""
        while self._waiting and not self._at_work:
            work = self._waiting.popleft()
            if not work.is_wanted:
                continue
            self._at_work = self._submit(partial(work.run, self._outcomes), partial(self._done, work))
            if not self._at_work:  # the worker is about to leave
                work.entry.making -= {work.coding}

    def _done(self, work: "_Work") -> None:
        """Keep what was made, also for whatever else has this content."""
        self._at_work = False
        if work.digest:
            self._outcomes.keep(work.coding, work.digest, work.coded)
        work.keep(work.coded)
        self._next()


class _Outcomes:
    """What lately became of contents, by what is in them: other paths, sites and releases may have the same.

    Changed by the leader, while no work runs.
    """

    __slots__ = ("_by_content", "_bytes", "_max_bytes")

    # Of one outcome, beside what is in it, by measurement (tracemalloc).
    _EACH_BYTES: Final = 240

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._by_content: OrderedDict[tuple[bytes, bytes], bytes | None] = OrderedDict()

    def find(self, coding: bytes, digest: bytes) -> tuple[bytes | None] | None:
        """Return the outcome: coded content, or None where that would save nothing."""
        key = coding, digest
        return (self._by_content[key],) if key in self._by_content else None

    def keep(self, coding: bytes, digest: bytes, coded: bytes | None) -> None:
        """Remember an outcome, now the latest used, and forget the longest unused ones that are too much."""
        key = coding, digest
        if key in self._by_content:
            self._by_content.move_to_end(key)
            return
        self._by_content[key] = coded
        self._bytes += self._weight(coded)
        while self._bytes > self._max_bytes:
            self._bytes -= self._weight(self._by_content.popitem(last=False)[1])

    def _weight(self, coded: bytes | None) -> int:
        return self._EACH_BYTES + len(coded or b"")


class _Work:
    """The making of one variant."""

    __slots__ = ("_cache", "_content", "coded", "coding", "digest", "entry")

    def __init__(self, cache: FileCache, entry: Entry, coding: bytes) -> None:
        assert entry.content is not None
        self._cache = cache
        self._content = entry.content  # as it is held now; the leader may come to hold it in another form
        self.entry = entry
        self.coding = coding
        self.digest = b""
        self.coded: bytes | None = None  # None: it would not be smaller

    @property
    def is_wanted(self) -> bool:
        """Whether the entry is in the cache: not evicted, and not replaced since its content has changed."""
        return self._cache.get(self.entry.path) is self.entry

    def run(self, outcomes: _Outcomes) -> None:
        """Code the content, unless that was done before. Any thread may call this."""
        digest = blake2b(self._content, digest_size=32).digest()
        before = outcomes.find(self.coding, digest)
        if before is not None:
            (self.coded,) = before
        else:
            coding = BY_NAME[self.coding]
            coded = coding.encode(self._content, coding.effort.at_once)
            self.coded = coded if len(coded) < len(self._content) else None
        self.digest = digest

    def keep(self, coded: bytes | None) -> None:
        """Put the variant to its source, in the room that the cache has; where there is none, it is not tried again."""
        entry, coding = self.entry, self.coding
        entry.making -= {coding}
        if not self.is_wanted:
            return
        self._cache.drop(entry.path)  # its weight changes
        if coded is not None:
            entry.made = {**entry.made, coding: entries.made(entry, coding, coded, entry.looked_at)}
            entry.forget_ready()
            if self._cache.put(entry.path, entry):
                return
            entry.made = {each: made for each, made in entry.made.items() if each != coding}
        entry.makeable = tuple(entry.made)  # another coding would hardly do better
        self._cache.put(entry.path, entry)


# -- the choice, as functions ------------------------------------------------------------------------


def _choose(accepted: bytes | None, available: tuple[bytes, ...]) -> bytes | None:
    if accepted is None or not available:
        return None
    return (_choose_anew if len(accepted) > _REMEMBERED_MAX_BYTES else _choose_as_before)(accepted, available)


_choose_anew: Final = negotiation.choose
_choose_as_before: Final = lru_cache(_REMEMBERED_MAX)(negotiation.choose)


def _named(
    fields: Mapping[bytes, bytes], tags: bytes, entry: Entry, chosen: Entry, method: bytes, now: int
) -> Entry | None:
    """Return the representation that `tags` name, the chosen one before others, None where they name none."""
    if _is_in(chosen, tags):
        return chosen
    accepted = fields.get(b"accept-encoding")
    for other in (*entry.siblings.values(), *entry.made.values(), entry):
        if _is_in(other, tags) and (not other.coding or _choose(accepted, (other.coding,))):
            return other
    for coding in entry.makeable:
        # Another worker made it, or this one before it was restarted. We need not have it to know that it is the same.
        if BY_NAME[coding].recipe + b'"' in tags and _choose(accepted, (coding,)):
            absent = entries.made(entry, coding, b"", now)
            if conditional.evaluate(fields, absent.etag, absent.modified, method, now) == 304:
                return absent
    return None


def _is_in(entry: Entry, tags: bytes) -> bool:
    return entry.etag is not None and validators.opaque_tag(entry.etag) in tags
