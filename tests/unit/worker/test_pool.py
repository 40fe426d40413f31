"""A pool of real threads with a real channel, queue and segment; the test is the master and the clients."""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn, cast

import pytest
from tests.unit.processes import STRIDE, at_step, die, forked, steps_of, wait_until
from tests.unit.worker.conftest import Hall

from pyserver.config import Config, Server, Site
from pyserver.http.reader import RequestReader
from pyserver.ipc.activity import WorkerThread
from pyserver.ipc.assignment import Assignment
from pyserver.ipc.channel import Channel, End, Kind, Message
from pyserver.ipc.messages import DOOMED_FROM, Drain
from pyserver.ipc.observe import of_slot
from pyserver.ipc.queue import Queue
from pyserver.ipc.segment import TOTALS, Segment
from pyserver.ipc.stats import index_of, read_buckets
from pyserver.limits import ROUND_S
from pyserver.worker.client import Job
from pyserver.worker.holding import Holding
from pyserver.worker.pool import Pool

GENERATION = 7
DRAIN_S = 5.0
GET = b"GET /small.txt HTTP/1.1\r\nHost: x\r\n\r\n"
# Needs no disk, and so no follower: on a tmpfs every file might have to be waited for.
OPTIONS = b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n"


class Running:
    """A worker as its master sees it."""

    def __init__(self, hall: Hall, threads: int, opened: ExitStack) -> None:
        self.hall = hall
        self.wished = threads
        self.segment = Segment.create(1, 64)
        opened.callback(self.segment.close)
        self.queue = Queue.create(self.segment, 64)
        opened.callback(self.queue.close)
        self.channel = Channel()
        opened.callback(self.channel.close)
        config = Config(sites=(Site(root="/nowhere"),), server=Server(threads=threads, drain=0.5))
        assignment = Assignment(
            slot=0,
            generation=GENERATION,
            config=config,
            end=self.channel.worker_end,
            segment=self.segment,
            queue=self.queue.for_worker(0),
            origins=(),
        )
        hall.clock.turn()
        self.left = threading.Event()
        parts = (hall.connections, hall.clock, hall.tally, hall.access, hall.poll)
        self.pool = Pool(assignment, *parts, leave=self.left.set)
        self.leader = threading.Thread(target=self.pool.run, name="pool-0")
        self._opened = opened

    def start(self) -> None:
        """Have it ready, and all of its threads there: it is ready with the second."""
        self.leader.start()
        wait_until(lambda: self.reports() == [Kind.READY])
        wait_until(lambda: len(self.threads()) == self.wished)

    def reports(self) -> list[Kind]:
        found = []
        while (received := self.channel.master_end.receive()) is not None:
            assert received[0].generation == GENERATION
            found.append(received[0].kind)
        return found

    def tell(self, kind: Kind, generation: int = GENERATION) -> None:
        if generation == GENERATION:
            word = "drain_by_ns" if kind is Kind.DRAIN else "reopen_ns"
            within_s = DRAIN_S if kind is Kind.DRAIN else 0
            self.segment.words[self.segment.row(0, word)] = time.monotonic_ns() + int(within_s * 1e9)
        self.channel.master_end.send(Message(kind, generation))

    def client(self, first: bytes = b"", *, ago: float = 0.0, kind: Kind = Kind.CONNECTIONS) -> socket.socket:
        """A client that was accepted so long ago."""
        ours, theirs = socket.socketpair()
        self._opened.enter_context(ours)
        ours.settimeout(5)
        ours.sendall(first)
        assert self.queue.take_room()
        number = self.queue.publish(0, 1)
        stamp_ns = time.monotonic_ns() - int(ago * 1e9)
        message = Message(kind, carried=1, number=number, stamp_ns=stamp_ns)
        self.channel.master_end.send(message, [theirs.fileno()])
        theirs.close()
        return ours

    def do(self, run: Callable[[], object], then: Callable[[], object] = lambda: None) -> None:
        """Give the pool a job, as a connection does."""
        self.hall.connections.jobs.append(Job(lambda: (run(), None)[1], lambda: (then(), None)[1]))
        os.eventfd_write(self.pool._wake, 1)

    def counter(self, name: str) -> int:
        return self.segment.words[self.segment.counters(0) + index_of(name)]

    def threads(self) -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name.startswith("pool-")]

    def stop(self) -> None:
        if self.leader.ident is None:
            return
        if self.leader.is_alive():
            self.tell(Kind.DRAIN)
        self.leader.join(10)
        assert not self.threads(), "a thread is left"
        assert not self.left.is_set(), "a job hung until the deadline of the drain"


@pytest.fixture
def running(hall: Hall, request: pytest.FixtureRequest) -> Iterator[Running]:
    with ExitStack() as opened:
        made = Running(hall, getattr(request, "param", 4), opened)
        made.start()
        try:
            yield made
        finally:
            made.stop()


