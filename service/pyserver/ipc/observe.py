"""One look at a server through its segment, from outside: also when it hangs, and without asking it.

Owns:    the words and the JSON of `pyserver status`.
Never:   writes into the segment or takes a mutex: a reader may have no right to, and may be killed. Consistency of
         the totals is by the fold counter, which is odd while they change.
Fails:   exit status 1 with one line on stderr when no server is found, several are, or one cannot be read.
Used by: cli; ipc.control (which server), top, worker.main, handlers.status and handlers.metrics (one look), master
         (what the kernel says of it and of its workers; what a worker was at).
"""

import mmap
import os
import re
import sys
import textwrap
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from pyserver import sandbox
from pyserver.ipc import activity, stats
from pyserver.ipc import segment as segments
from pyserver.ipc.activity import CurrentRequest, WorkerThread
from pyserver.ipc.notes import Event
from pyserver.ipc.segment import HEADER, TOTALS, Segment, SegmentError
from pyserver.limits import NS_PER_S

# The version of the JSON document: it grows by new keys, and changes its number if a key goes or changes its meaning.
SCHEMA: Final = 1

# So often the totals change while we look only if somebody writes there who should not (T-61): workers die singly.
_FOLDS_MAX: Final = 100

# What is told of a distribution, by its name in the document.
QUANTILES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}

_EVENTS_SHOWN: Final = 5

# A count that a worker wrote: nobody has more requests under way than descriptors.
_MORE_MAX: Final = 1 << 20

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
    restarts: int  # of its slot: how often a worker that died was replaced
    busy: int  # threads that do what may wait
    parked: int  # connections on which nothing is under way
    counters: dict[str, int]
    buckets: dict[str, list[int]]  # of each histogram, since this worker's start
    threads: list[WorkerThread]
    requests: list[CurrentRequest]  # that are under way for longer than a round, the longest first
    unlisted: int  # more of them, for which there was no row
    started: int | None  # wall clock, seconds; None: there is none, or not to be known
    memory: "Memory | None"  # None: not to be known

    @property
    def leader(self) -> WorkerThread | None:
        """The thread that leads; None while leadership passes on."""
        return next((thread for thread in self.threads if thread.leads), None)


class Memory(NamedTuple):
    """Of a process."""

    rss_bytes: int  # resident, with what it shares
    pss_bytes: int | None  # what it shares counted in part; None: not asked for, or we may not look (ptrace(2))


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
    backlog: int  # connections that may wait in the kernel
    backlog_drops: int
    protections: dict[str, bool]  # of the sandbox that the master is in
    crew: int  # the one that serves
    reloads: int
    reloaded: int  # wall clock, seconds: the last reload; 0: none
    totals: dict[str, int]
    buckets: dict[str, list[int]]  # of each histogram
    workers: list[Worker]
    events: list[Event]  # that were lately, the oldest first
    access_log: str  # its path; "": there is none that could be read
    master_started: int | None  # wall clock, seconds; of this and what follows None: not to be known
    master_rss_bytes: int | None
    master_open_fds: int | None

    @property
    def ready(self) -> bool:
        """Whether it serves with every worker that it shall have."""
        crew = [worker for worker in self.workers if worker.crew == self.crew]
        return self.alive and not self.stopping and bool(crew) and all(worker.state == "ready" for worker in crew)


