"""Real children: how they begin, how they end, and that strangers are left alone."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.unit.processes import run_forked, wait_until

from pyserver.master.children import Child, abort, reap, send_signal, spawn


@pytest.fixture
def begin() -> Iterator[Callable[[Callable[[], int]], Child]]:
    begun: list[Child] = []

    def run(become: Callable[[], int]) -> Child:
        begun.append(spawn(become))
        return begun[-1]

    yield run
    for child in begun:
        try:
            signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)
        except OSError:
            continue
        ended(child)


def ended(child: Child) -> str:
    """Wait as the master does, in its poll set, and reap."""
    poll = select.poll()
    poll.register(child.pidfd, select.POLLIN)
    assert poll.poll(10_000)
    how = reap(child)
    assert how is not None
    return how


def sleep() -> int:
    signal.pause()
    return 0


@pytest.mark.parametrize("status", [0, 1, 78, 255])
def test_a_child_exits_with_what_it_returns(begin: Callable[..., Child], status: int) -> None:
    assert ended(begin(lambda: status)) == f"exited with status {status}"


def test_an_exception_ends_a_child_and_never_runs_on_into_the_master(begin: Callable[..., Child]) -> None:
    def fail() -> int:
        raise KeyboardInterrupt

    assert ended(begin(fail)) == "exited with status 70"


@pytest.mark.parametrize(
    ("number", "how"),
    [
        (signal.SIGKILL, "killed by SIGKILL"),
        (signal.SIGSEGV, "killed by SIGSEGV"),
        (signal.SIGRTMIN + 3, f"killed by signal {signal.SIGRTMIN + 3}"),
    ],
)
def test_how_a_signal_ended_it(begin: Callable[..., Child], number: int, how: str) -> None:
    child = begin(sleep)
    send_signal(child, number)
    assert ended(child).removesuffix(", core dumped") == how


def test_it_is_not_reaped_while_it_runs(begin: Callable[..., Child]) -> None:
    child = begin(sleep)
    assert reap(child) is None
    send_signal(child, signal.SIGSTOP)
    wait_until(lambda: " T " in Path(f"/proc/{child.pid}/stat").read_text())
    assert reap(child) is None, "stopped is not ended"


def test_signalling_one_that_has_gone_is_nothing(begin: Callable[..., Child]) -> None:
    child = begin(lambda: 0)
    poll = select.poll()
    poll.register(child.pidfd, select.POLLIN)
    poll.poll(10_000)
    send_signal(child, signal.SIGKILL)
    assert reap(child) == "exited with status 0"


def test_reaping_closes_the_pidfd(begin: Callable[..., Child]) -> None:
    child = begin(lambda: 0)
    ended(child)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(child.pidfd)


def test_a_stranger_is_not_reaped(begin: Callable[..., Child]) -> None:
    """T-59: as PID 1 of a container, or with a library's own children, waitpid(-1) would take the exit of others."""
    stranger = subprocess.Popen([sys.executable, "-c", "raise SystemExit(42)"])
    wait_until(lambda: " Z " in Path(f"/proc/{stranger.pid}/stat").read_text())
    child = begin(lambda: 0)
    assert ended(child) == "exited with status 0"
    assert stranger.wait(5) == 42


BURYING = """
import os, subprocess, time
from pyserver.master.children import bury, reap, spawn

def zombie(pid):
    with open(f"/proc/{pid}/stat") as file:
        return " Z " in file.read()

strangers = [subprocess.Popen(["true"])]
kin = [spawn(lambda: 3), spawn(lambda: 3)]
strangers.append(subprocess.Popen(["true"]))
while not all(zombie(each.pid) for each in (*strangers, *kin)):
    time.sleep(0.01)
buried = bury({each.pid for each in kin})
for child in kin:
    assert reap(child) == "exited with status 3"
    buried += bury({each.pid for each in kin})
assert sorted(buried) == sorted(each.pid for each in strangers), (buried, kin)
assert bury(()) == [], "there is no child any more"
print("buried")
"""


def test_strangers_are_buried_and_children_are_left() -> None:
    """Two of either kind, whatever the kernel's order is, and no child of these tests."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", BURYING], env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "buried\n", done.stderr


def test_aborting_ends_a_child_also_when_it_is_stopped(begin: Callable[..., Child]) -> None:
    child = begin(sleep)
    send_signal(child, signal.SIGSTOP)
    wait_until(lambda: " T " in Path(f"/proc/{child.pid}/stat").read_text())
    abort(child)
    assert ended(child).startswith("killed by SIGABRT")


def test_what_a_terminal_or_systemd_tells_the_group_does_not_end_a_child(begin: Callable[..., Child]) -> None:
    readable, writable = os.pipe()

    def report() -> int:
        os.write(writable, b"up")
        return sleep()

    child = begin(report)
    assert os.read(readable, 2) == b"up"
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        send_signal(child, number)
    assert reap(child) is None
    ignored = next(
        line.split()[1]
        for line in Path(f"/proc/{child.pid}/status").read_text().splitlines()
        if line.startswith("SigIgn")
    )
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        assert int(ignored, 16) >> (number - 1) & 1
    os.close(readable)
    os.close(writable)


def test_masks_are_as_before_on_both_sides(begin: Callable[..., Child]) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    child = begin(lambda: 0 if signal.pthread_sigmask(signal.SIG_BLOCK, []) == before else 1)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
    assert ended(child) == "exited with status 0"


def test_a_signal_at_the_moment_of_the_fork_is_the_masters_alone() -> None:
    """A wake-up descriptor that both had would tell the master of a signal that only the child got."""
    readable, writable = os.pipe2(os.O_NONBLOCK)

    def signal_oneself() -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        return 0

    def master() -> int:
        signal.signal(signal.SIGTERM, lambda *_: None)
        signal.set_wakeup_fd(writable)
        child = spawn(signal_oneself)
        assert ended(child) == "exited with status 0"
        return 0

    assert run_forked(master) == 0
    with pytest.raises(BlockingIOError):
        os.read(readable, 1)
    os.close(readable)
    os.close(writable)


def test_a_process_that_cannot_fork_is_an_error_for_the_caller() -> None:
    def master() -> int:
        import resource  # noqa: PLC0415

        os.setuid(65534)
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        try:
            spawn(lambda: 0)
        except BlockingIOError:
            return 0 if signal.pthread_sigmask(signal.SIG_BLOCK, []) == before else 3
        return 1

    if os.geteuid() != 0:
        pytest.skip("needs root, to become a user without any process")
    assert run_forked(master) == 0


def test_without_a_descriptor_for_the_pidfd_there_is_no_child() -> None:
    """Not even for a moment: what it did by then nobody would know."""

    def master() -> int:
        import resource  # noqa: PLC0415

        forks: list[int] = []
        os.register_at_fork(before=lambda: forks.append(os.getpid()))
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        lowest_free = os.dup(0)
        os.close(lowest_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, lowest_free))
        try:
            spawn(sleep)
        except OSError:
            try:
                os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return 0 if not forks and signal.pthread_sigmask(signal.SIG_BLOCK, []) == before else 3
            return 2
        return 1

    assert run_forked(master) == 0


def test_what_is_reserved_for_the_pidfd_is_given_back_on_both_sides(begin: Callable[..., Child]) -> None:
    def held() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  numbers, not files

    before = held()
    child = begin(held)
    assert ended(child) == f"exited with status {before}"
    assert held() == before
