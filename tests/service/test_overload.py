"""More clients than can be served: they are told so, administrators are served, and nothing is left of it.

benchmarks/run --overload measures how many are served all the same; here nothing is timed.
"""

import contextlib
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from benchmarks.openloop import Fared, offer
from tests.service.client import Client, request
from tests.service.conftest import Serve
from tests.service.harness import SHM, Server, wait_until
from tests.unit import oldkernel

from pyserver import backlog
from pyserver.backlog import held
from pyserver.sd import fdstore

ASKED = request("/small.txt", "Connection: close")


def test_in_an_overload_administrators_are_served_and_nothing_is_left_of_it(serve: Serve) -> None:
    """The workers stand still until the queue is full and all in it have waited too long; more come all the time."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as public, socket.create_server(("127.0.0.1", 0)) as admin:
        server = serve(
            listeners=[("http", public), ("admin", admin)],
            bind=(),
            settings={"server.queue": 16, "server.queue_wait": 0.05, "server.hung_after": 60},
            dev=False,
        )
        fared: list[Fared] = []

        def come() -> None:
            fared.append(offer(public.getsockname(), ASKED, 400, 3.0, patience=20.0))

        crowd = threading.Thread(target=come)
        pids = server.stop_workers()
        crowd.start()
        wait_until(lambda: server.look().filled_slots == 16)
        wait_until(lambda: server.look().saturations > 0)
        time.sleep(0.2)  # longer than anybody may wait
        for pid in pids:
            server.kill_process(pid, signal.SIGCONT)
        with Client(admin.getsockname(), within=20) as administrator:
            asked = 0
            while crowd.is_alive() or asked < 20:
                assert administrator.ask("/healthz").content == b"alive\n"
                assert administrator.ask("/readyz").content == b"ready\n"
                asked += 1
        for _ in range(5):
            with Client(admin.getsockname(), within=20) as administrator:
                assert administrator.ask("/healthz").content == b"alive\n"
        crowd.join()
        (all_of_them,) = fared
        assert len(all_of_them.good) + len(all_of_them.refused) == all_of_them.offered == 1200
        assert all_of_them.refused, "those that came while the workers stood still"
        assert all_of_them.without_retry_after == 0
        counters = server.counters()
        assert counters["shed"] == len(all_of_them.refused)
        assert counters["failures"] == 0
        wait_until(lambda: server.counters()["connections_open"] == 0, within=20)
        seen = server.look()
        assert (seen.filled_slots, seen.empty_slots, seen.in_hand) == (0, 16, 0)


# -- the backlog ------------------------------------------------------------------------------------

LENGTH = 256
SLOW = {"server.queue": 64, "server.queue_wait": 0.5, "server.hung_after": 60}


@pytest.fixture
def public() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=LENGTH) as listener:
        yield listener


def length(listener: socket.socket) -> int:
    return held(listener)[1]


@contextlib.contextmanager
def crowd(listener: socket.socket, count: int) -> Iterator[list[socket.socket]]:
    """So many come at once, and do not mind whether there is room for them."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.socket()) for _ in range(count)]
        for client in clients:
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
            with contextlib.suppress(BlockingIOError):
                client.send(ASKED)
        yield clients


def overloaded(server: Server, listener: socket.socket) -> list[int]:
    """Workers stand still until hardly anybody may wait; those workers."""
    pids = server.stop_workers()
    with crowd(listener, 200):
        wait_until(lambda: length(listener) < LENGTH / 4, within=30)
    return pids


def test_while_more_come_than_can_be_served_fewer_may_wait(serve: Serve, public: socket.socket) -> None:
    server = serve(listeners=[("http", public)], bind=(), settings=SLOW)
    assert server.look().backlog == LENGTH
    pids = overloaded(server, public)
    wait_until(lambda: server.look().backlog == length(public), within=20)
    with crowd(public, 100):
        wait_until(lambda: server.look().backlog_drops >= 50, within=30)
        assert "attempts to connect at a full backlog" in server.status().stdout
    wait_until(lambda: server.logged(r"more clients come than can be served, \d+ may wait instead of 320"))
    for pid in pids:
        server.kill_process(pid, signal.SIGCONT)
    wait_until(lambda: length(public) == LENGTH, within=60)
    wait_until(lambda: server.look().backlog == LENGTH, within=20)
    wait_until(lambda: server.logged(r"as many clients as ever may wait again"), within=20)
    assert server.ask("/small.txt", within=20).content == b"small\n"
    wait_until(lambda: server.look().empty_slots == 64, within=20)


def test_a_server_that_ends_leaves_its_listener_as_it_was(serve: Serve, public: socket.socket) -> None:
    server = serve(listeners=[("http", public)], bind=(), settings=SLOW)
    for pid in overloaded(server, public):
        server.kill_process(pid, signal.SIGCONT)
    server.stop(within=60)
    assert length(public) == LENGTH


def test_who_follows_a_killed_master_makes_the_backlog_long_again(serve: Serve, public: socket.socket) -> None:
    first = serve(listeners=[("http", public)], bind=(), settings=SLOW)
    pids = overloaded(first, public)
    with (SHM / f"pyserver.{first.pid}").open("rb") as segment:  # which systemd keeps
        first.kill_master()
        for pid in pids:
            first.kill_process(pid, signal.SIGCONT)
        assert length(public) < LENGTH / 4
        second = serve(listeners=[("http", public), (fdstore.SEGMENT, segment)], bind=(), settings=SLOW)
    wait_until(lambda: length(public) == LENGTH, within=60)
    wait_until(lambda: second.look().backlog == LENGTH, within=20)
    assert second.ask("/small.txt", within=20).content == b"small\n"


def test_a_reload_in_an_overload_goes_on_with_it(serve: Serve, public: socket.socket) -> None:
    server = serve(listeners=[("http", public)], bind=(), settings=SLOW)
    pids = overloaded(server, public)
    assert server.reload().returncode == 0
    assert server.look().reloads == 1
    for pid in pids:
        server.kill_process(pid, signal.SIGCONT)
    wait_until(lambda: length(public) == LENGTH, within=60)
    assert server.ask("/small.txt", within=20).content == b"small\n"


def test_a_kernel_that_does_not_tell_who_was_refused_is_no_hindrance(serve: Serve, public: socket.socket) -> None:
    """Nothing is shortened there; who waited too long is told so, and all who come are taken."""
    unknown = ",".join(map(str, (backlog._SO_MEMINFO, backlog._SO_COOKIE)))
    server = serve(
        listeners=[("http", public)], bind=(), settings=SLOW, within=(sys.executable, oldkernel.__file__, unknown)
    )
    assert server.look().backlog == 0
    pids = server.stop_workers()
    with crowd(public, 200):
        wait_until(lambda: server.look().filled_slots == 64, within=20)
        wait_until(lambda: held(public)[0] >= 100, within=20)
        time.sleep(1)  # longer than it would go on without being noticed
        assert held(public)[1] == LENGTH
        for pid in pids:
            server.kill_process(pid, signal.SIGCONT)
        wait_until(lambda: server.counters()["connections"] >= 200, within=60)
    assert server.ask("/small.txt", within=20).content == b"small\n"
    assert server.reload().returncode == 0
    assert not server.logged("(warning|err) +master")
