"""How many clients wait to be accepted, and how long one has waited that was not accepted at once.

Owns:    the question to the kernel.
Never:   reads what a client sent.
Used by: master.acceptor (how many there are; from when on a client has waited), worker.shedding (whether that was too
         long).

While nobody accepts, a client waits in the backlog of its listener, and no clock of ours runs. But the kernel knows
when data last came from it, or when it was connected, and a request lies there since then. UNIX sockets do not know.
"""

import socket
import struct
from typing import Final, cast

# tcpi_last_data_recv of struct tcp_info (linux/tcp.h), in milliseconds.
_LAST_DATA_AT: Final = 52
_LAST_DATA: Final = struct.Struct("=I")

# tcpi_unacked, which for a listener is the length of its queue (tcp_get_info() in net/ipv4/tcp.c).
_QUEUED_AT: Final = 24
_QUEUED: Final = struct.Struct("=I")

# Without what socket.socket has around it, and does at its making.
_Socket: Final = cast("type[socket.socket]", socket.SocketType)


def untouched(client: int) -> float | None:
    """Return the seconds since the client of a descriptor sent something or was connected; None: nobody knows."""
    asked = _Socket(socket.AF_INET, socket.SOCK_STREAM, 0, client)  # of whatever family it is
    try:
        told = asked.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_DATA_AT + _LAST_DATA.size)
    except OSError:
        return None
    finally:
        asked.detach()
    milliseconds: int = _LAST_DATA.unpack_from(told, _LAST_DATA_AT)[0]
    return milliseconds / 1000


def waiting(listener: socket.socket) -> int | None:
    """Return how many clients accept(2) would find at a listener now; None: nobody knows."""
    try:
        told = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _QUEUED_AT + _QUEUED.size)
    except OSError:
        return None
    queued: int = _QUEUED.unpack_from(told, _QUEUED_AT)[0]
    return queued
