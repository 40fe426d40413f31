"""`pyserver status`: what it says of a segment, without a word to the server."""

import json
import math
import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.unit.processes import forked, run_forked, wait_until

from pyserver.ipc import observe
from pyserver.ipc.activity import Activity, Phase, Work
from pyserver.ipc.notes import KINDS
from pyserver.ipc.observe import (
    SCHEMA,
    STATES,
    as_document,
    as_text,
    memory_of,
    open_descriptors,
    requests_as_text,
    resident_of,
    snapshot,
)
from pyserver.ipc.queue import Queue
from pyserver.ipc.segment import HEADER, ROW, TOTALS, VERSION, Segment, SegmentError, found, sweep, words_for
from pyserver.ipc.stats import COUNTERS, HISTOGRAMS, SERVER, Tally, fold
from pyserver.master.supervisor import State

# What a spoiled word may hold: anything, and more often what overflows, or stands just beside what is right.
WORDS = st.sampled_from([0, 1, 2, 5, 6, 7, 1 << 31, 1 << 32, 1 << 53, 1 << 63, 2**64 - 1]) | st.integers(0, 2**64 - 1)


def at_work(segment: Segment) -> Activity:
    """The worker of slot 0 has two requests: one is sent, for the other a thread looks at the disk."""
    activity, words = Activity(), segment.words
    activity.attach(words, segment.activity(0), segment.row(0, "unlisted"))
    head, began = b"GET /%b HTTP/1.1\r\n\r\n", time.monotonic_ns() - 20_000_000_000

    def show(phase: Phase, target: bytes, sent: int, began_ns: int) -> int:
        return activity.show(
            0,
            phase,
            since_ns=time.monotonic_ns(),
            began_ns=began_ns,
            waited_ns=0,
            sent=sent,
            all_of_it=sent * 4,
            status=200 if sent else 0,
            number=1,
            client=b"192.0.2.7",
            head=head % target,
        )

    show(Phase.SENDING, b"film", 1 << 20, began)
    row = show(Phase.WORKING, b"cold", 0, began + 10_000_000_000)
    activity.thread_does(0, Work.FOLLOWING)
    activity.thread_does(1, Work.ANSWERING, row)
    activity.thread_does(2, Work.LEADING)
    words[segment.row(0, "round_ns")] = words[segment.row(0, "beat_ns")] + 500_000_000
    words[segment.row(0, "unlisted")] = 5
    return activity


@pytest.fixture
def busy(segment: Segment) -> Segment:
    """A server in the middle of its work: two workers, one dying, one place empty."""
    words = segment.words
    now = time.monotonic_ns()
    for slot, state in enumerate((State.READY, State.DRAINING, State.KILLED, State.EMPTY)):
        for field, value in {
            "state": state,
            "pid": 1000 + slot,
            "generation": slot + 1,
            "crew": 7,
            "since_ns": now - 90_000_000_000,
            "beat_ns": now - 2_000_000_000,
            "sent": 10,
            "received": 10 - slot,
        }.items():
            words[segment.row(slot, field)] = value
        tally = Tally()
        tally.attach(words, segment.counters(slot))
        tally.requests, tally.connections_open, tally.connections = 100, slot, 50
        tally.memo_misses, tally.file_cache_misses = 10, 3
        tally.waited(2_000_000, 50)
        tally.took(10_000, 90)
        tally.took(3_000_000, 9)
        tally.took(4_000_000_000, 1)
        tally.classes = [0, 0, 90, 5, 4, 1]
        tally.bytes_sent, tally.bytes_received = 3 << 20, 5 << 10
        tally.publish(words, segment.counters(slot))
    at_work(segment)
    words[HEADER["in_hand"]] = 2
    words[HEADER["crew"]] = 7
    return segment


def test_the_states_are_the_masters() -> None:
    assert [state.name.lower() for state in State] == list(STATES)
    assert [int(state) for state in State] == list(range(len(STATES)))


def test_a_snapshot_adds_up(busy: Segment) -> None:
    seen = snapshot(busy)
    assert (seen.capacity, seen.empty_slots, seen.filled_slots, seen.in_hand) == (64, 64 - 6 - 2, 6, 2)
    assert seen.totals["requests"] == 400
    assert [worker.state for worker in seen.workers] == ["ready", "draining", "killed", "empty"]
    assert [worker.waiting for worker in seen.workers] == [0, 1, 2, 3]
    assert [worker.pid for worker in seen.workers] == [1000, 1001, 1002, 0], "nobody is in an empty place"
    assert all(89 < worker.age_s < 95 and 1.9 < worker.silent_s < 5 for worker in seen.workers[:3])
    assert (seen.workers[3].age_s, seen.workers[3].silent_s) == (0, 0)


