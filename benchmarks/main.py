"""The command: what to compare, and where to write it.

Owns:    the temporary folder, which goes with the run, also on Ctrl-C and SIGTERM.
Fails:   exit status 1 with one line that tells what; 130 when it was interrupted.
Used by: benchmarks/run.
"""

import argparse
import json
import resource
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from benchmarks.client import Failed
from benchmarks.cpu import Vanished
from benchmarks.install import install
from benchmarks.measure import Bench, Sample
from benchmarks.report import Results, cpu_table, plain
from benchmarks.servers import SERVERS, Server, Setting, checkout
from benchmarks.workloads import WORKLOADS, Workload, make_site

_T = TypeVar("_T")

_DESCRIPTION = """\
Compare pyserver with other servers on this machine: the CPU time that each needs for a request, user and system time of
all its processes, measured in turns, server on core 0 and client (wrk) on core 1."""

_EXAMPLES = """\
examples:
  benchmarks/run                                              ours, nginx and the floor, every workload
  benchmarks/run --servers ours,nginx --workloads keepalive-1k,404 --rounds 5 --seconds 2
  benchmarks/run --servers ours,before,nginx --checkout before=../pyserver-of-yesterday
  benchmarks/run --servers all --markdown table.md --svg table.svg
  benchmarks/run --show-config nginx
"""


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit status."""
    try:
        return _run(_parse(arguments))
    except (Failed, Vanished) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("benchmarks: interrupted", file=sys.stderr)
        return 130


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks/run",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--servers",
        metavar="LIST",
        default="ours,nginx,floor",
        help=f"of {', '.join(SERVERS)}; or all (default: %(default)s)",
    )
    parser.add_argument("--workloads", metavar="LIST", default="all", help=f"of {', '.join(WORKLOADS)} (default: all)")
    parser.add_argument(
        "--checkout",
        metavar="NAME=DIR",
        action="append",
        default=[],
        help="one more server: pyserver of another checkout; may be repeated",
    )
    parser.add_argument(
        "--rounds", metavar="N", type=int, default=5, help="turns of each server (default: %(default)s)"
    )
    parser.add_argument("--seconds", metavar="N", type=int, default=2, help="of each turn (default: %(default)s)")
    parser.add_argument(
        "--nice",
        metavar="N",
        type=int,
        default=0,
        help="niceness of servers and client, against other load on the machine (default: %(default)s)",
    )
    parser.add_argument(
        "--show-config", metavar="SERVER", help="print how this server is started and configured, and end"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write every sample to this file")
    return parser.parse_args(arguments)


def _run(options: argparse.Namespace) -> int:
    known = dict(SERVERS)
    for text in options.checkout:
        name, _, folder = text.partition("=")
        known[name] = checkout(name, Path(folder).resolve())
    if options.show_config:
        print(_shown(_pick(options.show_config, known)[0]))
        return 0
    servers = _pick(options.servers, known)
    workloads = _pick(options.workloads, WORKLOADS)
    install(servers)
    _raise_descriptor_limit()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    results: dict[str, dict[str, list[Sample] | str]] = {}
    with tempfile.TemporaryDirectory(prefix="pyserver-benchmarks-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        folder.chmod(0o755)  # servers that give up root read here
        site = folder / "site"
        site.mkdir()
        make_site(site)
        with closing(Bench(folder, site, options.seconds, options.nice)) as bench:
            for workload in workloads:
                results[workload.name] = bench.rounds(workload, servers, options.rounds)
                _tell(workload, servers, results)
    if options.json:
        options.json.write_text(json.dumps(results))
    print(plain(cpu_table(results, workloads, [server.name for server in servers])))
    return 0


def _pick(text: str, table: dict[str, _T]) -> list[_T]:
    """Return what a list names, or all."""
    if text == "all":
        return list(table.values())
    unknown = [name for name in text.split(",") if name not in table]
    if unknown:
        raise Failed(f"unknown: {', '.join(unknown)}; there are {', '.join(table)}")
    return [table[name] for name in text.split(",")]


def _shown(server: Server) -> str:
    """Return how a server is started, with its configuration."""
    folder = Path("/tmp/benchmark")  # noqa: S108 - an example, nothing is written
    plan = server.plan(Setting(8080, folder / "site", folder / server.name, None))
    lines = ["$ " + " ".join([*(f"{name}={value}" for name, value in plan.environment.items()), *plan.argv])]
    for name, text in plan.files.items():
        lines += [f"# {folder / server.name / name}", text]
    return "\n".join(lines)


def _tell(workload: Workload, servers: Sequence[Server], results: Results) -> None:
    """Say what came out of a workload as soon as it is known."""
    found = results[workload.name]
    for server in servers:
        reason = found.get(server.name)
        if isinstance(reason, str):
            print(f"benchmarks: {workload.name}: {server.name} {reason}", file=sys.stderr)
            if server.name == "ours":
                raise Failed(f"ours under {workload.name}: {reason}")
    print(
        plain(cpu_table({workload.name: found}, [workload], [server.name for server in servers])),
        file=sys.stderr,
        flush=True,
    )


def _raise_descriptor_limit() -> None:
    """Let servers and client have as many connections as they may."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
