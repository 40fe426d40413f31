"""The master as a process with workers of a few lines, so that each can die at the step that matters."""

import faulthandler
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from tests.unit.processes import STRIDE, Child, at_step, die, nobody_else, run_forked, stop, unswept, wait_until

from pyserver import backlog
from pyserver.config import Address, Config, Server, Site
from pyserver.ipc import segment as segments
from pyserver.ipc.assignment import Assignment
from pyserver.ipc.channel import Gone, Kind, Message
from pyserver.ipc.observe import Snapshot, snapshot
from pyserver.ipc.queue import Queue
from pyserver.ipc.segment import HEADER, SHM, Segment, SegmentError
from pyserver.ipc.stats import CELLS
from pyserver.limits import START_TRIES
from pyserver.master import main
from pyserver.sd.notify import Notifier

WORKERS = 2


class Running:
    """The service, seen from outside: its socket, its segment, its processes."""

    def __init__(self, where: Path, opened: ExitStack) -> None:
        self.socket = where / "http"
        self.log = where / "log"
        self._opened = opened
        self._master: Child | None = None
        self._segment: Segment | None = None

    def start(self, worker: Callable[[Assignment], int], **server: float) -> Child:
        settings: dict[str, Any] = {
            "hung_after": 1.0,
            "start_within": 2.0,
            "drain": 2.0,
            "respawn_delay_max": 0.1,
            **server,
        }
        config = Config(
            sites=(Site(root="/"),),
            server=Server(workers=WORKERS, threads=1, queue=16, **settings),
            listen=(Address.parse(f"unix:{self.socket}"),),
        )

        def master() -> int:
            with self.log.open("wb") as log:
                os.dup2(log.fileno(), 2)
            for name in ("NOTIFY_SOCKET", "JOURNAL_STREAM", "LISTEN_FDS"):
                os.environ.pop(name, None)
            return main.run(config, worker)

        self._master = Child(master)
        self._opened.callback(self.end)
        return self._master

    @property
    def master(self) -> Child:
        assert self._master is not None
        return self._master

    def end(self) -> None:
        if self._segment is not None:
            self._segment.close()
        workers = self.children()
        self.master.end()
        for pid in workers:
            wait_until(lambda pid=pid: not Path(f"/proc/{pid}").exists() or is_zombie(pid))  # type: ignore[misc]
        for path in self.names():
            path.unlink()

    def names(self) -> list[Path]:
        return [path for path in SHM.iterdir() if f"pyserver.{self.master.pid}" in path.name]

    def children(self) -> list[int]:
        try:
            listed = Path(f"/proc/{self.master.pid}/task/{self.master.pid}/children").read_text()
        except FileNotFoundError:
            return []
        return [int(pid) for pid in listed.split()]

    def look(self) -> Snapshot:
        wait_until(self._attached)
        assert self._segment is not None
        return snapshot(self._segment)

    def _attached(self) -> bool:
        """Attach to the segment, once the master has made it."""
        if self._segment is None:
            with suppress(SegmentError):
                self._segment = Segment.attach(f"pyserver.{self.master.pid}")
        return self._segment is not None

    def want_mutex(self, slot: int) -> None:
        """Make a worker's cell say that it waits for the queue's mutex."""
        segment = self._segment
        assert segment is not None
        with (SHM / segment.name[1:]).open("r+b") as file:
            file.seek(segment.row(slot, "queue_mutex_state") * 8)
            file.write((1).to_bytes(8, "little"))

    def states(self) -> list[str]:
        return [worker.state for worker in self.look().workers]

    def wait_ready(self) -> None:
        wait_until(lambda: self.states() == ["ready"] * WORKERS)

    def ask(self) -> bytes:
        """As a client: connect, and read all there is."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(str(self.socket))
            answer = b""
            while got := client.recv(100):
                answer += got
            return answer

    def logged(self, text: str) -> int:
        return self.log.read_text().count(text)

    def assert_balanced(self) -> None:
        """Nothing waits, nothing is in hand, all room is there: by the ledger, and by the semaphores themselves."""
        wait_until(lambda: self.look().filled_slots == 0)
        seen = self.look()
        assert (seen.empty_slots, seen.filled_slots, seen.in_hand) == (16, 0, 0)


def is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except FileNotFoundError:
        return True


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    with ExitStack() as opened:
        yield Running(tmp_path, opened)


# -- workers of a few lines ---------------------------------------------------------------------------


def answering(assignment: Assignment, misfortune: Callable[[Assignment, int], None] | None = None) -> int:
    """Send each client the number of the slot, and close; `misfortune` strikes before each message is counted."""
    faulthandler.enable()
    words, beat = assignment.segment.words, assignment.segment.row(assignment.slot, "beat_ns")
    end, queue = assignment.end, assignment.queue
    end.send(Message(Kind.READY, assignment.generation))
    poll = select.epoll()
    poll.register(end.fileno(), select.EPOLLIN)
    messages = 0
    while True:
        words[beat] = time.monotonic_ns()
        poll.poll(0.1)
        try:
            received = end.receive()
        except Gone:
            return 0
        if received is None:
            continue
        message, descriptors = received
        if message.kind is Kind.CONNECTIONS:
            messages += 1
            if misfortune is not None:
                misfortune(assignment, messages)
            if queue.taken(assignment.slot, message.carried):
                end.send(Message(Kind.ROOM, assignment.generation))
            for descriptor in descriptors:
                os.write(descriptor, b"slot %d" % assignment.slot)
                os.close(descriptor)
        elif message.kind is Kind.DRAIN and message.generation == assignment.generation:
            return 0


def in_first_generation(action: Callable[[], object]) -> Callable[[Assignment], int]:
    """A worker whose first life in slot 0 ends, or stops, inside the queue's accounting."""

    def strike(assignment: Assignment, messages: int) -> None:
        if (assignment.slot, assignment.generation, messages) == (0, 1, 2):
            at_step((Queue.taken.__code__,), 25, action)

    return lambda assignment: answering(assignment, strike)