def test_what_a_compromised_worker_writes_is_shown_and_harms_nothing(busy: Segment) -> None:
    for field in ROW:
        busy.words[busy.row(0, field)] = 2**64 - 1
    for name in ("capacity", "in_hand", "since", "master_pid"):
        busy.words[HEADER[name]] = 2**40
    seen = snapshot(busy)
    assert seen.workers[0].state == str(2**64 - 1)
    assert seen.workers[0].age_s == 0
    as_text(seen)
    json.loads(as_document(seen))


def test_each_worker_says_what_it_is_at(busy: Segment) -> None:
    first, second, *_ = snapshot(busy).workers
    assert [(request.target, request.phase, request.thread) for request in first.requests] == [
        ("/film", "sending", None),
        ("/cold", "working", 1),
    ]
    assert [thread.does for thread in first.threads] == ["following", "answering", "serving"]
    assert first.leader == first.threads[2]
    assert (first.unlisted, first.restarts, second.restarts) == (5, 0, 1)
    assert (second.threads, second.requests, second.leader, second.unlisted) == ([], [], None, 0)
    assert sum(first.buckets["answer_time"]) == 100


def test_what_has_nothing_under_way_is_parked(busy: Segment) -> None:
    tally = Tally()
    tally.connections_open, tally.threads_busy = 17, 1
    tally.publish(busy.words, busy.counters(0))
    seen = snapshot(busy).workers[0]
    assert (seen.parked, seen.busy) == (17 - 2 - 5, 1)
    assert ", 1 thread busy, 10 connections parked\n" in requests_as_text(snapshot(busy))
    busy.words[busy.row(0, "unlisted")] = 2**64 - 1
    assert snapshot(busy).workers[0].parked == 0


def test_what_was_under_way_at_a_death_is_told_as_of_then(busy: Segment) -> None:
    """Nobody is there any more, and no time passes for them."""
    seen = snapshot(busy, alive=False).workers[0]
    assert {thread.does for thread in seen.threads} == {"following", "answering", "serving"}
    assert 18 < seen.requests[0].took_s <= 18.5, "at the beginning of the last round"
    assert seen.threads[2].for_s == 0


def test_requests_are_told_to_a_person(busy: Segment) -> None:
    text = requests_as_text(snapshot(busy))
    assert text.startswith(f"pyserver serving, master {os.getpid()}\n")
    assert re.search(r"thread 1 answering for [0-9.]+ .s, thread 2 leads, serving for [0-9.]+ .?s, 1 follow", text)
    assert re.search(r"\n  192\.0\.2\.7 sending for \S+ \S+ of 2[0-9] s, 1\.0 MiB of 4\.0 MiB sent: GET /film\n", text)
    assert re.search(r"\n  192\.0\.2\.7 working \(thread 1\) for \S+ \S+ of 1[0-9] s: GET /cold\n", text)
    assert "\n  and 5 requests more\n" in text
    busy.words[busy.row(0, "unlisted")] = 1
    assert "\n  and 1 request more\n" in requests_as_text(snapshot(busy))
    assert "it was" in requests_as_text(snapshot(busy, alive=False)).splitlines()[0]


def test_memory_is_told_where_we_may_look() -> None:
    own = memory_of(os.getpid())
    assert own is not None
    assert own.pss_bytes is not None
    assert 1 << 20 < own.pss_bytes <= own.rss_bytes * 2
    assert memory_of(2**30) is None
    assert resident_of(2**30) == 0


def test_descriptors_are_counted() -> None:
    def body() -> int:
        before = open_descriptors()
        for _ in range(50):
            os.open("/", os.O_RDONLY)
        listed = [path.name for path in Path("/proc/self/fd").iterdir()]  # with the one that lists
        return int((before > 0, open_descriptors(), len(listed)) != (True, before + 50, before + 51))

    assert run_forked(body) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to take /proc away")
