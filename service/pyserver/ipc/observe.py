"""One look at a server through its segment, from outside: also when it hangs, and without asking it.

Owns:    the words and the JSON of `pyserver status`.
Never:   writes into the segment or takes a mutex: a reader may have no right to, and may be killed. Consistency of
         the totals is by the fold counter, which is odd while they change.
Fails:   exit status 1 with one line on stderr when no server is found, several are, or one cannot be read.
Used by: cli; ipc.control (which server).
"""

import json
import re
import sys
import textwrap
import time
from pathlib import Path
from typing import Final, NamedTuple

from pyserver import sandbox
from pyserver.ipc import segment as segments
from pyserver.ipc import stats
from pyserver.ipc.segment import HEADER, TOTALS, Segment, SegmentError

_NS: Final = 1_000_000_000

# The version of the JSON document: it grows by new keys, and changes its number if a key goes or changes its meaning.
SCHEMA: Final = 1

# So often the totals change while we look only if somebody writes there who should not (T-61): workers die singly.
_FOLDS_MAX: Final = 100

# What is told of a distribution, by its name in the document.
QUANTILES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}

# master.supervisor.State, by number; the package of the master is not for readers.
STATES: Final = ("empty", "starting", "ready", "draining", "aborted", "killed")


class Worker(NamedTuple):
    """One worker slot."""

    slot: int
    crew: int
    state: str
    pid: int
    generation: int
    age_s: float
    silent_s: float  # since its last sign of life
    waiting: int  # connections in its channel
    counters: dict[str, int]


class Snapshot(NamedTuple):
    """A whole server at one moment."""

    name: str
    alive: bool  # its master is there
    stopping: bool
    master_pid: int
    since: int  # wall clock, seconds: the totals count from here
    capacity: int
    empty_slots: int  # room in the queue
    filled_slots: int  # connections waiting
    in_hand: int  # connections between accept and channel
    restarts: int
    accept_pauses: int
    saturations: int
    protections: dict[str, bool]  # of the sandbox that the master is in
    crew: int  # the one that serves
    reloads: int
    reloaded: int  # wall clock, seconds: the last reload; 0: none
    totals: dict[str, int]
    buckets: dict[str, list[int]]  # of each histogram
    workers: list[Worker]

    @property
    def ready(self) -> bool:
        """Whether it serves with every worker that it shall have."""
        crew = [worker for worker in self.workers if worker.crew == self.crew]
        return self.alive and not self.stopping and bool(crew) and all(worker.state == "ready" for worker in crew)


def snapshot(segment: Segment, *, alive: bool = True) -> Snapshot:
    """Read everything; the totals are of one moment, the rest is as near as single reads come."""
    words, now_ns = segment.words, time.monotonic_ns()
    totals, rows, buckets = _counters(segment)

    def header(name: str) -> int:
        return words[HEADER[name]]

    workers = []
    for slot in range(segment.slots):
        at = {name: words[segment.row(slot, name)] for name in segments.ROW}
        if not at["crew"]:
            continue
        running = at["state"] != 0
        workers.append(
            Worker(
                slot=slot,
                crew=at["crew"],
                state=STATES[at["state"]] if at["state"] < len(STATES) else str(at["state"]),
                pid=at["pid"] if running else 0,
                generation=at["generation"],
                age_s=max(0, now_ns - at["since_ns"]) / _NS if running else 0.0,
                silent_s=max(0, now_ns - (at["beat_ns"] or at["since_ns"])) / _NS if running else 0.0,
                waiting=max(0, at["sent"] - at["received"]),
                counters=rows[slot],
            )
        )
    filled, in_hand = sum(worker.waiting for worker in workers), header("in_hand")
    return Snapshot(
        name=segment.name,
        alive=alive,
        stopping=header("master_state") != 0,
        master_pid=header("master_pid"),
        since=header("since"),
        capacity=header("capacity"),
        empty_slots=max(0, header("capacity") - filled - in_hand),
        filled_slots=filled,
        in_hand=in_hand,
        restarts=header("restarts"),
        accept_pauses=header("accept_pauses"),
        saturations=header("saturations"),
        protections=sandbox.by_name(header("protections")),
        crew=header("crew"),
        reloads=header("reloads"),
        reloaded=header("reloaded"),
        totals=totals,
        buckets=buckets,
        workers=workers,
    )


