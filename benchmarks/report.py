"""What was measured, as a table.

Owns:    nothing.
Never:   rounds before it divides.
Used by: benchmarks.main.
"""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Final, NamedTuple

from benchmarks.measure import Sample
from benchmarks.workloads import Workload

NOTHING: Final = "-"

# Of each workload, by its name: of each server, by its name, the samples or why there are none.
Results = Mapping[str, Mapping[str, Sequence[Sample] | str]]


class Comparison(NamedTuple):
    """Two servers under one workload."""

    ratio: float  # CPU for each request of the peer divided by ours: above 1, ours needs less
    target: float | None

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None where there is none."""
        return None if self.target is None else round(self.ratio, 2) >= self.target


def samples_of(results: Results, workload: str, server: str) -> Sequence[Sample]:
    """Return the samples, which may be none."""
    found = results.get(workload, {}).get(server, ())
    return () if isinstance(found, str) else found


def compare(results: Results, workload: Workload, peer: str, ours: str = "ours") -> Comparison | None:
    """Return the median over the rounds of the ratio within a round, where the two took turns."""
    pairs = zip(samples_of(results, workload.name, peer), samples_of(results, workload.name, ours), strict=False)
    ratios = [theirs.cpu_us / own.cpu_us for theirs, own in pairs]
    if not ratios:
        return None
    return Comparison(median(ratios), workload.target if peer == "nginx" else None)


def number(value: float) -> str:
    """Return a figure with three digits."""
    return f"{value:.0f}" if value >= 99.5 else f"{value:.1f}" if value >= 9.95 else f"{value:.2f}"


def cpu_table(results: Results, workloads: Sequence[Workload], servers: Sequence[str]) -> list[list[str]]:
    """Return rows of text, the first one the header: CPU for each request, and how nginx compares."""
    rows = [["workload", *servers, "nginx / ours", "target", ""]]
    for workload in workloads:
        if workload.name not in results:
            continue
        cells = []
        for server in servers:
            samples = samples_of(results, workload.name, server)
            cells.append(number(median(one.cpu_us for one in samples)) if samples else NOTHING)
        against = compare(results, workload, "nginx")
        target = "" if workload.target is None else f"{workload.target:.2f}"
        ratio, met = "", ""
        if against is not None:
            ratio = f"{against.ratio:.2f}"
            met = {True: "met", False: "missed", None: ""}[against.met]
        rows.append([workload.name, *cells, ratio, target, met])
    return rows


def detail_table(results: Results, workloads: Sequence[Workload], servers: Sequence[str]) -> list[list[str]]:
    """Return rows of text, the first one the header: all figures of each server under each workload."""
    rows = [["workload", "server", "CPU in µs (lowest to highest)", "requests/s", "p50 in ms", "p99 in ms", "core"]]
    for workload in workloads:
        for server in servers:
            samples = samples_of(results, workload.name, server)
            if not samples:
                continue
            cpu = sorted(one.cpu_us for one in samples)
            row = [
                f"{number(median(cpu))} ({number(cpu[0])} to {number(cpu[-1])})",
                f"{median(one.per_second for one in samples):,.0f}",
                f"{median(one.p50_us for one in samples) / 1000:.2f}",
                f"{median(one.p99_us for one in samples) / 1000:.2f}",
                f"{median(one.busy for one in samples):.0%}",
            ]
            rows.append([workload.name, server, *row])
    return rows


def reasons(results: Results, workloads: Sequence[Workload], servers: Sequence[str]) -> list[str]:
    """Return, as lines of a list, who has no figure and why."""
    lines = []
    for workload in workloads:
        for server in servers:
            reason = results.get(workload.name, {}).get(server)
            if isinstance(reason, str):
                lines.append(f"- {server} under {workload.name}: {reason.splitlines()[0]}")
    return ["\n".join(lines)] if lines else []


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as a table of Markdown."""
    header, *body = rows
    line = ["---"] + ["---:"] * (len(header) - 1)
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, line, *body])


def plain(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as columns of text."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        first = row[0].ljust(widths[0])
        lines.append(
            "  ".join([first, *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]).rstrip()
        )
    return "\n".join(lines)
