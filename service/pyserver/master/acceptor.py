"""Accept clients and pass each on to a worker; when there is no room, stop, and let the kernel's backlog hold them.

Owns:    the listeners while it serves them, and each client's descriptor from accept until a channel took it.
Never:   looks at a client's bytes, blocks, spins: whenever it cannot go on it stops polling, and something (a message
         ROOM, a worker that becomes ready, a channel that drains, a timer) makes it look again.
Used by: master.main, which gives it the poll set; master.succession, master.stopping, master.stored,
         master.standin.
"""

import errno
import logging
import os
import select
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from pyserver import backlog
from pyserver.ipc.assignment import ADMIN
from pyserver.ipc.channel import Channel, Full, Gone, Kind, Message
from pyserver.ipc.queue import Queue
from pyserver.ipc.semaphores import Stuck
from pyserver.limits import ACCEPT_PAUSE_S, ACCEPT_ROUNDS, BATCH_MAX, NS_PER_S, PAUSE_TOLD_EVERY_S
from pyserver.master.balancer import share
from pyserver.master.listeners import Listener

log = logging.getLogger("pyserver")

# accept(2) reports what went wrong with a client that is gone already: aborted, refused by a firewall, or an error of
# the network. It is out of the backlog, and the next one is not affected.
_CLIENT_GONE: Final = frozenset(
    {
        errno.ECONNABORTED,
        errno.EPERM,
        errno.EPROTO,
        errno.ENOPROTOOPT,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENONET,
        errno.EOPNOTSUPP,
        errno.ETIMEDOUT,
    }
)

