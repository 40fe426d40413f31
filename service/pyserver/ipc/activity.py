r"""What each thread of a worker does, and what each request that is under way waits for: rows of the segment.

Owns:    both kinds of row, their layout and their bounds; who writes them (Activity) and who reads them (read_threads,
         read_requests).
Never:   costs a request anything that is answered in the round that began it: only what lasts has a row.
         Trusts what stands in a row: a worker can be killed at any instruction, and one that was taken over writes
         anything (T-61). Each number is bounded, each byte of a text is printable when it comes out.
Fails:   never: a row that was torn, or that makes no sense, is left out.
Used by: worker (writes); ipc.observe (reads, for all who show it), top.view; ipc.segment, master.handover (layout),
         master.workers (clears).

A thread's row is one word, so that it is never seen half, and its number in the system. A request's row is longer: its
first word is odd while the others change, and who reads looks at it before and after.

There are REQUESTS rows in a worker. What has none is counted; clients that take their time to ask get no more than half
of them, so that those show who wait for an answer.
"""

import re
import struct
import time
from collections.abc import Mapping
from enum import IntEnum
from typing import Final, NamedTuple

from pyserver.limits import NS_PER_S, REQUEST_ROWS, THREAD_ROWS

_WORD: Final = 8
_TRIES: Final = 8  # to read a row that is just being written


class Work(IntEnum):
    """What a thread does."""

    NOTHING = 0  # there is no such thread
    FOLLOWING = 1  # it waits for something to do
    LEADING = 2  # it serves, or waits for clients
    ANSWERING = 3  # what an answer is made of comes from the disk
    SENDING = 4  # a part of a file that is on the disk
    LOGGING = 5  # a batch of the access log
    LOOKING = 6  # at folders, whether they are what they were
    CODING = 7  # a file, for who comes later
    OTHER = 8


class Phase(IntEnum):
    """What a request waits for."""

    NONE = 0  # nobody's row
    READING = 1  # the rest of its head
    CONTENT = 2  # the rest of its content
    WORKING = 3  # a thread, or what a thread does for it
    SENDING = 4  # that the client takes its answer


# What a reader calls them. A request that is WORKING and has no thread yet is queued; a leader waits or serves.
WORKS: Final = ("", "following", "leading", "answering", "sending", "logging", "looking", "coding", "other")
WAITING, SERVING = "waiting", "serving"
PHASES: Final = ("", "reading", "content", "working", "sending")
QUEUED: Final = "queued"

# -- layout -----------------------------------------------------------------------------------

_CLIENT_BYTES: Final = 48  # an IPv6 address has 45 at most
_METHOD_BYTES: Final = 16
_TARGET_BYTES: Final = 112

THREAD_WORDS: Final = 2
# turn; phase, since, began, waited, sent, all of it, status, number, length of the target; client, method, target
_BODY: Final = struct.Struct(f"=9Q{_CLIENT_BYTES}s{_METHOD_BYTES}s{_TARGET_BYTES}s")
REQUEST_WORDS: Final = 1 + _BODY.size // _WORD
_PHASE_AT: Final = 1
_SENT_AT: Final = 5
_REQUESTS_AT: Final = THREAD_ROWS * THREAD_WORDS
WORDS: Final = _REQUESTS_AT + REQUEST_ROWS * REQUEST_WORDS  # of a worker

# A thread's word: when, in units of 1024 ns; the row of the request it works for, counted from 1; what it does.
_SINCE_SHIFT: Final = 12
_ROW_SHIFT: Final = 4
_WORK_MASK: Final = (1 << _ROW_SHIFT) - 1
_ROW_MASK: Final = (1 << (_SINCE_SHIFT - _ROW_SHIFT)) - 1
_TICK_SHIFT: Final = 10
_TICK_S: Final = (1 << _TICK_SHIFT) / NS_PER_S

# What Activity.show() returns for a request that has no row.
UNLISTED: Final = -1


