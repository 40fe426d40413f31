"""What one start of the service leaves with systemd for the next: the totals, and who waits between two requests.

Owns:    nothing for longer than a call: what it takes it passes on, what it leaves it closes.
Never:   waits longer than STORE_WITHIN_S for systemd, leaves more than STORED_MAX connections.
Used by: master.main (inherit, go_on), master.stopping (leave).

A connection is stored under a name that is made of its listener's, see sd.fdstore.
"""

import logging
import os
import socket
import time
from collections.abc import Sequence

from pyserver.ipc.assignment import Origin
from pyserver.ipc.channel import Kind, Message
from pyserver.ipc.segment import Segment
from pyserver.limits import BATCH_MAX, STORE_WITHIN_S, STORED_BATCH_MAX, STORED_MAX
from pyserver.master.acceptor import Acceptor
from pyserver.sd import fdstore
from pyserver.sd.fdstore import Stored
from pyserver.sd.notify import Notifier

log = logging.getLogger("pyserver")


def inherit(stored: list[Stored], segment: Segment, notifier: Notifier) -> None:
    """Go on with the totals that an earlier start has left with systemd, and leave there ours; the rest stays."""
    for one in [one for one in stored if one.name == fdstore.SEGMENT]:
        segment.inherit(one.descriptor)
        os.close(one.descriptor)
        stored.remove(one)
        notifier.unstore(one.name)
    notifier.store(fdstore.SEGMENT, [segment.fileno()])


def go_on(stored: list[Stored], acceptor: Acceptor, origins: Sequence[Origin], notifier: Notifier) -> None:
    """Pass on the connections that an earlier start has left with systemd: there is a worker for them now.

    Until then systemd has them too, for the next start, should this one fail. From now on they may be in the middle of
    an answer, so it must have none of them: it hears that before a worker gets one. That makes work for PID 1 (of
    257: 70 ms for 300 descriptors), which starting workers did not have to share the processor with.
    """
    for name in {one.name for one in stored}:
        notifier.unstore(name)
    listeners = {(fdstore.parked_name(each.name), int(each.family)): index for index, each in enumerate(origins)}
    waiting: dict[int, list[int]] = {}  # descriptors, by their listener
    for one in stored:
        listener = listeners.get((one.name, _family(one.descriptor)))
        if listener is None:
            os.close(one.descriptor)
        else:
            waiting.setdefault(listener, []).append(one.descriptor)
    stored.clear()
    for listener, descriptors in waiting.items():
        for at in range(0, len(descriptors), BATCH_MAX):
            batch = descriptors[at : at + BATCH_MAX]
            message = Message(Kind.PARKED, 0, listener, len(batch), 0, time.monotonic_ns())
            acceptor.carry_on(batch, message, counted=False)
    if waiting:
        log.info("%d idle connections of an earlier start go on", sum(map(len, waiting.values())))


def _family(descriptor: int) -> int:
    """Return the address family of a socket; of what is none AF_UNSPEC, which no listener has."""
    try:
        # With a family, of whatever truth, and a type it is not asked for both and the protocol, thrice a connection.
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=descriptor)
    except OSError:
        return socket.AF_UNSPEC
    try:
        return client.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN)
    finally:
        client.detach()


def close(stored: list[Stored]) -> None:
    """Close what was not passed on: in a forked child, and at the end."""
    for one in stored:
        os.close(one.descriptor)
    stored.clear()


def leave(parked: list[tuple[int, int]], origins: Sequence[Origin], notifier: Notifier) -> None:
    """Leave those who wait between two requests with systemd, for a server that may follow: the newest of them.

    `parked` are descriptors, each with its listener; all of them are closed here.
    """
    for descriptor, _ in parked[:-STORED_MAX]:
        os.close(descriptor)
    parked = parked[-STORED_MAX:]
    until = time.monotonic() + STORE_WITHIN_S
    for listener, origin in enumerate(origins):
        name = fdstore.parked_name(origin.name)
        descriptors = [descriptor for descriptor, of in parked if of == listener]
        for at in range(0, len(descriptors), STORED_BATCH_MAX):
            batch = descriptors[at : at + STORED_BATCH_MAX]
            if not notifier.store_within(name, batch, until - time.monotonic()):
                log.warning("systemd did not take %d idle connections in time, closing them", len(descriptors) - at)
                break
    for descriptor, _ in parked:
        os.close(descriptor)
    if parked:
        log.info("%d idle connections left with systemd", len(parked))
