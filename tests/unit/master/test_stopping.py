"""The end as steps, over real channels and a real queue; no process is needed to decide."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from tests.unit.master.around import Around
from tests.unit.processes import wait_until

from pyserver import backlog
from pyserver.ipc.channel import Drain, Kind, Message
from pyserver.ipc.segment import HEADER
from pyserver.limits import BATCH_MAX, STOP_MARGIN_S
from pyserver.master.stopping import Stopping
from pyserver.master.supervisor import State

DRAIN_S = 600.0  # no test is that slow


def made(around: Around) -> Stopping:
    return Stopping(
        DRAIN_S,
        around.segment,
        around.queue,
        around.workers,
        around.acceptor,
        around.backlogs,
        around.origins,
        around.reload,
        around.notifier,
    )


@pytest.fixture
def stopping(around: Around) -> Iterator[Stopping]:
    stopping = made(around)
    yield stopping
    stopping.forget()


def orders(around: Around, slot: int) -> list[Kind]:
    got = []
    while (received := around.workers.channels[slot].worker_end.receive()) is not None:
        got.append(received[0].kind)
    return got


def client() -> int:
    return socket.socket(socket.AF_INET).detach()


def parked(listener: int = 0) -> Message:
    return Message(Kind.PARKED, 1, listener, 1, 0, 0)


def test_whoever_runs_is_told_to_drain_and_it_is_over_when_they_are_gone(around: Around, stopping: Stopping) -> None:
    around.enlist(1, State.READY, State.STARTING, State.DRAINING, State.EMPTY)
    stopping.begin("SIGINT")
    assert (stopping.begun, stopping.status, around.segment.words[HEADER["master_state"]]) == (True, 0, 1)
    assert "STOPPING=1" in around.told()[0]
    assert not stopping.advance()
    assert not stopping.advance()  # nobody is told twice
    assert [orders(around, slot) for slot in range(4)] == [[Kind.DRAIN]] * 3 + [[]]
    assert [place.state for place in around.workers.places.values()] == [State.DRAINING] * 3 + [State.EMPTY]
    assert around.word(0, "drain_how") == Drain.CLOSE
    for slot in range(3):
        around.workers.happened(around.workers.places[slot], "exited", 1.0)
    assert stopping.advance()
    assert not stopping.forced


def test_a_worker_is_started_for_those_who_wait_in_its_channel(around: Around, stopping: Stopping) -> None:
    around.enlist(1, State.EMPTY, State.EMPTY)
    around.workers.places[1].not_before = 1e9
    assert around.queue.take_room()
    around.queue.publish(1, 1)
    stopping.begin("SIGTERM")
    assert around.workers.places[1].not_before == 0.0
    assert stopping.refill() == [1]
    assert not stopping.advance()
    around.workers.happened(around.workers.places[1], "spawned", 1.0)
    stopping.spawned(1)
    assert around.workers.places[1].state is State.DRAINING
    assert orders(around, 1) == [Kind.DRAIN]


def test_no_worker_is_told_while_somebody_waits_in_our_hands(around: Around, stopping: Stopping) -> None:
    around.enlist(1, State.EMPTY, State.EMPTY)
    assert around.queue.take_room()
    around.acceptor.carry_on([client()], Message(Kind.CONNECTIONS, 0, 0, 1, 0, 0), counted=True)
    stopping.begin("SIGTERM")
    assert stopping.refill() == [0]
    assert not stopping.advance()
    around.workers.happened(around.workers.places[0], "spawned", 1.0)
    stopping.spawned(0)
    assert around.workers.places[0].state is State.STARTING
    assert (stopping.refill(), orders(around, 0)) == ([], [])


def test_a_second_time_nobody_is_waited_for(around: Around, stopping: Stopping) -> None:
    around.enlist(1, State.EMPTY)
    assert around.queue.take_room()
    around.queue.publish(0, 1)
    stopping.begin("SIGTERM", 3)
    assert not stopping.advance()
    stopping.begin("SIGTERM")
    assert (stopping.status, stopping.forced, stopping.refill()) == (3, True, [])
    assert stopping.advance()


def test_in_an_overload_all_who_wait_at_a_listener_of_our_own_are_still_taken() -> None:
    with ExitStack() as opened:
        around = Around(opened, capacity=1024)
        stopping = made(around)
        opened.callback(stopping.forget)
        around.enlist(1, State.READY)
        around.queue.narrow(2)
        count = 3 * BATCH_MAX
        for _ in range(count):
            connected = opened.enter_context(socket.create_connection(around.listeners[0].socket.getsockname(), 20))
            connected.sendall(b"hello")
        wait_until(lambda: backlog.held(around.listeners[0].socket)[0] == count)
        around.acceptor.look_again()
        around.acceptor.accept(0)
        assert around.queue.waiting(0) == 2
        stopping.begin("SIGTERM")
        assert around.queue.waiting(0) + around.acceptor.held == count


@pytest.mark.parametrize(("drain", "granted"), [(0.0, 0.0), (2.0, 2.0), (DRAIN_S * 2, DRAIN_S), (None, DRAIN_S)])
def test_an_order_may_shorten_the_drain_and_not_prolong_it(
    around: Around, stopping: Stopping, drain: float | None, granted: float
) -> None:
    stopping.begin("SIGINT", drain=drain)
    assert around.told()[1] == f"EXTEND_TIMEOUT_USEC={(granted + STOP_MARGIN_S) * 1e6:.0f}"
    assert stopping.advance()  # there is nobody to wait for


@pytest.mark.parametrize(("why", "status", "kept"), [("SIGTERM", 0, True), ("SIGINT", 0, False), ("SIGTERM", 1, False)])
def test_idle_connections_are_kept_for_who_may_follow(
    around: Around, stopping: Stopping, why: str, status: int, kept: bool
) -> None:
    around.enlist(1, State.READY)
    given_back = client()
    assert not stopping.takes_parked([given_back], parked())  # nobody stops
    stopping.begin(why, status)
    around.told()
    assert stopping.advance() is False
    assert around.word(0, "drain_how") == (Drain.STORE if kept else Drain.CLOSE)
    assert not stopping.takes_parked([given_back], parked(listener=1))  # there is no such listener
    assert stopping.takes_parked([given_back], parked()) is kept
    stopping.finish()
    assert [text.rpartition(" ")[2] for text in around.told()] == (["+1"] if kept else [])
    if not kept:
        os.close(given_back)