def snapshot(segment: Segment, *, alive: bool = True, memory: bool = False) -> Snapshot:
    """Read everything; the totals are of one moment, the rest is as near as single reads come.

    `memory`: of each worker the kernel is asked, which walks through all its pages for that: about a millisecond. Else
    it is told what the master has written down, who may look where a worker may not (landlock).
    """
    words, now_ns = segment.words, time.monotonic_ns()
    totals, rows, buckets, own_buckets = _counters(segment)

    def header(name: str) -> int:
        return words[HEADER[name]]

    workers = []
    for slot, buckets_of in own_buckets.items():
        at = {name: words[segment.row(slot, name)] for name in segments.ROW}
        if not at["crew"]:
            continue
        running = at["state"] != 0
        # Of the dead it is told how it was when they were last seen.
        seen_ns = now_ns if alive else max(header("master_beat"), at["beat_ns"], at["round_ns"])
        threads, requests = _activity(segment, slot, at, seen_ns) if running else ([], [])
        opened, unlisted = rows[slot]["connections_open"], at["unlisted"] if running else 0
        found = memory_of(at["pid"]) if memory and running else None
        if found is None and running and at["rss_bytes"]:
            found = Memory(at["rss_bytes"], None)
        workers.append(
            Worker(
                slot=slot,
                crew=at["crew"],
                state=STATES[at["state"]] if at["state"] < len(STATES) else str(at["state"]),
                pid=at["pid"] if running else 0,
                generation=at["generation"],
                age_s=max(0, now_ns - at["since_ns"]) / NS_PER_S if running else 0.0,
                silent_s=max(0, now_ns - (at["beat_ns"] or at["since_ns"])) / NS_PER_S if running else 0.0,
                waiting=max(0, at["sent"] - at["received"]),
                restarts=max(0, at["generation"] - 1),
                busy=rows[slot]["threads_busy"],
                parked=max(0, opened - len(requests) - unlisted),
                counters=rows[slot],
                buckets=buckets_of,
                threads=threads,
                requests=requests,
                unlisted=unlisted,
                started=(at["started"] or None) if running else None,
                memory=found,
            )
        )
    happened, access_log = segment.noted()
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
        backlog=header("backlog"),
        backlog_drops=header("backlog_drops"),
        protections=sandbox.by_name(header("protections")),
        crew=header("crew"),
        reloads=header("reloads"),
        reloaded=header("reloaded"),
        totals=totals,
        buckets=buckets,
        workers=workers,
        events=happened,
        access_log=access_log,
        master_started=header("master_started") or None,
        master_rss_bytes=header("master_rss_bytes") or None,
        master_open_fds=header("master_open_fds") or None,
    )


def _activity(
    segment: Segment, slot: int, row: Mapping[str, int], now_ns: int
) -> tuple[list[WorkerThread], list[CurrentRequest]]:
    """Return what the threads of a slot's worker do, and its requests."""
    at = segment.activity(slot)
    threads = activity.read_threads(segment.words, at, now_ns, row["beat_ns"], row["round_ns"])
    return threads, activity.read_requests(segment.words, at, now_ns, threads)


def of_slot(segment: Segment, slot: int) -> tuple[list[WorkerThread], list[CurrentRequest], int]:
    """Return what the threads of one worker do, or did when it died, its requests, and how many more there are."""
    row = {name: segment.words[segment.row(slot, name)] for name in ("beat_ns", "round_ns", "unlisted")}
    return *_activity(segment, slot, row, time.monotonic_ns()), row["unlisted"]


def of_slot_as_lines(segment: Segment, slot: int, most: int) -> tuple[list[str], list[str]]:
    """Return lines about the threads of one worker that do something, and about its requests: so many at most."""
    threads, requests, unlisted = of_slot(segment, slot)
    busy = sorted((each for each in threads if each.leads or each.busy), key=lambda each: -each.for_s)
    by_thread = {request.thread: request for request in requests}
    lines = [f"thread {_at(each)}" + _for(by_thread.get(each.number)) for each in busy[:most]]
    if len(busy) > most:
        lines.append(f"and {len(busy) - most} threads more")
    told_of = [f"request {told(request)}" for request in requests[:most]]
    more = min(len(requests) - len(told_of) + unlisted, _MORE_MAX)
    return lines, [*told_of, f"and {_counted(more, 'request')} more"] if more else told_of


