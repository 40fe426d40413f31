"""Rows of threads and requests: what is written is read, what is torn or scribbled is left out or bounded."""

import os
import random
import string
import time

import pytest
from tests.unit.processes import forked, run_forked, wait_until

from pyserver.ipc import activity
from pyserver.ipc.activity import (
    PHASES,
    REQUEST_WORDS,
    SERVING,
    UNLISTED,
    WAITING,
    WORDS,
    WORKS,
    Activity,
    CurrentRequest,
    Phase,
    Work,
    WorkerThread,
    read_requests,
    read_threads,
)
from pyserver.ipc.segment import Segment
from pyserver.limits import REQUEST_ROWS, THREAD_ROWS

HEAD = b"GET /a/b?c HTTP/1.1\r\nHost: x\r\n\r\n"
SECOND = 1_000_000_000


class Rows:
    """A worker's rows in a segment, and a look at them."""

    def __init__(self, segment: Segment, slot: int = 1) -> None:
        self.words, self.at = segment.words, segment.activity(slot)
        self.unlisted_at = segment.row(slot, "unlisted")
        self.activity = Activity()
        self.activity.attach(self.words, self.at, self.unlisted_at)

    def show(self, row: int = 0, phase: Phase = Phase.SENDING, head: bytes = HEAD, client: bytes = b"127.0.0.1") -> int:
        now = time.monotonic_ns()
        return self.activity.show(
            row,
            phase,
            since_ns=now,
            began_ns=now - SECOND,
            waited_ns=5_000_000,
            sent=10,
            all_of_it=1000,
            status=206,
            number=3,
            client=client,
            head=head,
        )

    def threads(self, beat_ns: int = 0, round_ns: int = 0) -> list[WorkerThread]:
        return read_threads(self.words, self.at, time.monotonic_ns(), beat_ns, round_ns)

    def requests(self) -> list[CurrentRequest]:
        return read_requests(self.words, self.at, time.monotonic_ns(), self.threads())

    @property
    def unlisted(self) -> int:
        return self.words[self.unlisted_at]


@pytest.fixture
def rows(segment: Segment) -> Rows:
    return Rows(segment)


def test_the_names_are_those_of_the_numbers() -> None:
    assert len(WORKS) == len(Work)
    assert len(PHASES) == len(Phase)
    assert max(Work) <= 15  # of a thread's word
    assert REQUEST_ROWS <= 255
    assert all(work.name.lower() == WORKS[work] for work in Work if work is not Work.NOTHING)
    assert all(phase.name.lower() == PHASES[phase] for phase in Phase if phase is not Phase.NONE)


def test_a_request_is_shown_until_it_is_over(rows: Rows) -> None:
    row = rows.show()
    (seen,) = rows.requests()
    assert seen._replace(phase_s=0, took_s=0) == CurrentRequest(
        row, "sending", 0, 0, 0.005, "127.0.0.1", "GET", "/a/b?c", 206, 10, 1000, 3, None
    )
    assert 1 <= seen.took_s < 30
    assert 0 <= seen.phase_s < 30
    rows.activity.sent(row, 77)
    assert rows.requests()[0].sent == 77
    assert rows.activity.phase(row) is Phase.SENDING
    rows.activity.leave(row)
    assert rows.requests() == []
    assert rows.activity.phase(row) is Phase.NONE


def test_its_row_stays_its_own_from_phase_to_phase(rows: Rows) -> None:
    row = rows.show(phase=Phase.READING, head=b"GET /half")
    other = rows.show()
    assert rows.show(row, Phase.WORKING) == row != other
    assert {request.row: request.phase for request in rows.requests()} == {row: "queued", other: "sending"}
    rows.activity.thread_does(2, Work.ANSWERING, row)
    assert {(request.phase, request.thread) for request in rows.requests()} == {("working", 2), ("sending", None)}


