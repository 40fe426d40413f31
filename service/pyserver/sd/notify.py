"""Tell systemd how the service stands (sd_notify(3)): ready, status, stopping, alive.

Owns:    the notification socket, and NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID, which it takes out of the
         environment so that no child speaks for us (T-63).
Never:   blocks. PID 1 can be stopped or busy for seconds, and the master that waits for it would not accept.
Fails:   never; what does not get through is dropped and counted. READY and STOPPING are not lost by that: they go
         again, ahead of the next message.
Used by: master.main; with it master.standing, master.reload, master.stopping, master.succession, master.stored.
"""

import array
import os
import re
import select
import socket
import time
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import sdnotify

from pyserver.limits import STATUS_MAX_CHARACTERS

# What may not stand in a status: see _status.
UNFIT: Final = re.compile(r"[^ -\[\]-~]")

VARIABLES: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")

# sd_watchdog_enabled(3): this stands for no limit.
USEC_INFINITY: Final = 2**64 - 1


class Notifier:
    """The way to the service manager; without NOTIFY_SOCKET every message is a no-op."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        self._taken = {name: environ.pop(name) for name in VARIABLES if name in environ}
        address, period, watched = (self._taken.get(name, "") for name in VARIABLES)
        self.wanted = bool(address)
        self.dropped = 0
        self._way = _connect(address) if address else None
        self._watchdog_period = _half(period) if watched in ("", str(os.getpid())) else None
        self._owed: list[str] = []

    @property
    def watchdog_period(self) -> float | None:
        """Seconds from one watchdog() to the next, half of what systemd waits; None: nobody watches."""
        return self._watchdog_period

    # -- each returns False when the message was dropped ----------------------------------

    def ready(self, status: str) -> bool:
        """Say that start-up is complete, and so end `systemctl start`."""
        return self._send(_status(status), state="READY=1")

    def reloading(self, status: str) -> bool:
        """Say that the configuration is being read anew; ready() ends it."""
        return self._send(_status(status), state=f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def status(self, text: str) -> bool:
        """Show `text` in `systemctl status`; costs PID 1 about 0.1 ms, so at most one a second."""
        return self._send(_status(text))

    def stopping(self, status: str) -> bool:
        """Say that the service is on its way out."""
        return self._send(_status(status), state="STOPPING=1")

    def watchdog(self) -> bool:
        """Say that we are well; a dropped one is repaired by the next, which is why we send two per interval."""
        return self._send("WATCHDOG=1")

    def extend_timeout(self, seconds: float) -> bool:
        """Ask for so many more seconds from now to start or stop in."""
        return self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    def store(self, name: str, descriptors: Sequence[int]) -> bool:
        """Leave descriptors with systemd for the next start of the service; see sd.fdstore."""
        if not self.wanted or self._way is None:
            return False
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
        try:
            self._way.socket.sendmsg([f"FDSTORE=1\nFDNAME={name}".encode()], [rights], socket.MSG_NOSIGNAL)
        except OSError:
            self.dropped += 1
            return False
        return True

    def store_within(self, name: str, descriptors: Sequence[int], seconds: float) -> bool:
        """The same, but wait a bounded time for systemd: on the way out, when nobody else waits for us."""
        end = time.monotonic() + seconds
        poll = select.poll()
        if self._way is not None:
            poll.register(self._way.socket, select.POLLOUT)
        while not self.store(name, descriptors):
            left = end - time.monotonic()
            if left <= 0 or not self.wanted:
                return False
            poll.poll(max(1.0, min(left, 0.05) * 1000))
        return True

    def unstore(self, name: str) -> bool:
        """Let systemd close what it has under a name."""
        return self._send(f"FDSTOREREMOVE=1\nFDNAME={name}")

    def environment(self) -> dict[str, str]:
        """Return what was taken out of the environment, for this process when it executes itself anew."""
        return dict(self._taken)

    def close(self) -> None:
        """Close the socket, and nothing is sent any more: in a forked child, and at the end."""
        way, self._way = self._way, None
        self.wanted = False
        if way is not None:
            way.socket.close()

    def _send(self, assignment: str, *, state: str = "") -> bool:
        """Send one message: what is still owed, the state, the assignment."""
        if not self.wanted:
            return True
        if state:
            self._owed = [state]  # a later state makes an earlier one pointless: STOPPING overtakes READY
        try:
            self._deliver("\n".join([*self._owed, assignment]))
        except OSError:  # full queue, or nobody at the other end
            self.dropped += 1
            return False
        self._owed = []
        return True

    def _deliver(self, message: str) -> None:
        if self._way is None:
            raise ConnectionRefusedError("the notification socket could not be connected")
        self._way.notify(message)


def _connect(address: str) -> Any:  # noqa: ANN401, sdnotify ships no types
    """Return sdnotify's notifier, non-blocking; None if there is nobody at the address."""
    try:
        with _exposed(address):
            way = sdnotify.SystemdNotifier(debug=True)  # debug: errors reach us, so that we can count them
    except OSError:
        return None
    way.socket.setblocking(False)
    return way


@contextmanager
def _exposed(address: str) -> Iterator[None]:
    """Put the address where sdnotify looks for it, for as long as it looks."""
    os.environ["NOTIFY_SOCKET"] = address
    try:
        yield
    finally:
        os.environ.pop("NOTIFY_SOCKET", None)


def _half(microseconds: str) -> float | None:
    """Return half of the interval in seconds: systemd's own advice in sd_watchdog_enabled(3)."""
    if not (microseconds.isascii() and microseconds.isdecimal()):
        return None
    interval = int(microseconds)
    return interval / 2_000_000 if 0 < interval < USEC_INFINITY else None


def _status(text: str) -> str:
    """Return the assignment: one line of printable ASCII, with a question mark for each character that is not.

    sdnotify sends latin-1 and systemd wants UTF-8, so ASCII is what both agree on. A backslash goes too: PID 1 takes it
    as an escape when it splits the lines, and drops a message that ends in one.
    """
    return "STATUS=" + UNFIT.sub("?", " ".join(text.split()))[:STATUS_MAX_CHARACTERS]
