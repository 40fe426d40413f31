"""Fuzz what the master hears: messages of workers, with descriptors, and orders at the control socket. See README.md.

The first byte chooses: its lowest bit between the two, the others say how many descriptors come along, or where an
order is cut.
"""

import contextlib
import os
import select
import socket
from array import array
from collections.abc import Callable

from tests.fuzz import target

with target.instrumented():
    from pyserver.ipc.channel import Channel, Garbled, Gone
    from pyserver.ipc.control import ORDER, Control, answer
    from pyserver.ipc.messages import Kind, Message, pack, unpack

SEEDS = (
    *(b"\x00" + pack(Message(kind, 1, 2, 3, 4, 5)) for kind in Kind),
    b"\x06" + pack(Message(Kind.PARKED, carried=3)),
    b"\xfe" + pack(Message(Kind.CONNECTIONS, carried=255)),
    b"\x00" + pack(Message(Kind.READY)) + b"x",
    b"\x01" + ORDER,
    b"\x11" + ORDER,
    b"%c" % (len(ORDER) * 2 + 1) + ORDER + b"x",
    b"\x01" + ORDER[:-1],
    b"\x07" + ORDER + b"x",
    b"\x01pyserver stop\n",
)


def open_here() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  numbers, not files


def a_message(data: bytes, descriptors: int) -> None:
    before = open_here()
    channel = Channel()
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [channel.worker_end.fileno()] * descriptors))
    with socket.socket(fileno=os.dup(channel.worker_end.fileno())) as worker:
        worker.sendmsg([data], [rights] if descriptors else [])
    try:
        received = channel.master_end.receive()
        assert received is not None
        message, found = received
        assert unpack(pack(message)) == message
        for descriptor in found:
            os.close(descriptor)
    except (Garbled, Gone):
        pass
    channel.close()
    assert open_here() == before, "a descriptor leaked"


def an_order(data: bytes, cut: int) -> None:
    watched: dict[int, Callable[[], object]] = {}
    ordered: list[socket.socket] = []

    def reload(who: socket.socket) -> None:
        ordered.append(who)
        answer(who, done=True, text="well\nreally")

    def hear() -> None:
        for descriptor in select.select(list(watched), [], [], 0)[0]:
            watched[descriptor]()

    before = open_here()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("")  # an abstract address of its own
    listener.listen()
    listener.setblocking(False)
    control = Control(listener, watched.__setitem__, watched.pop, reload)
    said = b""
    with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        client.settimeout(5)
        client.connect(listener.getsockname())
        hear()
        for piece in (data[:cut], data[cut:]):
            if piece:
                client.sendall(piece)
                hear()
        client.shutdown(socket.SHUT_WR)
        hear()
        said = client.recv(9000)
    control.close()
    assert bool(ordered) == (data == ORDER or (data.startswith(ORDER) and cut == len(ORDER)))
    assert not said or (said.count(b"\n") == 1 and said.startswith((b"done ", b"failed ")))
    assert open_here() == before, "a descriptor leaked"


def one_input(data: bytes) -> None:
    if len(data) > 1:
        (an_order if data[0] & 1 else a_message)(data[1:], data[0] >> 1)


if __name__ == "__main__":
    target.main(one_input, SEEDS)
