"""The mechanism of worker processes: fork, watch, signal, reap. It has no opinion on when.

Owns:    each child's pidfd.
Never:   decides; waits for a child; reaps a process it did not fork (T-59), but in bury(), which PID 1 has to do.
Fails:   OSError from fork(2), or for want of a descriptor, before there is a child: the caller tries again later.
Used by: master.workers, master.rehearsal, master.standin; master.main (bury).
"""

import contextlib
import logging
import os
import signal
from collections.abc import Callable, Collection
from typing import Final, NamedTuple

log = logging.getLogger("pyserver")

# What a worker has no use for: orders come to it over its channel, and a terminal's Ctrl-C goes to the whole group.
_IGNORED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_EX_SOFTWARE: Final = 70  # sysexits.h


class Child(NamedTuple):
    """A process we forked."""

    pid: int
    pidfd: int


def spawn(become: Callable[[], int]) -> Child:
    """Fork; in the child call `become` and exit with what it returns. The caller has one thread only."""
    # Between fork and the child's own dispositions a signal for the group would be noted twice: block it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        # At our limit of open files there is to be no child, which could have taken clients by the time that we know.
        reserved = os.eventfd(0, os.EFD_CLOEXEC)
        try:
            pid = os.fork()
        finally:
            os.close(reserved)  # in both
        if pid == 0:
            _run_child(become, before)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        return Child(pid, os.pidfd_open(pid))
    except OSError:
        # The system's limits: nobody could watch over it.
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def _run_child(become: Callable[[], int], mask: set[int | signal.Signals]) -> None:
    """Never returns: a child must not run on into the master's code."""
    status = _EX_SOFTWARE
    try:
        signal.set_wakeup_fd(-1)
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        status = become()
    except BaseException:
        log.exception("worker failed, exiting")
    finally:
        os._exit(status)


def send_signal(child: Child, number: int) -> None:
    """Signal a child; one that has just gone is not an error."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(child.pidfd, number)


def abort(child: Child) -> None:
    """Make a child write its stacks (faulthandler) and die, also when it was stopped."""
    send_signal(child, signal.SIGABRT)
    send_signal(child, signal.SIGCONT)


def reap(child: Child) -> str | None:
    """Return how a child ended, in words, or None while it runs."""
    result = os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED | os.WNOHANG)
    if result is None:
        return None
    os.close(child.pidfd)
    if result.si_code == os.CLD_EXITED:
        return f"exited with status {result.si_status}"
    try:
        name = signal.Signals(result.si_status).name
    except ValueError:
        name = f"signal {result.si_status}"
    return f"killed by {name}" + (", core dumped" if result.si_code == os.CLD_DUMPED else "")


def bury(ours: Collection[int]) -> list[int]:
    """Reap those who have ended and are not ours, and return them; for PID 1, which inherits every orphan.

    Looked at first and then reaped by number, so that no child of ours is ever taken from who watches over it. One that
    has ended hides those behind it until it is reaped; the caller tries again.
    """
    buried: list[int] = []
    with contextlib.suppress(ChildProcessError):  # there is no child at all
        while (found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and found.si_pid not in ours:
            os.waitid(os.P_PID, found.si_pid, os.WEXITED | os.WNOHANG)
            buried.append(found.si_pid)
    return buried