def _counters(segment: Segment) -> tuple[dict[str, int], list[dict[str, int]], dict[str, list[int]]]:
    """Return totals, rows and histograms from a moment when nothing was being folded.

    Only a master that has stopped in the middle of it, and stays there for 50 ms, is not waited for. That we were late
    ourselves is no reason to believe what was torn. Nor is what no master does waited for: to fold for ever.
    """
    words, fold = segment.words, HEADER["fold"]
    rows_at = [segment.counters(slot) for slot in range(segment.slots)]
    seen, end, changes = -1, 0.0, 0
    while True:
        before = words[fold]
        found = (*stats.read(words, TOTALS, rows_at), stats.read_buckets(words, TOTALS, rows_at))
        same = words[fold] == before
        if same and (before % 2 == 0 or (before == seen and time.monotonic() > end)):
            return found
        changes += before != seen
        if changes > _FOLDS_MAX:
            return found
        if before != seen:
            seen, end = before, time.monotonic() + 0.05
        time.sleep(0.001)


# -- the command --------------------------------------------------------------------------------


def main(name: str | None, as_json: bool) -> int:  # noqa: FBT001
    """Print the server's state; return the exit status."""
    try:
        chosen, alive = choose(name)
        segment = Segment.attach(chosen)
    except SegmentError as error:
        print(f"pyserver: {error}", file=sys.stderr)
        return 1
    seen = snapshot(segment, alive=alive)
    segment.close()
    print(as_document(seen) if as_json else as_text(seen))
    return 0


def choose(name: str | None) -> tuple[str, bool]:
    """Return the segment to look at, and whether its server lives."""
    there = dict(segments.found())
    if name is not None:
        wanted = next((each for each in there if there[each] and instance_of(each) == name), "/" + name.lstrip("/"))
        if wanted not in there:
            known = ", ".join(map(_shown, there)) or "none"
            raise SegmentError(f"no segment {name!r} that we may read; there are: {known}")
        return wanted, there[wanted]
    living = [each for each, alive in there.items() if alive]
    if not living:
        raise SegmentError("no running pyserver whose segment we may read (root and the group pyserver may)")
    if len(living) > 1:
        known = ", ".join(map(_shown, living))
        raise SegmentError(f"several servers are running, choose one with --name: {known}")
    return living[0], True


def instance_of(segment: str) -> str:
    """Return the name of the instance whose segment this is (server.instance): its master has it in its title."""
    pid = segment.removeprefix("/pyserver.").partition("-")[0]
    try:
        title = Path("/proc", pid, "cmdline").read_text(errors="replace")
    except OSError:
        return ""
    found = re.match(r"pyserver@([^:]+): master", title)
    return found[1] if found else ""


def _shown(segment: str) -> str:
    instance = instance_of(segment)
    return segment.lstrip("/") + (f" ({instance})" if instance else "")


def as_document(seen: Snapshot) -> str:
    """Return the snapshot as JSON."""
    values = seen._asdict()
    del values["buckets"]
    times = {name: _times(buckets, seen.totals[name]) for name, buckets in seen.buckets.items()}
    workers = [worker._asdict() for worker in seen.workers]
    document = {"schema": SCHEMA, **values, "ready": seen.ready, "times": times, "workers": workers}
    return json.dumps(document, indent=2)


def _times(buckets: list[int], sum_ns: int) -> dict[str, float | int | None]:
    quantiles = {name: stats.quantile(buckets, share) for name, share in QUANTILES.items()}
    return {
        "count": sum(buckets),
        "sum_s": sum_ns / _NS,
        **{f"{name}_s": None if found is None else found / _NS for name, found in quantiles.items()},
    }