@pytest.mark.parametrize(
    ("head", "method", "target"),
    [
        (HEAD, "GET", "/a/b?c"),
        (b"", "", ""),
        (b"GE", "GE", ""),
        (b"GET /half", "GET", "/half"),
        (b"GET /\x1b]0;x\x07\xff\x80 HTTP/1.1\r\n\r\n", "GET", r"/\x1B]0;x\x07\xFF\x80"),
        (b"\x00\n\r\t \\", r"\x00\x0A\x0D\x09", r"\x5C"),
        (b"M" * 50 + b" /" + b"t" * 500, "M" * 16, "/" + "t" * 111 + "..."),
    ],
)  # fmt: skip
def test_what_was_asked_for_comes_out_printable_and_bounded(rows: Rows, head: bytes, method: str, target: str) -> None:
    rows.show(head=head, client=b"c" * 100)
    (seen,) = rows.requests()
    assert (seen.method, seen.target, seen.client) == (method, target, "c" * 48)


def test_what_has_no_row_is_counted_and_gets_one_when_there_is_room(rows: Rows) -> None:
    listed = [rows.show() for _ in range(REQUEST_ROWS)]
    assert len({*listed}) == REQUEST_ROWS
    assert min(listed) > 0
    more = [rows.show() for _ in range(3)]
    assert (more, rows.unlisted, len(rows.requests())) == ([UNLISTED] * 3, 3, REQUEST_ROWS)
    assert rows.show(UNLISTED, Phase.WORKING) == UNLISTED
    assert rows.unlisted == 3, "it is the same one"
    rows.activity.sent(UNLISTED, 5)
    rows.activity.leave(UNLISTED)
    assert rows.unlisted == 2
    rows.activity.leave(listed[0])
    assert rows.show(UNLISTED) == listed[0]
    assert (rows.unlisted, len(rows.requests())) == (1, REQUEST_ROWS)


