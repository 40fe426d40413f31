r"""`pyserver reload`: an order to a running master over its control socket, and the answer to it.

Owns:    what is said there: one line each way; who may say it; the address where nobody gave the master a listener.
Never:   blocks in the master; carries anything of a client of the server.
Fails:   in the master never, whoever asks wrongly is told so; the command ends with exit status 1 and one line.
Used by: master.main (Control), master.reload (answer), cli (main).

    client   pyserver reload\n
    master   done TEXT\n  or  failed TEXT\n            when it is decided, then it closes
"""

import array
import contextlib
import errno
import os
import socket
import struct
import sys
from collections.abc import Callable
from typing import Final

from pyserver.ipc import observe
from pyserver.ipc.segment import SHM, SegmentError
from pyserver.limits import CONTROL_MAX

ORDER: Final = b"pyserver reload\n"

# Where pyserver-control.socket listens.
PATH: Final = "/run/pyserver-control.sock"

_UCRED: Final = struct.Struct("@iII")  # pid, uid, gid: unix(7), SO_PEERCRED
_SO_PEERGROUPS: Final = 59  # asm-generic/socket.h; Python has no name for it
_GROUPS_MAX_BYTES: Final = 1024  # what Python's getsockopt asks for at most: 256 groups
_ANSWER_MAX_BYTES: Final = 8192


def address_of(segment: str) -> bytes:
    """Return the abstract address (unix(7)) that follows a segment's name: no file, so nothing is ever left."""
    return b"\0" + segment.lstrip("/").encode() + b".control"


# -- in the master -------------------------------------------------------------------------------


class Control:
    """The control listener, and those who have connected and not said all yet."""

    def __init__(
        self,
        listener: socket.socket,
        watch: Callable[[int, Callable[[], object]], object],
        unwatch: Callable[[int], object],
        reload: Callable[[socket.socket], object],
    ) -> None:
        self.listener = listener
        self._watch = watch
        self._unwatch = unwatch
        self._reload = reload  # is given the connection, to answer() it
        self._open: dict[socket.socket, bytes] = {}
        watch(listener.fileno(), self._on_client)

    def close(self) -> None:
        """Close the listener and who has not said anything; also in a forked child."""
        for connection in self._open:
            connection.close()
        self._open.clear()
        self.listener.close()

    def _on_client(self) -> None:
        try:
            connection, _ = self.listener.accept()
        except OSError:  # gone again, or no descriptor: it is asked for again at once, but by few
            return
        connection.setblocking(False)
        if not may_order(connection):
            answer(connection, done=False, text="only root and the group of the server may order it")
            return
        if len(self._open) >= CONTROL_MAX:
            self._drop(next(iter(self._open))).close()
        self._open[connection] = b""
        self._watch(connection.fileno(), lambda: self._on_words(connection))

    def _on_words(self, connection: socket.socket) -> None:
        try:
            data = connection.recv(len(ORDER) + 1)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        said = self._open[connection] + data
        if data and len(said) < len(ORDER) and ORDER.startswith(said):
            self._open[connection] = said
            return
        self._drop(connection)
        if said == ORDER:
            self._reload(connection)
        elif data:
            answer(connection, done=False, text="not understood; the one order is: reload")
        else:
            connection.close()

    def _drop(self, connection: socket.socket) -> socket.socket:
        self._unwatch(connection.fileno())
        del self._open[connection]
        return connection


def may_order(connection: socket.socket) -> bool:
    """Tell whether the one at the other end is root, we ourselves, or of our group."""
    try:
        _pid, uid, gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        if uid in (0, os.geteuid()) or gid == os.getegid():
            return True
        groups = array.array("I", connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_MAX_BYTES))
    except OSError:
        return False
    return os.getegid() in groups


def answer(connection: socket.socket, *, done: bool, text: str) -> None:
    """Say how it went, and close."""
    line = f"{'done' if done else 'failed'} {' '.join(text.split())}"
    with contextlib.suppress(OSError):  # who asked has gone, and will see it elsewhere
        connection.send(line.encode(errors="backslashreplace")[: _ANSWER_MAX_BYTES - 1] + b"\n", socket.MSG_NOSIGNAL)
    connection.close()


# -- the command ---------------------------------------------------------------------------------


def main(path: str | None, name: str | None, within: float) -> int:
    """Order a reload, wait for its outcome, and say it; return the exit status."""
    try:
        with _connected(path, name) as connection:
            connection.settimeout(within)
            connection.sendall(ORDER)
            outcome, _, text = _line(connection).partition(" ")
    except (SegmentError, _NoAnswer) as error:
        print(f"pyserver: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        why = f"no answer within {within:g} s" if isinstance(error, TimeoutError) else error.strerror
        print(f"pyserver: the server cannot be ordered to reload: {why}", file=sys.stderr)
        return 1
    if outcome != "done":
        print(f"pyserver: reload failed: {text}", file=sys.stderr)
        return 1
    print(text)
    return 0


class _NoAnswer(Exception):
    """The server has ended, or cannot be reached, or it is none of ours."""


# What to do, by what connect(2) said.
_NOBODY: Final = "see whether it runs: systemctl status pyserver; or name its socket: --control PATH"
_INSTEAD: Final = {
    errno.EACCES: "root may order it, and who is in the group of the server",
    errno.ENOENT: _NOBODY,
    errno.ECONNREFUSED: _NOBODY,
}


def _line(connection: socket.socket) -> str:
    said = b""
    while not said.endswith(b"\n") and len(said) < _ANSWER_MAX_BYTES:
        data = connection.recv(_ANSWER_MAX_BYTES)
        if not data:
            raise _NoAnswer("the server ended before the reload was done")
        said += data
    return said.decode(errors="replace").strip()


def _connected(path: str | None, name: str | None) -> socket.socket:
    """Connect to the control socket that was named, or to that of the service, or of the one server that runs."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        if path is None and name is None and os.path.exists(PATH):  # noqa: PTH110  no other question to it
            path = PATH
        if path is not None:
            _connect(connection, path, path)
        else:
            segment, _alive = observe.choose(name)
            _connect(connection, address_of(segment), segment.lstrip("/"))
            _verify(connection, segment.lstrip("/"))
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(connection: socket.socket, address: str | bytes, shown: str) -> None:
    try:
        connection.connect(address)
    except OSError as error:
        instead = _INSTEAD.get(error.errno or 0, "name its socket: --control PATH")
        why = error.strerror.lower() if error.strerror else error
        raise _NoAnswer(f"the server cannot be ordered to reload: {shown}: {why}; {instead}") from None


def _verify(connection: socket.socket, segment: str) -> None:
    """Anybody may take an abstract address; whoever made the segment is the server."""
    _pid, uid, _gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    if uid != (SHM / segment).stat().st_uid:
        raise _NoAnswer(f"another user answers for {segment}")
