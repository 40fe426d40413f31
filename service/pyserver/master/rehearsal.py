"""Try a new configuration and new code before anything depends on them: a worker starts in a process of its own.

Owns:    that process, from its fork to its end, and what it said.
Never:   touches the running service: the rehearsal has a segment without a name, and no client.
Fails:   OSError from fork(2) or memfd_create(2); all else that can fail is what a rehearsal is for.
Used by: master.reload (starts it), master.main (is it).

The process is the master's program executed again. It reads the configuration, looks whether it could take up what the
master would hand over, and becomes a worker that finds the order to drain in its channel already: it goes through the
whole start of a worker, says READY, and leaves. What a worker needs and does not get (code that loads, roots, a log
file, threads) ends it, and its last words are the reason.
"""

import functools
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Final, NoReturn

from pyserver.config import Config
from pyserver.ipc.assignment import Assignment
from pyserver.ipc.channel import Channel, Kind, Message
from pyserver.ipc.queue import Queue
from pyserver.ipc.segment import Segment
from pyserver.limits import NS_PER_S, REHEARSAL_SAID_MAX_BYTES
from pyserver.master import children, handover
from pyserver.master.children import Child

_NEVER_READY: Final = "the rehearsal of a worker did not become ready"
_DRAIN_S: Final = 3600.0  # it leaves at once; a deadline in the past would make it say that it cuts something
_EX_SOFTWARE: Final = 70  # sysexits.h

# How sd.journal begins a line on stderr.
_LINE_BEGIN: Final = re.compile(r"\d{4}-\d\d-\d\d [0-9:.]+ \w+ +")


class Rehearsal:
    """The process, as the master sees it."""

    def __init__(self, document: int, within_s: float) -> None:
        """Start it; `document` is the handover that would be, of which it looks at the layout."""
        self._said = os.memfd_create("pyserver-rehearsal", os.MFD_CLOEXEC)
        try:
            self._child: Child = children.spawn(functools.partial(_become, document, self._said, within_s))
        except OSError:
            os.close(self._said)
            raise

    @property
    def pid(self) -> int:
        """Its number."""
        return self._child.pid

    def fileno(self) -> int:
        """Return what is readable once it has ended."""
        return self._child.pidfd

    def kill(self) -> None:
        """End it."""
        children.send_signal(self._child, signal.SIGKILL)

    def outcome(self) -> tuple[bool, list[str]] | None:
        """Return whether all was well and what it said, line by line; None while it runs."""
        ending = children.reap(self._child)
        if ending is None:
            return None
        begin = max(0, os.fstat(self._said).st_size - REHEARSAL_SAID_MAX_BYTES)
        text = os.pread(self._said, REHEARSAL_SAID_MAX_BYTES, begin).decode(errors="backslashreplace")
        os.close(self._said)
        lines = [_LINE_BEGIN.sub("", line).strip() for line in text.splitlines()]
        lines = [line for line in lines if line]
        if ending != "exited with status 0" and not lines:
            lines = [f"the rehearsal of a worker {ending}"]
        return ending == "exited with status 0", lines

    def forget(self) -> None:
        """Close our descriptors: in a forked child."""
        os.close(self._child.pidfd)
        os.close(self._said)


def _become(document: int, said: int, within_s: float) -> int:
    """In the forked child: be the rehearsal. A worker's signals are ignored by now, which goes through execve(2)."""
    # The master ends it in time. Should it be gone by then, the kernel does: an alarm goes through execve(2) too.
    signal.alarm(int(within_s) + 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(said, 1)
    os.dup2(said, 2)
    environ = {**os.environ, handover.VARIABLE: str(document), handover.REHEARSAL: "1"}
    handover.execute([document], environ)


def rehearse(config: Config, enter_worker: Callable[[Assignment], int]) -> NoReturn:
    """In the rehearsal's process: start a worker that has to leave at once, and exit with its status."""
    status = _EX_SOFTWARE
    try:
        segment, channel = Segment.private(1), Channel()
        queue = Queue.private(segment, 1)
        segment.words[segment.row(0, "drain_by_ns")] = time.monotonic_ns() + int(_DRAIN_S * NS_PER_S)
        channel.master_end.send(Message(Kind.DRAIN, 1))
        status = enter_worker(Assignment(0, 1, config, channel.worker_end, segment, queue.for_worker(0), ()))
        told = channel.master_end.receive()
        if status == 0 and (told is None or told[0].kind is not Kind.READY):
            print(_NEVER_READY)
            status = _EX_SOFTWARE
    except Exception:  # noqa: BLE001  whatever it is, it is the reason
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        # Now: what an interpreter says at its end would be the last word.
        os._exit(status)