# -- life ---------------------------------------------------------------------------------------------


def test_it_serves_and_stops_and_leaves_nothing(running: Running) -> None:
    master = running.start(answering)
    running.wait_ready()
    assert {running.ask() for _ in range(20)} == {b"slot 0", b"slot 1"}
    running.assert_balanced()
    assert len(running.names()) == 5
    master.signal(signal.SIGTERM)
    assert master.wait() == 0
    assert running.names() == []
    assert not running.socket.exists()
    assert running.logged("Traceback") == 0


def test_a_worker_that_is_killed_is_replaced_at_once(running: Running) -> None:
    running.start(answering)
    running.wait_ready()
    time.sleep(0.05)
    for _ in range(3):
        victim = running.look().workers[1].pid
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda victim=victim: running.look().workers[1].pid != victim)  # type: ignore[misc]
        running.wait_ready()
        assert {running.ask() for _ in range(20)} == {b"slot 0", b"slot 1"}
    running.assert_balanced()
    assert running.look().restarts == 3
    assert running.logged("killed by SIGKILL") == 3


def test_a_worker_that_dies_inside_the_accounting_is_mended(running: Running) -> None:
    running.start(in_first_generation(die))
    running.wait_ready()
    answers = [running.ask() for _ in range(30)]
    assert answers.count(b"") == 1, "what it had in its hands is lost, and no more"
    running.wait_ready()
    assert {running.ask() for _ in range(10)} == {b"slot 0", b"slot 1"}
    running.assert_balanced()
    assert running.logged("worker 0 died inside the queue's accounting, mended") == 1


