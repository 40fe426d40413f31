"""Answers through real sockets with little room, from memory and from files that are cold, shrink or grow."""

import contextlib
import mmap
import os
import random
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyserver.files.resolve import OpenFile, Root
from pyserver.http.response import Head, Response
from pyserver.limits import SENDFILE_BYTES
from pyserver.worker.transport import SEND, SEND_MORE, Outcome, Outgoing, untaken

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n"


class Plain:
    """A source that is nothing but a descriptor."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        os.close(self.fd)


@pytest.fixture
def content() -> bytes:
    return random.Random(3).randbytes(3 * SENDFILE_BYTES + 12_345)


@pytest.fixture
def file(tmp_path: Path, content: bytes) -> Iterator[Path]:
    path = tmp_path / "file"
    path.write_bytes(content)
    yield path
    path.unlink()  # pytest keeps the folders of three runs


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The server's end with next to no room, and the client's."""
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
    ours.setblocking(False)
    theirs.setblocking(False)
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def tcp() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
        server.setblocking(False)
        with client, server:
            yield server, client


def answer(wire: bytes, source: Plain | OpenFile | None = None, offset: int = 0, count: int = 0) -> Response:
    return Response(200, Head(wire), content_bytes=count, source=source, offset=offset, count=count)


def read_now(client: socket.socket) -> bytes:
    data = b""
    try:
        while got := client.recv(1 << 20):
            data += got
    except BlockingIOError:
        pass
    return data


def to_the_end(outgoing: Outgoing, ours: socket.socket, theirs: socket.socket) -> tuple[bytes, set[Outcome]]:
    """Send and read in turns; all that arrived, and what was said on the way."""
    data, said = b"", set()
    for _ in range(100_000):
        outcome = outgoing.advance(ours, may_block=True)
        said.add(outcome)
        data += read_now(theirs)
        if outcome not in (Outcome.SOCKET, Outcome.TURN):
            break
    return data, said


