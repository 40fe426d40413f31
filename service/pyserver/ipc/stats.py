"""The counters: one table that names them, the cells they live in, and totals that never go backwards.

Owns:    COUNTERS; the fold of a dead worker's row into the totals; a snapshot of them.
Never:   costs a request more than an addition to an integer: a worker stores its tally once a round.
Used by: worker (Tally), master (fold, status line), ipc.segment (layout), ipc.observe.
"""

from array import array
from collections.abc import Sequence
from typing import Final, NamedTuple


class Counter(NamedTuple):
    """One row: what is counted. A `gauge` is of the living only and does not survive its worker."""

    name: str
    unit: str
    text: str
    gauge: bool = False


COUNTERS: Final = (
    Counter("connections_open", "connections", "connections that workers hold at present", gauge=True),
    Counter("connections", "connections", "connections that workers took from the queue"),
    Counter("connections_lost", "connections", "connections the kernel dropped at the worker's limit of open files"),
    Counter("requests", "requests", "requests answered, or begun to be"),
    Counter("responses_1xx", "responses", "interim responses sent"),
    Counter("responses_2xx", "responses", "responses with a status of 2xx"),
    Counter("responses_3xx", "responses", "responses with a status of 3xx"),
    Counter("responses_4xx", "responses", "responses with a status of 4xx"),
    Counter("responses_5xx", "responses", "responses with a status of 5xx"),
    Counter("bytes_sent", "bytes", "bytes sent to clients, heads included"),
    Counter("bytes_received", "bytes", "bytes received from clients"),
    Counter("queue_wait", "nanoseconds", "time that connections waited between accept and worker, summed up"),
    Counter("deadlines", "connections", "connections ended by a deadline"),
    Counter("limited_open", "connections", "connections beyond the option clients.connections"),
    Counter("limited_connections", "connections", "connections beyond the option clients.connection_rate"),
    Counter("limited_requests", "requests", "requests beyond the option clients.request_rate"),
    Counter("failures", "events", "errors of ours that were logged with a traceback"),
    Counter("log_lines_dropped", "lines", "access log lines that could not be written"),
)

_INDEX: Final = {counter.name: index for index, counter in enumerate(COUNTERS)}
_CELLS: Final = len(COUNTERS)
_WORD: Final = (1 << 64) - 1  # a worker can write anything into its row; a sum of it must fit into a word all the same


def index_of(name: str) -> int:
    """Return where a counter stands in a row."""
    return _INDEX[name]


class Tally:
    """One worker's counters as plain integers; the leader adds, publish() stores them once a round."""

    __slots__ = (
        "bytes_received",
        "bytes_sent",
        "classes",
        "connections",
        "connections_lost",
        "connections_open",
        "deadlines",
        "failures",
        "limited_connections",
        "limited_open",
        "limited_requests",
        "log_lines_dropped",
        "queue_wait",
        "requests",
    )

    def __init__(self) -> None:
        self.connections_open = 0
        self.connections = 0
        self.connections_lost = 0
        self.requests = 0
        self.classes = [0] * 6  # by first digit of the status
        self.bytes_sent = 0
        self.bytes_received = 0
        self.queue_wait = 0
        self.deadlines = 0
        self.limited_open = 0
        self.limited_connections = 0
        self.limited_requests = 0
        self.failures = 0
        self.log_lines_dropped = 0

    def publish(self, words: memoryview, at: int) -> None:
        """Store every counter at word `at` of the segment."""
        _, c1, c2, c3, c4, c5 = self.classes
        # One copy over what is there. struct.pack_into() would clear the row first: a reader could see nothing counted,
        # and a worker killed just then would take all that it counted with it.
        words[at : at + _CELLS] = array(
            "Q",
            (
                self.connections_open,
                self.connections,
                self.connections_lost,
                self.requests,
                c1,
                c2,
                c3,
                c4,
                c5,
                self.bytes_sent,
                self.bytes_received,
                self.queue_wait,
                self.deadlines,
                self.limited_open,
                self.limited_connections,
                self.limited_requests,
                self.failures,
                self.log_lines_dropped,
            ),
        )


def fold(words: memoryview, fold_at: int, totals_at: int, row_at: int) -> None:
    """Add a dead worker's counters to the totals and clear its row. The caller holds stats_mutex.

    `fold_at` is odd meanwhile, so that a reader which takes no mutex knows that it must look again.
    """
    words[fold_at] = (words[fold_at] + 1) & _WORD
    for index, counter in enumerate(COUNTERS):
        if not counter.gauge:
            words[totals_at + index] = (words[totals_at + index] + words[row_at + index]) & _WORD
        words[row_at + index] = 0
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
