"""Real addresses and real socket files: what is bound, what is left alone, and what the administrator is told."""

import fcntl
import os
import select
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.unit.processes import run_forked

from pyserver.config import Address
from pyserver.limits import UNSENT_MAX_BYTES
from pyserver.master.listeners import Listener, ListenError, adopt_or_bind

Bind = Callable[..., list[Listener]]


@pytest.fixture
def bind() -> Iterator[Bind]:
    with ExitStack() as opened:

        def run(*texts: str) -> list[Listener]:
            made = adopt_or_bind({}, [Address.parse(text) for text in texts])
            for listener in made:
                opened.callback(listener.close)
            return made

        yield run


def test_a_socket_file_that_is_no_longer_ours_is_left_alone(bind: Bind, tmp_path: Path) -> None:
    path = tmp_path / "s"
    (listener,) = bind(f"unix:{path}")
    path.unlink()
    with socket.socket(socket.AF_UNIX) as successor:
        successor.bind(str(path))
        listener.close()
        assert path.is_socket()


def test_more_listeners_than_a_message_can_name_are_refused(bind: Bind, tmp_path: Path) -> None:
    with pytest.raises(ListenError, match=r"^256 addresses to listen on, at most 255 can be served$"):
        bind(*(f"unix:{tmp_path}/{number}" for number in range(256)))
    assert not list(tmp_path.iterdir())


def test_more_adopted_listeners_than_a_message_can_name_are_refused() -> None:
    def adopting() -> int:
        made = [socket.socket(socket.AF_UNIX) for _ in range(256)]
        for number, one in enumerate(made):
            one.bind(f"\0pyserver-{os.getpid()}-{number}")
            one.listen()
        aside = [fcntl.fcntl(one.fileno(), fcntl.F_DUPFD, 600) for one in made]
        for place, descriptor in enumerate(aside, 3):
            os.dup2(descriptor, place)
        os.environ |= {"LISTEN_FDS": "256", "LISTEN_PID": str(os.getpid())}
        with pytest.raises(ListenError, match=r"^systemd handed over 256 listeners, at most 255 can be served$"):
            adopt_or_bind(os.environ, [])
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(3)
        return 0

    assert run_forked(adopting) == 0


def accept(listener: Listener, client: socket.socket) -> socket.socket:
    """Take a client that has sent something: before that, one over TCP is not there (TCP_DEFER_ACCEPT)."""
    client.sendall(b"?")
    assert select.select([listener.socket], [], [], 10)[0]
    accepted, _ = listener.socket.accept()
    assert accepted.recv(1) == b"?"
    return accepted


def talk(listener: Listener, text: bytes = b"hello") -> None:
    """A client comes in by this listener and is heard."""
    with socket.socket(listener.socket.family, socket.SOCK_STREAM) as client:
        client.connect(listener.socket.getsockname())
        accepted = accept(listener, client)
        with accepted:
            client.sendall(text)
            assert accepted.recv(100) == text


def port_of(listener: Listener) -> int:
    return int(listener.socket.getsockname()[1])


# -- TCP ----------------------------------------------------------------------------------------------


def test_port_0_is_any_free_one_and_is_told(bind: Bind) -> None:
    (listener,) = bind("127.0.0.1:0")
    assert port_of(listener) > 0
    assert str(listener) == f"http://127.0.0.1:{port_of(listener)}"
    assert not listener.adopted
    talk(listener)


def test_several_addresses(bind: Bind, tmp_path: Path) -> None:
    listeners = bind("127.0.0.1:0", "[::1]:0", f"unix:{tmp_path}/s")
    assert [each.socket.family for each in listeners] == [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX]
    assert str(listeners[1]) == f"http://[::1]:{port_of(listeners[1])}"
    assert str(listeners[2]) == f"unix:{tmp_path}/s"
    for listener in listeners:
        talk(listener)


def test_all_of_ipv6_and_all_of_ipv4_beside_each_other_on_one_port(bind: Bind) -> None:
    (four,) = bind("0.0.0.0:0")
    (six,) = bind(f"[::]:{port_of(four)}")
    for host, listener in (("127.0.0.1", four), ("::1", six)):
        with socket.create_connection((host, port_of(four))) as client:
            accept(listener, client).close()


