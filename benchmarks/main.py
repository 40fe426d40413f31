"""The command: what to compare, and where to write it.

Owns:    the temporary folder, which goes with the run, also on Ctrl-C and SIGTERM.
Fails:   exit status 1 with one line that tells what; 130 when it was interrupted.
Used by: benchmarks/run.
"""

import argparse
import resource
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

from benchmarks import curve, overload, slow
from benchmarks.client import Failed
from benchmarks.cpu import Vanished
from benchmarks.extras import Extras
from benchmarks.install import install, version
from benchmarks.measure import CLIENT_CORE, SERVER_CORE, Bench, Sample
from benchmarks.picture import draw
from benchmarks.record import Record, machine, merge, page, read, save, shown, today
from benchmarks.report import cpu_table, plain, reasons
from benchmarks.servers import SERVERS, UNCOUNTED, Server, checkout
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
  benchmarks/run --servers ours,uncounted,nginx --workloads keepalive-1k --rounds 15   what counting costs
  benchmarks/run --show-config nginx
"""


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit status."""
    try:
        return _run(_parse(arguments))
    except (Failed, Vanished, OSError) as error:
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
    options = [
        ("--servers", "LIST", str, "ours,nginx,floor", f"of {', '.join(SERVERS)}; or all (default: %(default)s)"),
        ("--workloads", "LIST", str, "all", f"of {', '.join(WORKLOADS)}; or all (default: %(default)s)"),
        ("--rounds", "N", int, 5, "turns of each server (default: %(default)s)"),
        ("--seconds", "N", int, 2, "of each turn (default: %(default)s)"),
        (
            "--nice",
            "N",
            int,
            0,
            "niceness of servers and client (default: %(default)s)",
        ),
        ("--show-config", "LIST", str, None, "print how these servers are started and configured, and end"),
        ("--markdown", "FILE", Path, None, "write a page: tables, machine, versions, configurations"),
        ("--svg", "FILE", Path, None, "write a picture"),
        ("--json", "FILE", Path, None, "write every sample"),
    ]
    for name, value, kind, default, text in options:
        parser.add_argument(name, metavar=value, type=kind, default=default, help=text)
    again = "measure nothing, show what --json wrote; may be repeated: for each workload the last one counts"
    parser.add_argument("--load", metavar="FILE", type=Path, action="append", help=again)
    more = "one more server: pyserver of another checkout; may be repeated"
    parser.add_argument("--checkout", metavar="NAME=DIR", action="append", default=[], help=more)
    extras = "measure idle connections, memory, latency below saturation and a second worker instead"
    parser.add_argument("--extras", action="store_true", help=extras)
    overload = "measure up to four times the load that each server can serve instead; with --json, --svg, --load"
    parser.add_argument("--overload", action="store_true", help=overload)
    slow = "measure a good client beside 2,000 slow ones (slowhttptest) instead; --seconds of each attack, 12 or so"
    parser.add_argument("--slow", action="store_true", help=slow)
    return parser.parse_args(arguments)


def _run(options: argparse.Namespace) -> int:
    known = dict(SERVERS)
    if UNCOUNTED.name in options.servers.split(","):
        known[UNCOUNTED.name] = UNCOUNTED
    for text in options.checkout:
        name, _, folder = text.partition("=")
        known[name] = checkout(name, Path(folder).resolve())
    if options.show_config:
        print("\n\n".join(shown(server) for server in _pick(options.show_config, known)))
        return 0
    servers = _pick(options.servers, known)
    if options.extras:
        print(plain(_extras(options, servers)))
        return 0
    if options.overload:
        print(plain(_overload(options, servers)))
        return 0
    if options.slow:
        with _prepared(servers, "slowhttptest") as folder:
            print(plain(slow.table(servers, folder, options.seconds)))
        return 0
    if options.load:
        record = merge([read(file) for file in options.load])
    else:
        record = _measure(options, servers, _pick(options.workloads, WORKLOADS))
        if options.json:
            save(record, options.json)
    workloads = [workload for workload in WORKLOADS.values() if workload.name in record.results]
    if options.markdown:
        options.markdown.write_text(page(record, workloads, servers))
    if options.svg:
        options.svg.write_text(draw(record, workloads, [server.name for server in servers]))
    print(plain(cpu_table(record.results, workloads, [server.name for server in servers])))
    wrong = reasons(record.results, workloads, ["ours", "nginx"])
    if wrong:
        raise Failed("\n".join(wrong))
    return 0


def _measure(options: argparse.Namespace, servers: Sequence[Server], workloads: Sequence[Workload]) -> Record:
    results: dict[str, Mapping[str, Sequence[Sample] | str]] = {}
    names = [server.name for server in servers]
    with _prepared(servers) as folder, closing(Bench(folder, folder / "site", options.seconds, options.nice)) as bench:
        for workload in workloads:
            results[workload.name] = bench.rounds(workload, servers, options.rounds)
            told = [plain(cpu_table(results, [workload], names)), *reasons(results, [workload], names)]
            print("\n".join(told), file=sys.stderr, flush=True)
    how = (
        f"Rounds: {options.rounds}, in turns, of {options.seconds} s for each server; one worker, server on core "
        f"{SERVER_CORE}, wrk on core {CLIENT_CORE}."
    )
    return Record(today(), machine(), how, {server.name: version(server) for server in servers}, results)


def _extras(options: argparse.Namespace, servers: Sequence[Server]) -> list[list[str]]:
    chosen = [server for server in servers if server.name != "floor"]  # it has one process, and no memory to speak of
    with _prepared(chosen) as folder:
        return Extras(folder, folder / "site", options.rounds, options.seconds, options.nice).rows(chosen)


def _overload(options: argparse.Namespace, servers: Sequence[Server]) -> list[list[str]]:
    curves: list[overload.Curve] = []
    if options.load:
        curves = [curve for file in options.load for curve in overload.read(file)]
    else:
        with _prepared(servers) as folder:
            for content in overload.CONTENTS:
                for server in servers:
                    curves.append(overload.measure(server, folder, folder / "site", options.seconds, content))
                    print(plain(overload.table(curves[-1:])), file=sys.stderr, flush=True)
                    if options.json:  # now: the next server may fail
                        overload.save(curves, options.json)
    if options.svg:
        how = (
            f"{today()}; a connection for each request, clients that leave after {overload.PATIENCE_S:g} s; "
            f"pyserver with queue_wait = {overload.QUEUE_WAIT_S:g}; each with a twentieth of a core"
        )
        options.svg.write_text(curve.draw(curves, machine(), how))
    return overload.table(curves)


@contextmanager
def _prepared(servers: Sequence[Server], *tools: str) -> Iterator[Path]:
    """Install what is compared, and make the files; the folder goes with the block, also when we are told to end."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    install(servers, *tools)
    _raise_descriptor_limit()
    with tempfile.TemporaryDirectory(prefix="pyserver-benchmarks-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        folder.chmod(0o755)  # servers that give up root read here
        (folder / "site").mkdir()
        make_site(folder / "site")
        yield folder


def _pick(text: str, table: dict[str, _T]) -> list[_T]:
    """Return what a list names, or all."""
    if text == "all":
        return list(table.values())
    unknown = [name for name in text.split(",") if name not in table]
    if unknown:
        raise Failed(f"unknown: {', '.join(unknown)}; there are {', '.join(table)}")
    return [table[name] for name in text.split(",")]


def _raise_descriptor_limit() -> None:
    """Let servers and client have as many connections as they may."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
