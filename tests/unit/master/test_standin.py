"""The stand-in over real listeners, channels and a real queue: what the master knows when it has been relieved."""

import os
import resource
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from tests.unit.files.process import open_descriptors
from tests.unit.master.around import Around
from tests.unit.processes import wait_until

from pyserver.ipc.channel import Full, Kind, Message
from pyserver.ipc.segment import HEADER
from pyserver.ipc.semaphores import Stuck
from pyserver.master import standin
from pyserver.master.handover import HandedStandIn, Handover
from pyserver.master.supervisor import State
from pyserver.master.workers import ACTING


class Relieved(Around):
    """A master with one worker, which is the test, and a stand-in."""

    def __init__(self, opened: ExitStack) -> None:
        super().__init__(opened)
        self._opened = opened
        self.enlist(1, State.READY)
        self.acceptor.look_again()
        assert self.acceptor.polling

    def begin(self) -> HandedStandIn:
        begun = standin.start(self._serve)
        assert begun is not None
        return begun

    def _serve(self, way: socket.socket) -> int:
        return standin.serve(way, self.acceptor, self.queue, self.listeners, [0])

    def handed(self, stand_in: HandedStandIn | None) -> Handover:
        return self.handed_over(stand_in=stand_in)

    def client(self) -> socket.socket:
        made = self._opened.enter_context(socket.create_connection(self.listeners[0].socket.getsockname(), 20))
        made.sendall(b"hello")
        return made

    def fill_channel(self) -> None:
        message = Message(Kind.REOPEN, 1)
        try:
            while True:
                self.workers.channels[0].master_end.send(message)
        except Full:
            pass

    def go_on(self, handed: Handover) -> None:
        self.queue.go_on({place.slot: place.sent for place in handed.places}, handed.in_hand)
        if ACTING in handed.unmended:
            self.queue.go_on_from_words([0])
            wait_until(self._mended)

    def _mended(self) -> bool:
        with suppress(Stuck):
            self.queue.mend_after_acting([0])
            return True
        return False

    def assert_balanced(self, waiting: int, in_hand: int) -> None:
        queue = self.queue
        assert (queue.waiting(0), queue.depth, queue.in_hand) == (waiting, waiting, in_hand)
        assert queue.room == queue.capacity - waiting - in_hand


@pytest.fixture
def around() -> Iterator[Relieved]:
    with ExitStack() as opened:
        yield Relieved(opened)


def gone(stand_in: HandedStandIn) -> bool:
    """Tell whether it has ended and was reaped, and the way to it is closed."""
    try:
        os.kill(stand_in.pid, 0)
    except ProcessLookupError:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(stand_in.way)
        return True
    return False


