"""The ledger and its semaphores: exact after every death, at whatever instruction it came."""

import os
import random
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.processes import STRIDE, Child, at_step, die, forked, run_forked, steps_of, stop, wait_until

from pyserver.ipc import semaphores
from pyserver.ipc.channel import Channel, End, Gone, Kind, Message
from pyserver.ipc.queue import Queue
from pyserver.ipc.segment import HEADER, SHM, TOTALS, Segment, SegmentError, sweep
from pyserver.ipc.semaphores import Mutex, Stuck, try_acquire
from pyserver.ipc.stats import CELLS, Tally
from pyserver.limits import MUTEX_PATIENCE_MASTER_S

CAPACITY = 64
SLOTS = 4

# All that a worker runs through from a message in its channel to the end of its accounting.
TAKING = (
    End.receive.__code__,
    Queue.taken.__code__,
    Mutex.__enter__.__code__,
    Mutex.__exit__.__code__,
    try_acquire.__code__,
)


class Exchange:
    """The master's half of a server: it puts connections into channels, and mends what the dead left."""

    def __init__(self, segment: Segment, queue: Queue) -> None:
        self.segment = segment
        self.queue = queue
        self.channels = [Channel() for _ in range(SLOTS)]
        self.published = [0] * SLOTS

    def close(self) -> None:
        for channel in self.channels:
            channel.close()

    def put(self, slot: int, count: int) -> bool:
        """Pass on `count` connections; False when there is no room for so many."""
        taken = self.queue.take_room(count)
        if taken < count:
            self.queue.return_room(taken)
            return False
        try:
            number = self.queue.publish(slot, count)
        except Stuck:  # the acceptor would hold them, and try again later
            self.queue.return_room(count)
            return False
        descriptors = [os.open(os.devnull, os.O_RDONLY) for _ in range(count)]
        self.channels[slot].master_end.send(Message(Kind.CONNECTIONS, carried=count, number=number), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        self.published[slot] += count
        return True

    def take(self, slot: int) -> int:
        """As the worker of a slot: one message with its accounting; how many connections it brought."""
        received = self.channels[slot].worker_end.receive()
        if received is None:
            return 0
        message, descriptors = received
        self.queue.for_worker(slot).taken(slot, message.carried)
        for descriptor in descriptors:
            os.close(descriptor)
        return len(descriptors)

    def worker(self, slot: int, *, slow: bool = False) -> Callable[[], None]:
        """A worker that takes what comes, and goes through the accounting all the time."""

        def run() -> None:
            if slow:  # traced, and so most of its time inside
                at_step(TAKING, 0, die)
            own = self.queue.for_worker(slot)
            while True:
                self.take(slot)
                own.taken(slot, 0)
                os.sched_yield()

        return run

    def mend(self, slot: int, living: list[int]) -> bool:
        """Exactly what master.workers does when a worker was reaped."""
        return self.queue.mend(slot, self.channels[slot].worker_end.first_number(), living)

    def go_on_after_acting(self) -> None:
        """Exactly what master.main and master.workers do when a stand-in has died."""
        self.queue.go_on_from_words(range(SLOTS))
        for _ in range(50):
            with suppress(Stuck):
                return self.queue.mend_after_acting([])
        raise Stuck

    def mend_patiently(self, slot: int, living: list[int]) -> bool:
        """As the master does: when the others leave it no turn at the mutex, once more a little later."""
        for _ in range(50):
            with suppress(Stuck):
                return self.mend(slot, living)
        raise Stuck

    def drain(self, slot: int) -> int:
        """Take all that waits, as a successor does; how many descriptors there really were."""
        count = 0
        while taken := self.take(slot):
            count += taken
        return count

    def assert_balanced(self) -> None:
        """The invariant, while nobody moves."""
        queue = self.queue
        assert queue.room + queue.depth + queue.in_hand == CAPACITY
        assert queue.depth == sum(queue.waiting(slot) for slot in range(SLOTS))
        with queue._mutex:  # free, that is
            pass

    def assert_at_rest(self) -> None:
        """Everything was taken: nothing leaked."""
        self.assert_balanced()
        assert (self.queue.room, self.queue.depth, self.queue.in_hand) == (CAPACITY, 0, 0)
        for slot in range(SLOTS):
            assert self.queue.number(slot) == self.published[slot]
            assert self.channels[slot].worker_end.receive() is None


@contextmanager
def an_exchange() -> Iterator[Exchange]:
    segment = Segment.create(SLOTS, CAPACITY)
    queue = Queue.create(segment, CAPACITY)
    made = Exchange(segment, queue)
    try:
        yield made
    finally:
        made.close()
        queue.close()
        segment.close()


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    with an_exchange() as made:
        yield made


# -- in peace -------------------------------------------------------------------------------------


def test_it_is_made_with_four_names_and_leaves_none(segment: Segment) -> None:
    queue = Queue.create(segment, 7)
    names = {f"sem.{segment.name[1:]}.{name}" for name in semaphores.NAMES}
    assert names <= {path.name for path in SHM.iterdir()}
    assert (queue.room, queue.depth, queue.in_hand) == (7, 0, 0)
    queue.close()
    assert not names & {path.name for path in SHM.iterdir()}


def test_when_one_name_cannot_be_made_none_is_left(segment: Segment) -> None:
    taken = semaphores.create(segment.name, "stats_mutex", 1)
    with pytest.raises(SegmentError, match=rf"^cannot make the semaphores of {segment.name}: "):
        Queue.create(segment, 7)
    assert [path.name for path in SHM.glob(f"sem.{segment.name[1:]}*")] == [f"sem.{segment.name[1:]}.stats_mutex"]
    taken.unlink()
    taken.close()


def test_the_way_of_connections(exchange: Exchange) -> None:
    queue = exchange.queue
    assert queue.take_room()
    assert queue.take_room()
    assert (queue.room, queue.depth, queue.in_hand) == (CAPACITY - 2, 0, 2)
    queue.return_room()
    assert queue.in_hand == 1
    assert queue.publish(2, 1) == 0
    assert (queue.room, queue.depth, queue.in_hand, queue.waiting(2)) == (CAPACITY - 1, 1, 0, 1)
    assert queue.number(2) == 1
    assert not queue.for_worker(2).taken(2, 1)
    assert (queue.room, queue.depth, queue.in_hand, queue.waiting(2)) == (CAPACITY, 0, 0, 0)
    exchange.assert_balanced()


def test_the_number_of_a_message_counts_what_went_before(exchange: Exchange) -> None:
    for count in (3, 2, 1):
        exchange.put(0, count)
    numbers = []
    while (number := exchange.channels[0].worker_end.first_number()) is not None:
        numbers.append(number)
        exchange.take(0)
    assert numbers == [0, 3, 5]


def test_withdrawn_connections_are_in_hand_again(exchange: Exchange) -> None:
    queue = exchange.queue
    for _ in range(3):
        queue.take_room()
    queue.publish(1, 3)
    queue.withdraw(1, 3)
    assert (queue.room, queue.depth, queue.in_hand, queue.waiting(1), queue.number(1)) == (CAPACITY - 3, 0, 3, 0, 0)
    exchange.assert_balanced()


def test_no_room_beyond_the_capacity(exchange: Exchange) -> None:
    assert all(exchange.put(0, 16) for _ in range(CAPACITY // 16))
    assert not exchange.queue.take_room()
    assert exchange.queue.in_hand == 0
    assert exchange.drain(0) == CAPACITY
    exchange.assert_at_rest()


def test_room_for_a_batch_is_as_much_as_there_is(exchange: Exchange) -> None:
    queue = exchange.queue
    assert queue.take_room(CAPACITY - 3) == CAPACITY - 3
    assert queue.take_room(16) == 3
    assert (queue.room, queue.in_hand) == (0, CAPACITY)
    assert queue.take_room(16) == 0
    exchange.assert_balanced()
    queue.return_room(10)
    queue.narrow(CAPACITY - 6)
    assert queue.take_room(16) == 4
    assert queue.take_room(16) == 0
    queue.narrow(CAPACITY)
    queue.return_room(queue.in_hand)
    exchange.assert_at_rest()


def test_a_worker_that_makes_room_is_told_that_the_master_waits(exchange: Exchange) -> None:
    queue, worker = exchange.queue, exchange.queue.for_worker(0)
    assert queue.want_room(), "there is room: no need to wait"
    exchange.put(0, 32)
    exchange.put(0, 32)
    assert not queue.want_room()
    assert worker.taken(0, 32)
    queue.room_told()
    assert not worker.taken(0, 32)


def test_a_row_that_a_worker_spoiled_never_counts_below_nothing(exchange: Exchange) -> None:
    exchange.segment.words[exchange.segment.row(0, "received")] = 1 << 63
    assert exchange.queue.waiting(0) == 0


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["put", "take", "withdraw", "mend", "return"]), st.integers(0, 3), st.integers(1, 16)
        ),
        max_size=40,
    )
)
def test_the_invariant_holds_after_every_step(steps: list[tuple[str, int, int]]) -> None:
    with an_exchange() as exchange:
        queue = exchange.queue
        for verb, slot, count in steps:
            if verb == "put":
                exchange.put(slot, count)
            elif verb == "take":
                exchange.take(slot)
            elif verb == "mend":
                assert not exchange.mend(slot, [each for each in range(SLOTS) if each != slot])
            elif queue.room >= count:
                assert queue.take_room(count) == count
                if verb == "withdraw":
                    queue.publish(slot, count)
                    queue.withdraw(slot, count)
                queue.return_room(count)
            exchange.assert_balanced()
        taken = [exchange.drain(slot) for slot in range(SLOTS)]
        assert sum(taken) <= sum(exchange.published)
        exchange.assert_at_rest()


