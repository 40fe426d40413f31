"""Listeners handed over as systemd does it: by name, in any order, for this process and no other."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.service.client import Client, ask, request
from tests.service.conftest import Serve
from tests.service.harness import cpu_seconds, descriptors, parse_url

O_CLOEXEC, O_NONBLOCK = 0o2000000, 0o4000


def listener(family: int, address: object) -> socket.socket:
    """Return a listening socket as PID 1 hands it over: blocking, and inherited."""
    made = socket.socket(family, socket.SOCK_STREAM)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    made.bind(address)  # type: ignore[arg-type]
    made.listen(64)
    return made


@pytest.fixture
def sockets(folder: Path) -> Iterator[dict[str, socket.socket]]:
    made = {
        "v4": listener(socket.AF_INET, ("127.0.0.1", 0)),
        "v6": listener(socket.AF_INET6, ("::1", 0)),
        "unix": listener(socket.AF_UNIX, str(folder / "s")),
    }
    yield made
    for one in made.values():
        one.close()


@pytest.mark.parametrize("order", [("v4", "v6", "unix"), ("unix", "v6", "v4"), ("v6",)], ids="-".join)
def test_adopts_what_it_is_given(serve: Serve, sockets: dict[str, socket.socket], order: tuple[str, ...]) -> None:
    server = serve(listeners=[("http", sockets[kind]) for kind in order])
    assert len(server.logged(r"listening on .* \(adopted from systemd\)")) == len(order)
    assert {parse_url(url) for url in server.urls} == {
        name if isinstance(name, str) else name[:2] for name in (sockets[kind].getsockname() for kind in order)
    }
    for url in server.urls:
        assert ask(parse_url(url), "/small.txt").content == b"small\n"


def test_listener_that_somebody_shut_down_is_left_alone_and_the_others_serve(
    serve: Serve, sockets: dict[str, socket.socket]
) -> None:
    """Whoever shares a listener can shut it down: accept(2) fails for ever, and epoll(7) reports it all the time."""
    server = serve(listeners=[("http", sockets["v4"]), ("http", sockets["v6"])])
    with server.logs(r" err .*http://127.0.0.1:\d+ takes no clients any more \(Invalid argument\)"):
        sockets["v4"].shutdown(socket.SHUT_RDWR)
        other = ("::1", int(sockets["v6"].getsockname()[1]))
        before, longest = cpu_seconds(server.pid), 0.0
        for _ in range(100):
            began = time.monotonic()
            assert ask(other, "/small.txt").content == b"small\n"
            longest = max(longest, time.monotonic() - began)
            time.sleep(0.01)
    assert longest < 0.09
    assert cpu_seconds(server.pid) - before < 0.5
    assert server.look().accept_pauses == 0
    assert not server.logged("no descriptor for a client")


def test_name_of_the_socket_unit_means_http(serve: Serve, sockets: dict[str, socket.socket]) -> None:
    server = serve(listeners=[("pyserver.socket", sockets["v4"])])
    assert server.urls[0].startswith("http://")


def test_no_names_at_all_mean_http(serve: Serve, sockets: dict[str, socket.socket]) -> None:
    server = serve(listeners=[("", sockets["v4"])], named=False)
    assert server.ask().status == 200


def test_adopted_listener_is_non_blocking_and_close_on_exec(serve: Serve, sockets: dict[str, socket.socket]) -> None:
    server = serve(listeners=[("http", sockets["v4"]), ("http", sockets["unix"])])
    for descriptor in (3, 4):
        info = Path(f"/proc/{server.pid}/fdinfo/{descriptor}").read_text()
        flags = int(next(line.split()[1] for line in info.splitlines() if line.startswith("flags:")), 8)
        assert flags & O_NONBLOCK, info
        assert flags & O_CLOEXEC, info


def test_workers_have_no_listener(serve: Serve, sockets: dict[str, socket.socket]) -> None:
    """Nothing that speaks with clients can take one by itself."""
    server = serve(listeners=[("http", sockets["v4"])])
    listening = f"socket:[{os.fstat(sockets['v4'].fileno()).st_ino}]"
    assert listening in descriptors(server.pid).values()
    for pid in server.workers().values():
        assert listening not in descriptors(pid).values()


def test_listeners_of_another_process_are_not_ours(serve: Serve, sockets: dict[str, socket.socket]) -> None:
    """LISTEN_PID says whose they are (sd_listen_fds(3))."""
    server = serve(listeners=[("http", sockets["v4"])], listen_pid=1)
    assert server.logged(r"\(bound\)")
    assert parse_url(server.urls[0]) != sockets["v4"].getsockname()
    assert server.ask().status == 200


def test_unknown_name_is_refused(launch: Serve, sockets: dict[str, socket.socket]) -> None:
    server = launch(listeners=[("https", sockets["v4"])])
    server.expected_status = 1
    assert server.wait() == 1
    server.finish()
    assert server.logged(
        "descriptor 3 is named 'https', known names are: http, control, admin; set FileDescriptorName=http"
    )
    assert len(server.log) == 1, server.log
    assert not server.notified("READY")


def test_datagram_socket_is_refused(launch: Serve) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(("127.0.0.1", 0))
        server = launch(listeners=[("http", datagrams)])
        server.expected_status = 1
        assert server.wait() == 1
    server.finish()
    assert server.logged("datagram socket, must be a listening stream socket; write ListenStream=")


def test_adopted_unix_socket_file_is_not_removed(serve: Serve, sockets: dict[str, socket.socket]) -> None:
    """It is systemd's, and the next start of the service is reached through it."""
    server = serve(listeners=[("http", sockets["unix"])])
    assert server.stop() == 0
    assert Path(sockets["unix"].getsockname()).exists()


def test_adopted_listener_outlives_the_service(serve: Serve, sockets: dict[str, socket.socket]) -> None:
    """A client that comes between two starts waits, and is answered by the second."""
    first = serve(listeners=[("http", sockets["v4"])])
    address = first.address
    assert first.stop() == 0
    with Client(address, within=10) as waiting:
        waiting.send(request("/small.txt"))
        serve(listeners=[("http", sockets["v4"])])
        assert waiting.answer().content == b"small\n"
