"""A reload after its rehearsal: crews over real channels and a real queue. How it looks from outside: tests/service."""

import os
import resource
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from tests.unit.master.around import SLOTS, Around

from pyserver.ipc.channel import Drain, Kind, Message
from pyserver.ipc.segment import HEADER
from pyserver.limits import START_TRIES
from pyserver.master import standin
from pyserver.master.handover import Handover
from pyserver.master.stopping import Stopping
from pyserver.master.succession import Succession
from pyserver.master.supervisor import State
from pyserver.master.workers import ACTING


class Changing(Around):
    """With a reload under way, as the new code finds it."""

    def __init__(self, opened: ExitStack) -> None:
        super().__init__(opened)
        self.gone_on: list[Handover] = []
        self.stopping = Stopping(
            2.0,
            self.segment,
            self.queue,
            self.workers,
            self.acceptor,
            self.backlogs,
            self.origins,
            self.reload,
            self.notifier,
        )
        opened.callback(self.stopping.forget)
        self.succession = Succession(
            self.segment,
            self.queue,
            self.workers,
            self.acceptor,
            self.origins,
            self.reload,
            self.stopping,
            self.standing,
            self.notifier,
            self.poll,
            threads=4,
            hand_over=lambda: self.handed_over()._replace(segment_descriptors=self.segment.descriptors()),
            stand_in=self.stand_in,
            go_on=self.gone_on.append,
            obey=list,
            hear=self.hear,
        )

    def stand_in(self, way: socket.socket) -> int:
        return standin.serve(way, self.acceptor, self.queue, self.listeners, list(self.workers.places))

    def hear(self, slot: int) -> bool:
        received = self.workers.channels[slot].master_end.receive()
        if received is None:
            return False
        message, descriptors = received
        return self.succession.takes_back(self.workers.places[slot], descriptors, message)

    def crew_states(self, crew: int) -> list[State]:
        return [place.state for place in self.workers.of(crew)]


@pytest.fixture
def around() -> Iterator[Changing]:
    with ExitStack() as opened:
        yield Changing(opened)


def come(around: Changing, slot: int) -> None:
    place = around.workers.places[slot]
    around.workers.happened(place, "spawned", 1.0)
    around.workers.happened(place, "ready", 1.0)
    around.succession.came(place)


def give_back(around: Changing, slot: int, listener: int = 0) -> None:
    """As a worker: give a connection back."""
    with socket.socket(socket.AF_INET) as client:
        around.workers.channels[slot].worker_end.send(Message(Kind.PARKED, 1, listener, 1, 0, 0), [client.fileno()])


def test_crews_change_when_the_last_of_those_that_come_is_ready(around: Changing) -> None:
    around.enlist(1, State.READY, State.EMPTY)
    around.succession.enlist(2)
    assert (around.workers.coming, around.crew_states(2)) == (2, [State.EMPTY] * 2)
    come(around, 2)
    assert (around.workers.crew, around.crew_states(1)) == (1, [State.READY, State.EMPTY])
    come(around, 3)
    assert (around.workers.crew, around.workers.coming) == (2, None)
    assert around.crew_states(1) == [State.DRAINING, State.EMPTY]
    assert around.word(0, "drain_how") == Drain.MOVE
    assert around.workers.replaced == [1]  # it has no worker that would have to go first
    words = around.segment.words
    assert (words[HEADER["crew"]], words[HEADER["reloads"]]) == (2, 1)
    assert "READY=1" in around.told()[-1]


def test_workers_that_do_not_come_leave_those_that_serve_as_they_are(around: Changing) -> None:
    around.enlist(1, State.READY)
    around.succession.enlist(2)
    for _ in range(START_TRIES - 1):
        around.succession.died_early("exited with status 1")
    assert (around.workers.coming, around.reload.failure) == (2, "")
    around.succession.died_early("exited with status 1")
    assert (around.workers.crew, around.workers.coming, around.crew_states(1)) == (1, None, [State.READY])
    assert around.reload.failure == "no worker comes up (exited with status 1); the workers that serve go on"
    around.succession.clear_replaced()
    assert sorted(around.workers.places) == [0]


