"""Places and channels over a real segment and queue; processes of a few lines."""

import os
import select
import signal
import time

import pytest
from tests.unit.master.around import SLOTS, Around

from pyserver.ipc.channel import Channel, Drain, Full, Kind, Message
from pyserver.limits import ABORT_GRACE_S
from pyserver.master.supervisor import State


def test_a_crew_gets_free_slots_or_none_at_all(around: Around) -> None:
    workers = around.workers
    assert workers.enlist(1, 2)
    assert not workers.enlist(2, 3)
    assert sorted(workers.places) == sorted(workers.channels) == [0, 1]
    assert workers.enlist(2, 2)
    assert [place.slot for place in workers.of(2)] == [2, 3]
    assert [around.word(slot, "crew") for slot in range(SLOTS)] == [1, 1, 2, 2]


def test_workers_are_wanted_of_the_crews_that_serve_or_come(around: Around) -> None:
    workers = around.workers
    for crew in (1, 2, 3):
        workers.enlist(crew, 1)
    workers.crew, workers.coming = 2, 3
    assert workers.wanted() == [1, 2]
    assert [workers.followed(workers.places[slot]) for slot in range(3)] == [False, True, True]
    workers.unmended = [1]
    assert workers.wanted() == [2]
    workers.coming, workers.unmended = None, []
    assert workers.wanted() == [1]


def test_only_ready_workers_of_the_crew_that_serves_are_loaded(around: Around) -> None:
    workers = around.workers
    around.enlist(1, State.READY, State.EMPTY)
    around.enlist(2, State.READY)
    assert workers.loads() == {0: 0}
    assert around.queue.take_room()
    around.queue.publish(0, 1)
    assert workers.loads() == {0: 1}
    workers.crew = 2
    assert workers.loads() == {2: 0}
    assert [around.word(slot, "state") for slot in range(3)] == [State.READY, State.EMPTY, State.READY]


def fill(channel: Channel) -> int:
    count = 0
    while True:
        try:
            channel.master_end.send(Message(Kind.CONNECTIONS, 0))
        except Full:
            return count
        count += 1


def test_an_order_that_a_full_channel_does_not_take_is_sent_again(around: Around) -> None:
    workers = around.workers
    workers.enlist(1, 1)
    channel = workers.channels[0]
    filled = fill(channel)
    workers.drain(0, 7.5, Drain.MOVE)
    assert (around.word(0, "drain_by_ns"), around.word(0, "drain_how")) == (7_500_000_000, Drain.MOVE)
    workers.ring_owed()  # in vain
    assert workers.owed == [(0, Kind.DRAIN)]
    for _ in range(filled):
        assert channel.worker_end.receive() is not None
    workers.ring_owed()
    assert workers.owed == []
    received = channel.worker_end.receive()
    assert received is not None
    assert received[0].kind is Kind.DRAIN


def test_a_worker_is_spawned_and_reaped(around: Around) -> None:
    workers = around.workers
    workers.enlist(1, 2)

    def become() -> int:
        workers.let_go_but(1)
        workers.channels[1].worker_end.send(Message(Kind.READY, 1))
        return 5

    workers.spawn(1, become)
    place = workers.places[1]
    assert (place.state, place.generation, around.word(1, "generation")) == (State.STARTING, 1, 1)
    assert around.word(1, "pid") > 0
    assert workers.handed()[1].pid == around.word(1, "pid")
    around.turn_until(lambda: around.ended)
    assert around.ended == [(1, "exited with status 5")]
    assert 1 in around.reports
    assert workers.handed()[1].pid == 0
    assert place.state is State.EMPTY
    workers.mend_after(1, time.monotonic())
    assert (workers.unmended, workers.replaced) == ([], [])  # a successor follows


def test_who_is_killed_is_killed_once_and_its_slot_is_cleared_when_nobody_follows(around: Around) -> None:
    workers = around.workers
    workers.enlist(1, 1)
    workers.enlist(2, 1)
    workers.kill(0)  # nobody there
    assert around.word(0, "state") == State.EMPTY

    def become() -> int:
        signal.alarm(60)
        select.poll().poll()
        return 0

    workers.spawn(0, become)
    workers.crew = 2
    workers.kill(0)
    workers.kill(0)  # a second time it is no event
    assert around.word(0, "state") == State.KILLED
    around.turn_until(lambda: around.ended)
    assert around.ended == [(0, "killed by SIGKILL")]
    workers.mend_after(0, time.monotonic())
    assert workers.replaced == [0]
    descriptor = workers.channels[0].master_end.fileno()
    workers.clear(0)
    assert (workers.replaced, sorted(workers.places), sorted(workers.channels)) == ([], [1], [1])
    assert not around.poll.watches(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    assert [around.word(0, field) for field in ("crew", "state", "pid")] == [0, 0, 0]


def test_the_memory_of_who_is_there_is_written_down(around: Around) -> None:
    workers = around.workers
    workers.enlist(1, 1)
    before = time.time()

    def become() -> int:
        signal.alarm(60)
        select.poll().poll()
        return 0

    workers.spawn(0, become)
    assert around.word(0, "rss_bytes") == 0
    assert int(before) <= around.word(0, "started") <= time.time()
    workers.weigh()
    resident = around.word(0, "rss_bytes")
    assert 1 << 20 < resident < 1 << 32
    workers.kill(0)
    around.turn_until(lambda: around.ended)
    workers.weigh()
    assert around.word(0, "rss_bytes") == resident  # of nobody, and readers know
    workers.spawn(0, lambda: 0)
    assert around.word(0, "rss_bytes") == 0, "of the successor it is not known yet"
    around.turn_until(lambda: len(around.ended) == 2)


def test_what_is_next_is_a_rest_that_ends_or_a_patience(around: Around) -> None:
    workers = around.workers
    around.enlist(1, State.EMPTY, State.EMPTY, State.ABORTED)
    workers.places[0].not_before = 101.0
    workers.places[1].not_before = 99.0
    workers.places[2].since = 98.0
    assert list(workers.next_times(100.0)) == [101.0, 98.0 + ABORT_GRACE_S]
