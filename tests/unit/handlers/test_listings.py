import gc
from collections import deque
from collections.abc import Callable
from typing import Self

import pytest

from pyserver import limits
from pyserver.handlers.listings import Listing, Listings, Wanted
from pyserver.http.fields import NO_LINES


class Guest:
    """Somebody who waits for a listing, and can use that of another unless it says so."""

    def __init__(self, name: str, *, alone: bool = False) -> None:
        self.name = name
        self.alone = alone
        self.got = ""

    def run(self) -> None:
        self.got = self.name

    def learn(self, other: Wanted) -> bool:
        assert isinstance(other, Guest)
        if not self.alone:
            self.got = other.got
        return not self.alone


class Hall:
    """A line, and the threads that make what its turn has come for, when the test says so."""

    def __init__(self) -> None:
        self.listings = Listings()
        self.jobs: deque[tuple[Callable[[], None], Callable[[], None]]] = deque()
        self.served: list[tuple[str, str]] = []  # who, whose

    def enter(self, key: str, guest: Guest) -> Self:
        self.listings.enter(key, guest, self.start, lambda: self.served.append((guest.name, guest.got)))
        return self

    def start(self, run: Callable[[], None], then: Callable[[], None]) -> None:
        self.jobs.append((run, then))

    def do_one(self) -> None:
        run, then = self.jobs.popleft()
        run()
        then()

    def do_all(self) -> None:
        while self.jobs:
            self.do_one()


def busy() -> Hall:
    """All that are made at a time are being made."""
    hall = Hall()
    for number in range(limits.LISTINGS_AT_ONCE_MAX):
        hall.enter(f"/{number}/", Guest("before"))
    return hall


def test_so_many_are_made_at_a_time_and_the_others_wait_in_order() -> None:
    hall = Hall()
    for number in range(6):
        hall.enter(f"/{number}/", Guest(str(number)))
        assert len(hall.jobs) <= limits.LISTINGS_AT_ONCE_MAX
    while hall.jobs:
        hall.do_one()
        assert len(hall.jobs) <= limits.LISTINGS_AT_ONCE_MAX
    assert hall.served == [(str(number), str(number)) for number in range(6)]


def test_who_waits_for_the_same_gets_the_same() -> None:
    hall = busy()
    for name in ("a", "b", "c"):
        hall.enter("/same/", Guest(name))
    hall.do_all()
    assert sorted(hall.served[limits.LISTINGS_AT_ONCE_MAX :]) == [("a", "a"), ("b", "a"), ("c", "a")]


def test_who_comes_when_it_is_being_made_gets_the_next_one() -> None:
    """T-22: what changed since its making began is not in it."""
    hall = Hall().enter("/same/", Guest("a"))
    run, then = hall.jobs.popleft()
    run()
    hall.enter("/same/", Guest("b"))
    then()
    hall.do_all()
    assert hall.served == [("a", "a"), ("b", "b")]


def test_who_cannot_use_it_looks_for_itself() -> None:
    hall = busy().enter("/same/", Guest("a")).enter("/same/", Guest("b", alone=True))
    hall.do_all()
    assert sorted(hall.served[limits.LISTINGS_AT_ONCE_MAX :]) == [("a", "a"), ("b", "b")]


def test_one_that_fails_makes_room_for_the_next() -> None:
    hall = Hall()

    def fail() -> None:
        raise ZeroDivisionError

    hall.listings.enter("/bad/", Guest("bad"), hall.start, fail)
    for number in range(limits.LISTINGS_AT_ONCE_MAX + 1):
        hall.enter(f"/{number}/", Guest(str(number)))
    with pytest.raises(ZeroDivisionError):
        hall.do_one()
    hall.do_all()
    assert len(hall.served) == limits.LISTINGS_AT_ONCE_MAX + 1


# -- what is under way -------------------------------------------------------------------------------


def made(content: bytes) -> Listing:
    return Listing(b"text/html", NO_LINES, content, digest=content[:32])


def test_equal_ones_are_held_once() -> None:
    listings = Listings()
    first = listings.share(made(b"one" * 10_000))
    assert first is not None
    assert listings.share(made(b"one" * 10_000)) is first
    assert listings.share(made(b"two" * 10_000)) is not first


def test_what_is_held_is_bounded_and_free_when_the_last_reader_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LISTINGS_MAX_BYTES", 2500)
    listings = Listings()
    held = [listings.share(made(name * 1000)) for name in (b"a", b"b")]
    assert None not in held
    assert listings.share(made(b"c" * 1000)) is None
    assert listings.share(made(b"b" * 1000)) is held[1]  # costs nothing
    held.pop()
    gc.collect()
    assert listings.share(made(b"c" * 1000)) is not None