def test_too_many_workers_of_earlier_reloads_are_a_reason_to_fail(around: Changing) -> None:
    around.enlist(1, *[State.READY] * (SLOTS - 1))
    around.succession.enlist(2)
    assert (around.workers.coming, len(around.workers.places)) == (None, SLOTS - 1)
    assert around.reload.failure == "too many workers of earlier reloads have not finished yet"


def test_a_rehearsal_that_cannot_be_had_is_a_failed_reload(around: Changing) -> None:
    around.enlist(1, State.READY)
    around.reload.wish()
    around.succession.see_to(1.0)
    assert around.reload.due  # the service is not ready yet
    around.standing.tell_ready(1.0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        around.succession.see_to(1.0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (around.reload.due, around.reload.began) == (False, 0.0)
    assert around.reload.failure == "no rehearsal: Too many open files"


def test_without_what_only_a_reload_imports_it_fails_and_all_goes_on(
    around: Changing, monkeypatch: pytest.MonkeyPatch
) -> None:
    around.enlist(1, State.READY)
    around.standing.tell_ready(1.0)
    monkeypatch.setitem(sys.modules, "json", None)  # as if it had gone from the disk
    around.reload.wish()
    around.succession.see_to(1.0)
    assert around.reload.failure.startswith("no rehearsal: import of json halted")
    around.acceptor.look_again()
    assert around.acceptor.polling
    around.succession._execute()
    assert around.reload.failure.startswith(f"cannot execute {sys.executable}: import of json halted")
    (handed,) = around.gone_on
    assert (handed.stand_in, handed.unmended) == (None, [ACTING]), "there was one, and it could not tell what it did"


def test_a_stop_comes_before_a_reload(around: Changing) -> None:
    around.enlist(1, State.READY)
    around.standing.tell_ready(1.0)
    around.stopping.begin("SIGTERM")
    around.reload.wish()
    around.succession.see_to(1.0)
    assert around.reload.failure == ""


def test_only_replaced_workers_give_connections_back(around: Changing) -> None:
    around.enlist(1, State.DRAINING)
    around.enlist(2, State.READY)
    message = Message(Kind.PARKED, 1, 0, 0, 0, 0)
    takes_back = around.succession.takes_back
    replaced, serving = around.workers.places[0], around.workers.places[1]
    around.workers.crew = 2
    assert takes_back(replaced, [], message)
    assert not takes_back(serving, [], message)
    assert not takes_back(replaced, [], message._replace(kind=Kind.READY))
    assert not takes_back(replaced, [], message._replace(listener=1))  # there is no such listener
    around.stopping.begin("SIGINT")
    assert not takes_back(replaced, [], message)


def test_what_waits_in_the_channel_of_one_that_has_gone_goes_to_those_that_serve(around: Changing) -> None:
    around.enlist(1, State.EMPTY)
    around.enlist(2, State.READY)
    around.workers.crew = 2
    around.workers.replaced.append(0)
    give_back(around, 0)
    with socket.socket(socket.AF_INET) as client:
        assert around.queue.take_room()
        number = around.queue.publish(0, 1)
        message = Message(Kind.CONNECTIONS, 0, 0, 1, number, 0)
        around.workers.channels[0].master_end.send(message, [client.fileno()])
    around.succession.clear_replaced()
    assert (sorted(around.workers.places), around.workers.replaced) == ([1], [])
    around.acceptor.look_again()
    kinds = []
    while (received := around.workers.channels[1].worker_end.receive()) is not None:
        kinds.append(received[0].kind)
        for descriptor in received[1]:
            os.close(descriptor)
    assert sorted(kinds) == sorted([Kind.PARKED, Kind.CONNECTIONS])
    assert around.queue.waiting(1) == 2
    assert around.queue.room + around.queue.depth == around.queue.capacity


def test_no_more_is_heard_than_can_be_passed_on(around: Changing) -> None:
    around.enlist(1, State.DRAINING)
    around.enlist(2, State.READY)
    around.workers.crew = 2
    while around.queue.take_room():
        pass
    report = around.workers.channels[0].master_end.fileno()
    give_back(around, 0)
    assert around.hear(0)
    assert (around.acceptor.laden, around.poll.watches(report)) == (True, False)
    around.succession.clear_replaced()
    assert not around.poll.watches(report)
    around.queue.return_room(around.queue.capacity)
    around.acceptor.look_again()
    around.succession.clear_replaced()
    assert (around.acceptor.laden, around.poll.watches(report)) == (False, True)
