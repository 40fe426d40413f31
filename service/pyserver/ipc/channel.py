"""Carry messages, and clients' descriptors with them, between the master and one worker's place.

Owns:    the two ends of a socketpair. The master keeps both, so what waits in it outlives the worker; a worker
         keeps its own end only, so that the master's death is an end of file.
Never:   blocks; looks at a client's bytes.
Fails:   Full (no room in the socket's buffer), Gone (the other end is closed), Garbled (messages).
Used by: master; worker.pool; ipc.assignment (a worker's end).
"""

import array
import socket
from collections.abc import Sequence
from typing import Final, Self

from pyserver.ipc.messages import SIZE, Drain, Garbled, Kind, Message, pack, unpack
from pyserver.limits import BATCH_MAX, CHANNEL_BUFFER_BYTES

_SEND: Final = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
_RECEIVE: Final = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
_PEEK: Final = socket.MSG_DONTWAIT | socket.MSG_PEEK
_DESCRIPTOR_BYTES: Final = array.array("i").itemsize
_CONTROL_BYTES: Final = socket.CMSG_SPACE(BATCH_MAX * _DESCRIPTOR_BYTES)


class Full(Exception):
    """The channel has no room now; the descriptors are still the sender's."""


class Gone(Exception):
    """The other end is closed."""


class End:
    """One end of a channel (unix(7), SOCK_SEQPACKET: message boundaries are kept)."""

    __slots__ = ("_socket",)

    def __init__(self, end: socket.socket) -> None:
        self._socket = end

    def fileno(self) -> int:
        """Return the descriptor to poll."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close this process's copy of the end."""
        self._socket.close()

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send one message with its descriptors, whole or not at all; raise Full or Gone.

        The caller still owns its copies of the descriptors afterwards.
        """
        control = []
        if descriptors:
            control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        try:
            self._socket.sendmsg([pack(message)], control, _SEND)
        except BlockingIOError:
            raise Full from None
        except (BrokenPipeError, ConnectionResetError):
            raise Gone from None

    def receive(self) -> tuple[Message, list[int]] | None:
        """Return one message and its descriptors (close-on-exec, now the caller's), or None if none waits.

        Fewer descriptors than message.carried arrive when this process is at its limit of open files: the kernel
        drops the rest (unix(7), MSG_CTRUNC). Raises Gone (an empty message looks the same) or Garbled, with the
        descriptors closed.
        """
        try:
            data, control, _flags, _address = self._socket.recvmsg(SIZE + 1, _CONTROL_BYTES, _RECEIVE)
        except BlockingIOError:
            return None
        except ConnectionResetError:
            raise Gone from None
        descriptors = array.array("i")
        for level, kind, payload in control:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors.frombytes(payload[: len(payload) - len(payload) % _DESCRIPTOR_BYTES])
        try:
            return _understood(data), descriptors.tolist()
        except (Garbled, Gone):
            for descriptor in descriptors:
                socket.close(descriptor)
            raise

    def first(self) -> Message | None:
        """Return the first message that waits at this end, which stays there; None if none waits.

        Peeking without room for control data leaves the descriptors where they are. Raises Garbled.
        """
        try:
            data = self._socket.recv(SIZE + 1, _PEEK)
        except BlockingIOError:
            return None
        return unpack(data) if data else None  # a channel that was shut down has no more

    def first_number(self) -> int | None:
        """Return `number` of the first message that waits at this end; None if none waits."""
        first = self.first()
        return None if first is None else first.number


def _understood(data: bytes) -> Message:
    if not data:
        raise Gone("an empty message")
    return unpack(data)


class Channel:
    """Both ends, as the master holds them."""

    __slots__ = ("master_end", "worker_end")

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, theirs):
            # The kernel charges a message several hundred bytes; the default holds fewer than a full queue of
            # single connections. The kernel caps the wish at net.core.wmem_max; beyond it the acceptor waits.
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, CHANNEL_BUFFER_BYTES)
            end.setblocking(False)
        self.master_end = End(ours)
        self.worker_end = End(theirs)

    @classmethod
    def adopt(cls, master_end: int, worker_end: int) -> Self:
        """Take up both ends again, by their descriptors."""
        channel = cls.__new__(cls)
        ours, theirs = socket.socket(fileno=master_end), socket.socket(fileno=worker_end)
        for end in (ours, theirs):
            end.setblocking(False)
        channel.master_end, channel.worker_end = End(ours), End(theirs)
        return channel

    def close(self) -> None:
        """Close both ends; what waited in the channel is closed with them."""
        self.master_end.close()
        self.worker_end.close()


__all__ = ["Channel", "Drain", "End", "Full", "Garbled", "Gone", "Kind", "Message"]