# -- deaths ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick_turns")
@pytest.mark.parametrize("living", [[], [1]], ids=["alone", "beside one that takes all the time"])
def test_a_worker_killed_at_every_bytecode_of_taking(exchange: Exchange, living: list[int]) -> None:
    exchange.put(0, 3)
    steps = steps_of(TAKING, lambda: exchange.take(0))  # in a child: the message is gone, the accounting done
    exchange.assert_at_rest()
    assert steps > 200
    outcomes = {0: 0, 3: 0}
    mended = 0
    with ExitStack() as others:
        for slot in living:
            others.enter_context(forked(exchange.worker(slot)))
        for step in range(1, steps + 1):

            def run(step: int = step) -> None:
                at_step(TAKING, step, die)
                exchange.take(0)

            assert exchange.put(0, 3)
            assert exchange.put(0, 2)
            for slot in living:
                exchange.put(slot, 1)
            with forked(run) as child:
                assert child.wait() == -signal.SIGKILL
            mended += exchange.mend(0, living)
            if not living:
                exchange.assert_balanced()
            waiting = exchange.queue.waiting(0)
            assert exchange.drain(0) == waiting, f"the ledger is wrong after a death at step {step}"
            outcomes[5 - waiting] += 1
        for slot in living:
            wait_until(lambda slot=slot: exchange.queue.waiting(slot) == 0)  # type: ignore[misc]
            others.pop_all().close()
            exchange.mend(slot, [])
    exchange.assert_at_rest()
    assert outcomes[0] > 10, "killed before recvmsg took the message"
    assert outcomes[3] > 150, "killed after"
    assert mended > 100


