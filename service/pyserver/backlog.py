"""What the kernel knows of clients that were not accepted at once: for how long, how many, and how many it dropped.

Owns:    the questions to the kernel.
Never:   reads what a client sent.
Used by: master.acceptor (how many wait; from when on one has), worker.shedding (whether that was too long);
         master.backlogs (a listener's backlog).

While nobody accepts, a client waits in the backlog of its listener, and no clock of ours runs. But the kernel knows
when data last came from it, or when it was connected, and a request lies there since then. UNIX sockets do not know.
"""

import socket
import struct
from typing import Final, cast

# tcpi_last_data_recv of struct tcp_info (linux/tcp.h), in milliseconds.
_LAST_DATA_AT: Final = 52
_LAST_DATA: Final = struct.Struct("=I")

# Of a listener tcpi_unacked is how many wait, tcpi_sacked how many may (tcp_get_info in net/ipv4/tcp.c).
_BACKLOG_AT: Final = 24
_BACKLOG: Final = struct.Struct("=II")

# asm-generic/socket.h, which all have but Alpha, MIPS, PA-RISC and SPARC. Of SO_MEMINFO the last is SK_MEMINFO_DROPS.
_SO_MEMINFO: Final = 55
_SO_COOKIE: Final = 57
_MEMINFO: Final = struct.Struct("=9I")
_COOKIE: Final = struct.Struct("=Q")

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


def held(listener: socket.socket) -> tuple[int, int]:
    """Return how many wait in the backlog of a listener, and how many may; 0 and 0 if it is none of TCP."""
    try:
        told = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BACKLOG_AT + _BACKLOG.size)
        waiting, most = _BACKLOG.unpack_from(told, _BACKLOG_AT)
    except (OSError, struct.error):
        return 0, 0
    return waiting, most


def dropped(listener: socket.socket) -> int:
    """Return how many packets of clients the kernel has dropped at a listener, modulo 2**32.

    That is: one for each attempt to connect that found no room. Since Linux 6.14 or so also one for each client whose
    connection waits for its request (TCP_DEFER_ACCEPT), which is not refused by that.
    """
    drops: int = _MEMINFO.unpack(listener.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))[-1]
    return drops


def cookie(listener: socket.socket) -> int:
    """Return the number that the kernel knows a socket by for its life, whoever holds it, and no other ever has."""
    number: int = _COOKIE.unpack(listener.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, _COOKIE.size))[0]
    return number