def test_a_worker_that_stops_inside_the_accounting_is_ended_and_mended(running: Running) -> None:
    """Nobody can have the mutex meanwhile; its silence gives it away, and the master never blocks for long."""
    running.start(in_first_generation(stop))
    running.wait_ready()
    for _ in range(4):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(running.socket))
            client.settimeout(0.2)
            try:
                client.recv(10)
            except TimeoutError:
                break
    wait_until(lambda: running.look().restarts >= 1, within=15)
    running.wait_ready()
    wait_until(lambda: {running.ask() for _ in range(4)} == {b"slot 0", b"slot 1"}, within=15)
    running.assert_balanced()
    assert running.logged("worker 0 (generation 1) silent for") == 1
    assert running.logged("Traceback") == 0


def test_the_master_does_not_stand_still_while_the_mutex_cannot_be_had(running: Running) -> None:
    """One worker stopped inside, the other is killed: that one's place cannot be mended yet, all else goes on."""
    running.start(in_first_generation(stop), hung_after=60.0)
    running.wait_ready()
    clients = [socket.socket(socket.AF_UNIX) for _ in range(4)]
    with ExitStack() as opened:
        for client in clients:
            opened.enter_context(client).connect(str(running.socket))
            time.sleep(0.05)
        stopped, other = running.look().workers
        wait_until(lambda: Path(f"/proc/{stopped.pid}/stat").read_text().rpartition(") ")[2].startswith("T"))
        running.want_mutex(1)
        os.kill(other.pid, signal.SIGKILL)
        wait_until(lambda: running.logged("cannot mend the queue after worker 1 yet"))
        longest = 0.0
        for number in range(1, 9):
            time.sleep(0.3)
            began = time.monotonic()
            running.master.signal(signal.SIGUSR1)
            wait_until(lambda number=number: running.logged("SIGUSR1: workers") == number)  # type: ignore[misc]
            longest = max(longest, time.monotonic() - began)
        assert longest < 0.5
    os.kill(stopped.pid, signal.SIGKILL)
    running.wait_ready()
    running.assert_balanced()


def test_connections_wait_for_a_successor(running: Running) -> None:
    """Both workers are stopped and then killed; who came meanwhile is answered by the next ones."""
    running.start(answering, hung_after=60.0)
    running.wait_ready()
    victims = [worker.pid for worker in running.look().workers]
    for pid in victims:
        os.kill(pid, signal.SIGSTOP)
    with ExitStack() as opened:
        clients = [opened.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(10)]
        for client in clients:
            client.settimeout(10)
            client.connect(str(running.socket))
        wait_until(lambda: running.look().filled_slots == 10)
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        assert all(client.recv(10).startswith(b"slot ") for client in clients)
    running.assert_balanced()


@pytest.mark.parametrize("data", [b"", b"?"], ids=["empty", "garbled"])
def test_a_worker_that_talks_nonsense_is_killed_and_nobody_else_notices(running: Running, data: bytes) -> None:
    def babble(assignment: Assignment, messages: int) -> None:
        if (assignment.slot, assignment.generation, messages) == (0, 1, 1):
            assignment.end._socket.send(data)

    running.start(lambda assignment: answering(assignment, babble))
    running.wait_ready()
    assert len([running.ask() for _ in range(6)]) == 6
    wait_until(lambda: running.look().restarts == 1)
    running.wait_ready()
    assert {running.ask() for _ in range(10)} == {b"slot 0", b"slot 1"}
    assert running.look().workers[1].generation == 1
    assert running.logged("worker 0 sent a message of 1 bytes" if data else "worker 0 sent an empty message") == 1
    running.assert_balanced()