def test_without_proc_nothing_is_known_of_processes(tmp_path: Path) -> None:
    def body() -> int:
        before = resident_of(os.getpid()), open_descriptors()
        os.chroot(tmp_path)
        return int((min(before) > 0, resident_of(os.getpid()), open_descriptors()) != (True, 0, 0))

    assert run_forked(body) == 0


def test_the_document_has_of_processes_what_the_master_has_seen(busy: Segment) -> None:
    """A worker sees nothing of it: landlock keeps /proc from it."""
    document = json.loads(as_document(snapshot(busy)))
    assert abs(document["master_started"] - time.time()) < 60
    assert (document["master_rss_bytes"], document["master_open_fds"]) == (None, None)
    assert {(worker["started"], worker["rss_bytes"]) for worker in document["workers"]} == {(None, None)}
    for slot in (0, 3):
        busy.words[busy.row(slot, "started")] = 1_700_000_000
        busy.words[busy.row(slot, "rss_bytes")] = 5 << 20
    busy.words[HEADER["master_rss_bytes"]], busy.words[HEADER["master_open_fds"]] = 4 << 20, 23
    busy.words[busy.row(0, "pid")] = 2**30  # hidden from us, too
    for memory in (False, True):
        document = json.loads(as_document(snapshot(busy, memory=memory)))
        assert (document["master_rss_bytes"], document["master_open_fds"]) == (4 << 20, 23)
        first, *_, empty = document["workers"]
        assert (first["started"], first["rss_bytes"], first["pss_bytes"]) == (1_700_000_000, 5 << 20, None)
        assert (empty["started"], empty["rss_bytes"]) == (None, None), "of nobody"


def test_the_document_has_memory_where_it_was_asked_for(busy: Segment) -> None:
    busy.words[busy.row(0, "pid")] = os.getpid()
    assert json.loads(as_document(snapshot(busy)))["workers"][0]["rss_bytes"] is None
    worker = json.loads(as_document(snapshot(busy, memory=True)))["workers"][0]
    assert worker["rss_bytes"] > 1 << 20
    assert worker["leading"] == "serving"
    assert worker["times"]["answer_time"]["count"] == 100
    assert "requests" not in worker


@given(
    words=st.dictionaries(st.integers(0, words_for(4) - 1), WORDS, max_size=60),
    everything=st.none() | WORDS,
)
@example(words={}, everything=2**64 - 1)
@example(words={}, everything=1 << 63)
@settings(max_examples=150)
def test_nothing_that_stands_in_the_segment_ends_a_reader(words: dict[int, int], everything: int | None) -> None:
    """T-61: a worker that was taken over writes anything, anywhere. What is said is then untrue, in its usual form."""
    segment = Segment.private(4)
    if everything is not None:
        for at in range(len(segment.words)):
            segment.words[at] = everything
    for at, value in words.items():
        segment.words[at] = value
    seen = snapshot(segment)
    document = json.loads(as_document(seen))
    assert list(document["totals"]) == [counter.name for counter in COUNTERS]
    assert all(math.isfinite(number) for number in numbers(document))
    text = as_text(seen)
    assert all(line.isprintable() for line in text.splitlines())
    assert len(text.splitlines()) < 120  # whatever stands there
    segment.close()


def numbers(value: object) -> Iterator[float]:
    """All numbers in a document."""
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from numbers(each)
    elif isinstance(value, int | float):
        yield value


class Restless:
    """The words of a segment whose fold counter somebody moves faster than anybody reads it."""

    def __init__(self, words: memoryview) -> None:
        self.words = words
        self.reads = 0

    def __getitem__(self, at: Any) -> Any:  # noqa: ANN401  as a memoryview has it
        if at == HEADER["fold"]:
            self.reads += 1
            return self.reads
        return self.words[at]


def test_a_fold_counter_that_never_rests_holds_nobody_up(busy: Segment) -> None:
    """Only the master moves it, and not so often; whoever else does is not waited for."""
    words = busy.words
    restless = busy.words = Restless(words)  # type: ignore[assignment]
    try:
        assert snapshot(busy).totals["requests"] == 400
    finally:
        busy.words = words
    assert restless.reads < 1000


@pytest.mark.parametrize("field", ["magic", "version", "slots"])
@pytest.mark.parametrize("value", [0, 1, VERSION + 1, 1 << 32, 2**64 - 1])
def test_a_header_that_was_spoiled_is_an_error_in_one_line(segment: Segment, field: str, value: int) -> None:
    segment.words[HEADER[field]] = value
    with pytest.raises(SegmentError, match=r"^[^\n]*$"):
        Segment.attach(segment.name)


