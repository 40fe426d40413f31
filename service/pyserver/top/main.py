"""`pyserver top`: a look at a server in each second, on the terminal, until somebody has seen enough.

Owns:    the terminal, from its first change to its restoration; the keys.
Never:   asks or tells the server anything: it reads the segment and the access log, as `pyserver status` and `tail` do.
Fails:   exit status 1 with one line on stderr when there is no server, or no terminal that we know; 2 when the output
         is none.
Used by: cli.

By curses, which comes with Python: it runs on every host that pyserver runs on, over ssh and in 80x24, and sends a
terminal only what has changed, so nothing flickers. (rich draws all of it anew and reads no keys; Debian 12 has a
textual from before its first release.)
"""

import contextlib
import curses
import locale
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from typing import Final

from pyserver.ipc import observe
from pyserver.ipc import segment as segments
from pyserver.ipc.observe import snapshot
from pyserver.ipc.segment import Segment, SegmentError
from pyserver.top import view
from pyserver.top.logtail import LogTail
from pyserver.top.sketch import Sketch
from pyserver.top.view import Line, Look, Sampled, Window

_NAMES_KEPT: Final = 256  # of paths, and of clients
_HALF_LIFE_S: Final = 10.0  # after which a line of the log weighs half

_QUIT: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_STYLES: Final = {"state": curses.A_BOLD, "head": curses.A_REVERSE, "keys": curses.A_DIM}


def main(name: str | None, *, period: float, once: bool, log: str | None) -> int:
    """Show it until somebody has seen enough; return the exit status."""
    if not once and not (sys.stdin.isatty() and sys.stdout.isatty()):
        print("pyserver: top is for a terminal; --once prints what it would show", file=sys.stderr)
        return 2
    try:
        watch = Watch(name, log)
    except SegmentError as error:
        print(f"pyserver: {error}", file=sys.stderr)
        return 1
    with contextlib.closing(watch):
        if once:
            time.sleep(period)
            watch.look()
            size = shutil.get_terminal_size()
            shown = [line.text.rstrip() for line in watch.lines(size.columns, size.lines) if line.style != "keys"]
            print("\n".join(text for text in shown if text))
            return 0
        try:
            with _terminal() as screen:
                Screen(screen, watch, period).run()
        except curses.error as error:
            print(f"pyserver: no terminal that is known ({error}); --once prints what it would show", file=sys.stderr)
            return 1
    return 0


class Watch:
    """One server, or after its end the one that follows, and what is known of it."""

    def __init__(self, name: str | None, log: str | None) -> None:
        """Look for the first time; raises SegmentError where there is no server."""
        self._name, self._log = name, log
        self._before: Look | None = None
        chosen, alive = observe.choose(name)
        self._attach(chosen)
        self._now = Look(snapshot(self._segment, alive=alive), time.monotonic())
        self._tail = LogTail(self._now.seen.access_log if log is None else log)
        self._paths: Sketch[str] = Sketch(_NAMES_KEPT)
        self._clients: Sketch[str] = Sketch(_NAMES_KEPT)

    def _attach(self, name: str) -> None:
        self._segment = Segment.attach(name)

    def close(self) -> None:
        """Let go of the segment and the log."""
        self._segment.close()
        self._tail.close()

    def look(self) -> None:
        """Look again."""
        alive = self._is_alive()
        if not alive:
            alive = self._follow()
        self._before, self._now = self._now, Look(snapshot(self._segment, alive=alive), time.monotonic())
        if self._log is None and self._now.seen.access_log != self._tail.path:
            self._tail.close()
            self._tail = LogTail(self._now.seen.access_log)
        found = self._tail.lines()
        for sketch in (self._paths, self._clients):
            sketch.fade(0.5 ** ((self._now.at - self._before.at) / _HALF_LIFE_S))
        self._paths.add(line.path for line in found)
        self._clients.add(line.client for line in found)

    def _is_alive(self) -> bool:
        return dict(segments.found()).get(self._segment.name, False)

    def _follow(self) -> bool:
        """Turn to the server that took this one's place, if there is one."""
        try:
            chosen, alive = observe.choose(self._name)
            if not alive or chosen == self._segment.name:
                return False
            old = self._segment
            self._attach(chosen)
        except SegmentError:
            return False
        old.close()
        return True

    def lines(self, width: int, height: int, *, order: str = "worker", paused: bool = False) -> list[Line]:
        """Return what to show of it."""
        return view.lines(
            Window(self._before, self._now),
            self._now,
            Sampled(self._paths, self._clients, self._tail.why),
            width=width,
            height=height,
            order=order,
            paused=paused,
        )


