"""Real clients at real listeners, passed on over real channels; the workers are this test."""

import os
import resource
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from tests.unit.processes import at_step, die, forked, run_forked, wait_until

from pyserver import backlog
from pyserver.config import Address
from pyserver.ipc.assignment import ADMIN
from pyserver.ipc.channel import Channel, Full, Kind, Message
from pyserver.ipc.queue import Queue
from pyserver.ipc.segment import Segment
from pyserver.limits import ACCEPT_PAUSE_S, ACCEPT_ROUNDS, BATCH_MAX
from pyserver.master.acceptor import Acceptor
from pyserver.master.listeners import adopt_or_bind

SLOTS = 3


class Door:
    """An acceptor with what is around it in the master, and clients that come and go."""

    def __init__(self, capacity: int, opened: ExitStack) -> None:
        self.segment = Segment.create(SLOTS, capacity)
        opened.callback(self.segment.close)
        self.capacity = capacity
        self.queue = Queue.create(self.segment, capacity)
        opened.callback(self.queue.close)
        self.channels = [Channel() for _ in range(SLOTS)]
        for channel in self.channels:
            opened.callback(channel.close)
        self.listeners = adopt_or_bind({}, [Address.parse("127.0.0.1:0")])
        self.listener = self.listeners[0]
        self.address = self.listener.socket.getsockname()
        self.ready: dict[int, int] = dict.fromkeys(range(SLOTS), 0)  # slot -> open connections
        self.poll = select.epoll()
        opened.callback(self.poll.close)
        self.acceptor = Acceptor(self.listeners, self.queue, dict(enumerate(self.channels)), self.poll, self.loads)
        opened.callback(self.acceptor.close)
        self._opened = opened

    def loads(self) -> dict[int, int]:
        return {slot: at_work + self.queue.waiting(slot) for slot, at_work in self.ready.items()}

    def clients(self, count: int) -> list[socket.socket]:
        """Connected, and each has said its number."""
        made = []
        for number in range(count):
            client = self._opened.enter_context(socket.create_connection(self.address, 5))
            client.sendall(b"%d\n" % number)
            made.append(client)
        return made

    def turn(self, within: float = 0.0) -> bool:
        """One round of the master's loop; tell whether a listener was reported."""
        self.acceptor.look_again()
        events = self.poll.poll(within)
        for descriptor, _ in events:
            assert descriptor == self.listener.fileno()
            self.acceptor.accept(0)
        return bool(events)

    def turn_until(self, condition: Callable[[], object]) -> None:
        wait_until(lambda: (self.turn(), condition())[1])

    def take(self, slot: int, most: int = 1000) -> list[bytes]:
        """As the worker of a slot: take messages, up to so many; what their clients said."""
        said = []
        for _ in range(most):
            received = self.channels[slot].worker_end.receive()
            if received is None:
                break
            message, descriptors = received
            assert message.kind is Kind.CONNECTIONS
            assert message.carried == len(descriptors) <= BATCH_MAX
            assert 0 <= time.monotonic_ns() - message.stamp_ns < 20_000_000_000
            self.queue.for_worker(slot).taken(slot, message.carried)
            for descriptor in descriptors:
                with socket.socket(fileno=descriptor) as client:
                    client.setblocking(True)
                    said.append(client.recv(10))
        return said

    def waiting(self) -> int:
        return sum(self.queue.waiting(slot) for slot in range(SLOTS))

    def assert_balanced(self) -> None:
        queue = self.queue
        assert queue.room + queue.depth + queue.in_hand == self.capacity
        assert queue.in_hand == self.acceptor.held


@contextmanager
def a_door(capacity: int = 64) -> Iterator[Door]:
    with ExitStack() as opened:
        yield Door(capacity, opened)


@pytest.fixture
def door() -> Iterator[Door]:
    with a_door() as made:
        yield made


def numbers(said: list[bytes]) -> list[int]:
    return sorted(int(each) for each in said)


# -- in peace ---------------------------------------------------------------------------------------


def test_clients_are_shared_out_with_what_they_said(door: Door) -> None:
    door.clients(30)
    door.turn_until(lambda: door.waiting() == 30)
    assert [door.queue.waiting(slot) for slot in range(SLOTS)] == [10, 10, 10]
    assert numbers([*door.take(0), *door.take(1), *door.take(2)]) == list(range(30))
    door.assert_balanced()
    assert door.queue.room == door.capacity


def test_the_busy_get_less(door: Door) -> None:
    door.ready = {0: 20, 1: 0, 2: 5}
    door.clients(15)
    door.turn_until(lambda: door.waiting() == 15)
    assert [door.queue.waiting(slot) for slot in range(SLOTS)] == [0, 10, 5]


