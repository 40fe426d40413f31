"""The counters: tables that name them, the cells they live in, and totals that never go backwards.

Owns:    COUNTERS, SERVER and HISTOGRAMS; the fold of a dead worker's row into the totals; a snapshot of them.
Never:   costs a request more than an addition to an integer: a worker stores its tally once a
         millisecond under load, and after each round otherwise.
Used by: worker (Tally), master (layout, status line), ipc.queue (folds), ipc.segment (layout), ipc.observe; top.view,
         handlers.dashboard, handlers.metrics (show).

A row is the counters, and after them the buckets of each histogram. Buckets are eight to an octave of time, so the
middle of one is within 4.5 % of everything in it, from 1.1 microseconds to a minute.
"""

from array import array
from collections.abc import Sequence
from math import log2
from typing import Final, NamedTuple


class Counter(NamedTuple):
    """One row: what is counted. A `gauge` is of the living only and does not survive its worker."""

    name: str
    unit: str
    text: str
    gauge: bool = False

    @property
    def kind(self) -> str:
        """What may be done with it: a counter only grows."""
        return "gauge" if self.gauge else "counter"


class Histogram(NamedTuple):
    """A distribution of durations. The counter of the same name is their sum."""

    name: str
    text: str


COUNTERS: Final = (
    Counter("connections_open", "connections", "connections that workers hold at present", gauge=True),
    Counter("connections", "connections", "connections that workers took from the queue"),
    Counter("connections_lost", "connections", "connections the kernel dropped at the worker's limit of open files"),
    Counter("requests", "requests", "requests answered, or begun to be"),
    Counter("requests_head", "requests", "requests of these by the method HEAD"),
    Counter("requests_other", "requests", "requests of these by other methods than GET and HEAD, or that were none"),
    Counter("memo_misses", "requests", "requests of these whose answer was not in the memo"),
    Counter("file_cache_misses", "requests", "requests of these for which a file had to be looked at first"),
    Counter("responses_1xx", "responses", "interim responses sent"),
    Counter("responses_2xx", "responses", "responses with a status of 2xx"),
    Counter("responses_3xx", "responses", "responses with a status of 3xx"),
    Counter("responses_4xx", "responses", "responses with a status of 4xx"),
    Counter("responses_5xx", "responses", "responses with a status of 5xx"),
    Counter("bytes_sent", "bytes", "bytes sent to clients, heads included"),
    Counter("bytes_received", "bytes", "bytes received from clients"),
    Counter("queue_wait", "nanoseconds", "time that connections waited between accept and worker, summed up"),
    Counter("answer_time", "nanoseconds", "time from the head of a request to the end of its answer, summed up"),
    Counter("threads_busy", "threads", "threads that do what may block, at present", gauge=True),
    Counter("deadlines", "connections", "connections ended by a deadline"),
    Counter("too_slow", "connections", "connections slower than the options limits.receive_rate or send_rate"),
    Counter("shed", "connections", "connections refused for having waited longer than the option server.queue_wait"),
    Counter("limited_open", "connections", "connections beyond the option clients.connections"),
    Counter("limited_connections", "connections", "connections beyond the option clients.connection_rate"),
    Counter("limited_requests", "requests", "requests beyond the option clients.request_rate"),
    Counter("failures", "events", "errors of ours that were logged with a traceback"),
    Counter("log_lines_dropped", "lines", "access log lines that could not be written"),
    Counter("log_records_dropped", "records", "records of workers for the journal that nobody took in time"),
)

# Of the whole server, by their names in a snapshot (ipc.observe): the master counts them, or they are of this moment.
SERVER: Final = (
    Counter("restarts", "workers", "workers that died and were replaced"),
    Counter("reloads", "reloads", "reloads that took effect"),
    Counter("accept_pauses", "events", "times that no connection could be accepted for want of descriptors"),
    Counter("saturations", "events", "times that the queue was full, or as full as it may be in an overload"),
    Counter("backlog_drops", "attempts", "attempts to connect that the kernel dropped because a backlog was full"),
    Counter("backlog", "connections", "connections that may wait in the backlogs of TCP listeners", gauge=True),
    Counter("capacity", "connections", "connections that have room in the queue", gauge=True),
    Counter("filled_slots", "connections", "connections that wait in the queue", gauge=True),
    Counter("ready", "servers", "whether the server serves with all its workers", gauge=True),
)

HISTOGRAMS: Final = (
    Histogram("queue_wait", "time that connections waited between accept and worker"),
    Histogram("answer_time", "time from the head of a request to the end of its answer"),
)

