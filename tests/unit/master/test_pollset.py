"""Real pipes in a real poll set."""

import os
import time
from collections.abc import Iterator

import pytest

from pyserver.master.pollset import PollSet


@pytest.fixture
def poll() -> Iterator[PollSet]:
    made = PollSet()
    yield made
    made.close()


@pytest.fixture
def pipes() -> Iterator[list[tuple[int, int]]]:
    made = [os.pipe() for _ in range(2)]
    yield made
    for reading, writing in made:
        os.close(reading)
        os.close(writing)


def test_each_that_is_readable_is_read(poll: PollSet, pipes: list[tuple[int, int]]) -> None:
    heard: list[bytes] = []
    for reading, writing in pipes:
        poll.watch(reading, lambda reading=reading: heard.append(os.read(reading, 10)))  # type: ignore[misc]
        os.write(writing, b"%d" % writing)
    poll.turn()
    assert sorted(heard) == sorted(b"%d" % writing for _, writing in pipes)
    poll.turn()  # nothing is left, and it does not wait: it is due
    assert len(heard) == 2


def test_one_that_goes_with_an_earlier_event_of_the_round_is_not_read(
    poll: PollSet, pipes: list[tuple[int, int]]
) -> None:
    heard: list[int] = []

    def hear(at: int) -> None:
        heard.append(at)
        poll.unwatch(pipes[1 - at][0])

    for at, (reading, writing) in enumerate(pipes):
        poll.watch(reading, lambda at=at: hear(at))  # type: ignore[misc]
        os.write(writing, b"x")
    poll.turn()
    assert len(heard) == 1
    poll.turn()
    assert heard == [heard[0]] * 2


def test_a_descriptor_is_looked_at_no_more_and_again(poll: PollSet, pipes: list[tuple[int, int]]) -> None:
    reading, writing = pipes[0]
    heard: list[bytes] = []
    os.write(writing, b"x")
    poll.watch(reading, lambda: heard.append(os.read(reading, 1)))
    assert poll.watches(reading)
    poll.unwatch(reading)
    poll.unwatch(reading)  # whoever is told twice says nothing
    poll.turn()
    assert (poll.watches(reading), heard) == (False, [])
    poll.watch(reading, lambda: heard.append(os.read(reading, 1)))
    poll.turn()
    assert heard == [b"x"]


def test_what_somebody_else_registers_has_its_reader_here(poll: PollSet, pipes: list[tuple[int, int]]) -> None:
    reading, writing = pipes[0]
    heard: list[bytes] = []
    os.write(writing, b"x")
    poll.expect(reading, lambda: heard.append(os.read(reading, 1)))
    poll.turn()
    assert heard == []
    poll.epoll.register(reading)
    poll.turn()
    assert heard == [b"x"]


def test_a_closed_descriptor_leaves_its_number_to_the_next(poll: PollSet) -> None:
    reading, writing = os.pipe()
    poll.watch(reading, lambda: None)
    os.close(reading)
    poll.gone(reading)
    assert not poll.watches(reading)
    again, other = os.pipe()
    heard: list[bytes] = []
    try:
        os.write(other, b"x")
        poll.watch(again, lambda: heard.append(os.read(again, 1)))
        poll.turn()
    finally:
        for descriptor in (writing, again, other):
            os.close(descriptor)
    assert heard == [b"x"]


def test_it_waits_until_it_is_due_and_no_longer(poll: PollSet) -> None:
    at = time.monotonic() + 0.2
    poll.due = at + 3600
    poll.by(at)
    poll.by(at + 60)  # no reason to sleep longer
    poll.turn()
    assert time.monotonic() >= at - 0.01
    poll.due = at + 3600
    poll.soon()
    poll.turn()  # at once: else this test does not end