def test_what_a_drain_order_says_is_enough_to_mend(exchange: Exchange) -> None:
    """Any message tells how many were put in before it, also one that carries none."""
    exchange.put(0, 4)
    exchange.channels[0].master_end.send(Message(Kind.DRAIN, 1, number=exchange.queue.number(0)))
    exchange.channels[0].worker_end.receive()  # a worker that dies before it has counted them
    assert exchange.mend(0, [])
    assert exchange.queue.waiting(0) == 0
    exchange.assert_balanced()


@pytest.mark.usefixtures("quick_turns")
def test_workers_killed_at_random_while_the_master_puts(exchange: Exchange) -> None:
    """Three workers take; one after the other is killed, mended and replaced, under way or not."""
    chance = random.Random(2)
    workers = {slot: Child(exchange.worker(slot, slow=True)) for slot in range(3)}
    mended = 0
    try:
        for round_ in range(3000):
            if round_ >= 300 and mended > 5:  # on a machine that has other things to do bad moments are rare
                break
            slot = round_ % 3
            end = time.monotonic() + chance.uniform(0, 0.006)
            while time.monotonic() < end:
                exchange.put(chance.randrange(3), chance.randrange(1, 17))
            workers[slot].kill()
            mended += exchange.mend_patiently(slot, [each for each in range(3) if each != slot])
            workers[slot] = Child(exchange.worker(slot, slow=True))
        for slot in range(3):
            wait_until(lambda slot=slot: exchange.queue.waiting(slot) == 0)  # type: ignore[misc]
    finally:
        for worker in workers.values():
            worker.end()
    unmended = {0, 1, 2}
    for slot in (0, 1, 2, 0, 1, 2):  # all dead at once: one may have to wait until the one that held is mended
        with suppress(Stuck):
            exchange.mend(slot, [])
            unmended.discard(slot)
    assert not unmended
    exchange.assert_at_rest()
    assert sum(exchange.published) > 1000
    assert mended > 5, "hardly a death came at a bad moment: the test proves nothing"


