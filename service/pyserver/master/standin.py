"""Who accepts while the master executes itself: a child that has the same listeners, channels, queue and segment.

Owns:    that process, from its fork to its end, and the way on which it hands back.
Never:   outlives the master, unless it is stopped: the end of the way is its end. Speaks to systemd, or to an
         administrator but by the log; tells workers more than that room is wanted (`saturated`); mends or reaps: all
         that waits for the master. Lets two accept at a time, or two move the queue's ledger.
Fails:   never: where it cannot be had, clients wait in the kernel. One that dies or stops costs who was in its hands.
Used by: master.succession (starts it; has it relieved where execve(2) fails), master.main (is it; relieves it).

It stops accepting for good as soon as it cannot pass on at once: no room in the queue or in a channel, no descriptor, a
mutex that a worker died with. Then it is as it was without it.

    master     one byte                        hand back what you have, and go
    stand-in   a HandedBack, with descriptors  or nothing, if it was killed
"""

import contextlib
import functools
import logging
import os
import select
import signal
import socket
from collections.abc import Callable, Sequence
from typing import Final

from pyserver.ipc.queue import Queue
from pyserver.limits import BATCH_MAX, KIB, STAND_IN_WITHIN_S
from pyserver.master import children
from pyserver.master.acceptor import Acceptor
from pyserver.master.handover import HandedBack, HandedConnections, HandedStandIn, Handover
from pyserver.master.listeners import Listener
from pyserver.master.workers import ACTING

log = logging.getLogger("pyserver")

_ORDER: Final = b"!"
_ACCOUNT_MAX_BYTES: Final = 64 * KIB


# -- the master --------------------------------------------------------------------------------------


def start(become: Callable[[socket.socket], int]) -> HandedStandIn | None:
    """Fork it, to be what `become` does with its end of the way; None where it cannot be had."""
    try:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            child = children.spawn(functools.partial(_become, become, ours, theirs))
            os.close(child.pidfd)
            return HandedStandIn(child.pid, ours.detach())
    except OSError as error:
        log.warning("no stand-in (%s): clients wait until the new code accepts", error.strerror)
        return None


def relieve(handed: Handover) -> Handover:
    """Take over from the stand-in, if there is one; return what is handed over, as it is by now."""
    one = handed.stand_in
    if one is None:
        return handed
    with socket.socket(fileno=one.way) as way:
        way.settimeout(STAND_IN_WITHIN_S)
        account, descriptors = _asked(way)
    os.kill(one.pid, signal.SIGKILL)  # our child, and not reaped yet: nobody else can have its number
    os.waitpid(one.pid, 0)
    handed = handed._replace(stand_in=None)
    if account is None:
        log.error("the stand-in that accepted meanwhile is lost, with who was in its hands")
        return handed._replace(unmended=[ACTING, *handed.unmended])
    sent = dict(account.sent)
    connections = list(handed.connections)
    for count, kind, listener, stamp_ns in account.connections:
        mine, descriptors = descriptors[:count], descriptors[count:]
        if mine:
            connections.append(HandedConnections(mine, kind, listener, stamp_ns, counted=True))
    dropped = handed.in_hand + sum(count for count, *_ in account.connections) - _counted(connections)
    if dropped:
        log.error("%d connections of the stand-in are lost: there is no descriptor for them", dropped)
    return handed._replace(
        places=[place._replace(sent=sent[place.slot]) for place in handed.places],
        connections=connections,
        in_hand=_counted(connections),
        pauses=account.pauses,
        saturations=account.saturations,
        unmended=[ACTING, *handed.unmended] if dropped else handed.unmended,
    )


def _asked(way: socket.socket) -> tuple[HandedBack | None, list[int]]:
    try:
        way.send(_ORDER, socket.MSG_NOSIGNAL)
        data, descriptors, _, _ = socket.recv_fds(way, _ACCOUNT_MAX_BYTES, BATCH_MAX)
    except OSError:  # it has stopped, or has gone
        return None, []
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)  # recv_fds() forgets its flags, MSG_CMSG_CLOEXEC among them
    if not data:
        return None, []
    try:
        import json  # noqa: PLC0415  as in master.handover: a start without a reload does without

        return HandedBack(**json.loads(data)), descriptors
    except (TypeError, ValueError, ImportError):
        for descriptor in descriptors:
            os.close(descriptor)
        return None, []


def _counted(connections: Sequence[HandedConnections]) -> int:
    return sum(len(each.descriptors) for each in connections if each.counted)


# -- the stand-in ------------------------------------------------------------------------------------


def _become(become: Callable[[socket.socket], int], ours: socket.socket, theirs: socket.socket) -> int:
    ours.close()
    try:
        return become(theirs)
    except Exception:
        log.exception("the stand-in failed")
        return 1


def serve(
    way: socket.socket, acceptor: Acceptor, queue: Queue, listeners: Sequence[Listener], slots: Sequence[int]
) -> int:
    """Accept and pass on until the master asks for it back, or is no more."""
    index_of = {listener.fileno(): index for index, listener in enumerate(listeners)}
    with select.epoll() as poll:
        poll.register(way.fileno(), select.EPOLLIN)
        acceptor.move(poll)
        while True:
            for descriptor, _events in poll.poll():
                if descriptor == way.fileno():
                    if way.recv(len(_ORDER)):
                        _hand_back(way, acceptor, queue, slots)
                    return 0
                if acceptor.polling:  # another listener, in the same round, may have been the end of that
                    acceptor.accept(index_of[descriptor])


def _hand_back(way: socket.socket, acceptor: Acceptor, queue: Queue, slots: Sequence[int]) -> None:
    import json  # noqa: PLC0415

    carried = acceptor.carried
    account = HandedBack(
        sent=[(slot, queue.number(slot)) for slot in slots],
        connections=[(len(each), message.kind, message.listener, message.stamp_ns) for each, message, _ in carried],
        pauses=acceptor.pauses,
        saturations=acceptor.saturations,
    )
    descriptors = [descriptor for each, *_ in carried for descriptor in each]
    with contextlib.suppress(OSError):  # the master is gone
        socket.send_fds(way, [json.dumps(account._asdict()).encode()], descriptors)