@contextmanager
def no_more_descriptors(but: int = 0) -> Iterator[None]:
    """Have this process at its limit of open files, or so many before it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = [os.open(os.devnull, os.O_RDONLY) for _ in range(but + 1)]
    for descriptor in free:
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[but], hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_what_it_passed_on_is_known_to_the_master(around: Relieved) -> None:
    stand_in = around.begin()
    for number in range(1, 4):
        around.client()
        wait_until(lambda number=number: around.word(0, "sent") == number)  # type: ignore[misc]
    assert around.queue.number(0) == 0, "the master's own count is of before"
    handed = around.handed(stand_in)
    relieved = standin.relieve(handed)
    assert relieved == handed._replace(stand_in=None, places=[handed.places[0]._replace(sent=3)])
    assert gone(stand_in)
    around.go_on(relieved)
    around.assert_balanced(3, 0)


def test_who_found_no_room_in_a_channel_is_handed_back(around: Relieved) -> None:
    around.fill_channel()
    stand_in = around.begin()
    client = around.client()
    wait_until(lambda: around.segment.words[HEADER["in_hand"]] == 1)
    around.client()  # comes while it does not accept any more
    relieved = standin.relieve(around.handed(stand_in))
    assert gone(stand_in)
    (carried,) = relieved.connections
    assert (carried.kind, carried.listener, carried.counted, relieved.in_hand) == (Kind.CONNECTIONS, 0, True, 1)
    with socket.socket(fileno=carried.descriptors[0]) as accepted:
        assert not accepted.get_inheritable()
        assert (accepted.getpeername(), accepted.recv(10)) == (client.getsockname(), b"hello")
    around.go_on(relieved)
    around.assert_balanced(0, 1)


def test_who_cannot_be_handed_back_for_want_of_a_descriptor_takes_no_room(around: Relieved) -> None:
    around.fill_channel()
    stand_in = around.begin()
    around.client()
    wait_until(lambda: around.segment.words[HEADER["in_hand"]] == 1)
    with no_more_descriptors():
        relieved = standin.relieve(around.handed(stand_in))
    assert gone(stand_in)
    assert (relieved.connections, relieved.in_hand, relieved.unmended) == ([], 0, [ACTING])
    around.go_on(relieved)
    around.assert_balanced(0, 0)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_one_that_does_not_answer_is_believed_by_its_last_words(around: Relieved, number: signal.Signals) -> None:
    stand_in = around.begin()
    around.client()
    wait_until(lambda: around.word(0, "sent") == 1)
    os.kill(stand_in.pid, number)
    relieved = standin.relieve(around.handed(stand_in))
    assert gone(stand_in)
    assert relieved.unmended == [ACTING]
    around.go_on(relieved)
    around.assert_balanced(1, 0)
    assert around.queue.number(0) == 1


def test_without_the_master_it_ends(around: Relieved) -> None:
    stand_in = around.begin()
    os.close(stand_in.way)
    assert os.waitstatus_to_exitcode(os.waitpid(stand_in.pid, 0)[1]) == 0


def test_where_it_cannot_be_forked_there_is_none(around: Relieved) -> None:
    with no_more_descriptors():
        assert standin.start(around._serve) is None
    handed = around.handed(None)
    assert standin.relieve(handed) is handed


def children() -> set[str]:
    """Processes that this one has forked, those that have ended and were not reaped too (proc(5))."""
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


@pytest.mark.parametrize("free", range(5))
def test_with_few_descriptors_there_is_one_or_there_never_was(around: Relieved, free: int) -> None:
    """It takes three for a moment. One that is forked and killed could have accepted, and nobody would know."""
    around.client()
    before, children_before = open_descriptors(), children()
    with no_more_descriptors(but=free):
        stand_in = standin.start(around._serve)
    assert (stand_in is not None) == (free >= 3)
    if stand_in is not None:
        wait_until(lambda: around.word(0, "sent") == 1)
        around.go_on(standin.relieve(around.handed(stand_in)))
    around.assert_balanced(around.word(0, "sent"), 0)
    assert open_descriptors() == before
    assert children() == children_before


def test_one_that_fails_is_as_one_that_died(around: Relieved) -> None:
    def fail(_way: socket.socket) -> int:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        raise RuntimeError

    stand_in = standin.start(fail)
    assert stand_in is not None
    assert standin.relieve(around.handed(stand_in)).unmended == [ACTING]
    assert gone(stand_in)


@pytest.mark.parametrize("said", [b"{", b"[]", b'{"sent": []}', b"\xff"])
def test_one_that_is_not_understood_is_as_one_that_died(around: Relieved, said: bytes) -> None:
    client, accepted = socket.socketpair()
    around._opened.enter_context(client).settimeout(20)

    def mumble(way: socket.socket) -> int:
        way.recv(1)
        socket.send_fds(way, [said], [accepted.fileno()])
        way.recv(1)
        return 0

    with accepted:
        stand_in = standin.start(mumble)
    assert stand_in is not None
    relieved = standin.relieve(around.handed(stand_in))
    assert (relieved.unmended, relieved.connections) == ([ACTING], [])
    assert gone(stand_in)
    assert client.recv(1) == b"", "what came along is closed"


def test_what_is_forged_for_a_slot_that_nobody_uses_is_not_believed(around: Relieved) -> None:
    stand_in = around.begin()
    around.client()
    wait_until(lambda: around.word(0, "sent") == 1)
    around.segment.words[around.segment.row(2, "sent")] = 1000
    os.kill(stand_in.pid, signal.SIGKILL)
    around.go_on(standin.relieve(around.handed(stand_in)))
    around.assert_balanced(1, 0)
    assert around.word(2, "sent") == 0