@pytest.mark.usefixtures("quick_turns")
def test_the_master_does_not_wait_long_for_a_holder_that_died(exchange: Exchange) -> None:
    """It learns of the death only in its loop, so it must go back there, with nothing half done."""
    codes = (Queue.taken.__code__,)
    exchange.put(0, 2)

    def run() -> None:
        at_step(codes, 25, die)
        exchange.take(0)

    with forked(run) as child:
        child.wait()
    queue = exchange.queue
    for _ in range(2):
        assert queue.take_room()
    began = time.monotonic()
    with pytest.raises(Stuck):
        queue.publish(1, 2)
    assert time.monotonic() - began < 3 * MUTEX_PATIENCE_MASTER_S
    assert queue.in_hand == 2
    assert queue.number(1) == 0
    assert exchange.mend(0, [])
    queue.publish(1, 2)
    assert queue.in_hand == 0
    queue.withdraw(1, 2)
    queue.return_room(2)
    exchange.assert_at_rest()


@pytest.mark.usefixtures("quick_turns")
def test_withdrawing_waits_for_nobody_dead(exchange: Exchange) -> None:
    """A worker dies inside between publish() and the channel's refusal: what is undone is undone all the same."""
    queue = exchange.queue
    exchange.put(0, 2)
    assert queue.take_room()
    queue.publish(1, 1)

    def run() -> None:
        at_step((Queue.taken.__code__,), 25, die)
        exchange.take(0)

    with forked(run) as child:
        child.wait()
    queue.withdraw(1, 1)
    assert (queue.in_hand, queue.waiting(1)) == (1, 0)
    exchange.mend(0, [])
    exchange.assert_balanced()
    queue.return_room()
    exchange.assert_at_rest()