def test_a_worker_that_shuts_its_channel_down_ends_nobody_else(running: Running) -> None:
    """shutdown(2) is of the socket, not of the descriptor: the end that the master keeps is as dead as the worker's."""

    def shut(assignment: Assignment, messages: int) -> None:
        if (assignment.slot, assignment.generation, messages) == (0, 1, 1):
            assignment.end._socket.shutdown(socket.SHUT_RDWR)

    running.start(lambda assignment: answering(assignment, shut), respawn_delay_max=0.5)
    running.wait_ready()
    for _ in range(20):
        running.ask()
    wait_until(lambda: running.look().restarts >= 1)
    time.sleep(0.3)
    assert {running.ask() for _ in range(10)} == {b"slot 1"}
    assert running.look().workers[1].generation == 1
    running.master.signal(signal.SIGTERM)
    assert running.master.wait() == 0


@pytest.mark.parametrize("value", [0, 1 << 63, (1 << 64) - 1])
def test_a_worker_that_writes_anything_into_the_segment_ends_nobody_else(running: Running, value: int) -> None:
    """T-61: it has the mapping; what the master needs it must not read there."""

    def forge(assignment: Assignment, _messages: int) -> None:
        segment = assignment.segment
        if (assignment.slot, assignment.generation) == (0, 1):
            for name in ("sent", "received", "since_ns"):
                segment.words[segment.row(0, name)] = value
            for name in ("in_hand", "restarts", "fold", "queue_mutex_turns", "queue_mutex_holds", "stats_mutex_holds"):
                segment.words[HEADER[name]] = value
            for at in range(segment.counters(0), segment.counters(0) + CELLS):
                segment.words[at] = value

    running.start(lambda assignment: answering(assignment, forge))
    running.wait_ready()
    for _ in range(10):
        running.ask()
    first = running.look().workers[0]
    if first.generation == 1 and first.pid:  # it may have stumbled over its own numbers
        os.kill(first.pid, signal.SIGKILL)
    wait_until(lambda: running.look().restarts == 1)
    running.wait_ready()
    assert {running.ask() for _ in range(10)} == {b"slot 0", b"slot 1"}
    running.assert_balanced()
    assert running.look().workers[1].generation == 1
    running.master.signal(signal.SIGTERM)
    assert running.master.wait() == 0


# -- starts that fail ---------------------------------------------------------------------------------


def test_a_worker_that_finds_the_configuration_unusable_ends_the_start(running: Running) -> None:
    master = running.start(lambda _: 78)
    assert master.wait() == 78
    assert running.logged("no worker comes up (exited with status 78), giving up") == 1
    assert running.names() == []


def test_workers_that_never_come_up_end_the_start(running: Running) -> None:
    master = running.start(lambda _: 3)
    assert master.wait() == 1
    assert running.logged("no worker comes up (exited with status 3), giving up") == 1
    assert running.logged("exited with status 3 after") in (START_TRIES, START_TRIES + 1)
    assert running.names() == []


def test_an_address_in_use_is_one_line_and_leaves_nothing(running: Running) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(running.socket))
        other.listen()
        master = running.start(answering)
        assert master.wait() == 1
    assert running.logged("cannot listen on unix:") == 1
    assert running.logged("Traceback") == 0
    assert running.names() == []


# -- ends ---------------------------------------------------------------------------------------------


def test_workers_outlive_a_killed_master_only_until_they_see_it(running: Running) -> None:
    master = running.start(answering)
    running.wait_ready()
    workers = running.children()
    assert len(workers) == WORKERS
    master.kill()
    wait_until(lambda: all(is_zombie(pid) for pid in workers))


def test_the_successor_of_a_killed_master_sweeps_what_it_left() -> None:
    with unswept(), TemporaryDirectory() as folder, ExitStack() as opened:
        for name in ("first", "second"):
            Path(folder, name).mkdir()
        first, second = Running(Path(folder, "first"), opened), Running(Path(folder, "second"), opened)
        first.start(answering)
        first.wait_ready()
        first.master.kill()
        left = first.names()
        assert len(left) == 5
        second.start(answering)
        second.wait_ready()
        assert not any(path.exists() for path in left)
        assert second.logged("removed what a killed server had left in shared memory") == 1


LENGTH, SHORTENED = 100, 16

