"""Metrics: every counter is there, by the conventions of Prometheus, and its own tool has nothing to say against it."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("prometheus_client", reason="python3-prometheus-client is not installed")
from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics

from pyserver.handlers.metrics import MASTER, WORKERS, exposition
from pyserver.ipc.observe import Snapshot, snapshot
from pyserver.ipc.segment import HEADER, Segment
from pyserver.ipc.stats import COUNTERS, HISTOGRAMS, Tally, index_of
from pyserver.master.supervisor import State

read_text: Any = parser.text_string_to_metric_families
read_openmetrics: Any = openmetrics.text_string_to_metric_families
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@pytest.fixture
def seen() -> Iterator[Snapshot]:
    """A server whose every counter has a value of its own."""
    segment = Segment.private(2)
    tally = Tally()
    tally.attach(segment.words, segment.counters(0))
    tally.waited(3_000_000, 4)
    tally.took(10_000, 90)
    tally.took(10**12)
    for index in range(len(COUNTERS)):
        segment.words[segment.counters(0) + index] = 1000 + index
    segment.words[HEADER["crew"]] = segment.words[segment.row(0, "crew")] = 1
    segment.words[segment.row(0)] = State.READY
    segment.words[HEADER["since"]] = 1_700_000_000
    yield snapshot(segment)
    segment.close()


def samples(text: str) -> dict[str, float]:
    return {
        sample.name + "".join(f"/{value}" for value in sample.labels.values()): sample.value
        for family in read_text(text)
        for sample in family.samples
    }


def test_every_counter_is_told_once_with_its_value(seen: Snapshot) -> None:
    found = samples(exposition(seen, "")[1].decode())
    timed = {histogram.name for histogram in HISTOGRAMS}
    for counter in COUNTERS:
        if counter.name not in timed:
            assert list(found.values()).count(1000 + index_of(counter.name)) == 1, counter.name
    assert found["pyserver_requests_total"] == 1000 + index_of("requests")
    assert found["pyserver_sent_bytes_total"] == 1000 + index_of("bytes_sent")
    assert found["pyserver_connections_open"] == 1000 + index_of("connections_open")
    assert found["pyserver_responses_total/4xx"] == 1000 + index_of("responses_4xx")
    assert found["pyserver_workers/ready"] == found["pyserver_ready"] == 1
    assert found["pyserver_since_timestamp_seconds"] == 1_700_000_000


def process_series(accept: str, segment: Segment) -> dict[str, float]:
    """What is told of processes, as it is written."""
    text = exposition(snapshot(segment), accept)[1].decode()
    found = re.findall(r"^(pyserver_(?:master|worker)_\S+) (\S+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in found}


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_of_processes_it_tells_what_is_known(accept: str) -> None:
    segment = Segment.private(3)
    words = segment.words
    told = {"master_started": 1_700_000_000, "master_rss_bytes": 30 << 20, "master_open_fds": 23}
    for name, value in told.items():
        words[HEADER[name]] = value
    row = {"crew": 1, "pid": 4711, "generation": 4, "started": 1_700_000_009, "rss_bytes": 1 << 26, "unlisted": 5}
    for field, value in row.items():
        words[segment.row(2, field)] = value
    words[segment.row(2)] = State.READY
    words[segment.counters(2) + index_of("connections_open")] = 17
    assert process_series(accept, segment) == {
        "pyserver_master_start_time_seconds": 1_700_000_000,
        "pyserver_master_resident_memory_bytes": 30 << 20,
        "pyserver_master_open_fds": 23,
        'pyserver_worker_start_time_seconds{worker="2"}': 1_700_000_009,
        'pyserver_worker_resident_memory_bytes{worker="2"}': 1 << 26,
        'pyserver_worker_connections_parked{worker="2"}': 12,
        'pyserver_worker_restarts_total{worker="2"}': 3,
    }
    segment.close()


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_of_processes_what_is_not_known_is_left_out(accept: str) -> None:
    """0 would be a value: an alert could be for it, and a mean would be of it."""
    segment = Segment.private(3)
    assert process_series(accept, segment) == {}
    for slot, state in enumerate((State.READY, State.EMPTY)):
        segment.words[segment.row(slot, "crew")] = 1
        segment.words[segment.row(slot)] = state
        # Of the empty place these are the dead worker's, until another comes.
        for field, value in {"pid": 4711, "generation": 2, "started": 1000 * slot, "rss_bytes": 1000 * slot}.items():
            segment.words[segment.row(slot, field)] = value
    assert process_series(accept, segment) == {
        'pyserver_worker_connections_parked{worker="0"}': 0,
        'pyserver_worker_restarts_total{worker="0"}': 1,
        'pyserver_worker_restarts_total{worker="1"}': 1,
    }
    text = exposition(snapshot(segment), accept)[1].decode()
    kinds = dict(re.findall(r"^# TYPE pyserver_((?:master|worker)_\w+) (\w+)$", text, re.MULTILINE))
    assert kinds == {
        "master_start_time_seconds": "gauge",
        "master_resident_memory_bytes": "gauge",
        "master_open_fds": "gauge",
        "worker_start_time_seconds": "gauge",
        "worker_resident_memory_bytes": "gauge",
        "worker_connections_parked": "gauge",
        "worker_restarts" if accept else "worker_restarts_total": "counter",
    }
    segment.close()


def test_what_is_told_of_processes_is_documented() -> None:
    page = (Path(__file__).parents[3] / "docs/status.md").read_text()
    rows = [f"| `{row.name}` | {row.text} |\n" for row in MASTER]
    rows += [f"| `{row.name}{'_total' * row.grows}` | {row.text} |\n" for row in WORKERS]
    assert [row for row in rows if page.count(row) != 1] == []


def test_histograms_count_up_to_all(seen: Snapshot) -> None:
    found = samples(exposition(seen, "")[1].decode())
    name = "pyserver_answer_time_seconds"
    bucket = f"{name}_bucket/"
    buckets = [(float(key.removeprefix(bucket)), value) for key, value in found.items() if key.startswith(bucket)]
    assert buckets
    assert buckets == sorted(buckets)
    assert [value for _, value in buckets] == sorted(value for _, value in buckets)
    assert all(value == (90 if end >= 10e-6 else 0) for end, value in buckets[:-1])
    assert buckets[-1] == (float("inf"), 91.0)
    assert found[f"{name}_count"] == 91
    assert found[f"{name}_sum"] == pytest.approx((1000 + index_of("answer_time")) / 1e9)


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
@pytest.mark.parametrize("value", [1, 1 << 53, 1 << 63, 2**64 - 1])
def test_what_anybody_writes_into_the_segment_is_told_in_the_usual_form(value: int, accept: str) -> None:
    """T-61: the numbers are then untrue, and what reads them finds each metric, and no more."""
    segment = Segment.private(4)
    names = re.findall("^# HELP .*", exposition(snapshot(segment), accept)[1].decode(), re.MULTILINE)
    for at in range(len(segment.words)):
        segment.words[at] = value
    text = exposition(snapshot(segment), accept)[1].decode()
    segment.close()
    assert re.findall("^# HELP .*", text, re.MULTILINE) == names
    assert list(read_openmetrics(text) if accept else read_text(text))


def test_both_forms_say_the_same(seen: Snapshot) -> None:
    kind, text = exposition(seen, OPENMETRICS)
    assert kind.startswith("application/openmetrics-text")
    told = {sample for family in read_openmetrics(text.decode()) for sample in map(str, family.samples)}
    plain = {sample for family in read_text(exposition(seen, "*/*")[1].decode()) for sample in map(str, family.samples)}
    assert told == plain


def test_every_metric_is_documented(seen: Snapshot) -> None:
    text = exposition(seen, "")[1].decode()
    families = re.findall(r"^# HELP (\S+) (.+)$", text, re.MULTILINE)
    assert len(families) > 20
    assert all(name.startswith("pyserver_") and len(help_) > 10 for name, help_ in families)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_promtool_has_nothing_to_say(seen: Snapshot) -> None:
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=exposition(seen, "")[1], capture_output=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