def test_what_fits_is_done_at_once(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    outgoing = Outgoing(answer(HEAD + b"x"), 0)
    assert outgoing.advance(ours) is Outcome.DONE
    assert read_now(theirs) == HEAD + b"x"
    assert outgoing.sent == len(HEAD) + 1


def test_from_memory_through_a_narrow_socket(ends: tuple[socket.socket, socket.socket], content: bytes) -> None:
    outgoing = Outgoing(answer(content), 0)
    assert outgoing.advance(ends[0]) is Outcome.SOCKET
    assert 0 < outgoing.sent < len(content)
    assert outgoing.advance(ends[0]) is Outcome.SOCKET, "asked again it waits, and sends nothing twice"
    data, said = to_the_end(outgoing, *ends)
    assert data == content
    assert said <= {Outcome.SOCKET, Outcome.DONE}


def test_it_goes_on_where_the_first_send_ended(ends: tuple[socket.socket, socket.socket], content: bytes) -> None:
    first = ends[0].send(content, SEND)
    data, _ = to_the_end(Outgoing(answer(content), first), *ends)
    assert data == content


@pytest.mark.parametrize(("offset", "count"), [(0, None), (0, 1), (5, 100_000), (SENDFILE_BYTES - 1, 2), (1, None)])
def test_from_a_file_through_a_narrow_socket(
    ends: tuple[socket.socket, socket.socket], file: Path, content: bytes, offset: int, count: int | None
) -> None:
    count = len(content) - offset if count is None else count
    outgoing = Outgoing(answer(HEAD, Plain(file), offset, count), 0)
    data, _ = to_the_end(outgoing, *ends)
    assert data == HEAD + content[offset : offset + count]
    assert outgoing.sent == len(data)
    assert outgoing.content_sent == count


def test_others_get_their_turn_with_a_fast_reader(file: Path, content: bytes) -> None:
    """One call sends so much at most, however much the socket would take."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32 << 20)
        outgoing = Outgoing(answer(HEAD, Plain(file), 0, len(content)), 0)
        turns = 0
        data = b""
        while (outcome := outgoing.advance(ours)) is not Outcome.DONE:
            assert outcome in (Outcome.TURN, Outcome.SOCKET)
            assert outgoing.sent <= len(HEAD) + (turns + 1) * SENDFILE_BYTES
            turns += 1
            data += read_now(theirs)
        assert data + read_now(theirs) == HEAD + content
        assert turns >= 3


@pytest.mark.parametrize("left", [0, 1, 500_000])
def test_a_file_that_shrank(ends: tuple[socket.socket, socket.socket], file: Path, content: bytes, left: int) -> None:
    source = Plain(file)
    os.truncate(file, left)
    data, said = to_the_end(Outgoing(answer(HEAD, source, 0, len(content)), 0), *ends)
    assert Outcome.SHRANK in said
    assert data == HEAD + content[:left], "never padded"


def test_a_file_that_grew_is_sent_as_long_as_announced(
    ends: tuple[socket.socket, socket.socket], file: Path, content: bytes
) -> None:
    source = Plain(file)
    with file.open("ab") as more:
        more.write(b"more" * 1000)
    data, _ = to_the_end(Outgoing(answer(HEAD, source, 0, len(content)), 0), *ends)
    assert data == HEAD + content


def test_a_file_that_shrank_behind_the_next_part(
    ends: tuple[socket.socket, socket.socket], file: Path, content: bytes
) -> None:
    """It is said that it shrank, and not that something in it changed."""
    outgoing = Outgoing(answer(HEAD, opened(file), 0, len(content)), 0)
    outgoing.advance(ends[0], may_block=True)
    os.truncate(file, len(content) - 1)
    os.utime(file, ns=(0, 1))  # whatever the clock of the file system
    _, said = to_the_end(outgoing, *ends)
    assert Outcome.SHRANK in said


@pytest.mark.parametrize("more", [(), (b"--end--",), (b"--next", (0, 5), b"--end--")])
def test_a_file_that_was_overwritten_in_place_goes_no_further(
    ends: tuple[socket.socket, socket.socket], file: Path, content: bytes, more: tuple[bytes | tuple[int, int], ...]
) -> None:
    source = opened(file)
    response = Response(200, Head(HEAD), content_bytes=len(content), source=source, count=len(content), more=more)
    outgoing = Outgoing(response, 0)
    outgoing.advance(ends[0], may_block=True)
    before = outgoing.sent
    with file.open("r+b") as again:
        again.write(bytes(len(content)))
    os.utime(file, ns=(0, 1))  # whatever the clock of the file system
    source.refresh()  # as for another client
    data, said = to_the_end(outgoing, *ends)
    assert Outcome.CHANGED in said
    assert Outcome.DONE not in said
    assert len(data) == outgoing.sent == before, "it is seen before anything more goes out"


@pytest.mark.parametrize("what", ["grew", "unlinked", "mode"])
def test_a_file_whose_announced_part_is_as_it_was_is_sent(
    ends: tuple[socket.socket, socket.socket], file: Path, content: bytes, what: str
) -> None:
    outgoing = Outgoing(answer(HEAD, opened(file), 0, len(content)), 0)
    outgoing.advance(ends[0], may_block=True)
    if what == "grew":
        with file.open("ab") as more:
            more.write(b"more")
        os.utime(file, ns=(0, 1))
    elif what == "mode":
        file.chmod(0o444)
    else:
        file.unlink()
        file.write_bytes(b"new")
    data, said = to_the_end(outgoing, *ends)
    assert Outcome.DONE in said
    assert data == HEAD + content


@pytest.mark.parametrize("family", ["ends", "tcp"])
def test_what_a_client_has_not_taken_is_known(family: str, request: pytest.FixtureRequest) -> None:
    ours, theirs = request.getfixturevalue(family)
    assert untaken(ours) == 0
    with contextlib.suppress(BlockingIOError):
        while ours.send(b"x" * 100_000, SEND):
            pass
    full = untaken(ours)
    assert full > 0
    theirs.setblocking(False)
    for _ in range(1000):
        read_now(theirs)
        if not untaken(ours):
            break
        time.sleep(0.001)
    assert untaken(ours) == 0


def test_a_client_that_is_gone(ends: tuple[socket.socket, socket.socket], file: Path, content: bytes) -> None:
    ours, theirs = ends
    for response in (answer(content), answer(HEAD, Plain(file), 0, len(content))):
        theirs.close()
        assert Outgoing(response, 0).advance(ours) is Outcome.GONE


def test_a_client_that_resets_in_the_middle(
    tcp: tuple[socket.socket, socket.socket], file: Path, content: bytes
) -> None:
    ours, client = tcp
    outgoing = Outgoing(answer(HEAD, Plain(file), 0, len(content) * 1), 0)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    outgoing.advance(ours)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    outcomes = {outgoing.advance(ours) for _ in range(1000)}
    assert Outcome.GONE in outcomes
    assert Outcome.DONE not in outcomes


def test_a_head_and_its_file_leave_in_one_segment(tcp: tuple[socket.socket, socket.socket], tmp_path: Path) -> None:
    """MSG_MORE keeps the head back until the content comes (tcp(7), T-53); seen in the count of segments sent."""
    ours, client = tcp
    small = tmp_path / "small"
    small.write_bytes(b"x" * 500)
    before = segments_out(ours)
    outgoing = Outgoing(answer(HEAD, Plain(small), 0, 500), 0)
    assert outgoing.advance(ours) is Outcome.DONE
    data = b""
    while len(data) < len(HEAD) + 500:
        data += client.recv(10_000)
    assert segments_out(ours) - before == 1
    assert SEND_MORE & socket.MSG_MORE
    assert SEND & socket.MSG_NOSIGNAL


def segments_out(connection: socket.socket) -> int:
    """tcpi_data_segs_out of struct tcp_info (linux/tcp.h), at byte 156."""
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    (count,) = struct.unpack_from("=I", info, 156)
    return int(count)


# -- the disk ---------------------------------------------------------------------------------------


def evict(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def opened(path: Path) -> OpenFile:
    root = Root(path.parent)
    return OpenFile(root.open(b"/" + path.name.encode(), cached_only=False))


def test_what_has_to_be_read_from_the_disk_is_said_and_then_sent(
    ends: tuple[socket.socket, socket.socket], file: Path, content: bytes
) -> None:
    source = opened(file)
    evict(file)
    outgoing = Outgoing(answer(HEAD, source, 0, len(content)), 0)
    first = outgoing.advance(ends[0])
    if first is not Outcome.DISK:
        pytest.skip("this file system keeps everything in memory")
    assert read_now(ends[1]) == HEAD
    assert outgoing.advance(ends[0]) is Outcome.DISK, "asking does not read"
    data, said = to_the_end(outgoing, *ends)
    assert HEAD + data == HEAD + content
    assert Outcome.DISK not in said


def test_what_is_in_memory_needs_no_follower(
    ends: tuple[socket.socket, socket.socket], file: Path, content: bytes
) -> None:
    file.read_bytes()
    source = opened(file)
    if not source.in_memory(0, mmap.PAGESIZE):
        pytest.skip("this file system does not tell")
    outgoing = Outgoing(answer(HEAD, source, 0, len(content)), 0)
    data = b""
    for _ in range(100_000):
        outcome = outgoing.advance(ends[0])
        assert outcome is not Outcome.DISK
        data += read_now(ends[1])
        if outcome is Outcome.DONE:
            break
    assert data == HEAD + content
