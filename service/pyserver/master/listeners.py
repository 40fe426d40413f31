"""The listeners: adopted from systemd, or bound by ourselves when nothing was handed over.

Owns:    the listening sockets, and the socket files of those it bound.
Never:   accepts; closes a listener while connections that it alone holds still wait in it.
Fails:   ListenError with one line: which address, what is wrong, what to write instead.
Used by: master.main; master.acceptor, master.backlogs, master.standin (a Listener).
"""

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterable, MutableMapping
from pathlib import Path
from typing import Final

from pyserver.config import Address
from pyserver.ipc.assignment import ADMIN
from pyserver.limits import BACKLOG, LISTENERS_MAX, UNSENT_MAX_BYTES
from pyserver.sd.activation import ActivationError, adopt
from pyserver.sd.fdstore import Stored

# What to write instead, by what bind(2) said.
_INSTEAD: Final = {
    errno.EADDRINUSE: "another program listens there; stop it or choose another port",
    errno.EADDRNOTAVAIL: "this host has no such address; 0.0.0.0 or [::] mean all of them",
    errno.EACCES: "choose a port from 1024 on, or let systemd listen (pyserver.socket)",
    errno.ENOENT: "the folder of the socket does not exist",
    errno.EAFNOSUPPORT: "this host has no such address family",
}
_INSTEAD_OF_A_FILE: Final = _INSTEAD | {
    errno.EACCES: "choose a folder that the server may write to, or let systemd listen (pyserver.socket)",
}


# The name of the listener for orders; all others are for clients, of which some are administrators (ADMIN).
CONTROL: Final = "control"


class ListenError(Exception):
    """We cannot listen there; the text is one line for the administrator."""


class Listener:
    """One listening socket: what it is called, where it is, whether it is ours to take down."""

    __slots__ = ("_file", "_path", "adopted", "name", "socket")

    def __init__(self, name: str, listening: socket.socket, *, adopted: bool) -> None:
        self.name = name
        self.socket = listening
        self.adopted = adopted
        if listening.family != socket.AF_UNIX:
            # Inherited too, and systemd has no directive for it.
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_MAX_BYTES)
        path = listening.getsockname() if listening.family == socket.AF_UNIX else None
        self._path = path if isinstance(path, str) and path and not adopted else None
        self._file = _identity(self._path) if self._path else None

    def __str__(self) -> str:
        """Return where a client finds it: `http://127.0.0.1:8080`, `http://[::1]:80`, `unix:/run/x.sock`."""
        where = self.socket.getsockname()
        if self.socket.family == socket.AF_UNIX:
            return f"unix:{os.fsdecode(where)}"
        host, port = where[:2]
        return f"{self.name}://[{host}]:{port}" if ":" in host else f"{self.name}://{host}:{port}"

    def fileno(self) -> int:
        """Return the descriptor to poll."""
        return self.socket.fileno()

    def close(self) -> None:
        """Close our copy; remove the socket file if it is still the one that we made."""
        if self._path is not None and self.socket.fileno() >= 0:
            with contextlib.suppress(OSError):
                if _identity(self._path) == self._file:
                    Path(self._path).unlink()
        self.socket.close()


def _identity(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino


def adopt_or_bind(
    environ: MutableMapping[str, str], addresses: Iterable[Address], stored: list[Stored] | None = None
) -> list[Listener]:
    """Return what systemd handed over; if nothing of it is for clients, bind `addresses` too. Raises ListenError.

    What an earlier start has left with systemd is put into `stored`.
    """
    try:
        adopted = [Listener(one.name, one.listener, adopted=True) for one in adopt(environ, stored)]
    except ActivationError as error:
        raise ListenError(str(error)) from error
    if len(adopted) > LISTENERS_MAX:
        for listener in adopted:
            listener.close()
        raise ListenError(f"systemd handed over {len(adopted)} listeners, at most {LISTENERS_MAX} can be served")
    if any(listener.name not in (CONTROL, ADMIN) for listener in adopted):
        return adopted
    addresses = tuple(addresses)
    if len(addresses) > LISTENERS_MAX:
        raise ListenError(f"{len(addresses)} addresses to listen on, at most {LISTENERS_MAX} can be served")
    bound = adopted
    try:
        bound.extend(Listener("http", _bind(address), adopted=False) for address in addresses)
    except (ListenError, OSError):
        for listener in bound:
            listener.close()
        raise
    return bound


def _bind(address: Address) -> socket.socket:
    listening = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        if address.family == socket.AF_UNIX:
            _remove_dead_socket(address.path)
            listening.bind(address.path)
        else:
            # Accepted connections inherit what is set here (tcp(7)), so that none of it costs a call for each.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # A client is accepted when its request is there (tcp(7)), and is answered at once. Who sends nothing wakes
            # nobody for a second or more.
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)
            if address.family == socket.AF_INET6:
                # [::] and 0.0.0.0 beside each other, as everywhere else.
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.bind((address.host, address.port))
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        instead = _INSTEAD_OF_A_FILE if address.family == socket.AF_UNIX else _INSTEAD
        why = instead.get(error.errno or 0, "")
        raise ListenError(f"cannot listen on {address.text}: {error.strerror}" + (f"; {why}" if why else "")) from error
    return listening


def _remove_dead_socket(path: str) -> None:
    """Remove a socket file that nobody listens on; leave everything else for bind(2) to refuse."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return
    except OSError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        if probe.connect_ex(path) == errno.ECONNREFUSED:
            Path(path).unlink()
