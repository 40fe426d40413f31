"""Messages and descriptors through a real socketpair: what arrives, what is lost, and that nothing leaks."""

import fcntl
import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.files.process import open_descriptors
from tests.unit.processes import forked, run_forked

from pyserver.ipc.channel import Channel, Full, Garbled, Gone, Kind, Message
from pyserver.ipc.messages import LAYOUT, SIZE, VERSION
from pyserver.limits import BATCH_MAX


@pytest.fixture
def channel() -> Iterator[Channel]:
    made = Channel()
    yield made
    made.close()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    """A descriptor to send."""
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


def raw(channel: Channel) -> socket.socket:
    """The master's end as a socket, to say what no version of ours would."""
    return channel.master_end._socket


def same_file(one: int, other: int) -> bool:
    return os.path.sameopenfile(one, other)


def test_nothing_waits_at_first(channel: Channel) -> None:
    assert channel.master_end.receive() is None
    assert channel.worker_end.receive() is None
    assert channel.worker_end.first_number() is None


def test_a_message_arrives_whole_with_its_descriptors(channel: Channel, file: int) -> None:
    sent = Message(Kind.CONNECTIONS, 3, 1, 2, 7, 123456789)
    channel.master_end.send(sent, [file, file])
    received = channel.worker_end.receive()
    assert received is not None
    message, descriptors = received
    assert message == sent
    assert len(descriptors) == 2
    assert all(same_file(each, file) for each in descriptors)
    for each in descriptors:
        os.close(each)


def test_descriptors_arrive_close_on_exec_and_the_sender_keeps_its_own(channel: Channel, file: int) -> None:
    os.set_inheritable(file, True)
    channel.master_end.send(Message(Kind.CONNECTIONS, carried=1), [file])
    received = channel.worker_end.receive()
    assert received is not None
    (arrived,) = received[1]
    assert fcntl.fcntl(arrived, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    assert not os.get_inheritable(arrived)
    assert os.get_inheritable(file)
    os.close(arrived)


def test_messages_keep_their_boundaries_and_their_order(channel: Channel, file: int) -> None:
    for number in range(5):
        channel.master_end.send(Message(Kind.CONNECTIONS, carried=number, number=number), [file] * number)
    for number in range(5):
        received = channel.worker_end.receive()
        assert received is not None
        assert (received[0].number, len(received[1])) == (number, number)
        for each in received[1]:
            os.close(each)


def test_reports_go_the_other_way(channel: Channel) -> None:
    channel.worker_end.send(Message(Kind.READY, 4))
    assert channel.master_end.receive() == (Message(Kind.READY, 4), [])


def test_full_loses_nothing_and_leaks_nothing(channel: Channel, file: int) -> None:
    before = open_descriptors()
    sent = 0
    while True:
        try:
            channel.master_end.send(Message(Kind.CONNECTIONS, carried=1, number=sent), [file])
        except Full:
            break
        sent += 1
    assert sent >= 256, "a channel holds a good part of a queue"
    assert open_descriptors() == before
    for number in range(sent):
        received = channel.worker_end.receive()
        assert received is not None
        assert received[0].number == number
        os.close(received[1][0])
    assert channel.worker_end.receive() is None
    channel.master_end.send(Message(Kind.DRAIN))
    assert channel.worker_end.receive() == (Message(Kind.DRAIN), [])
    assert open_descriptors() == before


def test_a_full_batch_fits_one_message(channel: Channel, file: int) -> None:
    channel.master_end.send(Message(Kind.CONNECTIONS, carried=BATCH_MAX), [file] * BATCH_MAX)
    received = channel.worker_end.receive()
    assert received is not None
    assert len(received[1]) == BATCH_MAX
    for each in received[1]:
        os.close(each)


def test_a_closed_peer_is_gone(channel: Channel) -> None:
    channel.master_end.close()
    with pytest.raises(Gone):
        channel.worker_end.receive()
    with pytest.raises(Gone):
        channel.worker_end.send(Message(Kind.READY))


def test_what_was_sent_before_the_peer_closed_still_arrives(channel: Channel, file: int) -> None:
    channel.master_end.send(Message(Kind.CONNECTIONS, carried=1), [file])
    channel.master_end.close()
    received = channel.worker_end.receive()
    assert received is not None
    os.close(received[1][0])
    with pytest.raises(Gone):
        channel.worker_end.receive()


def test_a_peer_that_closed_with_messages_unread_is_gone(channel: Channel) -> None:
    channel.worker_end.send(Message(Kind.READY))
    channel.master_end.close()  # ECONNRESET on this side (unix(7))
    with pytest.raises(Gone):
        channel.worker_end.receive()


@pytest.mark.parametrize(
    "data",
    [b"x", bytes(SIZE - 1), bytes(SIZE + 1), bytes(SIZE), LAYOUT.pack(VERSION, 99, 0, 0, 0, 0, 0), b"x" * 5000],
    ids=["one byte", "short", "long", "version 0", "unknown kind", "very long"],
)
def test_a_garbled_message_closes_its_descriptors(channel: Channel, file: int, data: bytes) -> None:
    before = open_descriptors()
    socket.send_fds(raw(channel), [data], [file, file])
    with pytest.raises(Garbled):
        channel.worker_end.receive()
    assert open_descriptors() == before
    channel.master_end.send(Message(Kind.DRAIN))
    assert channel.worker_end.receive() == (Message(Kind.DRAIN), []), "and the next message is not affected"


def test_an_empty_message_looks_like_the_end_and_leaves_no_descriptors(channel: Channel, file: int) -> None:
    before = open_descriptors()
    socket.send_fds(raw(channel), [b""], [file] * 3)
    with pytest.raises(Gone):
        channel.worker_end.receive()
    assert open_descriptors() == before
    channel.master_end.send(Message(Kind.DRAIN))
    assert channel.worker_end.receive() is not None


def test_more_descriptors_than_any_batch_are_cut_off_by_the_kernel(channel: Channel, file: int) -> None:
    before = open_descriptors()
    data = LAYOUT.pack(VERSION, Kind.CONNECTIONS, 0, 3 * BATCH_MAX, 0, 0, 0)
    socket.send_fds(raw(channel), [data], [file] * 3 * BATCH_MAX)
    received = channel.worker_end.receive()
    assert received is not None
    assert len(received[1]) <= 3 * BATCH_MAX
    for each in received[1]:
        os.close(each)
    assert open_descriptors() == before


def test_at_the_limit_of_open_files_the_count_tells_what_was_lost(channel: Channel, file: int) -> None:
    channel.master_end.send(Message(Kind.CONNECTIONS, carried=8), [file] * 8)

    def receive_with_room_for_three() -> int:
        highest = max(open_descriptors())
        for descriptor in set(range(highest)) - open_descriptors():
            os.dup2(file, descriptor)  # no gaps below
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 4, highest + 4))
        received = channel.worker_end.receive()
        assert received is not None
        message, descriptors = received
        assert message.carried == 8
        assert 0 < len(descriptors) < 8
        return 0

    assert run_forked(receive_with_room_for_three) == 0
    assert channel.worker_end.receive() is None