def test_one_after_the_other_go_round_a_quiet_server(door: Door) -> None:
    order = []
    for _ in range(6):
        door.clients(1)
        door.turn_until(lambda: door.waiting() == 1)
        order += [slot for slot in range(SLOTS) if door.take(slot)]
    assert order == [0, 1, 2, 0, 1, 2]


def test_only_ready_workers_get_any(door: Door) -> None:
    door.ready = {2: 0}
    door.clients(5)
    door.turn_until(lambda: door.waiting() == 5)
    assert door.queue.waiting(2) == 5


def test_without_a_ready_worker_clients_wait_in_the_backlog(door: Door) -> None:
    door.ready = {}
    door.clients(3)
    assert not door.turn(0.05), "the listener is not even polled"
    assert door.queue.room == door.capacity
    door.ready = {0: 0}
    door.turn_until(lambda: door.waiting() == 3)


def test_a_batch_is_bounded_and_says_that_more_may_wait() -> None:
    with a_door(1024) as door:
        door.ready = {0: 0}
        door.clients(BATCH_MAX * ACCEPT_ROUNDS + 5)
        assert door.acceptor.accept(0)
        assert door.waiting() == BATCH_MAX * ACCEPT_ROUNDS
        assert not door.acceptor.accept(0)
        assert door.waiting() == BATCH_MAX * ACCEPT_ROUNDS + 5


def test_the_master_keeps_no_copy_of_a_client(door: Door) -> None:
    (client,) = door.clients(1)
    door.turn_until(lambda: door.waiting() == 1)
    assert [slot for slot in range(SLOTS) if door.take(slot)] == [0]
    assert client.recv(1) == b"", "closed by the worker, so closed"


def test_clients_that_left_before_they_were_accepted_harm_nobody(door: Door) -> None:
    for client in door.clients(10):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset
        client.close()
    door.clients(1)
    door.turn_until(door.waiting)
    door.assert_balanced()


# -- the queue is full ------------------------------------------------------------------------------


def test_a_full_queue_stops_accepting_and_nothing_spins() -> None:
    with a_door(4) as door:
        door.ready = {0: 0}
        door.clients(10)
        door.turn_until(lambda: door.waiting() == 4)
        assert door.acceptor.saturations == 1
        assert not any(door.turn(0.01) for _ in range(5)), "the listener is not polled while there is no room"
        assert door.acceptor.saturations == 1, "counted once"
        door.assert_balanced()


def test_room_is_asked_for_and_used() -> None:
    with a_door(4) as door:
        door.ready = {0: 0}
        door.clients(10)
        said = []
        for _ in range(50):
            door.turn(0.01)
            assert door.waiting() <= 4
            received = door.channels[0].worker_end.receive()
            if received is not None:
                message, descriptors = received
                full = not door.queue.room
                wants = door.queue.for_worker(0).taken(0, message.carried)
                assert wants or not full, "a worker that makes room is told that the master waits for it"
                for descriptor in descriptors:
                    with socket.socket(fileno=descriptor) as client:
                        client.setblocking(True)
                        said.append(client.recv(10))
        assert numbers(said) == list(range(10))
        assert door.queue.room == 4
        assert not door.queue.for_worker(0).taken(0, 0), "nobody waits for room any more"


# -- the channels are full --------------------------------------------------------------------------


def fill(channel: Channel) -> int:
    """Make a channel full with messages that carry nothing."""
    for count in range(1_000_000):
        try:
            channel.master_end.send(Message(Kind.REOPEN))
        except Full:
            return count
    raise AssertionError("endless")


def empty(channel: Channel) -> None:
    """Take away what fill() put in front of the connections."""
    while channel.worker_end.first_number() is not None:
        channel.worker_end.receive()


def test_a_full_channel_is_passed_by(door: Door) -> None:
    fill(door.channels[0])
    door.clients(6)
    door.turn_until(lambda: door.waiting() == 6)
    assert door.queue.waiting(0) == 0
    assert numbers([*door.take(1), *door.take(2)]) == list(range(6))
    door.assert_balanced()


def test_when_all_channels_are_full_clients_are_held_and_passed_on_later(door: Door) -> None:
    for channel in door.channels:
        fill(channel)
    door.clients(6)
    door.turn_until(lambda: door.acceptor.held == 6)
    assert door.waiting() == 0
    door.assert_balanced()
    began = time.monotonic()
    rounds = 0
    while time.monotonic() < began + 2.5 * ACCEPT_PAUSE_S:
        wake_at = door.acceptor.wake_at
        door.turn(max(0.0, wake_at - time.monotonic()) if wake_at else 0.05)
        rounds += 1
    assert rounds < 10, "nothing spins"
    assert door.acceptor.held == 6
    empty(door.channels[1])
    door.turn_until(lambda: door.waiting() == 6)
    assert door.acceptor.held == 0
    assert numbers(door.take(1)) == list(range(6))
    door.assert_balanced()