def test_a_client_is_accepted_when_its_request_is_there(bind: Bind) -> None:
    (listener,) = bind("127.0.0.1:0")
    with socket.create_connection(listener.socket.getsockname()) as client:
        with pytest.raises(BlockingIOError):
            listener.socket.accept()
        accept(listener, client).close()


def test_what_connections_inherit_is_set_on_the_listener(bind: Bind) -> None:
    (listener,) = bind("127.0.0.1:0")
    with socket.create_connection(listener.socket.getsockname()) as client, accept(listener, client) as accepted:
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == UNSENT_MAX_BYTES


def test_it_neither_blocks_nor_is_inherited(bind: Bind, tmp_path: Path) -> None:
    for listener in bind("127.0.0.1:0", f"unix:{tmp_path}/s"):
        assert not os.get_blocking(listener.fileno())
        assert not os.get_inheritable(listener.fileno())
        with pytest.raises(BlockingIOError):
            listener.socket.accept()


def test_the_port_is_free_again_at_once_after_a_connection(bind: Bind) -> None:
    """SO_REUSEADDR: what is left in TIME-WAIT does not keep the next start from binding."""
    (listener,) = bind("127.0.0.1:0")
    address = f"127.0.0.1:{port_of(listener)}"
    client = socket.create_connection(listener.socket.getsockname())
    accepted = accept(listener, client)
    accepted.close()  # the server closes first, and keeps the TIME-WAIT
    client.recv(1)
    client.close()
    listener.close()
    bind(address)


def test_an_address_in_use(bind: Bind) -> None:
    (first,) = bind("127.0.0.1:0")
    with pytest.raises(ListenError) as raised:
        bind(f"127.0.0.1:{port_of(first)}")
    assert str(raised.value) == (
        f"cannot listen on 127.0.0.1:{port_of(first)}: Address already in use; "
        "another program listens there; stop it or choose another port"
    )


def test_an_address_of_another_host(bind: Bind) -> None:
    with pytest.raises(ListenError) as raised:
        bind("192.0.2.1:0")
    assert str(raised.value) == (
        "cannot listen on 192.0.2.1:0: Cannot assign requested address; "
        "this host has no such address; 0.0.0.0 or [::] mean all of them"
    )


