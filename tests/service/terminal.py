"""A terminal that a command of pyserver runs on: a pty, and an emulator that knows what a person would see."""

import fcntl
import os
import pty
import selectors
import signal
import struct
import subprocess
import sys
import termios
import threading
from types import TracebackType
from typing import Any, Self

import pyte
from tests.service.harness import TREE, wait_until


class Terminal:
    """One command on a terminal of its own; what it says is read until it ends."""

    def __init__(self, *arguments: str, columns: int = 80, rows: int = 24, **environ: str) -> None:
        self._shown: Any = pyte.Screen(columns, rows)
        self._stream: Any = pyte.ByteStream(self._shown)
        self._lock = threading.Lock()
        self.said = b""
        self._ours, self._theirs = pty.openpty()
        self._size(columns, rows)
        self.before = termios.tcgetattr(self._theirs)
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-X", "dev", "-m", "pyserver", *arguments],
            stdin=self._theirs,
            stdout=self._theirs,
            stderr=self._theirs,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(TREE / "service"), "TERM": "xterm", "LC_ALL": "C.UTF-8", **environ},
        )
        self._over = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._over.set()
        self._reader.join()
        os.close(self._ours)
        os.close(self._theirs)

    def _read(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._ours, selectors.EVENT_READ)
            while True:
                ready = selector.select(0.05)
                if ready:
                    data = os.read(self._ours, 65536)
                    with self._lock:
                        self.said += data
                        self._stream.feed(data)
                elif self._over.is_set():
                    return

    def _size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    # -- what a person does -----------------------------------------------------------------------

    @property
    def rows(self) -> list[str]:
        """What is on the screen."""
        with self._lock:
            return [row.rstrip() for row in self._shown.display]

    @property
    def text(self) -> str:
        """The same, as one."""
        return "\n".join(self.rows)

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._ours, keys.encode())

    def resize(self, columns: int, rows: int) -> None:
        """Give the terminal another size, as a window does."""
        with self._lock:
            self._shown.resize(rows, columns)
        self._size(columns, rows)
        os.kill(self.process.pid, signal.SIGWINCH)  # the kernel tells only whose controlling terminal it is

    def ended(self, within: float = 10.0) -> int:
        """Wait for the end of the command; return its exit status, when all that it said has been read."""
        status = self.process.wait(within)
        before = -1
        while before != len(self.said):
            before = len(self.said)
            self._reader.join(0.15)
        return status

    @property
    def restored(self) -> bool:
        """Whether the terminal is as it was: its modes, its cursor, and what was on it before (xterm's rmcup)."""
        modes = termios.tcgetattr(self._theirs) == self.before
        return modes and b"\x1b[?1049l" in self.said and b"\x1b[?25h" in self.said.rpartition(b"\x1b[?25l")[2]

    def shows(self, *texts: str, within: float = 20.0) -> None:
        """Wait until all of these are on the screen."""
        try:
            wait_until(lambda: all(text in self.text for text in texts), within)
        except AssertionError:
            missing = [text for text in texts if text not in self.text]
            raise AssertionError(f"{missing} not on the screen within {within} s:\n{self.text}") from None