class Screen:
    """The terminal, as long as it is ours."""

    def __init__(self, screen: curses.window, watch: Watch, period: float) -> None:
        self._screen = screen
        self._watch = watch
        self._period = period
        self._orders = list(view.ORDERS)
        self._paused = False
        self._ascii = "µ".encode(screen.encoding, "replace") == b"?"

    def run(self) -> None:
        """Look and draw, until a key or a signal ends it."""
        with _signals() as signalled:
            at = time.monotonic() + self._period
            self._draw()
            while True:
                waiting = [sys.stdin, signalled]
                ready, _, _ = select.select(waiting, [], [], max(0.0, at - time.monotonic()))
                if signalled in ready and not self._obey(os.read(signalled, 64)):
                    return
                if sys.stdin in ready and not self._press():
                    return
                if time.monotonic() >= at:
                    at = time.monotonic() + self._period
                    if not self._paused:
                        self._watch.look()
                self._draw()

    def _obey(self, numbers: bytes) -> bool:
        """See to signals; False: it shall end."""
        if any(number in _QUIT for number in numbers):
            return False
        size = os.get_terminal_size(sys.stdout.fileno())
        curses.resizeterm(size.lines, size.columns)
        return True

    def _press(self) -> bool:
        """See to the keys that were pressed; False: it shall end."""
        pressed = 0
        while (key := self._screen.getch()) != curses.ERR:
            pressed += 1
            if key in (ord("q"), ord("Q")):
                return False
            if key in (ord("p"), ord(" ")):
                self._paused = not self._paused
            elif key == ord("s"):
                self._orders.append(self._orders.pop(0))
        return pressed > 0  # readable, and nothing to read: the terminal is gone

    def _draw(self) -> None:
        height, width = self._screen.getmaxyx()
        self._screen.erase()
        for row, line in enumerate(self._watch.lines(width, height, order=self._orders[0], paused=self._paused)):
            text = line.text.replace("µ", "u") if self._ascii else line.text
            # The cell in the corner below cannot be filled without scrolling; curses says so after it has drawn.
            with contextlib.suppress(curses.error):
                self._screen.addnstr(row, 0, text.ljust(width), width, _STYLES.get(line.style, curses.A_NORMAL))
        self._screen.refresh()


@contextlib.contextmanager
def _terminal() -> Iterator[curses.window]:
    """Take the terminal, and give it back as it was, whatever happens."""
    locale.setlocale(locale.LC_ALL, "")  # curses writes in its encoding
    screen = curses.initscr()
    try:
        curses.noecho()
        curses.cbreak()
        screen.keypad(True)
        screen.nodelay(True)
        with contextlib.suppress(curses.error):  # a terminal that cannot hide its cursor
            curses.curs_set(0)
        yield screen
    finally:
        with contextlib.suppress(curses.error):
            curses.curs_set(1)
        screen.keypad(False)
        curses.nocbreak()
        curses.echo()
        curses.endwin()


@contextlib.contextmanager
def _signals() -> Iterator[int]:
    """Have signals arrive as bytes that are read where keys are; yield the descriptor that they come from."""
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    before = signal.set_wakeup_fd(writing)
    for number in (*_QUIT, signal.SIGWINCH):
        signal.signal(number, lambda *_: None)
    try:
        yield reading
    finally:
        # They stay harmless while the terminal is given back: the process is about to end.
        signal.set_wakeup_fd(before)
        os.close(reading)
        os.close(writing)