@pytest.mark.usefixtures("quick_turns")
def test_mending_waits_for_a_living_worker_that_stopped_inside(exchange: Exchange) -> None:
    exchange.put(0, 2)
    exchange.put(1, 3)

    def run() -> None:
        at_step((Queue.taken.__code__,), 25, stop)
        exchange.take(1)

    with forked(run) as stopped:
        assert stopped.wait_stopped()
        with forked(exchange.worker(0)) as killed:
            wait_until(lambda: exchange.segment.words[exchange.segment.row(0, "queue_mutex_state")] == 1)
            killed.kill()
        with pytest.raises(Stuck):
            exchange.mend(0, [1])
        stopped.signal(signal.SIGCONT)
        assert stopped.wait() == 0
    assert exchange.mend(0, [])
    assert exchange.drain(0) == 0, "the killed one had taken the message, and the connections with it"
    exchange.assert_at_rest()


# -- totals ---------------------------------------------------------------------------------------


def test_totals_are_of_the_living_and_the_dead(exchange: Exchange) -> None:
    queue, segment = exchange.queue, exchange.segment
    tally = Tally()
    tally.requests, tally.connections_open = 10, 3
    tally.publish(segment.words, segment.counters(0))
    tally.requests = 5
    tally.publish(segment.words, segment.counters(1))
    assert (queue.totals()["requests"], queue.totals()["connections_open"]) == (15, 6)
    queue.fold(0)
    assert (queue.totals()["requests"], queue.totals()["connections_open"]) == (15, 3)
    assert segment.words[HEADER["fold"]] == 2


# -- a worker that was taken over writes anything, anywhere in the segment (T-61) ----------------------


@pytest.mark.usefixtures("quick_turns")
@pytest.mark.parametrize("value", [0, 1 << 63, (1 << 64) - 1])
def test_the_master_computes_with_nothing_that_a_worker_can_write(exchange: Exchange, value: int) -> None:
    queue, segment, words = exchange.queue, exchange.segment, exchange.segment.words

    def forge() -> None:
        for name in ("sent", "received"):
            words[segment.row(0, name)] = value
        for name in ("in_hand", "saturated", "fold", "queue_mutex_turns", "queue_mutex_holds", "stats_mutex_holds"):
            words[HEADER[name]] = value
        for index in range(CELLS):
            words[TOTALS + index] = words[segment.counters(0) + index] = value

    assert exchange.put(0, 3)
    assert exchange.put(1, 5)
    forge()
    assert exchange.put(0, 2)
    assert queue.number(0) == 5
    assert 0 <= queue.waiting(0) <= CAPACITY
    assert queue.take_room()
    queue.publish(0, 1)
    queue.withdraw(0, 1)
    queue.return_room()
    forge()
    began = time.monotonic()
    exchange.mend(0, [1])
    queue.fold(0)
    queue.totals()
    assert time.monotonic() - began < 5
    exchange.assert_balanced()
    assert (exchange.drain(0), exchange.drain(1)) == (5, 5)
    exchange.assert_at_rest()


def test_a_forged_row_of_another_worker_is_set_right_when_that_one_dies(exchange: Exchange) -> None:
    segment = exchange.segment
    exchange.put(0, 3)
    exchange.put(1, 5)
    segment.words[segment.row(1, "received")] = (-(1 << 40)) % (1 << 64)
    exchange.mend(0, [1])
    assert exchange.queue.depth + exchange.queue.room <= CAPACITY
    exchange.mend(1, [0])
    exchange.assert_balanced()
    assert (exchange.drain(0), exchange.drain(1)) == (3, 5)
    exchange.assert_at_rest()


# -- reload --------------------------------------------------------------------------------------------


def test_a_queue_that_was_handed_over_goes_on(segment: Segment) -> None:
    queue = Queue.create(segment, CAPACITY)
    assert queue.take_room()
    assert queue.take_room()
    queue.publish(1, 1)
    adopted = Queue.adopt(segment, CAPACITY, {1: queue.number(1)}, queue.in_hand)
    assert (adopted.waiting(1), adopted.in_hand, adopted.depth) == (1, 1, 1)
    adopted.withdraw(1, 1)
    adopted.return_room(2)
    assert (adopted.room, adopted.depth, adopted.in_hand) == (CAPACITY, 0, 0)
    queue.close()


