"""Counters for Prometheus, in the two forms of text that it reads; the library writes them.

Owns:    the names of the metrics, by the conventions of Prometheus: made from the table of counters.
Fails:   ImportError, at import, without the library.
Used by: handlers.status.
"""

from collections.abc import Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

from pyserver.ipc import stats
from pyserver.ipc.observe import STATES, Snapshot

_NS: Final = 1_000_000_000
_RESPONSES: Final = "responses_"  # counters that are one metric, with the rest of their name in a label
_BYTES: Final = "bytes_"


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
        yield GaugeMetricFamily(
            "pyserver_since_timestamp_seconds", "when the totals began to count, seconds since 1970", seen.since
        )
        for histogram in stats.HISTOGRAMS:
            buckets, sum_s = seen.buckets[histogram.name], totals[histogram.name] / _NS
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


def _octaves(buckets: list[int]) -> list[tuple[str, float]]:
    """Return what is below each octave's end: finer ones would be hundreds of time series."""
    found: list[tuple[str, float]] = []
    passed = 0
    for bucket, count in enumerate(buckets):
        passed += count
        if bucket % stats.OCTAVE == stats.OCTAVE - 1 and bucket != len(buckets) - 1:
            found.append((repr(stats.bound(bucket) / _NS), passed))
    return [*found, ("+Inf", passed)]