OCTAVE: Final = 8  # buckets of one
_FIRST: Final = 10  # octave: what is below 2**10 ns is in the first bucket, too
BUCKETS: Final = 26 * OCTAVE  # up to 2**36 ns; what is above is in the last one
_SHORTEST: Final = 1 << _FIRST
_LONGEST: Final = 1 << (_FIRST + BUCKETS // OCTAVE)

CELLS: Final = len(COUNTERS) + len(HISTOGRAMS) * BUCKETS  # of a row

_INDEX: Final = {counter.name: index for index, counter in enumerate(COUNTERS)}
_BUCKETS_AT: Final = {one.name: len(COUNTERS) + index * BUCKETS for index, one in enumerate(HISTOGRAMS)}
_WORD: Final = (1 << 64) - 1  # a worker can write anything into its row; a sum of it must fit into a word all the same


def index_of(name: str) -> int:
    """Return where a counter stands in a row."""
    return _INDEX[name]


def bound(bucket: int) -> float:
    """Return the nanoseconds at which a bucket ends."""
    return float(2 ** (_FIRST + (bucket + 1) / OCTAVE))


def quantile(buckets: Sequence[int], share: float) -> float | None:
    """Return the nanoseconds below which this share of the durations is; None without any."""
    rank = sum(buckets) * share
    passed = 0
    for bucket, count in enumerate(buckets):
        passed += count
        if count and passed >= rank:
            return float(2 ** (_FIRST + (bucket + 0.5) / OCTAVE))
    return None


class Durations:
    """One worker's buckets of a histogram: in its row, once it has one, where each addition is one store."""

    __slots__ = ("_at", "_words")

    def __init__(self) -> None:
        self._words = memoryview(bytearray(BUCKETS * 8)).cast("Q")
        self._at = 0

    def attach(self, words: memoryview, at: int) -> None:
        """Count in the segment from now on."""
        self._words, self._at = words, at

    def add(self, duration_ns: int, count: int = 1) -> None:
        """Note so many of one duration."""
        if _SHORTEST < duration_ns < _LONGEST:
            at = self._at + int(log2(duration_ns) * OCTAVE) - _FIRST * OCTAVE
        else:
            at = self._at + (0 if duration_ns <= _SHORTEST else BUCKETS - 1)
        words = self._words
        words[at] = (words[at] + count) & _WORD  # of what another may have written there


class Tally:
    """One worker's counters as plain integers; the leader adds, publish() stores them for others to read.

    The answers of a round are timed together at its end, so that nobody reads a clock for each: from the moment that
    the round began, when their heads were there, to its end. What is not out by then is timed `apart`.
    """

    __slots__ = (
        "_in_rounds",
        "answer_time",
        "answer_times",
        "apart",
        "bytes_received",
        "bytes_sent",
        "classes",
        "connections",
        "connections_lost",
        "connections_open",
        "deadlines",
        "failures",
        "file_cache_misses",
        "limited_connections",
        "limited_open",
        "limited_requests",
        "log_lines_dropped",
        "log_records_dropped",
        "memo_misses",
        "queue_wait",
        "queue_waits",
        "requests",
        "requests_head",
        "requests_other",
        "shed",
        "threads_busy",
        "too_slow",
    )

    def __init__(self) -> None:
        self.connections_open = 0
        self.connections = 0
        self.connections_lost = 0
        self.requests = 0
        self.requests_head = 0
        self.requests_other = 0
        self.memo_misses = 0
        self.file_cache_misses = 0
        self.classes = [0] * 6  # by first digit of the status
        self.bytes_sent = 0
        self.bytes_received = 0
        self.queue_wait = 0
        self.queue_waits = Durations()
        self.answer_time = 0
        self.answer_times = Durations()
        self.apart = 0  # of the requests: those that are not timed with their round
        self._in_rounds = 0  # and those that are
        self.threads_busy = 0
        self.deadlines = 0
        self.too_slow = 0
        self.shed = 0
        self.limited_open = 0
        self.limited_connections = 0
        self.limited_requests = 0
        self.failures = 0
        self.log_lines_dropped = 0
        self.log_records_dropped = 0

    def attach(self, words: memoryview, at: int) -> None:
        """Count durations in the row whose counters are at word `at`, from now on."""
        self.queue_waits.attach(words, at + _BUCKETS_AT["queue_wait"])
        self.answer_times.attach(words, at + _BUCKETS_AT["answer_time"])

    def waited(self, duration_ns: int, connections: int) -> None:
        """Note how long connections waited in the queue, that came together."""
        self.queue_wait += duration_ns * connections
        self.queue_waits.add(duration_ns, connections)

    def took(self, duration_ns: int, answers: int = 1) -> None:
        """Note how long answers took."""
        self.answer_time += duration_ns * answers
        self.answer_times.add(duration_ns, answers)

    def asked_by(self, method: bytes) -> None:
        """Note the method of a request, b"" if it was none; what nobody notes was a GET."""
        if method == b"HEAD":
            self.requests_head += 1
        elif method != b"GET":
            self.requests_other += 1

    def round_ends(self, duration_ns: int) -> None:
        """Time the answers of a round that lasted so long."""
        timed = self.requests - self.apart
        answers = timed - self._in_rounds
        if answers > 0:  # fewer: what was to be timed apart failed before it was a request. The next one balances that
            self._in_rounds = timed
            self.answer_time += duration_ns * answers
            self.answer_times.add(duration_ns, answers)

    def publish(self, words: memoryview, at: int) -> None:
        """Store every counter at word `at` of the segment.

        What can be wrong with a number is mended here, and each is one: mypy sees to that. The words are there as long
        as the process, which goes by _exit(2) whatever its threads are at, and only the leader is here, or who has
        waited for all threads. That leaves MemoryError, as everywhere.
        """
        _, c1, c2, c3, c4, c5 = self.classes
        counted = (
            self.connections_open,
            self.connections,
            self.connections_lost,
            self.requests,
            self.requests_head,
            self.requests_other,
            self.memo_misses,
            self.file_cache_misses,
            c1,
            c2,
            c3,
            c4,
            c5,
            self.bytes_sent,
            self.bytes_received,
            self.queue_wait,
            self.answer_time,
            self.threads_busy,
            self.deadlines,
            self.too_slow,
            self.shed,
            self.limited_open,
            self.limited_connections,
            self.limited_requests,
            self.failures,
            self.log_lines_dropped,
            self.log_records_dropped,
        )
        try:
            row = array("Q", counted)
        except OverflowError:  # no word: a sum of times, where a clock went back. It is not to end a worker
            row = array("Q", [min(max(0, value), _WORD) for value in counted])
        # One copy over what is there. struct.pack_into() would clear the row first: a reader could see nothing counted,
        # and a worker killed just then would take all that it counted with it.
        words[at : at + len(COUNTERS)] = row


_NOTHING: Final = array("Q", bytes(8 * CELLS))


def fold(words: memoryview, fold_at: int, totals_at: int, row_at: int) -> None:
    """Add a dead worker's counters to the totals and clear its row. The caller holds stats_mutex.

    `fold_at` is odd meanwhile, so that a reader which takes no mutex knows that it must look again.
    """
    words[fold_at] = (words[fold_at] + 1) & _WORD
    for index, counted in enumerate(words[row_at : row_at + CELLS].tolist()):
        if counted and not (index < len(COUNTERS) and COUNTERS[index].gauge):
            words[totals_at + index] = (words[totals_at + index] + counted) & _WORD
    words[row_at : row_at + CELLS] = _NOTHING
    words[fold_at] = (words[fold_at] + 1) & _WORD


def read(words: memoryview, totals_at: int, rows_at: Sequence[int]) -> tuple[dict[str, int], list[dict[str, int]]]:
    """Return the totals (the dead and the living) and each row's own values, by counter name."""
    totals = list(words[totals_at : totals_at + len(COUNTERS)])
    rows = []
    for at in rows_at:
        row = list(words[at : at + len(COUNTERS)])
        totals = [total + value for total, value in zip(totals, row, strict=True)]
        rows.append({name: row[index] for name, index in _INDEX.items()})
    return {name: totals[index] for name, index in _INDEX.items()}, rows


def read_buckets(words: memoryview, totals_at: int, rows_at: Sequence[int]) -> dict[str, list[int]]:
    """Return the buckets of each histogram, of the dead and the living."""
    found = {}
    for name, offset in _BUCKETS_AT.items():
        buckets = [0] * BUCKETS
        for at in (totals_at, *rows_at):
            own = words[at + offset : at + offset + BUCKETS]
            if own.tobytes().strip(b"\0"):  # most rows are of nobody
                buckets = [total + value for total, value in zip(buckets, own, strict=True)]
        found[name] = buckets
    return found
