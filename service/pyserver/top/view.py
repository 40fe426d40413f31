"""What `pyserver top` shows, as lines: of two looks at a server, what happened between them.

Owns:    the rates and percentiles of that time, the order of what is shown, and what gives way where there is no room.
Never:   touches a terminal, a server or a clock.
Used by: top.main.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from pyserver.ipc import stats
from pyserver.ipc.activity import CurrentRequest
from pyserver.ipc.observe import Snapshot, Worker, age, duration, quantiles, size, trouble
from pyserver.limits import NS_PER_S
from pyserver.top.sketch import Frequent, Sketch

_BLANK: Final = [0] * stats.BUCKETS

# Of the events so many always have a place: a death, and the successor.
_EVENTS: Final = 2

KEYS: Final = "q quit   p pause   s sort by: "


class Look(NamedTuple):
    """A server, and when it was looked at."""

    seen: Snapshot
    at: float  # monotonic


class Window:
    """What happened between two looks; nothing is known to have, where there was no earlier one that fits."""

    def __init__(self, before: Look | None, now: Look) -> None:
        """Take two looks at the same server, without a restart between them that began to count anew."""
        if before is not None and (before.seen.since != now.seen.since or before.at >= now.at):
            before = None
        self._before, self._now = before, now
        self.seconds = 0.0 if before is None else now.at - before.at
        self._earlier = {} if before is None else {_life(worker): worker for worker in before.seen.workers}

    def count(self, counter: str) -> int:
        """Return by how much a counter grew."""
        if self._before is None:
            return 0
        return max(0, self._now.seen.totals[counter] - self._before.seen.totals[counter])

    def rate(self, counter: str) -> float:
        """Return that by the second."""
        return self.count(counter) / self.seconds if self.seconds else 0.0

    def rate_of(self, worker: Worker, counter: str) -> float:
        """Return by how much a counter of one worker grew in a second."""
        earlier = self._earlier.get(_life(worker))
        if earlier is None:
            return 0.0
        return max(0, worker.counters[counter] - earlier.counters[counter]) / self.seconds

    def buckets(self, histogram: str) -> list[int]:
        """Return the durations that were added to a histogram."""
        if self._before is None:
            return _BLANK
        pairs = zip(self._now.seen.buckets[histogram], self._before.seen.buckets[histogram], strict=True)
        return [max(0, now - before) for now, before in pairs]


def _life(worker: Worker) -> tuple[int, int, int]:
    return worker.slot, worker.generation, worker.pid


# By what workers are sorted, in the order in which the key goes through them.
_Order = Callable[[Worker, Window], float]
ORDERS: Final[Mapping[str, _Order]] = {
    "worker": lambda worker, _: worker.slot,
    "requests": lambda worker, window: -window.rate_of(worker, "requests"),
    "open": lambda worker, _: -worker.counters["connections_open"],
    "busy": lambda worker, _: -worker.busy,
}


class Line(NamedTuple):
    """A line of the screen."""

    text: str
    style: str = ""  # "head": of a table; "state": of the server


class Sampled(NamedTuple):
    """What is asked for, and by whom, of those lines of the access log that were read."""

    paths: Sketch[str]
    clients: Sketch[str]
    why_not: str = ""  # there is nothing


def lines(
    window: Window, now: Look, sampled: Sampled, *, width: int, height: int, order: str = "worker", paused: bool = False
) -> list[Line]:
    """Return the screen, no larger than it is."""
    seen = now.seen
    top = [*_summary(window, seen, width, paused=paused), *_times(window)]
    events = _events(seen)
    bottom = [*events[-_EVENTS:], Line(KEYS + order, "keys")]
    workers, requests = _workers(window, seen, order), _requests(seen)
    room = height - len(top) - len(bottom) - 3  # heads of tables
    for_workers = min(len(workers), max(2, room // 3))
    for_requests = min(max(1, len(requests)), max(1, (room - for_workers) // 2))
    for_names = room - for_workers - for_requests
    shown = [
        *top,
        Line("worker state       pid  gen     age  requests/s   open  queue  busy  silent", "head"),
        *_cut(workers, for_workers),
        Line("   took in this phase for  sent  client          request, the longest first", "head"),
        *_cut(requests or [Line("   no request is under way for longer than a round")], for_requests),
        *_names(sampled, for_names, width),
    ]
    shown = shown[: max(0, height - len(bottom))]
    spare = height - len(bottom) - len(shown)
    more = events[:-_EVENTS][-spare:] if spare > 0 else []
    shown = [*shown, *[Line("")] * (spare - len(more)), *more, *bottom][-height:]
    return [line._replace(text=line.text[:width]) for line in shown]


def _cut(table: Sequence[Line], room: int) -> list[Line]:
    if len(table) <= room or room < 2:
        return list(table[: max(0, room)])
    return [*table[: room - 1], Line(f"   and {len(table) - room + 1} more")]


def _summary(window: Window, seen: Snapshot, width: int, *, paused: bool) -> list[Line]:
    crew = [worker for worker in seen.workers if worker.crew == seen.crew]
    ready = sum(worker.state == "ready" for worker in crew)
    state = "is gone" if not seen.alive else "stopping" if seen.stopping else "serving"
    said = f"pyserver {state}, {ready}/{len(crew)} workers ready, {seen.restarts} restarted, {seen.reloads} reloads"
    when = "paused" if paused else time.strftime("%H:%M:%S")
    asked = window.count("requests")
    classes = ", ".join(f"{digit}xx {window.rate(f'responses_{digit}xx'):.0f}" for digit in "2345")
    found = [
        Line(f"{said:{max(0, width - len(when) - 1)}} {when}", "state"),
        Line(
            f"requests    {window.rate('requests'):.0f} /s: {classes};"
            f" memo {_share(asked - window.count('memo_misses'), asked)},"
            f" disk {_share(window.count('file_cache_misses'), asked)}"
        ),
        Line(
            f"connections {seen.totals['connections_open']} open, {window.rate('connections'):.0f} new /s,"
            f" {seen.filled_slots} of {seen.capacity} wait in the queue"
            + (f", which was full {seen.saturations} times" if seen.saturations else "")
        ),
        Line(f"traffic     {size(window.rate('bytes_sent'))}/s sent, {size(window.rate('bytes_received'))}/s received"),
    ]
    if what := trouble(seen):
        found.append(Line(f"trouble     {what}"))
    return found


def _times(window: Window) -> list[Line]:
    return [
        Line(f"took        {quantiles(window.buckets('answer_time'))}"),
        Line(f"waited for  {quantiles(window.buckets('queue_wait'))}"),
    ]


def _share(part: int, whole: int) -> str:
    return f"{min(1.0, max(0.0, part / whole)):.1%}" if whole else "-"


def _workers(window: Window, seen: Snapshot, order: str) -> list[Line]:
    by = ORDERS[order]
    return [
        Line(
            f"{worker.slot:>6} {worker.state:8} {worker.pid:>6} {worker.generation:>4} {age(worker.age_s):>7}"
            f" {window.rate_of(worker, 'requests'):>11.0f} {worker.counters['connections_open']:>6}"
            f" {worker.waiting:>6} {worker.busy:>5} {worker.silent_s:>6.1f}s"
        )
        for worker in sorted(seen.workers, key=lambda worker: (by(worker, window), worker.slot))
    ]


def _requests(seen: Snapshot) -> list[Line]:
    current = [request for worker in seen.workers for request in worker.requests]
    return [Line(_request(each)) for each in sorted(current, key=lambda request: -request.took_s)]


def _request(request: CurrentRequest) -> str:
    asked = f"{request.method} {request.target}".strip() or "nothing yet"
    sent = f"{min(1.0, request.sent / request.all_of_it):.0%}" if request.all_of_it else ""
    took, phase = duration(request.took_s * NS_PER_S), duration(request.phase_s * NS_PER_S)
    return f"{took:>7} {request.phase:8} {phase:>8} {sent:>5}  {request.client:15} {asked}"


def _names(sampled: Sampled, room: int, width: int) -> list[Line]:
    """Return what is asked for most, and beside it who asks most."""
    half = width // 2
    found = [Line(f"{'share  paths, of the last seconds':{half}}share  clients", "head")]
    if sampled.why_not or not sampled.paths.total:
        return [*found, Line(f"   {sampled.why_not or 'nothing was logged'}")][: max(0, room + 1)]
    paths, clients = (sketch.most(max(0, room)) for sketch in (sampled.paths, sampled.clients))
    for row in range(max(len(paths), len(clients))):
        left = _name(paths, row, sampled.paths.total)[: half - 1]
        found.append(Line(f"{left:{half}}{_name(clients, row, sampled.clients.total)}"))
    return found


def _name(names: Sequence[Frequent[str]], row: int, total: float) -> str:
    if row >= len(names):
        return ""
    # What it surely is: a name that only just came in the place of another may have none of what that had.
    share = max(0.0, names[row].times - names[row].excess) / total
    return f"{share:>5.1%}  {names[row].name}"


def _events(seen: Snapshot) -> list[Line]:
    return [
        Line(f"{time.strftime('%H:%M:%S', time.localtime(event.at))}  {event.kind}: {event.text}")
        for event in seen.events
    ]