def test_the_totals_include_the_dead(busy: Segment) -> None:
    fold(busy.words, HEADER["fold"], TOTALS, busy.counters(0))
    seen = snapshot(busy)
    assert seen.totals["requests"] == 400
    assert seen.workers[0].counters["requests"] == 0


def test_a_fold_that_goes_on_is_not_looked_at(busy: Segment) -> None:
    """The fold counter is odd meanwhile; the reader waits for its end."""

    def fold_slowly() -> None:
        time.sleep(0.02)
        busy.words[TOTALS] = 0
        busy.words[HEADER["fold"]] += 1

    busy.words[HEADER["fold"]] = 1
    busy.words[TOTALS] = 1_000_000  # connections_open, as they never are
    with forked(fold_slowly) as master:
        assert snapshot(busy).totals["connections_open"] == 6
        master.wait()


def test_a_master_that_stopped_in_a_fold_is_not_waited_for_for_ever(busy: Segment) -> None:
    busy.words[HEADER["fold"]] = 1
    began = time.monotonic()
    assert snapshot(busy).totals["requests"] == 400
    assert time.monotonic() - began < 6


def test_the_document_has_every_number_and_its_version(busy: Segment) -> None:
    document = json.loads(as_document(snapshot(busy)))
    assert document["schema"] == SCHEMA == 1
    assert list(document["totals"]) == [counter.name for counter in COUNTERS]
    assert list(document["workers"][0]["counters"]) == [counter.name for counter in COUNTERS]
    assert document["workers"][1]["state"] == "draining"
    assert document["ready"] is False
    assert set(document["times"]) == {histogram.name for histogram in HISTOGRAMS}
    took = document["times"]["answer_time"]
    assert took["count"] == 400
    assert took["sum_s"] == pytest.approx(4 * (90 * 10e-6 + 9 * 3e-3 + 4))
    assert took["p50_s"] == pytest.approx(10e-6, rel=0.05)
    assert took["p99_s"] == pytest.approx(3e-3, rel=0.05)
    assert took["p999_s"] == pytest.approx(4, rel=0.05)
    assert [count for _, count in took["buckets"]] == [360, 36, 4]
    assert all(end / 2 ** (1 / 8) <= s <= end for (end, _), s in zip(took["buckets"], (10e-6, 3e-3, 4), strict=True))


def test_events_are_told_to_programs_and_persons(busy: Segment) -> None:
    for number in range(7):
        busy.note(
            "died", f"worker {number} (generation 1, pid 4711) killed by SIGKILL after 100.0 s: 3 connections lost"
        )
    busy.note_log("/var/log/pyserver/access.log")
    document = json.loads(as_document(snapshot(busy)))
    assert document["access_log"] == "/var/log/pyserver/access.log"
    assert [event["text"].partition(" (")[0] for event in document["events"]] == [f"worker {n}" for n in range(7)]
    assert {event["kind"] for event in document["events"]} == {"died"}
    text = as_text(snapshot(busy))
    assert [f"died: worker {number}" in text for number in range(7)] == [False] * 2 + [True] * 5
    assert max(map(len, text.splitlines())) <= 80


def test_each_kind_of_event_is_documented() -> None:
    page = (Path(__file__).parents[3] / "docs/status.md").read_text()
    assert [kind for kind, text in KINDS.items() if f"| `{kind}` | {text} |\n" not in page] == []


def test_of_nothing_there_are_no_percentiles(segment: Segment) -> None:
    times = json.loads(as_document(snapshot(segment)))["times"]
    assert times["answer_time"] == {
        "count": 0, "sum_s": 0, "p50_s": None, "p90_s": None, "p99_s": None, "p999_s": None, "buckets": [],
    }  # fmt: skip
    assert "waited for  50% -, 90% -, 99% -, 99.9% -" in as_text(snapshot(segment))