# The lines of a start, but for those that write the notes: tests/unit/ipc/test_lengths.py.
NOTING = tuple(
    function.__code__ for function in (main.Master._open, main.Master._open_segment, segments.sweep, segments.discard)
)


def begin(listener: socket.socket, killed_at: int = 0) -> main.Master:
    """In a child: make a master that systemd has handed a listener, or be killed before so many lines of that."""
    os.dup2(listener.fileno(), 3)
    os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
    config = Config(sites=(Site(root="/"),), server=Server(workers=1, threads=1, queue=16))
    at_step(NOTING, killed_at, die, opcodes=False)
    master = main.Master(config, lambda _: 0, Notifier({}))
    sys.settrace(None)
    return master


def names_of(user: int) -> list[Path]:
    """What a user has in /dev/shm, where others come and go."""
    found = []
    for path in SHM.iterdir():
        with suppress(FileNotFoundError):
            if path.stat().st_uid == user:
                found.append(path)
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become a user of whom no other server sweeps anything")
def test_a_start_that_is_killed_at_any_line_loses_no_length_of_a_backlog() -> None:
    """A master is killed in an overload, and then the next one in the middle of its start: whoever follows knows."""
    user = nobody_else()

    def overloaded() -> None:
        begin(listener)
        listener.listen(SHORTENED)
        die()

    def follow(killed_at: int = 0) -> None:
        master = begin(listener, killed_at)
        if not killed_at:
            master.close()

    def kill_and_follow() -> int:
        os.setuid(user)
        for killed_at in count(1, STRIDE):
            listener.listen(LENGTH)
            assert run_forked(overloaded) == -signal.SIGKILL
            assert backlog.held(listener)[1] == SHORTENED
            ended = run_forked(lambda killed_at=killed_at: follow(killed_at))  # type: ignore[misc]
            assert ended in (0, -signal.SIGKILL)
            assert run_forked(follow) == 0
            assert backlog.held(listener)[1] == LENGTH, f"killed before line {killed_at}"
            assert names_of(user) == []
            if ended == 0:
                return 0 if killed_at > 50 else 2
        raise AssertionError

    with socket.create_server(("127.0.0.1", 0), backlog=LENGTH) as listener:
        try:
            assert run_forked(kill_and_follow, within=100) == 0
        finally:
            for path in names_of(user):
                path.unlink()


def test_a_second_signal_does_not_wait(running: Running) -> None:
    def deaf(assignment: Assignment) -> int:
        assignment.end.send(Message(Kind.READY, assignment.generation))
        while True:
            assignment.segment.words[assignment.segment.row(assignment.slot, "beat_ns")] = time.monotonic_ns()
            time.sleep(0.05)

    master = running.start(deaf, drain=60.0)
    running.wait_ready()
    master.signal(signal.SIGTERM)
    wait_until(lambda: running.states() == ["draining"] * WORKERS)
    began = time.monotonic()
    master.signal(signal.SIGTERM)
    assert master.wait() == 0
    assert time.monotonic() - began < 6
    assert running.names() == []


def test_the_drain_deadline_is_kept(running: Running) -> None:
    def deaf(assignment: Assignment) -> int:
        assignment.end.send(Message(Kind.READY, assignment.generation))
        while True:
            assignment.segment.words[assignment.segment.row(assignment.slot, "beat_ns")] = time.monotonic_ns()
            time.sleep(0.05)

    master = running.start(deaf, drain=0.3)
    running.wait_ready()
    began = time.monotonic()
    master.signal(signal.SIGTERM)
    assert master.wait() == 0
    assert 0.3 <= time.monotonic() - began < 7
    assert running.logged("drain deadline passed, cutting 0 connections") == 1
    assert running.logged("killed by SIGKILL, 0 connections cut") == WORKERS, "what we did ourselves is no failure"
    assert running.logged(" err ") == running.logged("respawn") == 0
