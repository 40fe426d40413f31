"""Children for tests: forked, stopped and killed for real, also at an exact step of a function; never left behind."""

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from types import CodeType, FrameType
from typing import Any

from tests.waiting import wait_until

# Where a whole worker or master is made anew to be killed at each step: every third, unless there is time for all.
STRIDE = 1 if os.environ.get("PYSERVER_EVERY_STEP") else 3


class Child:
    """A forked child that runs `body` and exits with what it returns."""

    def __init__(self, body: Callable[[], object]) -> None:
        self.status: int | None = None  # as waitpid(2) gives it
        self.pid = os.fork()
        if self.pid == 0:
            code = 99
            try:
                returned = body()
                code = returned if isinstance(returned, int) else 0
            except BaseException:  # noqa: BLE001  a child must never run on into the tests
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, within: float = 10.0) -> int:
        """Return the exit status, negative for a signal."""
        wait_until(self._gone, within=within)
        assert self.status is not None
        return os.waitstatus_to_exitcode(self.status)

    def wait_stopped(self, within: float = 10.0) -> bool:
        """Wait for the child to stop itself; False when it ended instead."""
        wait_until(self._stopped_or_gone, within=within)
        return self.status is None

    def end(self) -> None:
        if self.status is None:
            with suppress(ProcessLookupError):
                self.signal(signal.SIGKILL)
            self.wait()

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        assert self.wait() == -signal.SIGKILL

    def _gone(self) -> bool:
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid and not os.WIFSTOPPED(status):
            self.status = status
        return self.status is not None

    def _stopped_or_gone(self) -> bool:
        pid, status = os.waitpid(self.pid, os.WNOHANG | os.WUNTRACED)
        if pid and os.WIFSTOPPED(status):
            return True
        if pid:
            self.status = status
        return self.status is not None


@contextmanager
def forked(body: Callable[[], object]) -> Iterator[Child]:
    """A child for the length of a block."""
    child = Child(body)
    try:
        yield child
    finally:
        child.end()


def run_forked(body: Callable[[], object], within: float = 20.0) -> int:
    """Run `body` in a child of its own, to the end."""
    with forked(body) as child:
        return child.wait(within)


def nobody_else() -> int:
    """Return a user that only this process is, if any."""
    return 30_000 + os.getpid() % 30_000


@contextmanager
def unswept() -> Iterator[None]:
    """Be a user of whom no other server on this machine removes what is left.

    Each server that starts, of other tests too, sweeps /dev/shm of what dead ones of its user have left. Without the
    rights to be another user one stays who one is.
    """
    before = os.geteuid()
    if before == 0:
        os.seteuid(nobody_else())
    try:
        yield
    finally:
        os.seteuid(before)


def at_step(codes: Iterable[CodeType], step: int, action: Callable[[], object], *, opcodes: bool = True) -> None:
    """From now on do `action` before the `step`-th bytecode (or line) that this thread runs in `codes`."""
    steps = count(1)
    _trace(codes, lambda: next(steps) == step and action(), opcodes=opcodes)


def at_each_step(codes: Iterable[CodeType], action: Callable[[], object], *, opcodes: bool = True) -> None:
    """From now on do `action` before each bytecode (or line) that this thread runs in `codes`."""
    _trace(codes, action, opcodes=opcodes)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def steps_of(codes: Iterable[CodeType], body: Callable[[], object], *, opcodes: bool = True) -> int:
    """Count the bytecodes (or lines) of `codes` that `body` runs through, in a child."""
    readable, writable = os.pipe()

    def run() -> None:
        steps = count()
        _trace(codes, lambda: next(steps), opcodes=opcodes)
        body()
        sys.settrace(None)
        os.write(writable, str(next(steps)).encode())

    assert run_forked(run) == 0
    os.close(writable)
    with os.fdopen(readable, "rb") as answer:
        return int(answer.read())


def _trace(codes: Iterable[CodeType], before_step: Callable[[], object], *, opcodes: bool) -> None:
    watched, wanted = frozenset(codes), "opcode" if opcodes else "line"

    def each(_frame: FrameType, event: str, _argument: Any) -> Any:  # noqa: ANN401  as sys.settrace has it
        if event == wanted:
            before_step()
        return each

    def entered(frame: FrameType, _event: str, _argument: Any) -> Any:  # noqa: ANN401
        if frame.f_code not in watched:
            return None
        frame.f_trace_opcodes = opcodes
        return each

    sys.settrace(entered)


__all__ = [
    "STRIDE",
    "Child",
    "at_step",
    "die",
    "forked",
    "run_forked",
    "steps_of",
    "stop",
    "wait_until",
]