def test_a_failure_closes_what_was_bound_before(bind: Bind, tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with pytest.raises(ListenError):
        bind("127.0.0.1:0", f"unix:{tmp_path}/s", "192.0.2.1:0")
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    assert not (tmp_path / "s").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give its rights up")
def test_a_low_port_without_the_right_to_it() -> None:
    def try_port_80() -> int:
        os.setuid(65534)
        try:
            adopt_or_bind({}, [Address.parse("127.0.0.1:80")])
        except ListenError as error:
            expected = (
                "cannot listen on 127.0.0.1:80: Permission denied; "
                "choose a port from 1024 on, or let systemd listen (pyserver.socket)"
            )
            print(error, file=sys.stderr)
            return 0 if str(error) == expected else 1
        return 2

    if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 80:
        pytest.skip("low ports are for everybody here")
    assert run_forked(try_port_80) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give its rights up")
def test_a_folder_without_the_right_to_it() -> None:
    def try_socket() -> int:
        os.setuid(65534)
        try:
            adopt_or_bind({}, [Address.parse("unix:/pyserver-test.sock")])
        except ListenError as error:
            expected = (
                "cannot listen on unix:/pyserver-test.sock: Permission denied; "
                "choose a folder that the server may write to, or let systemd listen (pyserver.socket)"
            )
            print(error, file=sys.stderr)
            return 0 if str(error) == expected else 1
        return 2

    assert run_forked(try_socket) == 0


# -- UNIX sockets -------------------------------------------------------------------------------------


def test_the_socket_file_goes_with_the_listener(bind: Bind, tmp_path: Path) -> None:
    (listener,) = bind(f"unix:{tmp_path}/s")
    assert stat.S_ISSOCK((tmp_path / "s").stat().st_mode)
    listener.close()
    assert not (tmp_path / "s").exists()
    listener.close()  # a second time is nothing


def test_closing_late_does_not_remove_a_successors_file(bind: Bind, tmp_path: Path) -> None:
    (listener,) = bind(f"unix:{tmp_path}/s")
    listener.close()
    bind(f"unix:{tmp_path}/s")
    listener.close()
    assert (tmp_path / "s").exists()


def test_a_socket_file_that_a_killed_server_left_is_replaced(bind: Bind, tmp_path: Path) -> None:
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(f"{tmp_path}/s")
    dead.listen()
    dead.close()
    assert (tmp_path / "s").exists()
    (listener,) = bind(f"unix:{tmp_path}/s")
    talk(listener)


@pytest.mark.parametrize("backlog", ["free", "full"])
def test_a_socket_file_that_somebody_listens_on_is_left_to_them(bind: Bind, tmp_path: Path, backlog: str) -> None:
    with socket.socket(socket.AF_UNIX) as other, ExitStack() as clients:
        other.bind(f"{tmp_path}/s")
        other.listen(0)
        if backlog == "full":
            first = clients.enter_context(socket.socket(socket.AF_UNIX))
            first.connect(f"{tmp_path}/s")
        with pytest.raises(ListenError) as raised:
            bind(f"unix:{tmp_path}/s")
        assert str(raised.value) == (
            f"cannot listen on unix:{tmp_path}/s: Address already in use; "
            "another program listens there; stop it or choose another port"
        )
        assert (tmp_path / "s").exists()


@pytest.mark.parametrize("what", ["file", "folder", "link"])
def test_what_is_no_socket_is_left_alone(bind: Bind, tmp_path: Path, what: str) -> None:
    path = tmp_path / "s"
    if what == "file":
        path.write_text("precious")
    elif what == "folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ListenError, match="Address already in use"):
        bind(f"unix:{path}")
    assert path.is_symlink() or path.exists()
    assert what != "file" or path.read_text() == "precious"


def test_a_folder_that_is_not_there(bind: Bind, tmp_path: Path) -> None:
    with pytest.raises(ListenError) as raised:
        bind(f"unix:{tmp_path}/no/s")
    assert str(raised.value) == (
        f"cannot listen on unix:{tmp_path}/no/s: No such file or directory; the folder of the socket does not exist"
    )


# -- adopted ------------------------------------------------------------------------------------------


def test_what_was_handed_over_is_served_instead_of_what_is_configured(tmp_path: Path) -> None:
    """In a child, where descriptor 3 can be what systemd puts there; nothing configured is bound beside it."""

    def activated() -> int:
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))
            held.listen()
            where = held.getsockname()
            os.dup2(held.fileno(), 3)
        os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="http")
        (listener,) = adopt_or_bind(os.environ, [Address.parse(f"unix:{tmp_path}/s")])
        assert listener.adopted
        assert listener.socket.getsockname() == where
        assert str(listener) == f"http://127.0.0.1:{where[1]}"
        assert not (tmp_path / "s").exists()
        assert listener.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == UNSENT_MAX_BYTES
        talk(listener)
        listener.close()
        return 0

    assert run_forked(activated) == 0


def test_an_adopted_socket_file_stays(tmp_path: Path) -> None:
    """It is systemd's: the listener lives on there."""

    def activated() -> int:
        held = socket.socket(socket.AF_UNIX)
        held.bind(f"{tmp_path}/s")
        held.listen()
        os.dup2(held.fileno(), 3)
        os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
        (listener,) = adopt_or_bind(os.environ, [])
        listener.close()
        return 0

    assert run_forked(activated) == 0
    assert (tmp_path / "s").exists()


def test_what_cannot_be_served_is_an_error_of_one_line() -> None:
    def activated() -> int:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wrong:
            os.dup2(wrong.fileno(), 3)
        os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
        try:
            adopt_or_bind(os.environ, [])
        except ListenError as error:
            return 0 if "\n" not in str(error) and "datagram" in str(error) else 1
        return 2

    assert run_forked(activated) == 0