def test_first_number_looks_and_takes_nothing(channel: Channel, file: int) -> None:
    channel.master_end.send(Message(Kind.CONNECTIONS, carried=3, number=41), [file] * 3)
    channel.master_end.send(Message(Kind.CONNECTIONS, carried=1, number=44), [file])
    before = open_descriptors()
    for _ in range(100):
        assert channel.worker_end.first_number() == 41
    assert open_descriptors() == before
    for number, carried in ((41, 3), (44, 1)):
        assert channel.worker_end.first_number() == number
        received = channel.worker_end.receive()
        assert received is not None
        assert len(received[1]) == carried
        for each in received[1]:
            os.close(each)
    assert channel.worker_end.first_number() is None


def test_what_waits_outlives_the_worker(channel: Channel, file: int) -> None:
    """The master keeps both ends, so a successor finds what its predecessor left."""

    def wait_for_death() -> None:
        channel.master_end.close()
        while True:
            os.sched_yield()

    with forked(wait_for_death) as worker:
        channel.master_end.send(Message(Kind.CONNECTIONS, carried=1, number=5), [file])
        worker.kill()
    received = channel.worker_end.receive()
    assert received is not None
    assert received[0].number == 5
    assert same_file(received[1][0], file)
    os.close(received[1][0])


def test_the_masters_death_is_an_end_of_file(channel: Channel) -> None:
    def be_a_worker() -> int:
        channel.master_end.close()
        poll_end = channel.worker_end._socket
        poll_end.setblocking(True)
        return 7 if poll_end.recv(1) == b"" else 1

    with forked(be_a_worker) as worker:
        channel.close()
        assert worker.wait() == 7


def test_closing_closes_what_waits_too(file: int) -> None:
    before = open_descriptors()
    channel = Channel()
    ours, theirs = socket.socketpair()
    channel.master_end.send(Message(Kind.CONNECTIONS, carried=1), [theirs.fileno()])
    theirs.close()
    channel.close()
    assert ours.recv(1) == b"", "the client sees the end of its connection"
    ours.close()
    assert open_descriptors() == before


def test_ends_never_block_and_are_close_on_exec(channel: Channel) -> None:
    for end in (channel.master_end, channel.worker_end):
        assert not os.get_blocking(end.fileno())
        assert not os.get_inheritable(end.fileno())
