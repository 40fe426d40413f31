"""The control socket: who may order what, and what is said to whom."""

import os
import select
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyserver.ipc import control
from pyserver.ipc.control import ORDER, Control, answer, may_order
from pyserver.limits import CONTROL_MAX

ADDRESS = b"\0pyserver-test-control.%d" % os.getpid()


class Master:
    """As much of it as there needs to be: a poll set with readers."""

    def __init__(self) -> None:
        self.poll = select.epoll()
        self.readers: dict[int, Callable[[], object]] = {}
        self.orders: list[socket.socket] = []
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(ADDRESS)
        listener.listen()
        listener.setblocking(False)
        self.control = Control(listener, self.watch, self.unwatch, self.orders.append)

    def watch(self, descriptor: int, reader: Callable[[], object]) -> None:
        self.readers[descriptor] = reader
        self.poll.register(descriptor, select.EPOLLIN)

    def unwatch(self, descriptor: int) -> None:
        del self.readers[descriptor]
        self.poll.unregister(descriptor)

    def turn(self) -> None:
        while ready := self.poll.poll(0):
            for descriptor, _ in ready:
                if descriptor in self.readers:
                    self.readers[descriptor]()


@pytest.fixture
def master() -> Iterator[Master]:
    made = Master()
    yield made
    made.control.close()
    for each in made.orders:
        each.close()
    made.poll.close()


@pytest.fixture
def client() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as made:
        made.settimeout(5)
        yield made


@pytest.mark.parametrize("pieces", [[ORDER], [ORDER[:5], ORDER[5:]], [bytes([byte]) for byte in ORDER]])
def test_an_order_is_taken_and_answered(master: Master, client: socket.socket, pieces: list[bytes]) -> None:
    client.connect(ADDRESS)
    for piece in pieces:
        assert not master.orders
        client.sendall(piece)
        master.turn()
    (order,) = master.orders
    answer(order, done=False, text="line 1:\n  it is so")
    assert client.recv(100) == b"failed line 1: it is so\n"
    assert client.recv(100) == b""


@pytest.mark.parametrize("words", [b"GET / HTTP/1.1\r\n", b"\n", ORDER + b"more", b"x" * 5000])
def test_anything_else_is_not_understood(master: Master, client: socket.socket, words: bytes) -> None:
    client.connect(ADDRESS)
    client.sendall(words)
    master.turn()
    try:
        assert client.recv(100) == b"failed not understood; the one order is: reload\n"
    except ConnectionResetError:
        assert len(words) > len(ORDER), "what was not read makes a reset of the close"
    assert not master.orders


def test_who_only_connects_makes_room_for_others(master: Master, client: socket.socket) -> None:
    silent = [socket.socket(socket.AF_UNIX) for _ in range(CONTROL_MAX * 2)]
    for each in silent:
        each.connect(ADDRESS)
        master.turn()
    assert len(master.readers) == 1 + CONTROL_MAX
    client.connect(ADDRESS)
    client.sendall(ORDER)
    master.turn()
    assert len(master.orders) == 1
    for each in silent:
        each.close()
    master.turn()
    assert len(master.readers) == 1


def test_we_ourselves_may_order() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        assert may_order(ours)


def test_who_cannot_be_asked_may_not() -> None:
    with socket.socket(socket.AF_INET) as stranger:
        assert not may_order(stranger)


def test_the_address_follows_the_segment() -> None:
    assert control.address_of("/pyserver.17") == b"\0pyserver.17.control"


def test_an_answer_to_nobody_is_no_error() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    theirs.close()
    answer(ours, done=True, text="well")


# -- the command -----------------------------------------------------------------------------------


def test_a_socket_that_nobody_listens_at_is_named_with_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "control.sock")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(path)
        assert control.main(path, None, 5.0) == 1
    assert capsys.readouterr().err == (
        f"pyserver: the server cannot be ordered to reload: {path}: connection refused; "
        "see whether it runs: systemctl status pyserver; or name its socket: --control PATH\n"
    )


def test_a_path_that_no_socket_can_have_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / ("x" * 200))
    assert control.main(path, None, 5.0) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f"{path}: AF_UNIX path too long; name its socket: --control PATH")
