"""A real datagram socket stands for systemd."""

import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from pyserver.limits import STATUS_MAX_CHARACTERS
from pyserver.master import children
from pyserver.sd.notify import Notifier


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "notify"))
        bound.setblocking(False)
        yield bound


def environ(manager: socket.socket) -> dict[str, str]:
    name = manager.getsockname()
    return {"NOTIFY_SOCKET": name if isinstance(name, str) else "@" + name[1:].decode(), "HOME": "/"}


@contextmanager
def told(manager: socket.socket) -> Iterator[Notifier]:
    notifier = Notifier(environ(manager))
    yield notifier
    notifier.close()


def received(manager: socket.socket) -> list[str]:
    got = []
    while True:
        try:
            got.append(manager.recv(8192).decode("utf-8"))
        except BlockingIOError:
            return got


def fill(notifier: Notifier) -> int:
    count = 0
    while notifier.status("x" * 400):
        count += 1
    return count


def test_messages(manager: socket.socket) -> None:
    with told(manager) as notifier:
        assert notifier.ready("serving 2/2 workers")
        assert notifier.status("serving 2/2 workers, 312 req/s")
        assert notifier.watchdog()
        assert notifier.extend_timeout(2.5)
        assert notifier.stopping("draining")
        assert notifier.dropped == 0
    assert received(manager) == [
        "READY=1\nSTATUS=serving 2/2 workers",
        "STATUS=serving 2/2 workers, 312 req/s",
        "WATCHDOG=1",
        "EXTEND_TIMEOUT_USEC=2500000",
        "STOPPING=1\nSTATUS=draining",
    ]


def test_abstract_address() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(f"\0pyserver-test-{os.getpid()}")
        bound.setblocking(False)
        with told(bound) as notifier:
            assert notifier.ready("up")
        assert received(bound) == ["READY=1\nSTATUS=up"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("two\nREADY=1\rlines", "two READY=1 lines"),
        ("caf\u00e9 \u2192 \U0001f600", "caf? ? ?"),
        ("a\x1b[31m\0b\x7f", "a?[31m?b?"),
        ("\udcff", "?"),
        ("C:\\", "C:?"),
        ("!\"#'()[]{}~", "!\"#'()[]{}~"),
        ("  spaces  and\ttabs ", "spaces and tabs"),
        ("", ""),
        ("x" * 9999, "x" * STATUS_MAX_CHARACTERS),
    ],
)
def test_a_status_is_one_line_of_ascii(manager: socket.socket, text: str, line: str) -> None:
    with told(manager) as notifier:
        assert notifier.status(text)
    assert received(manager) == [f"STATUS={line}"]


def test_a_stalled_manager_is_not_waited_for(manager: socket.socket) -> None:
    with told(manager) as notifier:
        before = time.monotonic()
        assert fill(notifier) > 0
        assert not notifier.watchdog()
        assert time.monotonic() - before < 6
        assert notifier.dropped == 2
        received(manager)
        assert notifier.watchdog()
        assert received(manager) == ["WATCHDOG=1"]


def test_a_dropped_state_goes_ahead_of_the_next_message(manager: socket.socket) -> None:
    with told(manager) as notifier:
        fill(notifier)
        assert not notifier.ready("serving")
        received(manager)
        assert notifier.watchdog()
        assert notifier.watchdog()
    assert received(manager) == ["READY=1\nWATCHDOG=1", "WATCHDOG=1"]


def test_stopping_overtakes_a_dropped_ready(manager: socket.socket) -> None:
    with told(manager) as notifier:
        fill(notifier)
        assert not notifier.ready("serving")
        assert not notifier.stopping("draining")
        received(manager)
        assert notifier.status("still draining")
    assert received(manager) == ["STOPPING=1\nSTATUS=still draining"]


def test_without_a_manager_nothing_happens_and_nothing_is_dropped() -> None:
    given = {"HOME": "/"}
    notifier = Notifier(given)
    assert notifier.ready("up")
    assert notifier.watchdog()
    assert notifier.dropped == 0
    assert notifier.watchdog_period is None
    assert not notifier.wanted
    notifier.close()
    assert given == {"HOME": "/"}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # sdnotify forgets its socket
