"""Real signals to this process, and to children of it."""

import os
import select
import signal
import time
from collections.abc import Iterator

import pytest
from tests.unit.processes import forked, run_forked

from pyserver.signals import Signals, held_back

NUMBERS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)


@pytest.fixture
def noted() -> Iterator[Signals]:
    made = Signals(NUMBERS)
    yield made
    made.close()


def test_nothing_has_arrived_at_first(noted: Signals) -> None:
    assert noted.take() == []


def test_signals_are_numbers_in_their_order(noted: Signals) -> None:
    for number in (signal.SIGUSR2, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        os.kill(os.getpid(), number)
    assert noted.take() == [signal.SIGUSR2, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2]
    assert noted.take() == []


def test_a_signal_wakes_whoever_polls(noted: Signals) -> None:
    poll = select.epoll()
    poll.register(noted.fileno(), select.EPOLLIN)
    parent = os.getpid()

    def tell() -> None:
        time.sleep(0.02)
        os.kill(parent, signal.SIGUSR1)

    with forked(tell) as child:
        assert poll.poll(5) == [(noted.fileno(), select.EPOLLIN)]
        child.wait()
    assert noted.take() == [signal.SIGUSR1]
    poll.close()


def test_a_flood_neither_blocks_nor_fails(noted: Signals) -> None:
    """The pipe is full after 64 KiB; what is not noted any more was noted often enough."""
    for _ in range(70_000):
        os.kill(os.getpid(), signal.SIGUSR1)
    taken = 0
    while got := noted.take():
        taken += len(got)
    assert taken == 65536


def test_descriptors_are_not_inherited_and_do_not_block(noted: Signals) -> None:
    for descriptor in (noted._readable, noted._writable):
        assert not os.get_inheritable(descriptor)
        assert not os.get_blocking(descriptor)


def test_closing_puts_everything_back() -> None:
    before = {number: signal.getsignal(number) for number in NUMBERS}
    wakeup = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup)
    noted = Signals(NUMBERS)
    assert all(signal.getsignal(number) != before[number] for number in NUMBERS)
    noted.close()
    assert {number: signal.getsignal(number) for number in NUMBERS} == before
    now = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(now)
    assert now == wakeup
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(noted.fileno())


def test_a_child_that_forgets_leaves_the_parent_its_pipe(noted: Signals) -> None:
    def child() -> int:
        signal.set_wakeup_fd(-1)
        for number in NUMBERS:
            signal.signal(number, signal.SIG_IGN)
        noted.forget()
        os.kill(os.getpid(), signal.SIGUSR1)
        return 0

    assert run_forked(child) == 0
    assert noted.take() == []
    os.kill(os.getpid(), signal.SIGHUP)
    assert noted.take() == [signal.SIGHUP]


def test_what_came_while_signals_were_held_back_is_taken_later_and_no_child_inherits_that() -> None:
    def run() -> int:
        with held_back(NUMBERS):
            os.kill(os.getpid(), signal.SIGUSR1)  # its default action would end us
            noted = Signals(NUMBERS)
            assert noted.take() == [signal.SIGUSR1]
            assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & set(NUMBERS)
        noted.close()
        return 0

    assert run_forked(run) == 0


def test_signals_are_held_back_no_longer_than_the_block() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with held_back(NUMBERS):
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before | set(NUMBERS)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
