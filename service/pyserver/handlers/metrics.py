"""Counters for Prometheus, in the two forms of text that it reads; the library writes them.

Owns:    the names of the metrics, by the conventions of Prometheus: made from the table of counters, and from those
         below, which have what is of a process.
Never:   tells a value that is not known: it is left out, for 0 would be one.
Fails:   ImportError, at import, without the library.
Used by: handlers.status.
"""

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

from pyserver.ipc import stats
from pyserver.ipc.observe import STATES, Snapshot, Worker
from pyserver.limits import NS_PER_S

_RESPONSES: Final = "responses_"  # counters that are one metric, with the rest of their name in a label
_BYTES: Final = "bytes_"


class OfMaster(NamedTuple):
    """One row: what is told of the master."""

    name: str
    text: str
    value: Callable[[Snapshot], float | None]


class OfWorkers(NamedTuple):
    """One row: what is told of each worker, by its place."""

    name: str
    text: str
    value: Callable[[Worker], float | None]
    grows: bool = False


# What a process is asked for has the name that client libraries give it, after whose it is (prometheus_client has
# process_resident_memory_bytes, process_open_fds, process_start_time_seconds of itself).
MASTER: Final = (
    OfMaster(
        "pyserver_master_start_time_seconds",
        "when the master was started, seconds since 1970",
        lambda seen: seen.master_started,
    ),
    OfMaster(
        "pyserver_master_resident_memory_bytes", "resident memory of the master", lambda seen: seen.master_rss_bytes
    ),
    OfMaster("pyserver_master_open_fds", "descriptors that the master has open", lambda seen: seen.master_open_fds),
)
WORKERS: Final = (
    OfWorkers(
        "pyserver_worker_start_time_seconds",
        "when the worker in this place was started, seconds since 1970",
        lambda worker: worker.started,
    ),
    OfWorkers(
        "pyserver_worker_resident_memory_bytes",
        "resident memory of the worker, with what it shares with the others",
        lambda worker: None if worker.memory is None else worker.memory.rss_bytes,
    ),
    OfWorkers(
        "pyserver_worker_connections_parked",
        "connections of the worker on which nothing is under way",
        lambda worker: worker.parked if worker.pid else None,
    ),
    OfWorkers(
        "pyserver_worker_restarts",
        "how often a worker of this place that died was replaced",
        lambda worker: worker.restarts,
        grows=True,
    ),
)


class _Seen(Collector):
    """One look at the server."""

    def __init__(self, seen: Snapshot) -> None:
        self._seen = seen

    def collect(self) -> Iterator[Metric]:
        seen, totals = self._seen, self._seen.totals
        responses = CounterMetricFamily("pyserver_responses", "responses by class of status", labels=["class"])
        timed = {histogram.name for histogram in stats.HISTOGRAMS}
        for counter in stats.COUNTERS:
            value = totals[counter.name]
            if counter.name in timed:
                continue
            if counter.name.startswith(_RESPONSES):
                responses.add_metric([counter.name.removeprefix(_RESPONSES)], value)
            else:
                yield _family(_name(counter.name), counter.text, value, grows=not counter.gauge)
        yield responses
        for one in stats.SERVER:
            yield _family(f"pyserver_{one.name}", one.text, int(getattr(seen, one.name)), grows=not one.gauge)
        workers = GaugeMetricFamily("pyserver_workers", "places of workers by their state", labels=["state"])
        for state in STATES:
            workers.add_metric([state], sum(worker.state == state for worker in seen.workers))
        yield workers
        for of_master in MASTER:
            yield GaugeMetricFamily(of_master.name, of_master.text, of_master.value(seen))
        for of_workers in WORKERS:
            yield _by_worker(of_workers, seen)
        yield GaugeMetricFamily(
            "pyserver_since_timestamp_seconds", "when the totals began to count, seconds since 1970", seen.since
        )
        for histogram in stats.HISTOGRAMS:
            buckets, sum_s = seen.buckets[histogram.name], totals[histogram.name] / NS_PER_S
            name = f"pyserver_{histogram.name}_seconds"
            yield HistogramMetricFamily(name, histogram.text, buckets=_octaves(buckets), sum_value=sum_s)


def exposition(seen: Snapshot, accept: str) -> tuple[str, bytes]:
    """Return the type and the text that fit a client which accepts this (RFC 9110 12.5.1)."""
    encode, kind = choose_encoder(accept)
    registry = CollectorRegistry()
    registry.register(_Seen(seen))
    return kind, encode(registry)


def _name(counter: str) -> str:
    """Return a metric's name: the unit comes last."""
    return f"pyserver_{counter.removeprefix(_BYTES)}_bytes" if counter.startswith(_BYTES) else f"pyserver_{counter}"


def _family(name: str, text: str, value: int, *, grows: bool) -> Metric:
    return CounterMetricFamily(name, text, value) if grows else GaugeMetricFamily(name, text, value)


def _by_worker(row: OfWorkers, seen: Snapshot) -> Metric:
    """Return the metric, with a value for each place of which it is known; of empty ones only what has been counted."""
    kind = CounterMetricFamily if row.grows else GaugeMetricFamily
    family: CounterMetricFamily | GaugeMetricFamily = kind(row.name, row.text, labels=["worker"])
    for worker in seen.workers:
        value = row.value(worker)
        if value is not None:
            family.add_metric([str(worker.slot)], value)
    return family


def _octaves(buckets: list[int]) -> list[tuple[str, float]]:
    """Return what is below each octave's end: finer ones would be hundreds of time series."""
    found: list[tuple[str, float]] = []
    passed = 0
    for bucket, count in enumerate(buckets):
        passed += count
        if bucket % stats.OCTAVE == stats.OCTAVE - 1 and bucket != len(buckets) - 1:
            found.append((repr(stats.bound(bucket) / NS_PER_S), passed))
    return [*found, ("+Inf", passed)]