def test_a_manager_that_is_not_there_is_counted(tmp_path: Path) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    assert not notifier.ready("up")
    assert notifier.dropped == 1


def test_a_manager_that_goes_is_counted(manager: socket.socket) -> None:
    with told(manager) as notifier:
        manager.close()
        assert not notifier.status("up")
        assert notifier.dropped == 1


def test_children_find_nothing_in_the_environment(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(manager.getsockname()))
    monkeypatch.setenv("WATCHDOG_USEC", "10000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    notifier = Notifier(os.environ)
    assert notifier.watchdog_period == 5.0
    taken = {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}
    assert not taken & os.environ.keys()
    child = children.spawn(lambda: len(taken & os.environ.keys()))
    select.select([child.pidfd], [], [], 10)
    assert children.reap(child) == "exited with status 0"
    notifier.close()


def test_the_socket_is_close_on_exec_and_goes_with_close(manager: socket.socket) -> None:
    def sockets() -> set[int]:
        found = set()
        for link in Path("/proc/self/fd").iterdir():
            with suppress(FileNotFoundError):
                if str(link.readlink()).startswith("socket:"):
                    found.add(int(link.name))
        return found

    before = sockets()
    notifier = Notifier(environ(manager))
    (ours,) = sockets() - before
    assert not os.get_inheritable(ours)
    notifier.close()
    notifier.close()
    assert sockets() == before
    assert notifier.ready("silently")
    assert received(manager) == []


ME = str(os.getpid())


@pytest.mark.parametrize(
    ("given", "period"),
    [
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": ME}, 5.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": ME}, 0.25),
        ({"WATCHDOG_USEC": "10000000"}, 5.0),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0", "WATCHDOG_PID": ME}, None),
        ({"WATCHDOG_USEC": "18446744073709551615", "WATCHDOG_PID": ME}, None),
        ({"WATCHDOG_USEC": "-5", "WATCHDOG_PID": ME}, None),
        ({"WATCHDOG_USEC": "1_0", "WATCHDOG_PID": ME}, None),
        ({"WATCHDOG_PID": ME}, None),
    ],
)
def test_watchdog_period(given: dict[str, str], period: float | None) -> None:
    environ = dict(given)
    assert Notifier(environ).watchdog_period == period
    assert environ == {}


def test_descriptors_are_left_with_the_manager(manager: socket.socket, tmp_path: Path) -> None:
    path = tmp_path / "kept"
    path.write_text("content")
    with told(manager) as notifier, path.open() as one, path.open() as two:
        assert notifier.store("parked-http", [one.fileno(), two.fileno()])
        text, descriptors, _, _ = socket.recv_fds(manager, 8192, 10)
        assert text == b"FDSTORE=1\nFDNAME=parked-http"
        assert [os.pread(each, 100, 0) for each in descriptors] == [b"content"] * 2
        for each in descriptors:
            os.close(each)
        assert notifier.unstore("parked-http")
        assert received(manager) == ["FDSTOREREMOVE=1\nFDNAME=parked-http"]


def test_storing_waits_for_a_stalled_manager_but_not_for_ever(manager: socket.socket) -> None:
    with told(manager) as notifier:
        fill(notifier)
        began = time.monotonic()
        assert not notifier.store_within("segment", [0], 0.3)
        assert 0.3 <= time.monotonic() - began < 5
        reader = threading.Timer(0.2, lambda: received(manager))
        reader.start()
        assert notifier.store_within("segment", [0], 20)
        reader.join()


def test_nothing_is_stored_without_a_manager() -> None:
    notifier = Notifier({})
    assert not notifier.store("segment", [0])
    assert not notifier.store_within("segment", [0], 20)


def test_a_reload_has_its_time_and_the_environment_comes_back(manager: socket.socket) -> None:
    given = environ(manager) | {"WATCHDOG_USEC": "4000000"}
    before = time.monotonic_ns() // 1000
    notifier = Notifier(given)
    notifier.reloading("reloading")
    state, stamp, status = received(manager)[0].split("\n")
    assert (state, status) == ("RELOADING=1", "STATUS=reloading")
    assert before <= int(stamp.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
    assert given | notifier.environment() == environ(manager) | {"WATCHDOG_USEC": "4000000"}
    notifier.close()