def test_held_clients_get_the_first_worker_that_becomes_ready(door: Door) -> None:
    door.ready = {0: 0}
    door.acceptor.look_again()
    door.clients(3)
    door.ready = {}  # it dies between the look of the master and the passing on
    door.acceptor.accept(0)
    assert door.acceptor.held == 3
    door.ready = {2: 0}
    door.turn_until(lambda: door.waiting() == 3)
    assert door.queue.waiting(2) == 3
    door.assert_balanced()


def test_connections_of_an_earlier_start_wait_for_a_worker_and_not_for_a_time(door: Door) -> None:
    door.ready = {}
    waiting = socket.socket().detach()
    door.acceptor.carry_on([waiting], Message(Kind.PARKED, 0, 0, 1, 0, time.monotonic_ns()), counted=False)
    door.acceptor.look_again()
    assert door.acceptor.held == 1
    assert door.acceptor.wake_at is None
    door.ready = {1: 0}
    door.acceptor.look_again()
    assert door.queue.waiting(1) == 1
    door.assert_balanced()


def test_a_mutex_that_is_not_to_be_had_is_waited_for_once_for_all(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    publish = door.queue.publish

    def watched(slot: int, count: int) -> int:
        tried.append(slot)
        return publish(slot, count)

    monkeypatch.setattr(door.queue, "publish", watched)
    door.clients(30)
    wait_until(lambda: backlog.held(door.listener.socket)[0] == 30)
    with door.queue.for_worker(0)._mutex:
        door.turn_until(lambda: door.acceptor.held == BATCH_MAX)
        assert len(tried) == 1, "three workers are ready, and each shall have a share"
        wait_until(lambda: time.monotonic() >= (door.acceptor.wake_at or 0.0))
        door.acceptor.look_again()
        assert (len(tried), door.acceptor.held) == (2, BATCH_MAX), "after the pause, once more"
    door.turn_until(lambda: door.waiting() == 30)
    door.assert_balanced()


def test_a_worker_that_died_inside_the_mutex_holds_up_the_master_but_briefly(door: Door) -> None:
    door.ready = {0: 0, 1: 0}
    door.clients(2)
    door.turn_until(lambda: door.waiting() == 2)

    def die_inside() -> None:
        at_step((Queue.taken.__code__,), 25, die)
        door.take(0)

    with forked(die_inside) as worker:
        worker.wait()
    door.clients(3)
    began = time.monotonic()
    door.turn_until(lambda: door.acceptor.held == 3)
    assert time.monotonic() - began < 6
    assert door.queue.mend(0, door.channels[0].worker_end.first_number(), [])
    door.turn_until(lambda: door.acceptor.held == 0)
    door.assert_balanced()
    assert door.waiting() == 4


# -- no descriptors ---------------------------------------------------------------------------------


def test_out_of_descriptors_it_rests_and_goes_on() -> None:
    """The limit is this process's own, so a child has to be it; the clients are its parent's."""
    with a_door() as door:
        door.ready = {0: 0}
        readable, writable = os.pipe()

        def master() -> int:
            clients = door.clients(5)
            lowest_free = os.dup(0)
            os.close(lowest_free)
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free + 2, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
            door.turn_until(lambda: door.acceptor.pauses == 1)
            accepted = door.waiting() + door.acceptor.held
            assert accepted <= 2, accepted
            door.assert_balanced()
            assert door.acceptor.wake_at is not None
            polled = sum(door.turn(0.01) for _ in range(3))
            assert polled == 0, "nothing spins"
            resource.setrlimit(
                resource.RLIMIT_NOFILE, (lowest_free + 50, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
            )
            door.turn_until(lambda: door.waiting() == 5)
            door.assert_balanced()
            assert numbers(door.take(0)) == list(range(5))
            assert len(clients) == 5
            os.write(writable, b"k")
            return 0

        assert run_forked(master) == 0
        assert os.read(readable, 1) == b"k"
        os.close(readable)
        os.close(writable)


def test_the_spare_descriptor_is_there_again_after_the_pause(door: Door) -> None:
    spare = door.acceptor._spare
    assert spare >= 0
    door.acceptor._pause(OSError(24, "Too many open files"))
    assert door.acceptor._spare == -1
    assert door.acceptor.pauses == 1
    door.acceptor._pause(OSError(24, "Too many open files"))
    assert door.acceptor.pauses == 1, "one pause, however often it is said"
    door.turn_until(lambda: door.acceptor.wake_at is None)
    assert door.acceptor._spare >= 0


def test_a_listener_that_somebody_shut_down_hangs_nobody(door: Door) -> None:
    """A listener of systemd's may be shared with others: shutdown(2) by one of them makes every accept(2) fail."""
    door.acceptor.look_again()
    door.listener.socket.shutdown(socket.SHUT_RDWR)

    def accept() -> int:
        door.acceptor.accept(0)
        return 0

    assert run_forked(accept, within=5) == 0


# -- the end ----------------------------------------------------------------------------------------


def test_finishing_takes_what_waits_in_a_backlog_of_our_own(door: Door) -> None:
    clients = door.clients(40)
    door.acceptor.finish()
    assert door.waiting() == 40
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(door.address, 1)
    assert numbers([*door.take(0), *door.take(1), *door.take(2)]) == list(range(40))
    assert len(clients) == 40
    door.assert_balanced()
    assert not door.turn(0.01)


def test_a_client_in_the_same_round_of_events_as_the_end_is_nobodys(door: Door) -> None:
    """The listener was reported, the order to stop came first: it waits for the next server, and we do not fall."""
    door.listener.adopted = True
    door.clients(1)
    door.acceptor.finish()
    assert door.acceptor.accept(0) is False


def test_finishing_takes_no_more_than_there_is_room_for() -> None:
    with a_door(4) as door:
        door.clients(10)
        door.acceptor.finish()
        assert door.waiting() == 4
        door.assert_balanced()


def test_finishing_leaves_an_adopted_backlog_to_its_owner(door: Door) -> None:
    owner = socket.socket(fileno=os.dup(door.listener.fileno()))
    door.listener.adopted = True
    door.clients(7)
    door.acceptor.finish()
    assert door.waiting() == 0
    assert door.listener.fileno() == -1
    with owner:
        for number in range(7):
            accepted, _ = owner.accept()
            with accepted:
                accepted.setblocking(True)
                assert accepted.recv(10) == b"%d\n" % number


def test_closing_ends_the_clients_that_are_still_held(door: Door) -> None:
    for channel in door.channels:
        fill(channel)
    clients = door.clients(2)
    door.turn_until(lambda: door.acceptor.held == 2)
    before = len(list(Path("/proc/self/fd").iterdir()))
    door.acceptor.close()
    # Two clients, the spare, the listener.
    assert len(list(Path("/proc/self/fd").iterdir())) == before - 4
    for client in clients:
        client.settimeout(5)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    door.acceptor._held = []
    door.acceptor._spare = -1


def test_administrators_come_first_where_there_is_little_room() -> None:
    """Whoever looks at a server that has too much to do is not to stand behind all the others."""
    with ExitStack() as opened:
        door = Door(1, opened)
        listeners = adopt_or_bind({}, [Address.parse("127.0.0.1:0")] * 2)
        listeners[1].name = ADMIN
        poll = select.epoll()
        opened.callback(poll.close)
        acceptor = Acceptor(listeners, door.queue, dict(enumerate(door.channels)), poll, lambda: {0: 0})
        opened.callback(acceptor.close)
        for index, listener in enumerate([listeners[0]] * 3 + [listeners[1]]):
            client = opened.enter_context(socket.create_connection(listener.socket.getsockname(), 5))
            client.sendall(b"%d\n" % index)
        wait_until(lambda: len(select.select(listeners, (), (), 0)[0]) == 2)
        said: list[bytes] = []
        while len(said) < 4:
            acceptor.look_again()
            for descriptor, _ in poll.poll(1):
                acceptor.accept([one.fileno() for one in listeners].index(descriptor))
            said += door.take(0)
        assert said == [b"3\n", b"0\n", b"1\n", b"2\n"]


def test_the_wait_of_who_had_to_wait_for_room_begins_before_the_accept() -> None:
    with ExitStack() as opened:
        door = Door(1, opened)
        door.clients(2)
        door.turn_until(lambda: door.queue.depth == 1)
        wait_until(lambda: door.acceptor.saturations)
        since = time.monotonic_ns()
        wait_until(lambda: time.monotonic_ns() > since + 400_000_000)

        def stamp() -> int:
            door.turn_until(lambda: sum(door.queue.waiting(slot) for slot in range(SLOTS)))
            for slot in range(SLOTS):
                received = door.channels[slot].worker_end.receive()
                if received is not None:
                    os.close(received[1][0])
                    door.queue.for_worker(slot).taken(slot, 1)
                    return received[0].stamp_ns
            raise AssertionError

        first, second = stamp(), stamp()
        assert first < since, "accepted at once"
        # In milliseconds, of a clock that ticks every four or ten.
        assert second < since + 50_000_000, "and this one waited in the kernel"
