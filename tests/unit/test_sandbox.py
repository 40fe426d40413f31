"""What stands is seen by trying: each wall put up for real, in a process of its own."""

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.processes import run_forked
from tests.unit.test_landlock import forbid

from pyserver import landlock, sandbox

_libc = ctypes.CDLL(None, use_errno=True)
SYS_SOCKET = {"x86_64": 41, "aarch64": 198}[os.uname().machine]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to put up the wall")


def seen() -> dict[str, bool]:
    return sandbox.by_name(sandbox.look(with_landlock=True))


def no_new_privileges() -> None:
    assert _libc.prctl(38, 1, 0, 0, 0) == 0


def network_of_its_own() -> None:
    assert _libc.unshare(0x40000000) == 0  # CLONE_NEWNET


def read_only() -> None:
    assert _libc.unshare(0x00020000) == 0  # CLONE_NEWNS
    assert _libc.mount(None, b"/", None, 1 << 18 | 1 << 14, None) == 0  # MS_PRIVATE | MS_REC
    assert _libc.mount(b"/", b"/mnt", None, 1 << 12, None) == 0  # MS_BIND
    os.chroot("/mnt")
    assert _libc.mount(None, b"/", None, 1 << 12 | 1 << 5 | 1, None) == 0  # MS_BIND | MS_REMOUNT | MS_RDONLY


@pytest.mark.parametrize(
    ("name", "wall"),
    [
        ("privileges", no_new_privileges),
        ("system calls", lambda: forbid(445)),
        ("sockets", lambda: forbid(SYS_SOCKET)),
        pytest.param("account", lambda: os.setuid(65534), marks=needs_root),
        pytest.param("network", network_of_its_own, marks=needs_root),
        pytest.param("files", read_only, marks=needs_root),
    ],
)
def test_a_wall_is_off_without_and_on_with_it(name: str, wall: Callable[[], object]) -> None:
    def body() -> int:
        before = seen()[name]
        wall()
        return int((before, seen()[name]) != (False, True))

    assert run_forked(body) == 0


@needs_root
def test_an_empty_root_hides_what_is_in_the_hosts(tmp_path: Path) -> None:
    def body() -> int:
        # /proc is not there either: what cannot be seen is off, and nothing is raised.
        os.chroot(tmp_path)
        found = seen()
        return int(not (found["root"] and found["homes"] and found["programs"]) or found["capabilities"])

    assert run_forked(body) == 0


def test_landlock_is_on_where_the_kernel_has_it_and_it_is_wanted() -> None:
    assert seen()["landlock"] == (landlock.version() > 0)
    assert sandbox.by_name(sandbox.look(with_landlock=False))["landlock"] is False


def test_a_look_leaves_nothing_open() -> None:
    before = set(Path("/proc/self/fd").iterdir())
    sandbox.look(with_landlock=True)
    assert set(Path("/proc/self/fd").iterdir()) == before


def test_it_is_told_in_one_line() -> None:
    assert sandbox.told({"network": True, "files": False, "memory": True}) == "on: network, memory; off: files"
    assert sandbox.told({"files": False}) == "off: files"
    everything = sandbox.by_name((1 << len(sandbox.PROTECTIONS)) - 1)
    assert sandbox.told(everything) == f"on: {', '.join(everything)}"