def as_text(seen: Snapshot) -> str:
    """Return the snapshot for a person, within 80 columns."""
    totals = seen.totals
    state = "stopping" if seen.stopping else "serving"
    crew = [worker for worker in seen.workers if worker.crew == seen.crew]
    ready = sum(worker.state == "ready" for worker in crew)
    wait, took = seen.buckets["queue_wait"], seen.buckets["answer_time"]
    wait_ms = totals["queue_wait"] / max(1, sum(wait)) / 1e6
    told = min(totals["memo_misses"], totals["requests"])
    answers = ", ".join(f"{digit}xx {totals[f'responses_{digit}xx']}" for digit in "2345")
    workers = f"{ready}/{len(crew)} workers ready, {seen.restarts} restarted"
    queue = f"{seen.filled_slots} waiting, {seen.empty_slots} of {seen.capacity} free; mean wait {wait_ms:.2f} ms"
    lines = [
        f"pyserver {state if seen.alive else 'is gone'}, master {seen.master_pid}, {workers}",
        f"queue       {queue}" + (f"; full {seen.saturations} times" if seen.saturations else ""),
        f"connections {totals['connections_open']} open, {totals['connections']} since {_when(seen.since)}",
        f"waited for  {_quantiles(wait)}",
        f"requests    {totals['requests']}: {answers}",
        f"took        {_quantiles(took)}",
        f"memo        {totals['requests'] - told} of {totals['requests']} requests",
        f"traffic     {_bytes(totals['bytes_sent'])} sent, {_bytes(totals['bytes_received'])} received",
    ]
    lines += textwrap.wrap(
        sandbox.told(seen.protections), 80, initial_indent="sandbox     ", subsequent_indent=" " * 12
    )
    if seen.reloads:
        lines.append(f"reloads     {seen.reloads}, the last {_when(seen.reloaded)}")
    trouble = {
        "ended by a deadline": totals["deadlines"],
        "connections over a client's limit": totals["limited_open"] + totals["limited_connections"],
        "requests over a client's limit": totals["limited_requests"],
        "lost": totals["connections_lost"],
        "errors of ours": totals["failures"],
        "log lines dropped": totals["log_lines_dropped"],
        "pauses without descriptors": seen.accept_pauses,
    }
    if any(trouble.values()):
        text = ", ".join(f"{count} {what}" for what, count in trouble.items() if count)
        lines += textwrap.wrap(text, 80, initial_indent="trouble     ", subsequent_indent=" " * 12)
    lines.append("worker state         pid  gen      age  silent  queue   open     requests")
    lines.extend(
        f"{worker.slot:>6} {worker.state:8} {worker.pid:>8} {worker.generation:>4} {_age(worker.age_s):>8}"
        f" {worker.silent_s:>6.1f}s {worker.waiting:>6} {worker.counters['connections_open']:>6}"
        f" {worker.counters['requests']:>12}"
        for worker in seen.workers
    )
    return "\n".join(lines)


def _quantiles(buckets: list[int]) -> str:
    found = [(f"{share:.1%}".replace(".0%", "%"), stats.quantile(buckets, share)) for share in QUANTILES.values()]
    return ", ".join(f"{share} {'-' if value is None else _duration(value)}" for share, value in found)


def _duration(ns: float) -> str:
    for limit, divisor, unit in ((999.5, 1e3, "µs"), (999.5e3, 1e6, "ms")):
        if ns < limit * 1e3:
            return f"{ns / divisor:.3g} {unit}"
    return f"{ns / 1e9:.3g} s"


def _when(second: int) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
    except (OverflowError, ValueError, OSError):  # no time of ours: others can write there (T-61)
        return f"second {second}"


def _age(seconds: float) -> str:
    for limit, divisor, unit in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / divisor:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
