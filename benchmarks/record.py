"""What a run leaves: samples, machine, versions and configurations; kept as JSON, shown as Markdown.

Owns:    the form of the file of --json.
Used by: benchmarks.main.
"""

import json
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.measure import Sample
from benchmarks.report import Results, cpu_table, detail_table, markdown, reasons
from benchmarks.servers import Server, Setting
from benchmarks.workloads import Workload


class Record(NamedTuple):
    """A run, or several that were put together."""

    date: str
    machine: str
    run: str  # how it was measured
    versions: dict[str, str]  # by server
    results: Results


def machine() -> str:
    """Return what this machine is, in one line."""
    models = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    release = dict(line.split("=", 1) for line in _lines("/etc/os-release") if "=" in line)
    system = release.get("PRETTY_NAME", "Linux").strip('"')
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    python = platform.python_version()
    return (
        f"{models[0] if models else platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB, {system}, "
        f"Linux {platform.release()}, Python {python}"
    )


def today() -> str:
    """Return the date as it is written in a report."""
    return time.strftime("%Y-%m-%d")


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(errors="replace").splitlines()
    except OSError:
        return []


# -- as a file -----------------------------------------------------------------------------------------------


def save(record: Record, path: Path) -> None:
    """Write every sample."""
    path.write_text(json.dumps(record._asdict(), indent=1))


def read(path: Path) -> Record:
    """Read what `save` wrote."""
    record = Record(**json.loads(path.read_text()))
    results = {
        workload: {
            server: found if isinstance(found, str) else [Sample(*sample) for sample in found]
            for server, found in servers.items()
        }
        for workload, servers in record.results.items()
    }
    return record._replace(results=results)


def merge(records: Sequence[Record]) -> Record:
    """Put runs together; where two measured the same, the later one counts."""
    results: dict[str, dict[str, Sequence[Sample] | str]] = {}
    versions: dict[str, str] = {}
    for record in records:
        versions |= record.versions
        for workload, servers in record.results.items():
            # All servers of one workload together: only what took turns can be compared.
            results[workload] = dict(servers)
    return records[-1]._replace(results=results, versions=versions)


_OF_THE_SAME: Final = """\
Of the same runs. The client has one core, and the machine may have had other work: see the share of its core that the
server had."""

# -- as a page -----------------------------------------------------------------------------------------------


def page(record: Record, workloads: Sequence[Workload], servers: Sequence[Server]) -> str:
    """Return all of it as Markdown."""
    names = [server.name for server in servers]
    parts = [
        "# CPU time for each request",
        f"{record.date}; {record.machine}.",
        record.run,
        "Microseconds of CPU, user and system, of all processes of the server; medians of the rounds.",
        markdown(cpu_table(record.results, workloads, names)),
        *reasons(record.results, workloads, names),
        "## Throughput and latency",
        _OF_THE_SAME,
        markdown(detail_table(record.results, workloads, names)),
        "## Versions and configurations",
        *(_described(server, record.versions.get(server.name, "?")) for server in servers),
    ]
    return "\n\n".join(parts) + "\n"


def _described(server: Server, version: str) -> str:
    notes = [server.note, f"access log: {server.log}" if server.log else "no part in workloads with an access log"]
    about = "; ".join(note for note in notes if note)
    return f"### {server.name}\n\n`{version}`; {about}\n\n```text\n{shown(server)}\n```"


def shown(server: Server) -> str:
    """Return how a server is started, with its configuration; SITE and RUN stand for temporary folders."""
    plan = server.plan(Setting(8080, Path("SITE"), Path("RUN"), None))
    project = str(Path(__file__).resolve().parents[1])
    lines = ["$ " + " ".join([*(f"{name}={value}" for name, value in plan.environment.items()), *plan.argv])]
    for name, text in plan.files.items():
        lines += [f"# RUN/{name}", text]
    return "\n".join(lines).replace(f"{project}/", "").rstrip()
