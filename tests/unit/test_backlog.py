import errno
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.oldkernel import forget
from tests.unit.processes import run_forked, wait_until

from pyserver import backlog
from pyserver.backlog import cookie, dropped, held, untouched


def test_the_kernel_knows_how_long_a_request_has_been_there() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
    ):
        client.sendall(b"GET")
        served, _ = listener.accept()
        with served:
            wait_until(lambda: (untouched(served.fileno()) or 0.0) > 0.3)
            client.sendall(b" / HTTP/1.1")
            wait_until(lambda: (untouched(served.fileno()) or 0.0) < 0.3)
            assert served.recv(100) == b"GET / HTTP/1.1", "it is open, and nothing was read"


def test_it_counts_from_the_connect_until_something_comes() -> None:
    with (
        socket.create_server(("::1", 0), family=socket.AF_INET6) as listener,
        socket.create_connection(listener.getsockname()[:2]),
    ):
        served, _ = listener.accept()
        with served:
            wait_until(lambda: (untouched(served.fileno()) or 0.0) > 0.1)


def test_unix_sockets_do_not_know() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert untouched(one.fileno()) is None


def test_the_kernel_knows_how_many_wait() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        clients = []
        for number in range(5):
            assert held(listener)[0] == number
            clients.append(socket.create_connection(listener.getsockname()))
        clients[0].close()
        for number in range(5, 0, -1):
            assert held(listener)[0] == number, "also one that has left is accepted"
            listener.accept()[0].close()
        assert held(listener)[0] == 0
        for client in clients:
            client.close()


def test_nobody_knows_how_many_wait_at_a_unix_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        assert held(listener) == (0, 0)


def test_the_number_of_a_socket_is_its_own_whoever_holds_it(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_server(("127.0.0.1", 0)) as other,
        socket.socket(socket.AF_UNIX) as local,
    ):
        local.bind(str(tmp_path / "socket"))
        local.listen()
        with listener.dup() as same:
            assert cookie(same) == cookie(listener)
        assert len({cookie(listener), cookie(other), cookie(local)}) == 3
        assert dropped(local) == 0


@pytest.mark.parametrize(
    ("option", "ask", "other"), [(backlog._SO_MEMINFO, dropped, cookie), (backlog._SO_COOKIE, cookie, dropped)]
)
def test_a_kernel_of_before_says_so(
    option: int, ask: Callable[[socket.socket], int], other: Callable[[socket.socket], int]
) -> None:
    def body() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            ask(listener)
            forget([option])
            with pytest.raises(OSError) as refused:
                ask(listener)
            assert refused.value.errno == errno.ENOPROTOOPT
            assert other(listener) >= 0
            assert held(listener)[1] > 0

    assert run_forked(body) == 0
