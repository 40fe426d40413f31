"""What `pyserver top` shows of two looks: what happened between them, in whatever room there is."""

import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyserver.ipc.activity import CurrentRequest
from pyserver.ipc.observe import snapshot
from pyserver.ipc.segment import HEADER, Segment
from pyserver.ipc.stats import SERVER, Tally
from pyserver.master.supervisor import State
from pyserver.top.sketch import Sketch
from pyserver.top.view import ORDERS, Look, Sampled, Window, lines

SLOTS = 12


@pytest.fixture(scope="module")
def looks() -> tuple[Look, Look]:
    """Two seconds of a server with three workers, of which the second did most."""
    segment = Segment.private(SLOTS)
    words, now_ns = segment.words, time.monotonic_ns()
    tallies = [Tally() for _ in range(3)]

    def publish() -> None:
        for slot, tally in enumerate(tallies):
            tally.publish(words, segment.counters(slot))

    for slot, tally in enumerate(tallies):
        tally.attach(words, segment.counters(slot))
        for field, value in {"state": State.READY, "pid": 100 + slot, "generation": 1, "crew": 1}.items():
            words[segment.row(slot, field)] = value
        words[segment.row(slot, "since_ns")] = words[segment.row(slot, "beat_ns")] = now_ns
        tally.requests = tally.memo_misses = 1000
        tally.took(5_000_000_000, 1000)  # long ago, when it was slow
    words[HEADER["crew"]] = 1
    words[HEADER["capacity"]] = 64
    publish()
    before = Look(snapshot(segment), 10.0)
    for slot, tally in enumerate(tallies):
        more = (20, 400, 80)[slot]
        tally.requests += more
        tally.memo_misses += more // 4
        tally.file_cache_misses += more // 10
        tally.connections_open = 3 - slot
        tally.connections += 10
        tally.classes[2] += more
        tally.bytes_sent += 1024 * more
        tally.took(1_000_000, more)
        tally.waited(50_000, 10)
    tallies[0].log_lines_dropped = 7
    publish()
    segment.note("died", "worker 1 (generation 1, pid 1) killed by SIGKILL after 3.0 s")
    now = Look(snapshot(segment), 12.0)
    segment.close()
    return before, now


def names(*paths: str) -> Sampled:
    sketches = Sampled(Sketch[str](10), Sketch[str](10))
    sketches.paths.add(paths)
    sketches.clients.add(["192.0.2.1"] * len(paths))
    return sketches


NONE = Sampled(Sketch(1), Sketch(1))


def shown(before: Look | None, now: Look, sampled: Sampled = NONE, **options: object) -> list[str]:
    size = {"width": 80, "height": 24, **options}
    return [line.text for line in lines(Window(before, now), now, sampled, **size)]  # type: ignore[arg-type]


def with_requests(now: Look, *took: float) -> Look:
    """The same look, with requests under way in its first worker."""
    requests = [
        CurrentRequest(n, "sending", s / 2, s, 0, "192.0.2.7", "GET", f"/file{n}", 200, 1024, 4096, 1, None)
        for n, s in enumerate(took)
    ]
    seen = now.seen
    first = seen.workers[0]._replace(requests=requests)
    return now._replace(seen=seen._replace(workers=[first, *seen.workers[1:]]))


def test_rates_and_percentiles_are_of_the_time_between(looks: tuple[Look, Look]) -> None:
    text = "\n".join(shown(*looks))
    assert "requests    250 /s: 2xx 250, 3xx 0, 4xx 0, 5xx 0; memo 75.0%, disk 10.0%" in text
    assert "connections 6 open, 15 new /s, 0 of 64 wait in the queue" in text
    assert "traffic     250.0 KiB/s sent" in text
    assert re.search(r"took        50% (9\d\d µs|1\.?\d* ms), .*99\.9% (9\d\d µs|1\.?\d* ms)\n", text), text
    assert re.search(r"waited for  50% (4|5)\d\.?\d? µs", text)
    assert "trouble     7 log lines dropped" in text
    assert "died: worker 1 (generation 1, pid 1) killed by SIGKILL" in text