def memory_of(pid: int) -> Memory | None:
    """Return the memory of a process, as far as we may know it; None if it is gone, or hidden from us."""
    resident = resident_of(pid)
    if not resident:
        return None
    try:
        rollup = Path("/proc", str(pid), "smaps_rollup").read_bytes()
    except OSError:
        return Memory(resident, None)
    found = re.search(rb"^Pss: *([0-9]+) kB$", rollup, re.MULTILINE)
    return Memory(resident, int(found[1]) * 1024 if found else None)


def resident_of(pid: int) -> int:
    """Return the bytes of a process that are in memory; 0: not to be known. It takes the kernel a few microseconds."""
    try:
        return int(Path("/proc", str(pid), "statm").read_bytes().split()[1]) * mmap.PAGESIZE
    except (OSError, ValueError, IndexError):
        return 0


def open_descriptors() -> int:
    """Return how many descriptors this process has; 0: not to be known."""
    folder = "/proc/self/fd"
    try:
        # Since Linux 6.2 it is told without a descriptor to look through, which there may be none left for.
        return Path(folder).stat().st_size or len(os.listdir(folder)) - 1  # noqa: PTH208  numbers; one of them lists
    except OSError:
        return 0


def _counters(
    segment: Segment,
) -> tuple[dict[str, int], list[dict[str, int]], dict[str, list[int]], dict[int, dict[str, list[int]]]]:
    """Return totals, rows and histograms, of all and of each slot in use, from a moment when nothing was being folded.

    Only a master that has stopped in the middle of it, and stays there for 50 ms, is not waited for. That we were late
    ourselves is no reason to believe what was torn. Nor is what no master does waited for: to fold for ever.
    """
    words, fold = segment.words, HEADER["fold"]
    rows_at = [segment.counters(slot) for slot in range(segment.slots)]
    used = [slot for slot in range(segment.slots) if words[segment.row(slot, "crew")]]
    seen, end, changes = -1, 0.0, 0
    while True:
        before = words[fold]
        found = (
            *stats.read(words, TOTALS, rows_at),
            stats.read_buckets(words, TOTALS, rows_at),
            {slot: stats.read_buckets(words, rows_at[slot], ()) for slot in used},
        )
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


def main(name: str | None, *, as_json: bool, with_requests: bool = False) -> int:
    """Print the server's state; return the exit status."""
    try:
        chosen, alive = choose(name)
        segment = Segment.attach(chosen)
    except SegmentError as error:
        print(f"pyserver: {error}", file=sys.stderr)
        return 1
    seen = snapshot(segment, alive=alive, memory=True)
    segment.close()
    if as_json:
        print(as_document(seen, with_requests=with_requests))
    else:
        print(requests_as_text(seen) if with_requests else as_text(seen))
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


def as_document(seen: Snapshot, *, with_requests: bool = False) -> str:
    """Return the snapshot as JSON, on demand with what each thread and each request is at."""
    import json  # noqa: PLC0415  for programs that ask; a server that starts does without

    values = seen._asdict()
    del values["buckets"]
    times = {name: _times(each, seen.totals[name]) | _buckets(each) for name, each in seen.buckets.items()}
    values["events"] = [event._asdict() for event in seen.events]
    workers = [_worker(worker, with_requests=with_requests) for worker in seen.workers]
    document = {"schema": SCHEMA, **values, "ready": seen.ready, "times": times, "workers": workers}
    return json.dumps(document, indent=2)


def _worker(worker: Worker, *, with_requests: bool) -> dict[str, object]:
    values = worker._asdict()
    for name in ("buckets", "threads", "requests", "memory"):
        del values[name]
    counters, memory, leader = worker.counters, worker.memory, worker.leader
    values["leading"] = None if leader is None else leader.does
    values["rss_bytes"] = None if memory is None else memory.rss_bytes
    values["pss_bytes"] = None if memory is None else memory.pss_bytes
    values["times"] = {name: _times(buckets, counters[name]) for name, buckets in worker.buckets.items()}
    if with_requests:
        values["threads"] = [thread._asdict() for thread in worker.threads]
        values["requests"] = [request._asdict() for request in worker.requests]
    return values