@pytest.fixture
def errors() -> Iterator[list[str]]:
    """What is logged, which would be nothing."""
    found: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: found.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("pyserver").addHandler(handler)
    yield found
    logging.getLogger("pyserver").removeHandler(handler)


def answered(client: socket.socket) -> bool:
    return client.recv(10_000).startswith(b"HTTP/1.1 200")


any_size = pytest.mark.parametrize("running", [1, 2, 16], indirect=True)


@any_size
def test_a_client_is_taken_counted_and_answered(running: Running) -> None:
    client = running.client(GET)
    assert answered(client)
    wait_until(lambda: running.counter("requests") == 1)
    assert (running.queue.room, running.queue.depth, running.queue.waiting(0)) == (64, 0, 0)
    assert running.counter("connections_open") == 1
    assert running.counter("queue_wait") > 0
    buckets = read_buckets(running.segment.words, TOTALS, [running.segment.counters(0)])
    assert [sum(buckets[name]) for name in ("queue_wait", "answer_time")] == [1, 1]
    assert running.counter("answer_time") > 0
    client.close()
    wait_until(lambda: running.counter("connections_open") == 0)


@any_size
def test_who_has_waited_too_long_in_the_queue_is_refused(running: Running) -> None:
    client = running.client(GET, ago=31)
    assert client.recv(10_000).startswith(b"HTTP/1.1 503")
    assert client.recv(1) == b""
    wait_until(lambda: running.counter("shed") == 1)
    assert answered(running.client(GET, ago=15))
    # One that another worker had let in waits for its next request, and not for us.
    assert answered(running.client(GET, ago=31, kind=Kind.PARKED))
    wait_until(lambda: running.counter("requests") == 3)
    assert (running.queue.room, running.queue.depth) == (64, 0)
    assert running.counter("shed") == 1


def test_near_the_limit_of_open_files_too(running: Running) -> None:
    """They are not taken then, but for this; the others wait on."""
    for _ in range(49):
        running.client(GET[:10])
    wait_until(lambda: running.counter("connections_open") == 49)
    old, new = running.client(GET, ago=31), running.client(GET)
    assert old.recv(10_000).startswith(b"HTTP/1.1 503")
    wait_until(lambda: running.counter("shed") == 1)
    wait_until(lambda: running.queue.depth == 1)
    new.settimeout(2 * ROUND_S)
    with pytest.raises(TimeoutError):
        new.recv(1)
    assert running.counter("connections_open") == 49


@any_size
def test_a_drain_ends_every_thread(running: Running) -> None:
    client = running.client(GET)
    assert answered(client)
    running.tell(Kind.DRAIN)
    running.leader.join(5)
    assert not running.threads()
    assert client.recv(1) == b""
    assert running.counter("connections_open") == 0


def test_orders_for_another_generation_are_not_for_us(running: Running) -> None:
    running.tell(Kind.DRAIN, GENERATION - 1)
    assert answered(running.client(GET))
    assert running.leader.is_alive()


@any_size
def test_the_masters_death_is_a_drain_with_a_deadline(running: Running, errors: list[str]) -> None:
    client = running.client(GET[:-2])  # which is never going to be completed
    wait_until(lambda: running.hall.connections.table)
    began = time.monotonic()
    running.channel.master_end.close()
    running.leader.join(5)
    assert not running.threads()
    assert time.monotonic() - began < 5
    assert errors == ["drain deadline passed, cutting 1 connections"]
    assert client.recv(1000) == b""


def test_it_beats_while_nothing_happens(running: Running) -> None:
    at = running.segment.row(0, "beat_ns")
    for _ in range(3):
        before = running.segment.words[at]
        wait_until(lambda before=before: running.segment.words[at] > before, within=ROUND_S + 1)  # type: ignore[misc]


def test_a_master_that_waits_for_room_is_told(running: Running) -> None:
    running.segment.words[7] = 1  # saturated
    running.client(GET)
    wait_until(lambda: Kind.ROOM in running.reports())


def test_log_files_are_opened_again(running: Running, tmp_path: Path) -> None:
    running.hall.log.rename(tmp_path / "moved")
    running.tell(Kind.REOPEN)
    wait_until(running.hall.log.exists)


# -- leaders and followers --------------------------------------------------------------------------


@pytest.mark.parametrize("running", [2, 4], indirect=True)
def test_while_a_job_blocks_the_others_are_served(running: Running) -> None:
    release, done = threading.Event(), threading.Event()
    running.do(lambda: release.wait(10), done.set)
    for _ in range(20):
        assert running.client(OPTIONS).recv(10_000).startswith(b"HTTP/1.1 204")
    assert not done.is_set()
    release.set()
    assert done.wait(5)


