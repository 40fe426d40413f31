"""What one number for each request does not show: idle connections, memory, latency below saturation, a second worker.

Owns:    the connections that it opens, and one server at a time.
Fails:   Failed, as the other measurements do.
Used by: benchmarks.main (--extras).
"""

import select
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks import cpu
from benchmarks.client import Failed, Run, ask, load
from benchmarks.instance import Instance, free_port, running
from benchmarks.measure import CLIENT_CORE, SERVER_CORE, script_of
from benchmarks.servers import Server, Setting
from benchmarks.workloads import WORKLOADS, Place

IDLE: Final = 10_000
_AT_ONCE: Final = 500  # fewer than any backlog
_IDLE_S: Final = 5
_NEWCOMERS: Final = 101
_PAUSE_MS: Final = 10  # of a connection between two requests, on average, below saturation
_PATIENCE_S: Final = 30

REQUEST: Final = b"GET /1k.html HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Extras:
    """Measures one server after the other."""

    def __init__(self, folder: Path, site: Path, rounds: int, seconds: int, niceness: int) -> None:
        self._folder, self._site = folder, site
        self._rounds, self._seconds, self._niceness = rounds, seconds, niceness
        self._numbers = count()

    def rows(self, servers: Sequence[Server]) -> list[list[str]]:
        """Return rows of text, the first one the header: a column for each server."""
        latencies = self._below_saturation(servers)
        columns = [dict([*below, *self._figures(server)]) for server, below in zip(servers, latencies, strict=True)]
        names = dict.fromkeys(name for column in columns for name in column)
        head = ["", *(server.name for server in servers)]
        return [head, *([name, *(column.get(name, "-") for column in columns)] for name in names)]

    def _figures(self, server: Server) -> Iterator[tuple[str, str]]:
        with self._started(server) as instance:
            yield "PSS of all its processes after browsers-2000, MiB", f"{self._memory(instance):.1f}"
        with self._started(server) as instance:
            yield from self._idle(instance)
        yield "two workers on two cores, times one", f"{self._two_workers(server):.2f}"

    @contextmanager
    def _started(self, server: Server, workers: int = 1) -> Iterator[Instance]:
        folder = self._folder / f"extras-{server.name}-{next(self._numbers)}"
        cores = str(SERVER_CORE) if workers == 1 else f"{SERVER_CORE},{CLIENT_CORE}"
        setting = Setting(free_port(), self._site, folder, None, workers)
        with running(server, setting, cores, self._niceness) as instance:
            yield instance

    # -- memory, latency -------------------------------------------------------------------------------------

    def _memory(self, instance: Instance) -> float:
        """Return its memory after all files were sent to all browsers, in MiB."""
        traffic = WORKLOADS["browsers-2000"].traffic(Place(instance.setting.port, self._site))
        self._load(instance, 32, script_of(instance, "browsers-2000", traffic, 1), 2 * self._seconds)
        return cpu.memory_kib(cpu.tree(instance.pid)) / 1024

    def _below_saturation(self, servers: Sequence[Server]) -> list[list[tuple[str, str]]]:
        """Find how much each can do, and measure latency at half of that, and at half of what the least able can do.

        All in turns, and medians: a hundredth of all requests is what a machine's own pauses take.
        """
        full: dict[Server, list[float]] = {server: [] for server in servers}
        for _ in range(self._rounds):
            for server in servers:
                with self._started(server) as instance:
                    run = self._load(instance, 32, ["plain"], self._seconds)
                full[server].append(run.requests / run.seconds)
        rates = {server: median(found) for server, found in full.items()}
        own, same = "at half of that", "at half of what the least able can do"
        found: dict[tuple[Server, str], list[Run]] = {}
        for _ in range(self._rounds):
            for server in servers:
                for name, rate in ((own, rates[server] / 2), (same, min(rates.values()) / 2)):
                    # As many connections as give this rate when each makes its pauses.
                    connections = max(1, round(rate * _PAUSE_MS / 1000))
                    with self._started(server) as instance:
                        run = self._load(instance, connections, ["plain", "", "0", str(_PAUSE_MS)], 2 * self._seconds)
                    found.setdefault((server, name), []).append(run)
        tables = []
        for server in servers:
            table = [("keep-alive, 1 KiB, at saturation: requests/s", f"{rates[server]:,.0f}")]
            for name in (own, same):
                runs = found[server, name]
                table += [
                    (f"{name}: requests/s", f"{median(run.requests / run.seconds for run in runs):,.0f}"),
                    (f"{name}: p50 in ms", f"{median(run.p50_us for run in runs) / 1000:.2f}"),
                    (f"{name}: p99 in ms", f"{median(run.p99_us for run in runs) / 1000:.2f}"),
                ]
            tables.append(table)
        return tables

    def _load(self, instance: Instance, connections: int, script: Sequence[str], seconds: int) -> Run:
        url = f"http://127.0.0.1:{instance.setting.port}/1k.html"
        run = load(url, connections, seconds, (), script, CLIENT_CORE, self._niceness)
        if run.errors or run.status:
            raise Failed(f"{instance.server.name}: errors {run.errors}, {run.status} answers of 400 or above")
        return run

    # -- idle connections ------------------------------------------------------------------------------------

    def _idle(self, instance: Instance) -> Iterator[tuple[str, str]]:
        """Open many connections that ask once and then stay; see what they cost, and how a newcomer fares."""
        ask(instance.setting.port, REQUEST)
        before = cpu.memory_kib(cpu.tree(instance.pid))
        with ExitStack() as closing:
            connections: list[socket.socket] = []
            for _ in range(IDLE // _AT_ONCE):
                opened = [_connect(instance.setting.port, closing) for _ in range(_AT_ONCE)]
                _ask_all(opened)
                connections += opened
            pids = cpu.tree(instance.pid)
            each = (cpu.memory_kib(pids) - before) / IDLE
            used, began = cpu.seconds_of(pids), time.monotonic()
            time.sleep(_IDLE_S)
            busy = (cpu.seconds_of(pids) - used) / (time.monotonic() - began)
            newcomers = [_timed(instance.setting.port) for _ in range(_NEWCOMERS)]
            for first in range(0, IDLE, _AT_ONCE):  # they are all still there
                _ask_all(connections[first : first + _AT_ONCE])
        yield f"memory of one of {IDLE:,} idle connections, KiB", f"{each:.2f}"
        yield f"CPU with {IDLE:,} idle connections, of a core", f"{busy:.2%}"
        yield "beside them a newcomer is answered in, median ms", f"{median(newcomers) * 1000:.2f}"

    # -- a second worker -------------------------------------------------------------------------------------

    def _two_workers(self, server: Server) -> float:
        """Return how much more two workers can do than one, were the client elsewhere.

        The client needs a core of this machine, so the two workers never have two cores for themselves. What they can
        do with them follows from the CPU time of a request and from how evenly it is spread: who has most of it is full
        first.
        """
        found = []
        for _ in range(self._rounds):
            with self._started(server) as instance:
                one, _ = self._cost(instance)
            with self._started(server, 2) as instance:
                both, evenness = self._cost(instance)
            found.append(one / both * evenness)
        return median(found)

    def _cost(self, instance: Instance) -> tuple[float, float]:
        """Return the CPU time of a request, and that of all processes as a multiple of the busiest one's."""
        pids = cpu.tree(instance.pid)
        before = [cpu.seconds_of([pid]) for pid in pids]
        run = self._load(instance, 64, ["plain"], self._seconds)
        used = [cpu.seconds_of([pid]) - was for pid, was in zip(pids, before, strict=True)]
        return sum(used) / run.requests, sum(used) / max(used)


def _connect(port: int, closing: ExitStack) -> socket.socket:
    return closing.enter_context(socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE_S))


def _ask_all(connections: Sequence[socket.socket]) -> None:
    """Ask for something on each connection, and then read the answers; they come in one piece on loopback."""
    waiting = {one.fileno(): one for one in connections}
    with select.epoll() as poll:
        for descriptor, one in waiting.items():
            one.sendall(REQUEST)
            poll.register(descriptor, select.EPOLLIN | select.EPOLLONESHOT)
        while waiting:
            ready = poll.poll(_PATIENCE_S)
            if not ready:
                raise Failed(f"{len(waiting)} of {len(connections)} connections got no answer")
            for descriptor, _events in ready:
                if not waiting.pop(descriptor).recv(4096).startswith(b"HTTP/1.1 200 "):
                    raise Failed("a connection was closed, or answered otherwise than with 200")


def _timed(port: int) -> float:
    """Return how long a client takes that connects, asks once and reads the answer."""
    began = time.monotonic()
    ask(port, REQUEST)
    return time.monotonic() - began