class Activity:
    """The rows of one worker. Until it is attached it writes where nobody looks."""

    __slots__ = ("_at", "_free", "_phases", "_requests_at", "_unlisted", "_unlisted_at", "_words")

    def __init__(self) -> None:
        self._words = memoryview(bytearray((WORDS + 1) * _WORD)).cast("Q")
        self._at = 0
        self._requests_at = _REQUESTS_AT - REQUEST_WORDS  # rows are counted from 1
        self._unlisted_at = WORDS
        self._unlisted = 0
        self._free = list(range(REQUEST_ROWS, 0, -1))
        self._phases = [Phase.NONE] * (REQUEST_ROWS + 1)

    def attach(self, words: memoryview, at: int, unlisted_at: int) -> None:
        """Write in the segment from now on, where nothing stands; before there is any request."""
        self._words, self._at, self._unlisted_at = words, at, unlisted_at
        self._requests_at = at + _REQUESTS_AT - REQUEST_WORDS

    # -- called by each thread of itself, or of the one that leads --------------------------------

    def thread_begins(self, thread: int, native_id: int) -> None:
        """Give a thread its row."""
        if thread < THREAD_ROWS:
            self._words[self._at + thread * THREAD_WORDS + 1] = native_id

    def thread_does(self, thread: int, work: int, row: int = 0) -> None:
        """Tell what a thread does from now on, and for which request."""
        if thread < THREAD_ROWS:
            since = time.monotonic_ns() >> _TICK_SHIFT
            self._words[self._at + thread * THREAD_WORDS] = since << _SINCE_SHIFT | max(row, 0) << _ROW_SHIFT | work

    # -- called by the leader ---------------------------------------------------------------------

    def show(
        self,
        row: int,
        phase: Phase,
        *,
        since_ns: int,
        began_ns: int,
        waited_ns: int,
        sent: int,
        all_of_it: int,
        status: int,
        number: int,
        client: bytes,
        head: bytes,
    ) -> int:
        """Tell what a request waits for from now on, and return its row: one of its own, or UNLISTED.

        `row` is what was returned for it before, 0 at first. `head` is all of it, or what is here.
        """
        if row <= 0:
            row = self._take(row, phase)
            if row == UNLISTED:
                return row
        method, _, rest = head.partition(b"\r\n")[0].partition(b" ")
        target = rest.partition(b" ")[0]
        body = _BODY.pack(
            phase, since_ns, began_ns, waited_ns, sent, all_of_it, status, number, len(target),
            client[:_CLIENT_BYTES], method[:_METHOD_BYTES], target[:_TARGET_BYTES],
        )  # fmt: skip
        words, at = self._words, self._requests_at + row * REQUEST_WORDS
        turn = words[at] & ~1 & (1 << 62) - 1  # whatever another may have written there
        words[at] = turn | 1
        words[at + 1 : at + REQUEST_WORDS] = memoryview(body).cast("Q")
        words[at] = turn + 2
        self._phases[row] = phase
        return row

    def phase(self, row: int) -> Phase:
        """Return what a request was told to wait for."""
        return self._phases[row] if row > 0 else Phase.NONE

    def sent(self, row: int, count: int) -> None:
        """Tell how many bytes of an answer are out."""
        if row > 0:
            self._words[self._requests_at + row * REQUEST_WORDS + _SENT_AT] = count

    def leave(self, row: int) -> None:
        """Give back what show() returned: the request is over."""
        if row > 0:
            self._words[self._requests_at + row * REQUEST_WORDS + _PHASE_AT] = Phase.NONE
            self._phases[row] = Phase.NONE
            self._free.append(row)
        elif row == UNLISTED:
            self._count(-1)

    def _take(self, row: int, phase: Phase) -> int:
        free = self._free
        # Who is slow to ask, or does not mean to, leaves room for those who wait for an answer.
        if free and (phase > Phase.CONTENT or len(free) > REQUEST_ROWS // 2):
            if row == UNLISTED:
                self._count(-1)
            return free.pop()
        if row != UNLISTED:
            self._count(1)
        return UNLISTED

    def _count(self, more: int) -> None:
        self._unlisted += more
        self._words[self._unlisted_at] = self._unlisted


# -- called by the master -----------------------------------------------------------------------


_NOTHING: Final = memoryview(bytes(WORDS * _WORD)).cast("Q")


def clear(words: memoryview, at: int) -> None:
    """Before a worker is forked into a slot: nothing of the one before it is left."""
    words[at : at + WORDS] = _NOTHING


# -- for readers --------------------------------------------------------------------------------


class WorkerThread(NamedTuple):
    """What one thread of a worker does."""

    number: int
    does: str  # one of WORKS, but for the leader: WAITING or SERVING
    for_s: float  # since then
    request: int  # the row of the request that it works for; 0: for none
    native_id: int  # as in /proc/PID/task

    @property
    def leads(self) -> bool:
        """Whether it is the one that serves."""
        return self.does in (WAITING, SERVING)

    @property
    def busy(self) -> bool:
        """Whether it does something that may wait, so that another leads."""
        return not self.leads and self.does != WORKS[Work.FOLLOWING]


class CurrentRequest(NamedTuple):
    """A request that is under way for longer than a round."""

    row: int  # for its time a name of it in its worker
    phase: str  # one of PHASES, or QUEUED
    phase_s: float  # since it waits for that
    took_s: float  # since it began
    waited_s: float  # that its connection waited in the queue, if this is the first on it
    client: str
    method: str
    target: str  # the beginning of it
    status: int  # of the answer; 0: there is none yet
    sent: int  # bytes of the answer that are out, its head included
    all_of_it: int  # that it has; 0: there is none yet
    number: int  # on its connection, from 1
    thread: int | None  # that works for it


def read_threads(words: memoryview, at: int, now_ns: int, beat_ns: int, round_ns: int) -> list[WorkerThread]:
    """Return the threads of the worker whose rows begin at word `at`.

    `beat_ns` is when its last round ended, `round_ns` when the last one began.
    """
    found = []
    for number in range(THREAD_ROWS):
        word, native_id = words[at + number * THREAD_WORDS], words[at + number * THREAD_WORDS + 1]
        work, row = word & _WORK_MASK, word >> _ROW_SHIFT & _ROW_MASK
        if not 0 < work < len(WORKS):
            continue
        does, since_ns = WORKS[work], word >> _SINCE_SHIFT << _TICK_SHIFT
        if work == Work.LEADING:
            does, since_ns = (SERVING, max(round_ns, since_ns)) if round_ns > beat_ns else (WAITING, beat_ns)
        found.append(
            WorkerThread(
                number,
                does,
                max(0, now_ns - since_ns) / NS_PER_S,
                row if row <= REQUEST_ROWS else 0,
                native_id if native_id < 1 << 32 else 0,
            )
        )
    return found


def read_requests(words: memoryview, at: int, now_ns: int, threads: list[WorkerThread]) -> list[CurrentRequest]:
    """Return the requests of the worker whose rows begin at word `at`, the longest under way first."""
    latest_last = sorted(threads, key=lambda thread: -thread.for_s)
    by_row = {thread.request: thread for thread in latest_last if thread.request}
    first = at + _REQUESTS_AT
    rows = (_request(words, first + row * REQUEST_WORDS, row + 1, now_ns, by_row) for row in range(REQUEST_ROWS))
    return sorted(filter(None, rows), key=lambda request: -request.took_s)


def _request(
    words: memoryview, at: int, row: int, now_ns: int, by_row: Mapping[int, WorkerThread]
) -> CurrentRequest | None:
    for _ in range(_TRIES):
        turn = words[at]
        if not words[at + _PHASE_AT]:
            return None
        body = words[at + 1 : at + REQUEST_WORDS].tobytes()
        if turn % 2 == 0 and words[at] == turn:
            break
    else:
        return None  # its writer died in the middle of it
    phase, since_ns, began_ns, waited_ns, sent, all_of_it, status, number, length, client, method, target = (
        _BODY.unpack(body)
    )
    if not 0 < phase < len(PHASES):
        return None
    phase_s, thread = max(0, now_ns - since_ns) / NS_PER_S, by_row.get(row)
    # One that began before is still at work for a request that is over, whose row this was.
    works = phase == Phase.WORKING and thread is not None and thread.for_s <= phase_s + _TICK_S
    return CurrentRequest(
        row=row,
        phase=QUEUED if phase == Phase.WORKING and not works else PHASES[phase],
        phase_s=phase_s,
        took_s=max(0, now_ns - began_ns) / NS_PER_S,
        waited_s=waited_ns / NS_PER_S,
        client=printable(client.rstrip(b"\0")),
        method=printable(method.rstrip(b"\0")),
        target=printable(target.rstrip(b"\0")) + ("..." if length > _TARGET_BYTES else ""),
        status=status if status < 1000 else 0,
        sent=sent,
        all_of_it=all_of_it,
        number=number,
        thread=thread.number if works and thread is not None else None,
    )


_UNPRINTABLE: Final = re.compile(rb"[^\x21-\x5b\x5d-\x7e]")


def printable(raw: bytes) -> str:
    r"""Return bytes of a client as one word that neither ends a line nor drives a terminal: the others as \xHH."""
    return _UNPRINTABLE.sub(lambda found: b"\\x%02X" % found[0][0], raw).decode("ascii")
