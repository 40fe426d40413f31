"""Real sockets, real files."""

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyserver.files.resolve import OpenFile
from pyserver.http.response import Response
from pyserver.limits import MIB, SENDFILE_BYTES
from pyserver.worker.transport import Outcome, Outgoing

CONTENT = bytes(range(256)) * (3 * MIB // 256)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> OpenFile:
    path: Path = tmp_path_factory.mktemp("files") / "large.bin"
    path.write_bytes(CONTENT)
    return OpenFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC))


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        yield ours, theirs


def everything(
    outgoing: Outgoing, ours: socket.socket, theirs: socket.socket, read: int = 1 << 20
) -> tuple[bytes, set[Outcome]]:
    """Advance to the end, and read whenever the socket is full; what was received, and how attempts ended."""
    got, outcomes = bytearray(), set()
    while True:
        # A file system that never says what is in memory makes each attempt one that may block.
        outcome = outgoing.advance(ours, may_block=Outcome.DISK in outcomes)
        outcomes.add(outcome)
        if outcome is Outcome.DONE:
            ours.shutdown(socket.SHUT_WR)
            theirs.setblocking(True)
            while data := theirs.recv(1 << 20):
                got += data
            return bytes(got), outcomes
        assert outcome in (Outcome.SOCKET, Outcome.TURN, Outcome.DISK)
        if outcome is Outcome.SOCKET:
            got += theirs.recv(read)


def test_from_memory_alone(pair: tuple[socket.socket, socket.socket]) -> None:
    outgoing = Outgoing(Response(200, b"head" + CONTENT, content_bytes=len(CONTENT)), 2)
    got, outcomes = everything(outgoing, *pair)
    assert got == b"ad" + CONTENT
    assert outcomes == {Outcome.SOCKET, Outcome.DONE}
    assert (outgoing.sent, outgoing.content_sent) == (4 + len(CONTENT), len(CONTENT))


def test_a_head_and_a_file(pair: tuple[socket.socket, socket.socket], file: OpenFile) -> None:
    response = Response(206, b"head", content_bytes=2 * MIB, source=file, offset=7, count=2 * MIB)
    outgoing = Outgoing(response, 0)
    got, _ = everything(outgoing, *pair)
    assert got == b"head" + CONTENT[7 : 7 + 2 * MIB]
    assert outgoing.content_sent == 2 * MIB


def test_parts_in_turn(pair: tuple[socket.socket, socket.socket], file: OpenFile) -> None:
    more = (b"one", (5, 10), b"two", (2 * MIB, 300_000), (0, 1), b"end")
    response = Response(206, b"head", content_bytes=9 + 300_011, source=file, more=more)
    outgoing = Outgoing(response, 0)
    got, _ = everything(outgoing, *pair)
    assert got == b"headone" + CONTENT[5:15] + b"two" + CONTENT[2 * MIB : 2 * MIB + 300_000] + CONTENT[:1] + b"end"
    assert outgoing.content_sent == 9 + 300_011


def test_what_was_sent_of_the_content_is_known_at_every_byte(file: OpenFile) -> None:
    response = Response(206, b"head", content_bytes=13, source=file, more=(b"one", (5, 10)))
    for sent in range(18):
        outgoing = Outgoing(response, 0)
        outgoing.sent = sent
        assert outgoing.content_sent == max(0, sent - 4)


def test_others_have_their_turn(file: OpenFile) -> None:
    """However it is divided, an attempt sends no more than one sendfile and what completes it."""
    size = SENDFILE_BYTES // 4 + 1
    more = tuple(part for n in range(8) for part in (b"part %d" % n, (n * size, size)))
    for response in (
        Response(206, b"head", content_bytes=0, source=file, more=more),
        Response(200, b"head", content_bytes=0, source=file, count=len(CONTENT)),
    ):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            for end in (ours, theirs):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * MIB)
            ours.setblocking(False)
            outgoing = Outgoing(response, 0)
            before = 0
            while (outcome := outgoing.advance(ours, may_block=True)) is not Outcome.DONE:
                assert outcome in (Outcome.SOCKET, Outcome.TURN)
                assert outgoing.sent - before <= SENDFILE_BYTES + size + 100
                before = outgoing.sent
                theirs.recv(4 * MIB)


def test_a_file_that_ends_before_its_part_does(pair: tuple[socket.socket, socket.socket], tmp_path: Path) -> None:
    # T-50
    (tmp_path / "short").write_bytes(b"x" * 20)
    short = OpenFile(os.open(tmp_path / "short", os.O_RDONLY | os.O_CLOEXEC))
    response = Response(206, b"head", content_bytes=25, source=short, more=(b"one", (0, 10), b"two", (15, 10), b"end"))
    outgoing = Outgoing(response, 0)
    outcome = outgoing.advance(pair[0], may_block=True)
    while outcome is Outcome.TURN:
        outcome = outgoing.advance(pair[0], may_block=True)
    assert outcome is Outcome.SHRANK
    assert pair[1].recv(1000) == b"headone" + b"x" * 10 + b"two" + b"x" * 5


def test_a_client_that_is_gone(file: OpenFile) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        theirs.close()
        assert Outgoing(Response(206, b"head", source=file, more=((0, 1),)), 0).advance(ours) is Outcome.GONE
        assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in (0, errno.EPIPE)


PARTS = st.lists(
    st.one_of(st.binary(min_size=1, max_size=9), st.tuples(st.integers(0, 1000), st.integers(1, 200_000))), max_size=8
)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    wire=st.binary(min_size=1, max_size=50), count=st.integers(0, 300_000), more=PARTS, read=st.integers(1000, 99_999)
)
def test_nothing_is_lost_or_twice(
    file: OpenFile, wire: bytes, count: int, more: list[bytes | tuple[int, int]], read: int
) -> None:
    expected = wire + CONTENT[3 : 3 + count]
    expected += b"".join(part if isinstance(part, bytes) else CONTENT[part[0] : sum(part)] for part in more)
    response = Response(
        206, wire, content_bytes=len(expected) - len(wire), source=file, offset=3, count=count, more=tuple(more)
    )
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        outgoing = Outgoing(response, 0)
        got, _ = everything(outgoing, ours, theirs, read)
    assert got == expected
    assert outgoing.sent == len(expected)
