"""The law by plain numbers; what it governs by real listeners, a real queue and real clients."""

import signal
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from tests.unit.oldkernel import forget
from tests.unit.processes import die, run_forked, wait_until

from pyserver import backlog
from pyserver.ipc import segment as segments
from pyserver.ipc.assignment import ADMIN
from pyserver.ipc.lengths import WORDS, read
from pyserver.ipc.queue import Queue
from pyserver.ipc.segment import HEADER, LENGTHS, Segment
from pyserver.limits import BACKLOG_MIN, SHED_TOLD_S
from pyserver.master.backlogs import Backlogs, Drops, Room
from pyserver.master.listeners import Listener

MOST = 5000
BOUND = 0.5
STEP = 0.125


class Crowd:
    """A server of so many a second, and so many clients a second who come to it: in steps, without a clock."""

    def __init__(self, bound: float = BOUND, room: int = MOST) -> None:
        self.law = Room(MOST, bound, room)
        self.now = 1000.0
        self.waiting = self.taken = 0
        self.rooms: list[int] = []

    def pass_by(self, seconds: float, *, come: float, serve: float) -> list[int]:
        """Let time pass; return what there was room for after each look."""
        begun = len(self.rooms)
        for _ in range(round(seconds / STEP)):
            self.now += STEP
            there = min(self.waiting + round(come * STEP), max(self.waiting, self.law.room) + round(serve * STEP))
            served = min(there, round(serve * STEP))
            self.waiting, self.taken = min(there - served, max(self.waiting, self.law.room)), self.taken + served
            self.rooms.append(self.law.see(self.now, self.waiting, self.taken))
        return self.rooms[begun:]


# -- the law ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1.5, 4, 20])
def test_under_overload_no_more_may_wait_than_are_served_within_the_bound(times: float) -> None:
    crowd = Crowd()
    crowd.pass_by(2, come=times * 1000, serve=1000)
    rooms = crowd.pass_by(20, come=times * 1000, serve=1000)
    assert {200} == set(rooms), "four tenths of what is served in half a second, and no swinging"


def test_a_server_that_becomes_slower_or_faster_is_followed() -> None:
    crowd = Crowd()
    crowd.pass_by(4, come=8000, serve=1000)
    slow = crowd.pass_by(4, come=8000, serve=200)[-1]
    assert 0.25 * 100 <= slow <= 0.5 * 100
    fast = crowd.pass_by(8, come=8000, serve=2000)[-1]
    assert 0.25 * 1000 <= fast <= 0.5 * 1000


def test_when_it_is_over_all_may_wait_again_soon_and_not_at_once() -> None:
    crowd = Crowd()
    crowd.pass_by(4, come=4000, serve=1000)
    rooms = crowd.pass_by(5, come=500, serve=1000)
    assert rooms[0] < MOST / 10
    assert rooms[-1] == MOST
    assert rooms == sorted(rooms)


def test_nothing_is_shortened_while_all_are_served() -> None:
    crowd = Crowd()
    assert {MOST} == set(crowd.pass_by(30, come=1000, serve=1000))


def test_a_crowd_that_is_served_within_half_the_bound_is_let_in() -> None:
    crowd = Crowd()
    crowd.pass_by(5, come=900, serve=1000)
    crowd.pass_by(STEP, come=3000, serve=1000)
    assert {MOST} == set(crowd.pass_by(5, come=900, serve=1000))


def test_workers_that_stand_still_for_a_moment_keep_nobody_out() -> None:
    crowd = Crowd(bound=4)
    crowd.pass_by(5, come=900, serve=1000)
    assert {MOST} == set(crowd.pass_by(1.5, come=300, serve=0))
    assert {MOST} == set(crowd.pass_by(10, come=300, serve=1000))


def test_when_nobody_is_served_some_may_wait_all_the_same() -> None:
    crowd = Crowd()
    crowd.pass_by(5, come=900, serve=1000)
    assert crowd.pass_by(30, come=900, serve=0)[-1] == BACKLOG_MIN


def test_a_few_are_never_too_many() -> None:
    law = Room(MOST, 0.01, MOST)
    assert {law.see(second, BACKLOG_MIN, 0) for second in range(1, 100)} == {MOST}


# -- the listeners ----------------------------------------------------------------------------------

LENGTH = 100


