"""The listings of a worker: how many are made at a time, who waits for which, and what of them is being sent.

Owns:    the line of those who wait, one for all sites; the bytes of all listings that are under way to clients.
Never:   keeps a listing that nobody is being sent, or gives one to somebody who asked after its making began: nothing
         could tell whether it is still true (T-22).
Fails:   never.
Used by: handlers.static, handlers.router (makes it), handlers.listing (what is stored). All by the leader.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import partial
from typing import Final, NamedTuple, Protocol, TypeAlias
from weakref import WeakValueDictionary

from pyserver import limits
from pyserver.http.fields import Lines, written

# RFC 9111 5.2.2.5: without validators there is no use in storing it.
NOT_STORED: Final = written(b"Cache-Control: no-store\r\n")

# Takes what may block, for any thread, and what comes after it, for the leader.
Start: TypeAlias = Callable[[Callable[[], None], Callable[[], None]], None]


class Listing:
    """A listing that is ready to be sent, and as the source of answers held by them until they are."""

    __slots__ = ("__weakref__", "content", "digest", "fd", "fields", "media_type")

    def __init__(self, media_type: bytes, fields: Lines, content: bytes, digest: bytes) -> None:
        self.media_type = media_type
        self.fields = fields  # the field lines that go with it
        self.content = content
        self.digest = digest  # of both
        self.fd = -1  # all of it is in memory


class Wanted(Protocol):
    """Somebody who waits for a listing."""

    def run(self) -> None:
        """Make it. Any thread may call this."""

    def learn(self, other: "Wanted") -> bool:
        """Take what another one's run() came to; False: it is of no use for this one."""


class _Place(NamedTuple):
    wanted: Wanted
    start: Start
    then: Callable[[], None]


class Listings:
    """Listings of all sites of a worker."""

    __slots__ = ("_at_work", "_under_way", "_waiting")

    def __init__(self) -> None:
        self._at_work = 0
        self._waiting: OrderedDict[Hashable, list[_Place]] = OrderedDict()
        # By digest; gone with the last answer.
        self._under_way: WeakValueDictionary[bytes, Listing] = WeakValueDictionary()

    def enter(self, key: Hashable, wanted: Wanted, start: Start, then: Callable[[], None]) -> None:
        """Wait for a listing. All who wait for the same `key` when its turn comes get the same one."""
        self._waiting.setdefault(key, []).append(_Place(wanted, start, then))
        self._next()

    def _next(self) -> None:
        while self._waiting and self._at_work < limits.LISTINGS_AT_ONCE_MAX:
            _, party = self._waiting.popitem(last=False)
            self._at_work += 1
            first = party[0]
            first.start(first.wanted.run, partial(self._made, party))

    def _made(self, party: list[_Place]) -> None:
        self._at_work -= 1
        self._next()
        first, *others = party
        for wanted, start, then in others:
            start(_nothing if wanted.learn(first.wanted) else wanted.run, then)
        first.then()

    def share(self, made: Listing) -> Listing | None:
        """Return what to send: of the same content one that others are being sent. None: there are too many to hold."""
        same = self._under_way.get(made.digest)
        if same is not None:
            return same
        if sum(len(each.content) for each in self._under_way.values()) + len(made.content) > limits.LISTINGS_MAX_BYTES:
            return None
        self._under_way[made.digest] = made
        return made


def _nothing() -> None:
    """Wait for nothing: it is known already."""
