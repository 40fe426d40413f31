"""What master and worker say to each other over a channel: kinds, layout, direction, descriptors.

Owns:    the layout of the one fixed-size message.
Never:   does I/O (ipc.channel does), carries a client's bytes.
Fails:   Garbled for a message of another size, version or kind.
Used by: ipc.channel (which the master has them from), worker; master.supervisor (doom), master.handover (layout).
"""

import struct
from enum import IntEnum
from typing import Final, NamedTuple


class Kind(IntEnum):
    """Every message there is."""

    CONNECTIONS = 1  # master -> worker, `carried` descriptors of new clients
    DRAIN = 2  # master -> worker: finish what you have, then exit (`drain_by_ns` of its row); for `generation` only
    REOPEN = 3  # master -> worker: open the log files again (`reopen_ns` of its row); for `generation` only
    READY = 4  # worker -> master: `generation` is through its start-up
    ROOM = 5  # worker -> master: the queue was full and has room again
    PARKED = 6  # either way, the same of clients that a worker had and of whose next request nothing was read


class Drain(IntEnum):
    """What becomes of connections, when a worker drains, once nothing of a request or an answer is under way."""

    CLOSE = 0  # they are closed; answers that are still to come say so
    STORE = 2  # those between two requests go back at once, to be left to a next server; the others as in CLOSE
    MOVE = 1  # they go back to the master, whenever that is: other workers go on with them


# From here on the state in a worker's row (segment.ROW, master.supervisor.State) says that the master ends it, by
# SIGABRT or SIGKILL. It takes nothing out of its channel then: that would die with it, and its successor takes it.
DOOMED_FROM: Final = 4


class Garbled(Exception):
    """A message that this version does not understand."""


class Message(NamedTuple):
    """One message, as values.

    `number` is the count of connections that the master had ever put into this channel before this message. So
    whoever looks at the first message that still waits knows how many were taken out, whatever became of the taker.
    """

    kind: Kind
    generation: int = 0  # of the worker that a report comes from or an order goes to; 0: whoever reads
    listener: int = 0  # index of the listener the connections came from
    carried: int = 0  # descriptors that were sent along
    number: int = 0
    stamp_ns: int = 0  # CLOCK_MONOTONIC when the connections were accepted, or the first of them began to wait for that

    def numbered(self, number: int) -> "Message":
        """Return the same message with its number (_replace() takes twice as long)."""
        return Message(self.kind, self.generation, self.listener, self.carried, number, self.stamp_ns)


VERSION: Final = 1

# version, kind, listener, carried, generation, number, stamp; host order: both ends are one machine
LAYOUT: Final = struct.Struct("=BBBBIQQ")
SIZE: Final = LAYOUT.size
_KINDS: Final = {int(kind): kind for kind in Kind}


def pack(message: Message) -> bytes:
    """Return the message in its layout, SIZE bytes."""
    return LAYOUT.pack(
        VERSION, message.kind, message.listener, message.carried, message.generation, message.number, message.stamp_ns
    )


def unpack(data: bytes) -> Message:
    """Return the message that `data` holds; raise Garbled if it holds none."""
    if len(data) != SIZE:
        raise Garbled(f"a message of {len(data)} bytes, expected {SIZE}")
    version, kind, listener, carried, generation, number, stamp_ns = LAYOUT.unpack(data)
    if version != VERSION or kind not in _KINDS:
        raise Garbled(f"a message of version {version} and kind {kind}, expected version {VERSION}")
    return Message(_KINDS[kind], generation, listener, carried, number, stamp_ns)