class Place:
    """A queue, and listeners as systemd hands them over."""

    def __init__(self, opened: ExitStack, *names: str) -> None:
        self.opened = opened
        self.segment = Segment.create(2, 64)
        opened.callback(self.segment.close)
        self.queue = Queue.create(self.segment, 64)
        opened.callback(self.queue.close)
        self.listeners = [
            Listener(name, opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=LENGTH)), adopted=True)
            for name in names
        ]
        self.accepted = [0] * len(names)
        self.now = 1000.0

    def backlogs(self, bound: float = BOUND, left: Iterable[dict[int, int]] = ()) -> Backlogs:
        return Backlogs(self.listeners, self.queue, self.segment, self.accepted, bound, left)

    def come(self, listener: int, count: int) -> None:
        """Let so many connect, whether there is room for them or not."""
        for _ in range(count):
            client = self.opened.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(self.listeners[listener].socket.getsockname())

    def lengths(self) -> list[int]:
        return [backlog.held(one.socket)[1] for one in self.listeners]

    def look(self, backlogs: Backlogs, seconds: float) -> None:
        for _ in range(round(seconds / STEP)):
            self.now += STEP
            backlogs.look(self.now)

    def overload(self, backlogs: Backlogs) -> None:
        """Nobody is taken, for longer than anybody may wait."""
        self.come(0, 2 * BACKLOG_MIN)
        self.look(backlogs, 4 * BOUND)
        assert self.lengths()[0] < LENGTH
        assert self.queue.room < 64


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_an_overload_shortens_and_its_end_restores(opened: ExitStack) -> None:
    place = Place(opened, "http")
    backlogs = place.backlogs()
    words = place.segment.words
    assert words[HEADER["backlog"]] == LENGTH
    place.overload(backlogs)
    assert backlogs.wake_at is not None
    assert place.lengths() == [BACKLOG_MIN // 2] == [words[HEADER["backlog"]]]
    assert place.queue.room == BACKLOG_MIN // 2
    assert backlog.held(place.listeners[0].socket)[0] == 2 * BACKLOG_MIN, "nobody who waits is sent away"
    for _ in range(2 * BACKLOG_MIN):
        place.listeners[0].socket.accept()[0].close()
    place.look(backlogs, 5)
    assert place.lengths() == [LENGTH] == [words[HEADER["backlog"]]]
    assert place.queue.room == 64
    assert backlogs.wake_at is None


def test_what_is_not_used_of_the_queue_is_not_taken_and_comes_back(opened: ExitStack) -> None:
    queue = Place(opened).queue
    queue.narrow(2)
    assert [queue.take_room() for _ in range(3)] == [True, True, False]
    assert not queue.want_room()
    queue.return_room()
    assert queue.want_room()
    queue.narrow(64)
    assert queue.room == 63
    assert all(queue.take_room() for _ in range(63))
    assert not queue.take_room()


def test_administrators_are_left_alone(opened: ExitStack) -> None:
    place = Place(opened, "http", ADMIN)
    backlogs = place.backlogs()
    place.come(1, 50)
    place.overload(backlogs)
    assert place.lengths() == [BACKLOG_MIN // 2, LENGTH]


def test_who_waits_at_a_unix_socket_is_let_into_the_queue(opened: ExitStack, tmp_path: Path) -> None:
    place = Place(opened, "http")
    local = opened.enter_context(socket.socket(socket.AF_UNIX))
    local.bind(str(tmp_path / "x.sock"))
    local.listen(LENGTH)
    place.listeners.append(Listener("http", local, adopted=True))
    place.accepted.append(0)
    backlogs = place.backlogs()
    place.come(0, 2 * BACKLOG_MIN)
    place.look(backlogs, 4 * BOUND)
    assert place.lengths()[0] == BACKLOG_MIN // 2
    assert place.queue.room == 64


@pytest.mark.parametrize("unknown", [[backlog._SO_COOKIE], [backlog._SO_MEMINFO]], ids=["cookie", "drops"])
def test_on_a_kernel_that_does_not_tell_all_of_it_lengths_stay(opened: ExitStack, unknown: list[int]) -> None:
    """By one number we would not know a shortened one again, by the other not what became of clients."""

    def body() -> None:
        place = Place(opened, "http")
        forget(unknown)
        backlogs = place.backlogs()
        place.come(0, 2 * BACKLOG_MIN)
        place.look(backlogs, 4 * BOUND)
        assert (place.lengths(), place.queue.room, backlogs.wake_at) == ([LENGTH], 64, None)
        words = place.segment.words
        assert (words[HEADER["backlog"]], words[HEADER["backlog_drops"]]) == (0, 0)
        assert read(words, LENGTHS) == {}
        backlogs.restore()
        assert place.lengths() == [LENGTH]
        place.opened.close()  # removes what has a name

    assert run_forked(body) == 0


def test_nobody_is_to_wait_for_half_a_minute(opened: ExitStack) -> None:
    """That is the default, for the sake of those who wait for a worker that hangs."""
    place = Place(opened, "http")
    backlogs = place.backlogs(bound=30)
    place.come(0, 2 * BACKLOG_MIN)
    place.look(backlogs, 1.5)
    assert place.lengths() == [LENGTH]
    place.look(backlogs, 6)
    assert place.lengths() == [BACKLOG_MIN // 2]


def test_without_a_bound_nothing_is_shortened(opened: ExitStack) -> None:
    place = Place(opened, "http")
    backlogs = place.backlogs(bound=0)
    place.come(0, 2 * LENGTH)
    place.look(backlogs, 60)
    assert place.lengths() == [LENGTH]
    assert place.segment.words[HEADER["backlog_drops"]] > 0, "the kernel had no room all the same"


def test_a_listener_that_was_shut_down_stays_so(opened: ExitStack) -> None:
    place = Place(opened, "http", "http")
    backlogs = place.backlogs()
    place.listeners[1].socket.shutdown(socket.SHUT_RDWR)
    place.overload(backlogs)
    backlogs.restore()
    assert place.lengths() == [LENGTH, 0]


def test_a_length_that_cannot_be_changed_stays(opened: ExitStack, caplog: pytest.LogCaptureFixture) -> None:
    place = Place(opened, "http", "http")
    other = opened.enter_context(socket.socket())
    other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    other.bind(("127.0.0.1", 0))
    refused = opened.enter_context(socket.create_server(other.getsockname(), backlog=LENGTH))
    place.listeners[0].socket = refused
    backlogs = place.backlogs()
    held = {one: backlog.held(one.socket) for one in place.listeners}
    # Between the look and listen(2) it is shut down, and another has its address.
    refused.shutdown(socket.SHUT_RDWR)
    other.listen()
    with pytest.raises(OSError, match="in use"):
        refused.listen(BACKLOG_MIN)
    for room in (2 * BACKLOG_MIN, BACKLOG_MIN):
        backlogs._let_wait(room, held, place.now)
    assert place.lengths() == [0, BACKLOG_MIN // 2]
    told = [record.message for record in caplog.records if "may wait as before" in record.message]
    assert told == [f"{place.listeners[0]}: as many may wait as before: Address already in use"]
    backlogs.restore()
    assert place.lengths() == [0, LENGTH]


def test_the_end_restores(opened: ExitStack) -> None:
    place = Place(opened, "http", "http")
    backlogs = place.backlogs()
    place.overload(backlogs)
    backlogs.restore()
    assert place.lengths() == [LENGTH, LENGTH]
    assert place.queue.room == 64
    place.look(backlogs, 1)
    assert place.lengths() == [LENGTH, LENGTH], "it looks no more"


def test_the_next_life_of_the_master_knows_how_long_they_were(opened: ExitStack) -> None:
    """In the same segment: a reload, or the one that systemd has kept."""
    place = Place(opened, "http", "http")
    place.overload(place.backlogs())
    short = place.lengths()
    following = place.backlogs()
    assert place.lengths() == short, "an overload goes on"
    assert following.wake_at is not None
    for _ in range(2 * BACKLOG_MIN):
        place.listeners[0].socket.accept()[0].close()
    place.look(following, 5)
    assert place.lengths() == [LENGTH, LENGTH]


def test_a_next_life_without_a_bound_makes_them_long_again(opened: ExitStack) -> None:
    place = Place(opened, "http", "http")
    place.overload(place.backlogs())
    following = place.backlogs(bound=0)
    assert following.wake_at is not None
    place.look(following, STEP)
    assert place.lengths() == [LENGTH, LENGTH]
    assert place.queue.room == 64
    assert place.segment.words[HEADER["backlog"]] == 2 * LENGTH


def test_a_next_life_in_an_overload_lets_few_into_the_queue_from_the_beginning(opened: ExitStack) -> None:
    place = Place(opened, "http")
    place.overload(place.backlogs())
    place.queue.narrow(64)  # as it is in another process
    place.backlogs()
    assert place.queue.room == BACKLOG_MIN // 2


def test_a_larger_queue_is_no_overload(opened: ExitStack, caplog: pytest.LogCaptureFixture) -> None:
    place = Place(opened, "http")
    backlogs = place.backlogs()
    place.look(backlogs, 1)
    assert place.queue.resize(200)
    place.look(backlogs, STEP)
    assert (place.queue.room, place.lengths(), backlogs.wake_at) == (200, [LENGTH], None)
    assert not caplog.records


def test_an_overload_soon_after_another_is_told_if_it_lasts(
    opened: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    place = Place(opened, "http")
    backlogs = place.backlogs()

    def told() -> int:
        return sum("more clients come" in record.message for record in caplog.records)

    place.overload(backlogs)
    for _ in range(2 * BACKLOG_MIN):
        place.listeners[0].socket.accept()[0].close()
    place.look(backlogs, 5)
    assert place.lengths() == [LENGTH]
    place.overload(backlogs)
    assert told() == 1, "at most every so often"
    place.look(backlogs, 2 * SHED_TOLD_S)
    assert told() == 2
    place.look(backlogs, 2 * SHED_TOLD_S)
    assert told() == 2, "it is the same"


def test_who_follows_a_killed_master_knows_it_too(opened: ExitStack) -> None:
    """Where nobody has kept the segment, its name is still there."""
    listener = opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=LENGTH))
    number, left = backlog.cookie(listener), dict[str, dict[int, int]]()

    def here() -> Place:
        place = Place(opened)
        place.listeners.append(Listener("http", listener, adopted=True))
        place.accepted.append(0)
        return place

    def shorten_and_die() -> None:
        place = here()
        place.overload(place.backlogs())
        die()

    # Whatever server starts on this machine at that moment may have been quicker.
    while not any(number in each for each in left.values()):
        listener.listen(LENGTH)
        assert run_forked(shorten_and_die) == -signal.SIGKILL
        segments.sweep(left)
    assert [each[number] for each in left.values() if number in each] == [LENGTH]
    assert backlog.held(listener)[1] == BACKLOG_MIN // 2
    place = here()
    place.backlogs(left=left.values()).restore()
    segments.discard(left)
    assert place.lengths() == [LENGTH]


def test_what_stands_in_the_segment_ends_nobody(opened: ExitStack) -> None:
    """T-61: at most a backlog is longer than it was."""
    place = Place(opened, "http")
    backlogs = place.backlogs()
    words = place.segment.words
    for value in (2**64 - 1, 1 << 63, 1 << 31, 0):
        for at in (HEADER["backlog"], HEADER["backlog_drops"], *range(LENGTHS, LENGTHS + WORDS)):
            words[at] = value
        place.come(0, 2 * LENGTH)
        place.look(backlogs, 2)
        assert words[HEADER["backlog_drops"]] < 1 << 63
        words[HEADER["backlog_drops"]] = value
        backlogs = place.backlogs()
    backlogs.restore()
    assert place.lengths()[0] >= BACKLOG_MIN // 2


# -- what found no room -----------------------------------------------------------------------------


@pytest.fixture(params=[0, 1], ids=["at once", "deferred"])
def narrow(request: pytest.FixtureRequest, opened: ExitStack) -> Listener:
    listening = opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=3))
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, request.param)
    return Listener("http", listening, adopted=True)


@pytest.fixture
def ask(narrow: Listener, opened: ExitStack) -> Callable[[], None]:
    def come() -> None:
        client = opened.enter_context(socket.socket())
        client.setblocking(False)
        client.connect_ex(narrow.socket.getsockname())
        with suppress(BlockingIOError):
            client.send(b"GET / HTTP/1.1\r\n\r\n")

    return come


def test_attempts_that_find_no_room_are_counted_and_others_are_not(narrow: Listener, ask: Callable[[], None]) -> None:
    accepted = [0]
    drops = Drops(narrow, 0, accepted)
    for _ in range(3):
        for _ in range(3):
            ask()
        wait_until(lambda: backlog.held(narrow.socket)[0] == 3)
        for _ in range(3):
            narrow.socket.accept()[0].close()
            accepted[0] += 1
        assert drops.count(full=False) == 0
    for _ in range(3):
        ask()
        wait_until(lambda: backlog.held(narrow.socket)[0] == 1)
        narrow.socket.accept()[0].close()
        accepted[0] += 1
    assert drops.count(full=True) == 0, "they were served"
    for _ in range(20):
        ask()
    assert 16 <= drops.count(full=True) <= 60, "four have room; the others have been refused once or more"