def test_a_queue_without_its_semaphores_cannot_be_adopted(segment: Segment) -> None:
    with pytest.raises(SegmentError, match="cannot open the semaphores"):
        Queue.adopt(segment, CAPACITY, {}, 0)


def test_a_private_queue_is_made_while_another_server_starts() -> None:
    """At whatever instruction it does: it removes semaphores that have no segment, as these have none."""
    codes = (Queue.private.__code__, Queue.create.__code__)

    def make() -> None:
        segment = Segment.private(1)
        queue = Queue.private(segment, 1)
        assert queue.take_room()
        queue.close()

    def make_beside(step: int) -> int:
        at_step(codes, step, sweep)
        make()
        return 0

    for step in range(1, steps_of(codes, make) + 1):
        assert run_forked(partial(make_beside, step)) == 0, step


def test_a_private_queue_has_no_name(segment: Segment) -> None:
    queue = Queue.private(segment, 1)
    assert not list(SHM.glob(f"sem.{segment.name[1:]}*"))
    assert queue.take_room()
    assert not queue.take_room()


def test_a_queue_grows_and_shrinks_as_far_as_it_is_empty(segment: Segment) -> None:
    queue = Queue.create(segment, 4)
    assert queue.resize(6)
    assert (queue.room, queue.capacity) == (6, 6)
    for _ in range(5):
        queue.take_room()
    queue.publish(0, 5)
    assert not queue.resize(2), "five wait"
    assert (queue.room, queue.capacity) == (0, 5)
    queue.for_worker(0).taken(0, 4)
    assert queue.resize(2)
    assert (queue.room, queue.depth, queue.capacity) == (1, 1, 2)
    queue.for_worker(0).taken(0, 1)
    queue.forget(0)
    assert (queue.room, queue.waiting(0), queue.number(0)) == (2, 0, 0)
    queue.close()


# -- the master's death ---------------------------------------------------------------------------

# All that a master runs through from room for a connection to its being on the way.
SENDING = (
    Queue.take_room.__code__,
    Queue.return_room.__code__,
    Queue.publish.__code__,
    Queue._send.__code__,
    Queue._hold.__code__,
    End.send.__code__,
    Mutex.__enter__.__code__,
    Mutex.__exit__.__code__,
    try_acquire.__code__,
)


def pass_on(segment: Segment, queue: Queue, channel: Channel, clients: list[int], step: int = 0) -> None:
    """As a master: pass clients on to the one worker, and die before this step."""
    segment.words[HEADER["master_pid"]] = os.getpid()
    if step:
        at_step(SENDING, step, die)
    room = queue.take_room(len(clients) + 2)  # for as many as seemed to wait
    for descriptor in clients:
        number = queue.publish(0, 1)
        channel.master_end.send(Message(Kind.CONNECTIONS, carried=1, number=number), [descriptor])
        os.close(descriptor)
    queue.return_room(room - len(clients))


def serve_what_comes(queue: Queue, end: End) -> None:
    """As its worker: answer whoever comes, until the master is gone."""
    own = queue.for_worker(0)
    while True:
        try:
            received = end.receive()
        except Gone:
            return
        if received is None:
            os.sched_yield()
            continue
        message, descriptors = received
        with suppress(Stuck):
            own.taken(0, message.carried)
        for descriptor in descriptors:
            os.write(descriptor, b"!")
            os.close(descriptor)