@pytest.mark.parametrize("running", [2, 4], indirect=True)
def test_the_last_thread_takes_no_job(running: Running) -> None:
    """Somebody has to lead: more jobs than followers wait."""
    followers = len(running.threads()) - 1
    release = threading.Event()
    begun: list[str] = []
    ended: list[int] = []

    def job() -> None:
        begun.append(threading.current_thread().name)
        release.wait(10)

    for number in range(followers + 3):
        running.do(job, lambda number=number: ended.append(number))  # type: ignore[misc]
    wait_until(lambda: len(begun) == followers)
    assert running.client(OPTIONS).recv(10_000).startswith(b"HTTP/1.1 204"), "and it serves on"
    assert len(begun) == len(set(begun)) == followers
    release.set()
    wait_until(lambda: len(ended) == followers + 3)


@pytest.mark.parametrize("running", [1], indirect=True)
def test_a_single_thread_does_its_jobs_itself(running: Running) -> None:
    ran: list[str] = []
    running.do(lambda: ran.append(threading.current_thread().name), lambda: ran.append("then"))
    wait_until(lambda: ran == ["pool-0", "then"])
    assert answered(running.client(GET))


def threads_of(running: Running) -> dict[str, list[int]]:
    """Which threads do what, as others see it."""
    found: dict[str, list[int]] = {}
    for thread in of_slot(running.segment, 0)[0]:
        found.setdefault("leading" if thread.leads else thread.does, []).append(thread.number)
    return found


def test_others_see_what_each_thread_does(running: Running) -> None:
    wait_until(lambda: {does: len(who) for does, who in threads_of(running).items()} == {"leading": 1, "following": 3})
    release = threading.Event()
    for _ in range(2):
        running.do(lambda: release.wait(10))
    wait_until(
        lambda: (
            {does: len(who) for does, who in threads_of(running).items()} == {"leading": 1, "other": 2, "following": 1}
        )
    )
    named = {thread.number: thread.native_id for thread in of_slot(running.segment, 0)[0]}
    assert named == {int(thread.name.removeprefix("pool-")): thread.native_id for thread in running.threads()}
    release.set()
    wait_until(lambda: {does: len(who) for does, who in threads_of(running).items()} == {"leading": 1, "following": 3})


@pytest.mark.parametrize("running", [1], indirect=True)
def test_others_see_what_a_single_thread_does(running: Running) -> None:
    release = threading.Event()
    running.do(lambda: release.wait(10))
    wait_until(lambda: threads_of(running) == {"other": [0]})
    release.set()
    wait_until(lambda: threads_of(running) == {"leading": [0]})


def test_a_leader_that_does_not_come_back_is_seen_to_serve(running: Running) -> None:
    release = threading.Event()
    running.do(lambda: None, lambda: release.wait(10))  # what follows a job is the leader's, and must not block
    wait_until(lambda: any(thread.does == "serving" and thread.for_s > 0.1 for thread in leaders(running)))
    release.set()
    wait_until(lambda: any(thread.does == "waiting" for thread in leaders(running)))


def leaders(running: Running) -> list[WorkerThread]:
    return [thread for thread in of_slot(running.segment, 0)[0] if thread.leads]


def test_what_follows_a_job_is_done_by_whoever_leads(running: Running) -> None:
    held: list[bool] = []
    for _ in range(20):
        running.do(lambda: None, lambda: held.append(running.pool.t_mutex.locked()))
    wait_until(lambda: len(held) == 20)
    assert all(held)


@pytest.mark.parametrize("running", [1, 4], indirect=True)
@pytest.mark.parametrize("where", ["run", "then"])
def test_a_job_that_fails_is_logged_and_costs_no_thread(running: Running, errors: list[str], where: str) -> None:
    def fail() -> NoReturn:
        raise ZeroDivisionError

    threads = len(running.threads())
    after: list[int] = []
    for _ in range(10):
        if where == "run":
            running.do(fail, lambda: after.append(1))
        else:
            running.do(lambda: after.append(1), fail)
    wait_until(lambda: len(after) == 10)
    assert answered(running.client(GET))
    assert len(running.threads()) == threads
    assert len(errors) == 10


def test_many_clients_and_jobs_at_once(running: Running) -> None:
    """Cold files make a job of each answer: nothing is lost, doubled or mixed up."""
    running.hall.root.cold = True
    clients = [running.client() for _ in range(30)]
    for _ in range(5):
        for client in clients:
            client.sendall(
                GET.replace(b"small.txt", b"large.bin").replace(b"\r\n\r\n", b"\r\nRange: bytes=5-9\r\n\r\n")
            )
        for client in clients:
            data = client.recv(10_000)
            while not data.endswith(b"\x09"):
                data += client.recv(10_000)
            assert data.startswith(b"HTTP/1.1 206")
            assert data.endswith(b"\r\n\r\n\x05\x06\x07\x08\x09")
    wait_until(lambda: running.counter("requests") == 150)
    assert running.counter("failures") == 0