def test_every_key_of_the_document_is_documented(busy: Segment) -> None:
    page = (Path(__file__).parents[3] / "docs/status.md").read_text()
    document = json.loads(as_document(snapshot(busy), with_requests=True))
    worker = document["workers"][0]
    keys = {*document, *worker, *document["totals"], *document["times"]["answer_time"]}
    keys |= {*worker["threads"][0], *worker["requests"][0]}
    assert [key for key in sorted(keys) if f"`{key}`" not in page] == []
    assert f"`schema` is {SCHEMA}" in page
    rows = [f"| `{one.name}` | {one.unit} | {one.text}{' (gauge)' * one.gauge} |\n" for one in (*SERVER, *COUNTERS)]
    assert [row for row in rows if page.count(row) != 1] == []


def test_ready_is_who_serves_with_all_its_workers(busy: Segment) -> None:
    for slot in range(4):
        assert not snapshot(busy).ready
        busy.words[busy.row(slot)] = State.READY
    assert snapshot(busy).ready
    assert not snapshot(busy, alive=False).ready
    busy.words[busy.row(0)] = State.STARTING
    busy.words[busy.row(0, "crew")] = 8  # is to follow those that serve
    assert snapshot(busy).ready
    busy.words[HEADER["master_state"]] = 1
    assert not snapshot(busy).ready


def test_the_text_is_for_a_screen_of_80_columns(busy: Segment) -> None:
    busy.words[HEADER["saturations"]] = 123
    text = as_text(snapshot(busy))
    assert max(map(len, text.splitlines())) <= 80
    assert f"pyserver serving, master {os.getpid()}, 1/4 workers ready" in text
    assert "6 waiting, 56 of 64 free; mean wait 2.00 ms" in text
    assert "requests    400: 2xx 360, 3xx 20, 4xx 16, 5xx 4" in text
    took = next(line for line in text.splitlines() if line.startswith("took "))
    assert re.fullmatch(r"took        50% (9\.\d+|10\.\d) µs, 90% .*, 99% [23]\.\d+ ms, 99\.9% [34]\.\d+ s", took)
    assert "memo        360 of 400 requests; 12 looked for a file" in text
    assert "traffic     12.0 MiB sent, 20.0 KiB received" in text
    assert "trouble" not in text


def test_trouble_is_named(busy: Segment) -> None:
    tally = Tally()
    tally.failures, tally.log_lines_dropped, tally.log_records_dropped = 2, 30, 5
    tally.publish(busy.words, busy.counters(3))
    busy.words[HEADER["accept_pauses"]] = 4
    text = as_text(snapshot(busy))
    line = " ".join(text.partition("trouble ")[2].partition("worker ")[0].split())
    assert "2 errors of ours" in line
    assert "30 log lines dropped" in line
    assert "5 records for the journal dropped" in line
    assert "4 pauses without descriptors" in line
    assert "deadline" not in line


def test_a_server_that_is_gone_or_stops_says_so(busy: Segment) -> None:
    assert "pyserver is gone, master" in as_text(snapshot(busy, alive=False))
    busy.words[HEADER["master_state"]] = 1
    assert "pyserver stopping, master" in as_text(snapshot(busy))


def saturated(name: str) -> bool:
    """Tell whether the server has come so far; at first its segment is empty."""
    with suppress(SegmentError):
        segment = Segment.attach(name)
        found = bool(segment.words[HEADER["saturations"]])
        segment.close()
        return found
    return False


@pytest.mark.usefixtures("of_nobody_else")
@pytest.mark.parametrize("as_json", [False, True])
def test_the_command_looks_at_the_server_of_a_name(capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    names: list[str] = []

    def master() -> None:
        segment = Segment.create(2, 8)
        queue = Queue.create(segment, 8)
        segment.words[HEADER["saturations"]] = 1
        time.sleep(30)
        queue.close()

    with forked(master) as child:
        names.append(f"pyserver.{child.pid}")
        wait_until(lambda: any(name == f"/{names[0]}" for name, alive in found() if alive))
        wait_until(lambda: saturated(names[0]))
        assert observe.main(names[0], as_json=as_json) == 0
        said = capsys.readouterr()
        assert said.err == ""
        assert json.loads(said.out)["name"] == f"/{names[0]}" if as_json else "pyserver serving" in said.out
        child.kill()
        assert observe.main(names[0], as_json=False) == 0
        assert "pyserver is gone" in capsys.readouterr().out
    sweep()


def test_the_command_says_in_one_line_what_it_does_not_find(capsys: pytest.CaptureFixture[str]) -> None:
    assert observe.main("pyserver.0", as_json=False) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("pyserver: no segment 'pyserver.0' that we may read; there are: ")
    assert said.err.count("\n") == 1