@pytest.mark.usefixtures("quick_turns")
def test_a_master_killed_at_every_bytecode_of_sending() -> None:
    """Who was sent is answered, although nobody mends any more; who was not sees the end. The worker goes."""

    def begin() -> tuple[Segment, Queue, Channel, list[tuple[socket.socket, socket.socket]]]:
        segment = Segment.private(1)
        return segment, Queue.private(segment, CAPACITY), Channel(), [socket.socketpair() for _ in range(2)]

    def end(segment: Segment, queue: Queue, channel: Channel) -> None:
        channel.close()
        queue.close()
        segment.close()

    segment, queue, channel, pairs = begin()
    steps = steps_of(SENDING, lambda: pass_on(segment, queue, channel, [theirs.fileno() for _, theirs in pairs]))
    end(segment, queue, channel)
    assert steps > 150
    answered = Counter[int]()
    for step in range(1, steps + 1, STRIDE):
        for ours, theirs in pairs:
            ours.close()
            theirs.close()
        segment, queue, channel, pairs = begin()

        def master(
            step: int = step,
            segment: Segment = segment,
            queue: Queue = queue,
            channel: Channel = channel,
            clients: tuple[int, ...] = tuple(theirs.fileno() for _, theirs in pairs),
        ) -> None:
            worker = os.fork()
            if worker == 0:
                for each in (channel.master_end.fileno(), *clients):
                    os.close(each)
                serve_what_comes(queue, channel.worker_end)
                os._exit(0)
            pass_on(segment, queue, channel, list(clients), step)

        with forked(master) as child:
            for _, theirs in pairs:
                theirs.close()
            channel.close()  # of the worker's end the master keeps a copy; what counts here is that both are dead
            assert child.wait() == -signal.SIGKILL
        seen = []
        for ours, _ in pairs:
            ours.settimeout(10)
            seen.append(b"".join(iter(lambda ours=ours: ours.recv(10), b"")))  # type: ignore[misc]
        assert seen in ([b"", b""], [b"!", b""], [b"!", b"!"]), f"killed at step {step}: {seen}"
        answered[seen.count(b"!")] += 1
        queue.close()
        segment.close()
    for ours, theirs in pairs:
        ours.close()
        theirs.close()
    assert min(answered[0], answered[1]) > 20, answered


# -- the death of one who acted as the master --------------------------------------------------------


@pytest.mark.usefixtures("quick_turns")
def test_one_who_acts_as_the_master_killed_at_every_bytecode_of_sending(exchange: Exchange) -> None:
    """Its last words are enough to go on. What it counted and did not send is settled when the worker ends."""
    queue = exchange.queue

    steps = steps_of(SENDING, lambda: exchange.put(0, 3))
    exchange.go_on_after_acting()
    assert exchange.drain(0) == 3
    assert steps > 150
    outcomes = Counter[tuple[int, int]]()
    for step in range(1, steps + 1, STRIDE):

        def run(step: int = step) -> None:
            at_step(SENDING, step, die)
            exchange.put(0, 3)

        with forked(run) as child:
            assert child.wait() == -signal.SIGKILL
        exchange.go_on_after_acting()
        exchange.assert_balanced()
        assert queue.in_hand == 0
        outcomes[exchange.drain(0), queue.waiting(0)] += 1
        exchange.mend(0, [])
        assert (queue.room, queue.depth, queue.waiting(0)) == (CAPACITY, 0, 0), f"after a death at step {step}"
        assert exchange.put(0, 2), "and the numbers go on"
        assert exchange.drain(0) == 2
    assert set(outcomes) == {(0, 0), (0, 3), (3, 0)}, "neither counted nor sent, counted, both"


def test_the_last_words_of_one_who_acted_as_the_master_are_not_believed_beyond_measure(exchange: Exchange) -> None:
    """A worker can write them too (T-61)."""
    exchange.put(1, 5)
    queue, words = exchange.queue, exchange.segment.words
    for forged in (0, 4, (1 << 64) - 1):
        words[exchange.segment.row(1, "sent")] = forged
        exchange.go_on_after_acting()
        assert queue.number(1) == 5
        assert words[exchange.segment.row(1, "sent")] == 5
    assert exchange.drain(1) == 5
    exchange.assert_at_rest()
