"""What is around an object of the master: a segment, a queue, places and channels, a listener, a socket for systemd."""

import os
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

from pyserver.config import Address
from pyserver.ipc.assignment import Origin
from pyserver.ipc.queue import Queue
from pyserver.ipc.segment import Segment
from pyserver.master.acceptor import Acceptor
from pyserver.master.backlogs import Backlogs
from pyserver.master.handover import HandedStandIn, Handover
from pyserver.master.listeners import adopt_or_bind
from pyserver.master.pollset import PollSet
from pyserver.master.reload import Reload
from pyserver.master.standing import Standing
from pyserver.master.supervisor import Event, State
from pyserver.master.workers import Workers
from pyserver.sd.notify import Notifier

SLOTS = 4

WAY: Final[dict[State, tuple[Event, ...]]] = {
    State.EMPTY: (),
    State.STARTING: ("spawned",),
    State.READY: ("spawned", "ready"),
    State.DRAINING: ("spawned", "drain"),
    State.ABORTED: ("spawned", "hung"),
    State.KILLED: ("spawned", "killed"),
}


class Around:
    """Workers with what is around them in the master."""

    def __init__(self, opened: ExitStack, capacity: int = 16) -> None:
        self.segment = Segment.create(SLOTS, capacity)
        opened.callback(self.segment.close)
        self.queue = Queue.create(self.segment, capacity)
        opened.callback(self.queue.close)
        self.poll = PollSet()
        opened.callback(self.poll.close)
        self.reports: list[int] = []
        self.ended: list[tuple[int, str]] = []
        self.workers = Workers(
            self.segment, self.queue, None, self.poll, on_report=self.reports.append, on_exit=self._on_exit
        )
        opened.callback(self.workers.close)
        self.listeners = adopt_or_bind({}, [Address.parse("127.0.0.1:0")])
        opened.callback(self.listeners[0].close)
        self.acceptor = Acceptor(self.listeners, self.queue, self.workers.channels, self.poll.epoll, self.workers.loads)
        opened.callback(self.acceptor.close)
        self.backlogs = Backlogs(self.listeners, self.queue, self.segment, self.acceptor.accepted, 30.0, ())
        self.manager = opened.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        self.manager.bind("")  # an abstract name that is free
        self.manager.setblocking(False)
        self.notifier = Notifier({"NOTIFY_SOCKET": "@" + self.manager.getsockname()[1:].decode()})
        opened.callback(self.notifier.close)
        self.origins = [Origin("http", socket.AF_INET)]
        self.reload = Reload(self.notifier, 10.0, None)
        self.standing = Standing(self.queue, self.workers, self.reload, self.notifier)

    def _on_exit(self, slot: int) -> None:
        reaped = self.workers.reap(slot)
        if reaped is not None:
            self.ended.append((slot, reaped[1]))
            self.workers.happened(self.workers.places[slot], "exited", time.monotonic())

    def enlist(self, crew: int, *states: State) -> None:
        """Make a crew whose places stand so, as far as that takes no process."""
        self.workers.enlist(crew, len(states))
        for place, state in zip(self.workers.of(crew), states, strict=True):
            for event in WAY[state]:
                self.workers.happened(place, event, time.monotonic())

    def told(self) -> list[str]:
        """What systemd was told since this was asked last, with as many descriptors as came along."""
        got: list[str] = []
        while True:
            try:
                text, descriptors, _, _ = socket.recv_fds(self.manager, 8192, 100)
            except BlockingIOError:
                return got
            for descriptor in descriptors:
                os.close(descriptor)
            got.append(text.decode() + (f" +{len(descriptors)}" if descriptors else ""))

    def word(self, slot: int, field: str) -> int:
        return self.segment.words[self.segment.row(slot, field)]

    def turn_until(self, condition: Callable[[], object]) -> None:
        until = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < until
            self.poll.by(time.monotonic() + 0.1)
            self.poll.turn()
            self.poll.due = float("inf")

    def handed_over(self, *, stand_in: HandedStandIn | None = None) -> Handover:
        """All that a next life of this process has to know, but for listeners and the descriptors of the segment."""
        return Handover(
            version="1",
            ticked=0.0,
            crew=self.workers.crew,
            listeners=[],
            control=None,
            segment=self.segment.name,
            segment_descriptors=[],
            slots=SLOTS,
            capacity=self.queue.capacity,
            in_hand=self.queue.in_hand,
            places=self.workers.handed(),
            connections=[],
            owed=[],
            unmended=[],
            replaced=[],
            restarts=0,
            requests=0,
            pauses=0,
            saturations=0,
            listen=[],
            stand_in=stand_in,
            **self.reload.handed(),  # type: ignore[arg-type]
        )