def test_who_is_slow_to_ask_leaves_room_for_those_who_wait(rows: Rows) -> None:
    asking = [rows.show(phase=Phase.READING) for _ in range(REQUEST_ROWS)]
    assert sum(row > 0 for row in asking) == REQUEST_ROWS // 2 == rows.unlisted
    assert all(rows.show(phase=Phase.WORKING) > 0 for _ in range(REQUEST_ROWS // 2))


def test_threads_say_what_they_do_since_when_and_for_whom(rows: Rows) -> None:
    rows.activity.thread_begins(0, 4711)
    rows.activity.thread_does(0, Work.LEADING)
    rows.activity.thread_does(1, Work.FOLLOWING)
    rows.activity.thread_does(2, Work.SENDING, 9)
    rows.activity.thread_does(3, Work.LOGGING, UNLISTED)
    rows.activity.thread_does(4, Work.NOTHING)
    seen = rows.threads()
    assert [(thread.number, thread.does, thread.request) for thread in seen] == [
        (0, WAITING, 0),
        (1, "following", 0),
        (2, "sending", 9),
        (3, "logging", 0),
    ]
    assert [thread.leads for thread in seen] == [True, False, False, False]
    assert [thread.busy for thread in seen] == [False, False, True, True]
    assert seen[0].native_id == 4711
    assert all(0 <= thread.for_s < 30 for thread in seen[1:])


def test_a_leader_serves_from_the_beginning_of_a_round_to_its_end(rows: Rows) -> None:
    rows.activity.thread_does(0, Work.LEADING)
    now = time.monotonic_ns() + 3600 * SECOND  # long after it began to lead
    for beat, round_ns, does, for_s in ((9, 5, WAITING, 9), (9, 3, WAITING, 9), (9, 7, WAITING, 9), (9, 8, WAITING, 9)):
        (leader,) = read_threads(rows.words, rows.at, now, now - beat * SECOND, now - (beat + round_ns) * SECOND)
        assert (leader.does, leader.for_s) == (does, for_s)
    (leader,) = read_threads(rows.words, rows.at, now, now - 9 * SECOND, now - 5 * SECOND)
    assert (leader.does, leader.for_s) == (SERVING, 5)


def test_more_threads_than_rows_harm_nothing(rows: Rows) -> None:
    before = rows.words[rows.at : rows.at + WORDS].tobytes()
    rows.activity.thread_begins(THREAD_ROWS, 1)
    rows.activity.thread_does(THREAD_ROWS, Work.LEADING)
    assert rows.words[rows.at : rows.at + WORDS].tobytes() == before
    rows.activity.thread_does(THREAD_ROWS - 1, Work.LEADING)
    assert len(rows.threads()) == 1


def test_nothing_is_left_for_the_next_worker_of_the_slot(rows: Rows) -> None:
    rows.show()
    rows.activity.thread_does(0, Work.LEADING)
    activity.clear(rows.words, rows.at)
    assert (rows.threads(), rows.requests()) == ([], [])


def test_rows_of_slots_do_not_overlap(segment: Segment) -> None:
    starts = [segment.activity(slot) for slot in range(segment.slots)]
    for slot, at in enumerate(starts):
        assert at >= segment.counters(slot)
        assert at + WORDS <= (segment.row(slot + 1) if slot + 1 < segment.slots else len(segment.words))


def test_a_row_that_a_dead_worker_left_half_written_is_left_out(rows: Rows) -> None:
    row = rows.show()
    at = rows.at + WORDS - REQUEST_ROWS * REQUEST_WORDS + (row - 1) * REQUEST_WORDS
    rows.words[at] |= 1
    assert rows.requests() == []
    assert rows.show(row) == row
    assert len(rows.requests()) == 1, "the next write makes it whole"


def test_what_is_read_while_it_is_written_is_of_one_writing(segment: Segment) -> None:
    """Method, target and client always say the same letter, whoever writes meanwhile."""

    def write() -> None:
        writer, row, letters = Rows(segment), 0, string.ascii_uppercase.encode()
        while os.getppid() != 1:
            for letter in letters:
                word = bytes([letter])
                row = writer.show(row, head=word * 16 + b" " + word * 112, client=word * 48)

    rows = Rows(segment)
    with forked(write):
        wait_until(rows.requests)
        end, looks = time.monotonic() + 0.5, 0
        while time.monotonic() < end:
            for seen in rows.requests():
                looks += 1
                assert len({*seen.method, *seen.target, *seen.client}) == 1, seen
    assert looks


def test_scribbles_are_bounded_and_printable(rows: Rows) -> None:
    """A worker that was taken over writes anything; readers go on, and nothing that they show is unsafe."""
    source = random.Random(8)
    for _ in range(200):
        for at in range(rows.at, rows.at + WORDS):
            rows.words[at] = (
                source.getrandbits(64) if source.random() < 0.5 else source.choice((0, 1, 2, 3, 4, 2**64 - 1))
            )
        for thread in read_threads(rows.words, rows.at, source.getrandbits(64), source.getrandbits(64), 2**64 - 1):
            assert thread.does in (*WORKS, WAITING, SERVING)
            assert 0 <= thread.request <= REQUEST_ROWS
            assert 0 <= thread.native_id < 2**32
            assert thread.for_s >= 0
        for seen in rows.requests():
            assert seen.phase in (*PHASES, activity.QUEUED)
            for text in (seen.client, seen.method, seen.target):
                assert text.isascii()
                assert text.isprintable()
                assert len(text) <= 4 * 112 + 3
            assert 0 <= seen.status < 1000
            assert min(seen.took_s, seen.phase_s, seen.waited_s, seen.sent, seen.all_of_it) >= 0


def test_a_writer_goes_on_over_scribbles(rows: Rows) -> None:
    for at in range(rows.at, rows.at + WORDS):
        rows.words[at] = 2**64 - 1
    rows.words[rows.unlisted_at] = 2**64 - 1
    row = rows.show()
    assert [request.target for request in rows.requests() if request.row == row] == ["/a/b?c"]
    rows.activity.leave(row)


def test_another_process_reads_what_is_written(segment: Segment) -> None:
    rows = Rows(segment)
    assert run_forked(lambda: Rows(segment).show(head=b"GET /child HTTP/1.1\r\n")) == 1, "its row"
    assert [seen.target for seen in rows.requests()] == ["/child"]
