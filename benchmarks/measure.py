"""Measuring: the servers take turns, round by round, under one workload after the other.

Owns:    the instances that it starts, one for each server and way of starting it (with a log, without).
Never:   counts a run in which anything but the right answer came back.
Fails:   never for a server that does not do as it should: it has a reason where others have samples.
Used by: benchmarks.main.
"""

import itertools
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks import cpu
from benchmarks.client import Failed, Run, ask, load
from benchmarks.instance import Instance, free_port, running
from benchmarks.servers import Server, Setting
from benchmarks.workloads import Place, Traffic, Workload

SERVER_CORE: Final = 0
CLIENT_CORE: Final = 1
_WARM_UP_S: Final = 1
_LOG_WITHIN_S: Final = 10
_TOLERANCE: Final = 0.1  # of the mean size of answers that are drawn by chance; for all others 2 %


class Sample(NamedTuple):
    """One server, one workload, one round."""

    cpu_us: float  # user and system time of all its processes, for each request
    per_second: float
    p50_us: int
    p99_us: int
    busy: float  # share of its core


class Bench:
    """Keeps the servers that were started, and measures them."""

    def __init__(self, folder: Path, site: Path, seconds: int, niceness: int) -> None:
        self._folder, self._site, self._seconds, self._niceness = folder, site, seconds, niceness
        self._instances: dict[tuple[str, bool, int], Instance] = {}
        self._absent: dict[str, str] = {}  # servers that do not start, and what they said
        self._numbers = itertools.count()
        self._closing = ExitStack()

    def close(self) -> None:
        """End every server."""
        self._closing.close()

    def rounds(self, workload: Workload, servers: Iterable[Server], rounds: int) -> dict[str, list[Sample] | str]:
        """Return the samples of each server, or why it has none."""
        results: dict[str, list[Sample] | str] = {}
        ready = []
        for server in servers:
            if (server.name == "floor" and workload.floor_bytes is None) or (workload.log and not server.log):
                continue
            try:
                instance = self._instance(server, workload)
                traffic = workload.traffic(Place(instance.setting.port, self._site))
                expected = check(instance, workload, traffic)
                self._load(instance, workload, traffic, _WARM_UP_S, 0)
            except Failed as reason:
                results[server.name] = str(reason)
                continue
            ready.append((instance, traffic, expected, list[Sample]()))
        for number in range(1, rounds + 1):
            for turn in list(ready):
                instance, traffic, expected, samples = turn
                try:
                    samples.append(self._sample(instance, workload, traffic, expected, number))
                except Failed as reason:
                    results[instance.server.name] = str(reason)
                    ready.remove(turn)
        return results | {instance.server.name: samples for instance, _, _, samples in ready}

    def _instance(self, server: Server, workload: Workload) -> Instance:
        content_bytes = (workload.floor_bytes or 0) if server.name == "floor" else 0
        key = (server.name, workload.log, content_bytes)
        if server.name in self._absent:
            raise Failed(self._absent[server.name])
        if key not in self._instances:
            folder = self._folder / f"{server.name}-{next(self._numbers)}"
            log = folder / "access.log" if workload.log else None
            setting = Setting(free_port(), self._site, folder, log, content_bytes=content_bytes)
            started = running(server, setting, str(SERVER_CORE), self._niceness)
            try:
                self._instances[key] = self._closing.enter_context(started)
            except Failed as error:
                self._absent[server.name] = str(error)
                raise
        return self._instances[key]

    def _load(self, instance: Instance, workload: Workload, traffic: Traffic, seconds: int, number: int) -> Run:
        script = script_of(instance, workload.name, traffic, number)
        options = [part for field in traffic.fields for part in ("--header", field)]
        url = f"http://127.0.0.1:{instance.setting.port}{traffic.path}"
        return load(url, workload.connections, seconds, options, script, CLIENT_CORE, self._niceness)

    def _sample(
        self, instance: Instance, workload: Workload, traffic: Traffic, expected_bytes: float, number: int
    ) -> Sample:
        log = instance.setting.log
        if log is not None:
            lines = _lines(log)
        before = cpu.tree(instance.pid)
        used, began = cpu.seconds_of(before), time.monotonic()
        run = self._load(instance, workload, traffic, self._seconds, number)
        took = time.monotonic() - began
        now = cpu.tree(instance.pid)
        if not set(before) <= set(now):
            raise Failed("lost a process")
        used = cpu.seconds_of(now) - used
        _judge(workload, traffic, run, expected_bytes)
        if log is not None:
            _judge_log(log, lines + run.requests)
        return Sample(used / run.requests * 1e6, run.requests / run.seconds, run.p50_us, run.p99_us, used / took)


def script_of(instance: Instance, name: str, traffic: Traffic, number: int) -> list[str]:
    """Return the arguments for wrk.lua, in the run of this number."""
    if not traffic.requests:
        return [traffic.mode]
    requests = instance.setting.folder / f"requests-{name}"
    requests.write_bytes(b"\0".join(traffic.requests))
    # New heads are new in every run: their numbers go on from here.
    return [traffic.mode, str(requests), str(10**9 * (number + 1))]


def check(instance: Instance, workload: Workload, traffic: Traffic) -> float:
    """Ask for each check by hand; return the mean size of an answer, head and all."""
    size = 0
    for request, content in traffic.checks:
        answer = ask(instance.setting.port, request)
        if answer.status != workload.status:
            raise Failed(f"answers {answer.status} where {workload.status} is right")
        known = content is not None and instance.server.name != "floor"  # which answers constant bytes
        if known and answer.content != content:
            raise Failed(f"answers other content ({len(answer.content)} bytes)")
        size += answer.wire_bytes - (0 if traffic.mean_content_bytes is None else len(answer.content))
    return size / len(traffic.checks) + (traffic.mean_content_bytes or 0)


def _judge(workload: Workload, traffic: Traffic, run: Run, expected_bytes: float) -> None:
    """Refuse a run with an error in it."""
    if run.errors or not run.requests:
        raise Failed(f"{run.requests} answers, errors {run.errors}")
    bad = run.requests if workload.status >= 400 else 0
    if run.status != bad:
        raise Failed(f"{run.status} of {run.requests} answers are 400 or above, {bad} were expected")
    mean = run.bytes / run.requests
    # A run ends in the midst of answers: of each connection up to one is counted in bytes and not as an answer.
    tolerance = _TOLERANCE if traffic.mean_content_bytes is not None else 0.02
    if abs(mean - expected_bytes) > expected_bytes * (tolerance + workload.connections / run.requests):
        raise Failed(f"{mean:.0f} bytes an answer, {expected_bytes:.0f} are right")


def _judge_log(log: Path, lines: int) -> None:
    """Refuse a run whose answers are not all in the log."""
    deadline = time.monotonic() + _LOG_WITHIN_S
    while (found := _lines(log)) < lines:
        if time.monotonic() > deadline:
            raise Failed(f"{found} lines in the access log, {lines} are right")
        time.sleep(0.1)


def _lines(log: Path) -> int:
    """Return how many lines there are."""
    if not log.exists():
        return 0
    with log.open("rb") as file:
        return sum(part.count(b"\n") for part in iter(lambda: file.read(1 << 20), b""))