def _times(buckets: list[int], sum_ns: int) -> dict[str, object]:
    quantiles = {name: stats.quantile(buckets, share) for name, share in QUANTILES.items()}
    return {
        "count": sum(buckets),
        "sum_s": sum_ns / NS_PER_S,
        **{f"{name}_s": None if found is None else found / NS_PER_S for name, found in quantiles.items()},
    }


def _buckets(buckets: list[int]) -> dict[str, object]:
    return {"buckets": [(stats.bound(bucket) / NS_PER_S, count) for bucket, count in enumerate(buckets) if count]}


def as_text(seen: Snapshot) -> str:
    """Return the snapshot for a person, within 80 columns."""
    totals = seen.totals
    state = "stopping" if seen.stopping else "serving"
    crew = [worker for worker in seen.workers if worker.crew == seen.crew]
    ready = sum(worker.state == "ready" for worker in crew)
    wait, took = seen.buckets["queue_wait"], seen.buckets["answer_time"]
    wait_ms = totals["queue_wait"] / max(1, sum(wait)) / 1e6
    told, read = min(totals["memo_misses"], totals["requests"]), totals["file_cache_misses"]
    answers = ", ".join(f"{digit}xx {totals[f'responses_{digit}xx']}" for digit in "2345")
    workers = f"{ready}/{len(crew)} workers ready, {seen.restarts} restarted"
    queue = f"{seen.filled_slots} waiting, {seen.empty_slots} of {seen.capacity} free; mean wait {wait_ms:.2f} ms"
    lines = [
        f"pyserver {state if seen.alive else 'is gone'}, master {seen.master_pid}, {workers}",
        f"queue       {queue}" + (f"; full {seen.saturations} times" if seen.saturations else ""),
        f"connections {totals['connections_open']} open, {totals['connections']} since {_when(seen.since)}",
        f"waited for  {quantiles(wait)}",
        f"requests    {totals['requests']}: {answers}",
        f"by          {_methods(totals)}",
        f"took        {quantiles(took)}",
        f"memo        {totals['requests'] - told} of {totals['requests']} requests; {read} looked for a file",
        f"traffic     {size(totals['bytes_sent'])} sent, {size(totals['bytes_received'])} received",
    ]
    lines += textwrap.wrap(
        sandbox.told(seen.protections), 80, initial_indent="sandbox     ", subsequent_indent=" " * 12
    )
    if seen.reloads:
        lines.append(f"reloads     {seen.reloads}, the last {_when(seen.reloaded)}")
    what = trouble(seen)
    if what:
        lines += textwrap.wrap(what, 80, initial_indent="trouble     ", subsequent_indent=" " * 12)
    lines.append("worker state         pid  gen      age  silent  queue   open     requests")
    lines.extend(
        f"{worker.slot:>6} {worker.state:8} {worker.pid:>8} {worker.generation:>4} {age(worker.age_s):>8}"
        f" {worker.silent_s:>6.1f}s {worker.waiting:>6} {worker.counters['connections_open']:>6}"
        f" {worker.counters['requests']:>12}"
        for worker in seen.workers
    )
    for event in seen.events[-_EVENTS_SHOWN:]:
        text = f"{_when(event.at)}  {event.kind}: {event.text}"
        lines += textwrap.wrap(text, 80, subsequent_indent=" " * 21)
    return "\n".join(lines)


def _methods(totals: Mapping[str, int]) -> str:
    """Return the requests by method; a worker can write anything into its row."""
    head, other = totals["requests_head"], totals["requests_other"]
    return f"GET {max(0, totals['requests'] - head - other)}, HEAD {head}, other {other}"