# Ours, the system's descriptors or the kernel's memory are used up: it passes, and polling on would spin.
_SHORTAGE: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Acceptor:
    """The way of a connection through the master."""

    def __init__(
        self,
        listeners: list[Listener],
        queue: Queue,
        channels: Mapping[int, Channel],
        poll: select.epoll,
        loads: Callable[[], dict[int, int]],
    ) -> None:
        self._listeners = listeners
        # Administrators come first, who look when there is too much of all else: listeners that are ready are reported
        # in the order in which they were registered, and where there is little room the first one takes it.
        self._order = sorted(range(len(listeners)), key=lambda index: listeners[index].name != ADMIN)
        self._queue = queue
        self._channels = channels
        self._poll = poll
        self._loads = loads  # ready slot -> connections waiting and open
        self._turn = 0
        self._unfit: set[int] = set()  # listeners that accept(2) refuses for good
        self._behind: set[int] = set()  # listeners in whose backlog somebody may have waited since we looked last
        self._polling = False
        self._saturated = False
        self._resume_at = 0.0  # monotonic; 0: not paused
        self._stuck = False  # during this pause the queue's mutex is not to be had
        self._held: list[tuple[list[int], Message]] = []  # accepted, and no channel had room
        self._returned: list[tuple[list[int], Message]] = []  # by workers that leave; no room is taken for them yet
        # Given back to the process while accept() finds no descriptor, so that it can still act (T-52).
        self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._tell_at = 0.0  # when a pause is worth a line in the log again
        self.accepted = [0] * len(listeners)  # clients, ever, of each listener
        self.pauses = 0
        self.saturations = 0

    # -- what the main loop calls ------------------------------------------------------------

    def move(self, poll: select.epoll) -> None:
        """Go on with another poll set: in a forked child, whose parent's this would change."""
        self._poll, self._polling = poll, False
        self.look_again()

    @property
    def polling(self) -> bool:
        """Whether the listeners are polled: a client could be taken, and nothing is in our hands."""
        return self._polling

    def accept(self, listener: int) -> bool:
        """Take what waits at a listener, a bounded amount at a time, and pass it on; tell whether more may wait."""
        if not self._listeners:  # finish() came in the same round of events as this client
            return False
        # A client has woken us. Where a worker runs on this core, let it do what it has: then those who come meanwhile
        # are passed on together. If nobody else wants the core, this returns at once (sched_yield(2)).
        os.sched_yield()
        for _ in range(ACCEPT_ROUNDS):
            behind = listener in self._behind
            batch = self._accept_batch(listener)
            if batch:
                now_ns = time.monotonic_ns()
                waited = backlog.untouched(batch[0]) if behind else None  # the oldest
                self._pass_on(batch, listener, now_ns - int((waited or 0.0) * NS_PER_S))
            if len(batch) < BATCH_MAX or self._stopped:
                return False
        return True

    def look_again(self) -> None:
        """Something changed: pass on what is held, then poll the listeners exactly if a client could be taken."""
        if self._resume_at and time.monotonic() >= self._resume_at:
            self._resume_at, self._stuck = 0.0, False
            if self._spare < 0:
                self._take_spare()
        if self._held and not self._resume_at:
            self._pass_on_held()
        if self._saturated and self._queue.room:
            self._saturated = False
            self._queue.room_told()
        if self._returned:
            self._pass_on_returned()
        self._set_polling(not self._stopped and bool(self._loads()))

    @property
    def _stopped(self) -> bool:
        return self._saturated or bool(self._resume_at) or bool(self._held) or bool(self._returned)

    @property
    def wake_at(self) -> float | None:
        """When look_again() wants to be called at the latest, on the monotonic clock."""
        return self._resume_at or None

    def take_back(self, descriptors: list[int], message: Message) -> None:
        """Take connections that a worker gave back, to pass them on to others."""
        self._returned.append((descriptors, message))
        self._pass_on_returned()

    def give_up_returned(self) -> list[tuple[list[int], Message]]:
        """Return, to be left to others, what was given back and not passed on."""
        returned, self._returned = self._returned, []
        return returned

    @property
    def laden(self) -> bool:
        """Whether something that was given back could not be passed on yet: no more should be taken back."""
        return bool(self._returned)

    @property
    def carried(self) -> list[tuple[list[int], Message, bool]]:
        """What is in our hands, and whether room is taken for it."""
        return [(*each, True) for each in self._held] + [(*each, False) for each in self._returned]

    def carry_on(self, descriptors: list[int], message: Message, *, counted: bool) -> None:
        """Take up what was in our hands in an earlier life, or waited for a worker that nobody follows."""
        (self._held if counted else self._returned).append((descriptors, message))

    def finish(self) -> None:
        """Take no more. What waits in the backlog of a listener that dies with us is still taken, as far as it goes."""
        self._set_polling(polling=False)
        for index, listener in enumerate(self._listeners):
            while not listener.adopted and index not in self._unfit and self._more(index):
                pass
            listener.close()
        self._listeners, self._order = [], []
        for descriptors, _ in self._returned:  # they wait between two requests: it is their end
            _close_all(descriptors)
        self._returned = []

    def close(self) -> None:
        """Close everything, with what is still held: for the forked child, and for the end."""
        for listener in self._listeners:
            listener.socket.close()
        for descriptors, _ in (*self._held, *self._returned):
            _close_all(descriptors)
        if self._spare >= 0:
            os.close(self._spare)

    @property
    def held(self) -> int:
        """Connections that were accepted and wait for a channel with room."""
        return sum(len(descriptors) for descriptors, _ in self._held)

    # -- steps ----------------------------------------------------------------------------------

    def _more(self, index: int) -> bool:
        """Accept as far as it goes; tell whether it goes on: what accept() takes is who waited as it looked."""
        return self.accept(index) or bool(not self._stopped and backlog.held(self._listeners[index].socket)[0])

    def _accept_batch(self, index: int) -> list[int]:
        """Return the descriptors of up to BATCH_MAX clients, each with room taken for it."""
        listener = self._listeners[index].socket
        # An accept(2) that finds nobody costs as much as one that does: the kernel makes a socket first. Where it is
        # reported and nobody waits, accept(2) says why: another was faster, or the listener was shut down (0 may).
        waiting, may = backlog.held(listener)
        most = max(1, min(waiting, BATCH_MAX)) if may else BATCH_MAX
        all_of_them = may > 0 and waiting <= BATCH_MAX
        # socket.accept() would wrap each client in an object, only for the descriptor to be taken out again.
        accept = listener._accept  # type: ignore[attr-defined]  # noqa: SLF001
        batch: list[int] = []
        room = 0  # taken, and not for one in the batch
        self._behind.add(index)
        while len(batch) < most:
            if not room:
                room = self._queue.take_room(most - len(batch) if may else 1)
                if not room:
                    self._stop_until_room()
                    if self._saturated:
                        all_of_them = False
                        break
                    continue
            try:
                descriptor, _address = accept()
            except BlockingIOError:
                all_of_them = True
                break
            except OSError as error:
                if error.errno in _CLIENT_GONE:
                    continue
                if error.errno in _SHORTAGE:
                    self._pause(error)
                else:
                    self._leave_alone(index, error)
                all_of_them = False
                break
            room -= 1
            batch.append(descriptor)
            if len(batch) == most and may and most < BATCH_MAX:
                more, _ = backlog.held(listener)  # who came meanwhile: the larger the batch, the less it costs for each
                most = min(most + more, BATCH_MAX)
                all_of_them = more <= BATCH_MAX - len(batch)
        if room:
            self._queue.return_room(room)
        if all_of_them:
            self._behind.discard(index)
        self.accepted[index] += len(batch)
        return batch

    def _pass_on(self, batch: list[int], listener: int, stamp_ns: int, kind: Kind = Kind.CONNECTIONS) -> None:
        """Share a batch out over the ready workers."""
        loads = self._loads()
        at = 0
        for slot, count in share(loads, len(batch), self._turn):
            self._send([*batch[at : at + count]], Message(kind, 0, listener, count, 0, stamp_ns), slot)
            at += count
            self._turn = slot + 1
        if at < len(batch):  # no worker is ready: one died a moment ago
            rest = batch[at:]
            self._hold(rest, Message(kind, 0, listener, len(rest), 0, stamp_ns))

    def _send(self, descriptors: list[int], message: Message, slot: int) -> None:
        """Send to `slot`, or to any other worker whose channel has room, or hold."""
        if self._stuck:  # it would be waited for once for each share, and nobody else is seen to meanwhile
            self._hold(descriptors, message)
            return
        for each in self._from(slot):
            try:
                number = self._queue.publish(each, len(descriptors))
            except Stuck:
                # A worker stands still (SIGSTOP) in the few microseconds that it holds the mutex. The watch over
                # heartbeats will end it; until then the clients wait here.
                self._rest()
                self._stuck = True
                break
            try:
                self._channels[each].master_end.send(message.numbered(number), descriptors)
            except (Full, Gone):
                self._queue.withdraw(each, len(descriptors))
                continue
            except OSError as error:
                # ETOOMANYREFS: too many of our descriptors are under way (unix(7)); it passes as workers take them.
                self._queue.withdraw(each, len(descriptors))
                self._pause(error)
                break
            _close_all(descriptors)
            return
        self._hold(descriptors, message)

    def _from(self, slot: int) -> Iterator[int]:
        """Yield `slot`, and then, if that was not enough, the others that are ready."""
        yield slot
        yield from (each for each in self._loads() if each != slot)

    def _hold(self, descriptors: list[int], message: Message) -> None:
        self._held.append((descriptors, message))
        self._set_polling(polling=False)
        if not self._loads():  # we are told when a worker is ready, and look again then
            return
        # Channels are not polled for writing: workers that take something say so, when they are asked to.
        if self._queue.want_room() and not self._resume_at:
            self._resume_at = time.monotonic() + ACCEPT_PAUSE_S

    def _pass_on_held(self) -> None:
        held, self._held = self._held, []
        for descriptors, message in held:
            loads = self._loads()
            if loads:
                self._send(descriptors, message, min(loads, key=loads.__getitem__))
            else:
                self._held.append((descriptors, message))

    def _pass_on_returned(self) -> None:
        """Pass on what was given back, as far as there is room in the queue."""
        while self._returned and not (self._saturated or self._resume_at or self._held):
            descriptors, message = self._returned.pop(0)
            room = self._queue.take_room(len(descriptors))
            batch, rest = descriptors[:room], descriptors[room:]
            if batch:
                self._pass_on(batch, message.listener, message.stamp_ns, message.kind)
            if rest:
                self._returned.insert(0, (rest, message))
                self._stop_until_room()

    def _stop_until_room(self) -> None:
        """Stop polling because the queue is full, unless room appears this very moment."""
        if self._queue.want_room():
            return
        self._saturated = True
        self.saturations += 1
        self._set_polling(polling=False)

    def _pause(self, error: OSError) -> None:
        """Rest for a moment; the clients wait in the backlog."""
        if not self._resume_at:
            self.pauses += 1
            now = time.monotonic()
            if now >= self._tell_at:  # it can go on for hours, ten times a second
                self._tell_at = now + PAUSE_TOLD_EVERY_S
                log.warning(
                    "no descriptor for a client (%s), accepting again in %.1f s (pause %d)",
                    error.strerror, ACCEPT_PAUSE_S, self.pauses,
                )  # fmt: skip
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1
        self._rest()

    def _leave_alone(self, index: int, error: OSError) -> None:
        """Poll a listener no more that cannot be accepted from: whoever shares it has shut it down."""
        self._unfit.add(index)
        log.error(
            "%s takes no clients any more (%s); open it anew by a restart of its .socket unit, or of the service",
            self._listeners[index], error.strerror,
        )  # fmt: skip
        if self._polling:
            self._poll.unregister(self._listeners[index].fileno())

    def _rest(self) -> None:
        self._resume_at = time.monotonic() + ACCEPT_PAUSE_S
        self._set_polling(polling=False)

    def _take_spare(self) -> None:
        try:
            self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._spare = -1

    def _set_polling(self, polling: bool) -> None:  # noqa: FBT001
        if polling == self._polling:
            return
        self._polling = polling
        for index in self._order:
            if index in self._unfit:
                continue
            if polling:
                self._poll.register(self._listeners[index].fileno(), select.EPOLLIN)
            else:
                self._poll.unregister(self._listeners[index].fileno())


def _close_all(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
