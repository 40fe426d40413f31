"""What one start of the service leaves with systemd for the next: the totals, and who waits between two requests.

Owns:    nothing for longer than a call: what it takes it passes on, what it leaves it closes.
Never:   waits longer than STORE_WITHIN_S for systemd, leaves more than STORED_MAX connections.
Used by: master.main (takes), master.stopping (leaves).

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


def take(
    stored: Sequence[Stored], segment: Segment, acceptor: Acceptor, origins: Sequence[Origin], notifier: Notifier
) -> None:
    """Go on with what an earlier start has left with systemd, and leave there what the next one shall have."""
    waiting: dict[int, list[int]] = {}  # descriptors, by their listener
    for one in stored:
        if one.name == fdstore.SEGMENT:
            segment.inherit(one.descriptor)
            os.close(one.descriptor)
        else:
            _take_connection(one, origins, waiting)
    for listener, descriptors in waiting.items():
        for at in range(0, len(descriptors), BATCH_MAX):
            batch = descriptors[at : at + BATCH_MAX]
            message = Message(Kind.PARKED, 0, listener, len(batch), 0, time.monotonic_ns())
            acceptor.carry_on(batch, message, counted=False)
    if waiting:
        log.info("%d idle connections of an earlier start go on", sum(map(len, waiting.values())))
    for name in {one.name for one in stored}:
        notifier.unstore(name)
    notifier.store(fdstore.SEGMENT, [segment.descriptors()[0]])


def _take_connection(one: Stored, origins: Sequence[Origin], waiting: dict[int, list[int]]) -> None:
    try:
        client = socket.socket(fileno=one.descriptor)
    except OSError:
        os.close(one.descriptor)
        return
    client.set_inheritable(False)
    for index, origin in enumerate(origins):
        if fdstore.parked_name(origin.name) == one.name and origin.family == client.family:
            waiting.setdefault(index, []).append(client.detach())
            return
    client.close()


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
