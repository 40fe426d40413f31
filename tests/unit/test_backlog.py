import socket
from pathlib import Path

from tests.unit.processes import wait_until

from pyserver.backlog import held, untouched


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
