"""What the master hands to itself when it executes itself anew: which descriptor is what, and what it had in mind.

Owns:    the document of that, JSON in a memory file whose number is in the environment; the execve(2).
Never:   carries what stands in the segment, which is handed over as it is, or trusts a document of another layout.
Fails:   Foreign, one line, when the document or the segment is of a version that this one does not know; OSError from
         execve(2), with everything as before.
Used by: master.main, master.succession, master.reload, master.rehearsal, master.standin; master.workers (a place).

Through execve(2) go: the process id and so the children, the record lock on the segment, the signal mask and the
signals that wait, the environment, and the descriptors that are not close-on-exec.
"""

import os
import sys
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any, Final, NamedTuple, NoReturn

from pyserver import __version__
from pyserver.ipc import activity, lengths, messages, notes, segment
from pyserver.ipc.stats import BUCKETS, COUNTERS, HISTOGRAMS

VARIABLE: Final = "PYSERVER_HANDOVER"
REHEARSAL: Final = "PYSERVER_REHEARSAL"


class Foreign(Exception):
    """What was handed over is of another version; the text is one line for the administrator."""


class HandedListener(NamedTuple):
    """A listener."""

    name: str
    descriptor: int
    adopted: bool


class HandedPlace(NamedTuple):
    """A place of a worker, with its process and both ends of its channel."""

    slot: int
    crew: int
    state: int
    generation: int
    since: float
    spawned_at: float
    early_deaths: int
    not_before: float
    drain_by: float
    pid: int  # 0: no process
    sent: int
    master_end: int
    worker_end: int


class HandedConnections(NamedTuple):
    """Connections that no channel had room for."""

    descriptors: list[int]
    kind: int
    listener: int
    stamp_ns: int
    counted: bool  # room in the queue is taken for them


class HandedStandIn(NamedTuple):
    """The process that accepts meanwhile (master.standin)."""

    pid: int
    way: int  # the descriptor to relieve it by


class HandedBack(NamedTuple):
    """What a stand-in hands back, beside the descriptors of connections; it is of the version before."""

    sent: list[tuple[int, int]]  # slot, and connections ever put into its channel
    connections: list[tuple[int, int, int, int]]  # how many, kind, listener, stamp
    pauses: int
    saturations: int


# Everything that two versions must agree upon to share a segment, channels and this document.
LAYOUT: Final[list[Any]] = [
    2,  # of the document: more by one whenever a field changes its meaning
    [segment.VERSION, list(segment.HEADER), list(segment.ROW), [counter.name for counter in COUNTERS]],
    [BUCKETS, [histogram.name for histogram in HISTOGRAMS]],
    [activity.THREAD_WORDS, activity.REQUEST_WORDS, activity.WORDS, notes.WORDS, lengths.WORDS],
    [messages.VERSION, messages.LAYOUT.format, {kind.name: int(kind) for kind in messages.Kind}],
    list(HandedBack._fields),
]


class Handover(NamedTuple):
    """All of it."""

    version: str  # of who wrote it
    began: float  # monotonic: the reload
    ticked: (
        float  # monotonic: the last tick; lives may follow each other faster than ticks, and systemd wants its pings
    )
    crew: int  # that serves
    listeners: list[HandedListener]
    control: HandedListener | None
    segment: str
    segment_descriptors: list[int]
    slots: int
    capacity: int
    in_hand: int
    places: list[HandedPlace]
    connections: list[HandedConnections]
    owed: list[tuple[int, int]]
    unmended: list[int]
    replaced: list[int]
    restarts: int
    requests: int
    pauses: int
    saturations: int
    listen: list[str]  # addresses that were bound
    waiting: list[int]  # who asked for this reload
    waiting_next: list[int]  # who asked for one since
    again: bool  # whether there shall be another
    stand_in: HandedStandIn | None = None

    def claim(self) -> None:
        """Make every descriptor close-on-exec again."""
        for descriptor in self.descriptors():
            os.set_inheritable(descriptor, False)

    def descriptors(self) -> list[int]:
        """Return every descriptor in it."""
        found = [*self.segment_descriptors, *self.waiting, *self.waiting_next]
        found += [each.descriptor for each in self.listeners]
        if self.control is not None:
            found.append(self.control.descriptor)
        for place in self.places:
            found += [place.master_end, place.worker_end]
        for each in self.connections:
            found += each.descriptors
        if self.stand_in is not None:
            found.append(self.stand_in.way)
        return found


def write(handover: Handover) -> int:
    """Return a memory file with the document in it, close-on-exec."""
    import json  # noqa: PLC0415  at a reload; a server that starts does without

    document = {
        "layout": LAYOUT,
        **handover._asdict(),
        "listeners": [each._asdict() for each in handover.listeners],
        "control": None if handover.control is None else handover.control._asdict(),
        "places": [each._asdict() for each in handover.places],
        "connections": [each._asdict() for each in handover.connections],
        "stand_in": None if handover.stand_in is None else handover.stand_in._asdict(),
    }
    descriptor = os.memfd_create("pyserver-handover", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "wb", closefd=False) as file:
        file.write(json.dumps(document).encode())
    return descriptor


def receive(environ: MutableMapping[str, str]) -> Handover | None:
    """Return what was handed to this process, and close the document; None at a start. Raises Foreign."""
    number = environ.pop(VARIABLE, "")
    if not number:
        return None
    import json  # noqa: PLC0415  as above

    with os.fdopen(int(number), "rb") as file:
        file.seek(0)
        document = json.load(file)
    return understood(document)


def understood(document: dict[str, Any]) -> Handover:
    """Return the document as values; raises Foreign."""
    if document.pop("layout", None) != LAYOUT:
        version = document.get("version")
        raise Foreign(f"version {version} has other things in shared memory than {__version__}: that takes a restart")
    control, stand_in = document["control"], document["stand_in"]
    return Handover(
        **{
            **document,
            "listeners": [HandedListener(**each) for each in document["listeners"]],
            "control": None if control is None else HandedListener(**control),
            "places": [HandedPlace(**each) for each in document["places"]],
            "connections": [HandedConnections(**each) for each in document["connections"]],
            "owed": [(slot, kind) for slot, kind in document["owed"]],
            "stand_in": None if stand_in is None else HandedStandIn(**stand_in),
        }
    )


def command() -> list[str]:
    """Return the command line that made this process, interpreter included."""
    return [sys.executable, *sys.orig_argv[1:]]


def execute(descriptors: Iterable[int], environ: Mapping[str, str]) -> NoReturn:
    """Become the program that this was started as, with these descriptors; raises OSError."""
    descriptors = list(descriptors)
    for descriptor in descriptors:
        os.set_inheritable(descriptor, True)
    try:
        os.execve(sys.executable, command(), {**environ})  # noqa: S606  # nosec B606  # there is no shell in it
    finally:
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