def test_of_a_first_look_nothing_is_known_to_have_happened(looks: tuple[Look, Look]) -> None:
    text = "\n".join(shown(None, looks[1]))
    assert "requests    0 /s" in text
    assert "took        50% -, 90% -" in text


def test_totals_that_began_anew_are_no_rate(looks: tuple[Look, Look]) -> None:
    before, now = looks
    other = before._replace(seen=before.seen._replace(since=before.seen.since + 1))
    assert "requests    0 /s" in "\n".join(shown(other, now))


def test_a_successor_is_not_measured_by_who_was_before_it(looks: tuple[Look, Look]) -> None:
    before, now = looks
    successor = now.seen.workers[0]._replace(pid=999, generation=2)
    later = now._replace(seen=now.seen._replace(workers=[successor, *now.seen.workers[1:]]))
    (row,) = [line for line in shown(before, later) if " 999 " in line]
    assert row.split()[:7] == ["0", "ready", "999", "2", "0", "s", "0"]


@pytest.mark.parametrize(("order", "first"), [("worker", "100"), ("requests", "101"), ("open", "100"), ("busy", "100")])
def test_workers_are_sorted_as_wished(looks: tuple[Look, Look], order: str, first: str) -> None:
    rows = [line for line in shown(*looks, order=order) if " ready " in line]
    assert rows[0].split()[2] == first
    assert set(ORDERS) == {"worker", "requests", "open", "busy"}


def test_the_slowest_request_is_first(looks: tuple[Look, Look]) -> None:
    now = with_requests(looks[1], 0.5, 70, 3)
    rows = [line for line in shown(looks[0], now) if "/file" in line]
    assert [row.split()[0] for row in rows] == ["70", "3", "500"]
    assert rows[0] == "   70 s sending      35 s   25%  192.0.2.7       GET /file1"


def test_paths_and_clients_are_side_by_side(looks: tuple[Look, Look]) -> None:
    rows = shown(*looks, names("/a", "/a", "/a", "/b"))
    (at,) = [number for number, row in enumerate(rows) if row.startswith("share  paths")]
    assert re.fullmatch(r"75\.0%  /a {30,}100\.0%  192\.0\.2\.1 *", rows[at + 1])
    assert rows[at + 2].startswith("25.0%  /b")


def test_why_there_are_no_names_is_said(looks: tuple[Look, Look]) -> None:
    text = "\n".join(shown(*looks, NONE._replace(why_not="/x/access.log: Permission denied")))
    assert "/x/access.log: Permission denied" in text


def test_the_state_comes_first(looks: tuple[Look, Look]) -> None:
    before, now = looks
    assert shown(before, now)[0].startswith("pyserver serving, 3/3 workers ready, 0 restarted, 0 reloads")
    assert shown(before, now, paused=True)[0].endswith("paused")
    gone = now._replace(seen=now.seen._replace(alive=False))
    assert shown(before, gone)[0].startswith("pyserver is gone")


def test_the_numbers_of_the_server_that_grow_are_all_told(looks: tuple[Look, Look]) -> None:
    """Each counter of the one table that is the master's changes what is shown, when it changes."""
    before, now = looks
    plain = shown(before, now)
    for counter in SERVER:
        if not counter.gauge:
            changed: Any = {counter.name: 3}
            assert shown(before, now._replace(seen=now.seen._replace(**changed))) != plain, counter.name


@given(width=st.integers(1, 300), height=st.integers(1, 100), requests=st.integers(0, 40), paths=st.integers(0, 50))
def test_it_is_never_larger_than_the_screen(
    looks: tuple[Look, Look], width: int, height: int, requests: int, paths: int
) -> None:
    before, now = looks
    rows = shown(
        before,
        with_requests(now, *range(requests)),
        names(*(f"/{number}{'x' * number * 9}" for number in range(paths))),
        width=width,
        height=height,
    )
    assert len(rows) == height
    assert max(map(len, rows)) <= width
    if height > 20 and width >= 80:
        text = "\n".join(rows)
        assert "q quit" in rows[-1]
        assert len([row for row in rows if " ready " in row or row.startswith("   and ")]) >= 2
        assert ("no request is under way" in text) == (requests == 0)