def test_a_drain_waits_for_a_job_under_way(running: Running) -> None:
    release = threading.Event()
    running.do(lambda: release.wait(10))
    running.tell(Kind.DRAIN)
    running.leader.join(3 * ROUND_S)
    assert running.leader.is_alive() or len(running.threads()) > 0
    release.set()
    wait_until(lambda: not running.threads())


# -- trouble ----------------------------------------------------------------------------------------


def test_a_garbled_message_is_logged_and_no_reason_to_end(running: Running, errors: list[str]) -> None:
    running.channel.master_end._socket.send(b"what?")
    assert answered(running.client(GET))
    assert errors == ["the master sent a message of 5 bytes, expected 24, ignored"]


def test_who_is_about_to_be_ended_takes_nothing_more(running: Running) -> None:
    """What it took would die with it; its successor finds it in the channel."""
    state = running.segment.row(0, "state")
    before = running.segment.words[state]
    running.segment.words[state] = DOOMED_FROM
    client = running.client(GET)
    client.settimeout(0.5)
    with pytest.raises(TimeoutError):
        client.recv(1)
    assert running.queue.waiting(0) == 1
    running.segment.words[state] = before
    client.settimeout(5)
    assert answered(client)


def test_an_error_of_ours_closes_its_connection_and_no_other(running: Running, errors: list[str]) -> None:
    other = running.client(GET)
    assert answered(other)
    client = running.client()
    wait_until(lambda: len(running.hall.connections.table) == 2)
    broken = max(running.hall.connections.table.values(), key=lambda each: each.fd)
    broken.reader = cast("RequestReader", object())  # whatever breaks
    client.sendall(GET)
    assert client.recv(10) == b""
    other.sendall(GET)
    assert answered(other)
    wait_until(lambda: running.counter("failures") == 1)
    assert errors == ["an error of ours, its connection is closed"]


# -- killed at every step of giving back -------------------------------------------------------------

GIVING_BACK = (
    Pool._give_back.__code__,
    Holding.to_return.__code__,
    Holding.close.__code__,
    End.send.__code__,
)


class Returning:
    """Three idle clients of a worker that is to give them back, and both ends of its channel."""

    def __init__(self) -> None:
        self.channel = Channel()
        self.pairs = [socket.socketpair() for _ in range(3)]

    def give_back(self, site: Path, log: Path, step: int = 0) -> None:
        """In a forked child: be that worker, and die before this step."""
        hall = Hall(site, log)
        segment = Segment.private(1)
        assignment = Assignment(
            slot=0,
            generation=GENERATION,
            config=Config(sites=(Site(root="/nowhere"),)),
            end=self.channel.worker_end,
            segment=segment,
            queue=Queue.private(segment, 64).for_worker(0),
            origins=(),
        )
        pool = Pool(assignment, hall.connections, hall.clock, hall.tally, hall.access, hall.poll, lambda: None)
        for _, theirs in self.pairs:
            hall.connections.adopt(theirs.detach(), 0)
        hall.connections.drain(Drain.MOVE)
        if step:
            at_step(GIVING_BACK, step, die)
        pool._give_back()

    def close(self) -> None:
        self.channel.close()
        for pair in self.pairs:
            for end in pair:
                end.close()


def test_a_worker_killed_at_every_bytecode_of_giving_back(site: Path, tmp_path: Path) -> None:
    """Each client is whole with the master, or sees its end: never both, never neither."""
    log = tmp_path / "log"
    returning = Returning()
    steps = steps_of(GIVING_BACK, lambda: returning.give_back(site, log))
    returning.close()
    assert steps > 150
    outcomes = {0: 0, 3: 0}
    for step in range(1, steps + 1, STRIDE):
        returning = Returning()
        with forked(lambda step=step, returning=returning: returning.give_back(site, log, step)) as worker:  # type: ignore[misc]
            for _, theirs in returning.pairs:
                theirs.close()  # the worker's alone
            worker.wait()
        back = []
        while (received := returning.channel.master_end.receive()) is not None:
            message, descriptors = received
            assert (message.kind, message.carried) == (Kind.PARKED, len(descriptors))
            back += descriptors
        for descriptor in back:
            os.write(descriptor, b"!")
            os.close(descriptor)
        seen = []
        for ours, _ in returning.pairs:
            ours.settimeout(5)
            seen.append(b"".join(iter(lambda ours=ours: ours.recv(10), b"")))  # type: ignore[misc]
        assert sorted(seen) == [b""] * (3 - len(back)) + [b"!"] * len(back), f"killed at step {step}"
        outcomes[len(back)] += 1
        returning.close()
    assert outcomes[0] > 15, "killed before the message was out"
    assert outcomes[3] > 15, "killed after"