def requests_as_text(seen: Snapshot) -> str:
    """Return for a person what each thread and each request is at, within 80 columns but for what was asked for."""
    state = "is gone; it was" if not seen.alive else "stopping" if seen.stopping else "serving"
    lines = [f"pyserver {state}, master {seen.master_pid}"]
    for worker in seen.workers:
        if not worker.pid:
            continue
        lines.append(
            f"worker {worker.slot} {worker.state}, pid {worker.pid}, silent {worker.silent_s:.1f}s,"
            f" {_counted(worker.busy, 'thread')} busy, {_counted(worker.parked, 'connection')} parked"
        )
        lines += textwrap.wrap(_threads(worker.threads), 80, initial_indent="  ", subsequent_indent="    ")
        lines += [f"  {told(request)}" for request in worker.requests]
        if worker.unlisted:
            lines.append(f"  and {_counted(worker.unlisted, 'request')} more")
    return "\n".join(lines)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def told(request: CurrentRequest) -> str:
    """Return one line about a request."""
    phase = request.phase if request.thread is None else f"{request.phase} (thread {request.thread})"
    progress = f", {size(request.sent)} of {size(request.all_of_it)} sent" if request.all_of_it else ""
    asked = f"{request.method} {request.target}".strip() or "nothing yet"
    since = f"{duration(request.phase_s * NS_PER_S)} of {duration(request.took_s * NS_PER_S)}"
    return f"{request.client} {phase} for {since}{progress}: {asked}"


def _at(thread: WorkerThread) -> str:
    """Return which thread does what, and for how long."""
    return f"{thread.number} {'leads, ' if thread.leads else ''}{thread.does} for {duration(thread.for_s * NS_PER_S)}"


def _for(request: CurrentRequest | None) -> str:
    return "" if request is None else f" for {request.client}: {request.method} {request.target}"


def _threads(threads: list[WorkerThread]) -> str:
    """Return what threads do: each that does something, and how many wait for something to do."""
    following = sum(thread.does == "following" for thread in threads)
    busy = [f"thread {_at(thread)}" for thread in threads if thread.leads or thread.busy]
    return ", ".join([*busy, f"{following} follow"])


def trouble(seen: Snapshot) -> str:
    """Return what went wrong since the counters began, and how often; "": nothing."""
    totals = seen.totals
    counts = {
        "ended by a deadline": totals["deadlines"],
        "ended for being too slow": totals["too_slow"],
        "refused after too long a wait": totals["shed"],
        "attempts to connect at a full backlog": seen.backlog_drops,
        "connections over a client's limit": totals["limited_open"] + totals["limited_connections"],
        "requests over a client's limit": totals["limited_requests"],
        "lost": totals["connections_lost"],
        "errors of ours": totals["failures"],
        "log lines dropped": totals["log_lines_dropped"],
        "records for the journal dropped": totals["log_records_dropped"],
        "pauses without descriptors": seen.accept_pauses,
    }
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def quantiles(buckets: list[int]) -> str:
    """Return the percentiles that are told of a distribution."""
    found = [(f"{share:.1%}".replace(".0%", "%"), stats.quantile(buckets, share)) for share in QUANTILES.values()]
    return ", ".join(f"{share} {'-' if value is None else duration(value)}" for share, value in found)


def duration(ns: float) -> str:
    """Return a time for a person."""
    for limit, divisor, unit in ((999.5, 1e3, "µs"), (999.5e3, 1e6, "ms")):
        if ns < limit * 1e3:
            return f"{ns / divisor:.3g} {unit}"
    return f"{ns / 1e9:.3g} s"


def _when(second: int) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
    except (OverflowError, ValueError, OSError):  # no time of ours: others can write there (T-61)
        return f"second {second}"


def age(seconds: float) -> str:
    """Return how old something is, for a person."""
    for limit, divisor, unit in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / divisor:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def size(count: float) -> str:
    """Return a number of bytes for a person."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
