"""A long run of everything at once, and the proof that nothing grows: `tests/soak`, and its short forms in test_soak.

Owns:    the load, the troubles (workers killed, reloads, deploys, clients that are slow or leave), the samples of
         memory and descriptors, the judgement, the picture.
Fails:   an AssertionError with all that was not as it should be.

Memory is what is the server's alone: Pss_Anon and Pss_Shmem (proc(5), smaps_rollup), summed up over master and
workers, so that pages which they share count once, and those of files, which anybody may bring in, not at all. A reload
makes all processes anew and a kill one of them, so it is the sum that is judged: by the slope that is the median of the
slopes between all pairs of samples (Theil-Sen), which no peak of a moment moves.
"""

import contextlib
import hashlib
import os
import random
import shutil
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from tests.service.client import Failure, Reset, Truncated, request
from tests.service.harness import TREE, UNWANTED, Load, Server, descriptors, wait_until
from tests.service.invariants import assert_no_slot_leaked, own_descriptors, totals_watched, zombies

# What is no growth: the sum moves so much with what is under way, with kills, and with the collector's turns.
# Over a few seconds it is the rises of new workers that are seen, whose caches are still empty.
NOISE_SHARE, NOISE_SHARE_SHORT, SHORT_S = 0.05, 0.25, 300
WARM_SHARE = 0.2  # of the run: caches fill, buffers find their size

KILLED_EVERY_S = 5.0
DEPLOYED_EVERY_S = 3.0
RELOADS, RELOADS_SHORT = 6, 2
HEAD_DEADLINE_S = 6.0
# A head that takes its sender so long may be answered by 408, and one that takes less must not: the deadline, less what
# a round of a worker may take on a loaded machine, for it counts from when that round began in which the client came.
LATE_S = HEAD_DEADLINE_S - 1.0

LARGE = hashlib.sha256(b"large").digest() * (1 << 17)  # 4 MiB


class Sample(NamedTuple):
    """All of the server at one moment."""

    at: float  # seconds since the beginning
    master_kib: int
    workers_kib: int
    master_descriptors: int
    workers_descriptors: int
    workers: int

    @property
    def kib(self) -> int:
        return self.master_kib + self.workers_kib


def memory_kib(pid: int) -> int:
    """Return what a process has of memory that is no file's; pages shared with others in parts."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    values = dict(line.split(":", 1) for line in text.splitlines()[1:])
    return sum(int(values[name].split()[0]) for name in ("Pss_Anon", "Pss_Shmem"))


def sample(server: Server, began: float) -> Sample | None:
    """Look; None when a process went meanwhile."""
    workers = list(server.workers().values())
    try:
        master, of_workers = memory_kib(server.pid), [memory_kib(pid) for pid in workers]
        held = [len(descriptors(pid)) for pid in workers]
    except (OSError, ValueError, KeyError):
        return None
    return Sample(
        time.monotonic() - began, master, sum(of_workers), len(descriptors(server.pid)), sum(held), len(workers)
    )


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return by how much it grows in a second: the median of all slopes (Theil 1950, Sen 1968)."""
    thinned = points[:: max(1, len(points) // 300)]
    return statistics.median((b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(thinned, 2) if b[0] > a[0])


def grown(samples: Sequence[Sample]) -> tuple[float, float]:
    """Return by how many KiB the memory grew after the warm-up, and how many would be noise."""
    end = samples[-1].at
    settled = [each for each in samples if each.at >= WARM_SHARE * end]
    growth = slope([(each.at, each.kib) for each in settled]) * (end - settled[0].at)
    share = NOISE_SHARE_SHORT if end < SHORT_S else NOISE_SHARE
    return growth, share * statistics.median(each.kib for each in settled)


# -- the site and its releases -----------------------------------------------------------------------


class Site:
    """A root that is a link to a release; each release has the same files and a number of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.root = home / "current"
        self.release = 0
        self.files = {
            "index.html": b"<!doctype html><title>soak</title>\n",
            "small.txt": b"small\n",
            "middling.bin": bytes(range(256)) * 400,
            "style.css": b"body { color: #123456 }\n" * 200,
            "large.bin": LARGE,
        }
        self.deploy()

    def deploy(self) -> None:
        """Write a release beside the one that is served, switch the link, and take away the one before."""
        folder = self.home / f"release-{self.release + 1}"
        folder.mkdir()
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        (folder / "release.txt").write_text(f"{self.release + 1}\n")
        link = self.home / "next"
        link.symlink_to(folder.name)
        link.rename(self.root)
        self.release += 1
        if self.release > 2:
            shutil.rmtree(self.home / f"release-{self.release - 2}")

    def digests(self) -> dict[str, str]:
        return {
            f"/{name}": hashlib.sha256(content).hexdigest()
            for name, content in self.files.items()
            if name != "large.bin"
        }


# -- clients that are no ordinary ones ----------------------------------------------------------------


@dataclass
class Odd:
    """Slow readers, slow writers, clients that never finish and clients that leave, in threads until it is over."""

    server: Server
    over: threading.Event = field(default_factory=threading.Event)
    done: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[str, float, float, str, str]] = field(default_factory=list)  # who, since, until, what

    def slow_reader(self) -> None:
        with self.server.client(within=30, receive_buffer=65536) as client:
            client.send(request("/large.bin", "Connection: close"))
            parts = []
            while data := client.receive(65536):
                parts.append(data)
                self.over.wait(0.01)
        got = b"".join(parts)
        if got.partition(b"\r\n\r\n")[2] != LARGE:
            raise Truncated(f"{len(got)} bytes of {len(LARGE)} and a head")

    def slow_writer(self) -> str | None:
        """Send a head byte by byte; whether it is in time is for the clock, which is that of a loaded machine."""
        since = time.monotonic()
        with self.server.client(within=30) as client:
            try:
                for byte in request("/small.txt", "Connection: close"):
                    client.send(bytes([byte]))
                    self.over.wait(0.005)
                took = time.monotonic() - since
                answer = client.answer()
            except (Reset, Truncated):  # the answer that it is too late, and the end, may come while it still sends
                if time.monotonic() - since < LATE_S:
                    raise
                return "too late"
        if answer.status == 408 and took >= LATE_S:
            return "too late"
        if answer.content != b"small\n":
            raise Failure(f"{answer.status} instead of the file, for a head that took {took:.2f} s")
        return None

    def never_ending(self) -> None:
        with self.server.client(within=30) as client:
            client.send(b"GET /small.txt HTTP/1.1\r\nHost: a\r\n")
            if client.answer().status != 408:
                raise Failure("no 408")

    def leaver(self) -> None:
        with self.server.client(within=30, receive_buffer=65536) as client:
            client.send(request("/large.bin"))
            client.receive(1000)
        self.over.wait(0.1)

    def run(self, what: Callable[[], str | None]) -> None:
        while not self.over.is_set():
            since = time.monotonic()
            try:
                self.done[what() or what.__name__] += 1
            except Failure as error:
                self.failures.append((what.__name__, since, time.monotonic(), type(error).__name__, str(error)))

    @contextlib.contextmanager
    def at_it(self) -> Iterator[None]:
        kinds = (self.slow_reader, self.slow_reader, self.slow_writer, self.never_ending, self.leaver)
        threads = [threading.Thread(target=self.run, args=(kind,)) for kind in kinds]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.over.set()
            for thread in threads:
                thread.join()


# -- the run -----------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What happened, and whether it was well."""

    seconds: float
    samples: list[Sample] = field(default_factory=list)
    kills: list[float] = field(default_factory=list)  # monotonic
    reloads: list[float] = field(default_factory=list)
    began: float = 0.0
    deploys: int = 0
    requests: int = 0
    answered: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)  # to the deaths of workers
    amiss: list[str] = field(default_factory=list)

    def explained(self, since: float, until: float, what: str) -> bool:
        """Tell whether a client failed because the worker was killed that had its connection."""
        return what in ("Reset", "Truncated") and any(since - 0.05 <= at <= until for at in self.kills)

    def told(self) -> dict[str, Any]:
        """Return what a test asks for, as JSON has it."""
        return {
            "amiss": self.amiss,
            "requests": self.requests,
            "kills": len(self.kills),
            "reloads": len(self.reloads),
            "deploys": self.deploys,
            "answered": dict(self.answered),
            "text": self.text(),
        }

    def text(self) -> str:
        growth, noise = grown(self.samples)
        middle = statistics.median(each.kib for each in self.samples)
        return (
            f"{self.seconds / 60:.3g} minutes: {self.requests} requests, {len(self.kills)} workers killed, "
            f"{len(self.reloads)} reloads, {self.deploys} deploys; clients {dict(self.answered)}, "
            f"lost to kills {dict(self.lost)}\n"
            f"memory {middle / 1024:.1f} MiB, grew by {growth / 1024:+.2f} MiB after the warm-up "
            f"(noise is {noise / 1024:.2f} MiB)"
        )


def soak(seconds: float, *, seed: int, rest: float = 0.01, say: Callable[[str], object] = print) -> Outcome:
    """Run for so long; the judgement is in the outcome's `amiss`."""
    chance = random.Random(seed)
    outcome = Outcome(seconds)
    with tempfile.TemporaryDirectory(prefix="pyserver-soak-") as home:
        site = Site(Path(home))
        server = Server(
            site.root,
            workers=2,
            threads=4,
            dev=False,
            access_log=Path(home) / "access.log",
            code=_copied(TREE / "service", Path(home) / "service"),  # a reload takes new code: the tree may change
            settings={
                "server.respawn_delay_max": 0.05,
                "server.drain": 10,
                "limits.head_deadline": HEAD_DEADLINE_S,
                "clients.request_rate": 100_000,
                "clients.request_burst": 100_000,
            },
        )
        try:
            server.ready()
            _run(server, site, outcome, chance, rest, say)
        finally:
            unwanted = [number for number, line in enumerate(server.log) if UNWANTED.search(line)]
            if unwanted:  # all of it: what it says is often last
                outcome.amiss.append("\n".join(server.log[max(0, unwanted[0] - 10) : unwanted[-1] + 40]))
            server.may_complain = True  # it is said here, with what stands around it
            server.finish()
    growth, noise = grown(outcome.samples)
    if growth > noise:
        outcome.amiss.append(f"memory grew by {growth:.0f} KiB, more than {noise:.0f} KiB")
    return outcome


def _copied(code: Path, to: Path) -> Path:
    shutil.copytree(code, to, ignore=shutil.ignore_patterns("__pycache__"))
    return to


def _run(
    server: Server, site: Site, outcome: Outcome, chance: random.Random, rest: float, say: Callable[[str], object]
) -> None:
    server.ask("/small.txt")
    wait_until(lambda: server.counters()["connections_open"] == 0)
    before_master = own_descriptors(server.pid, site.home)
    before_worker = max((own_descriptors(pid, site.home) for pid in server.workers().values()), key=len)
    odd = Odd(server)
    outcome.began = began = time.monotonic()
    end = began + outcome.seconds
    with (
        Load(server.address, site.digests(), one_shot=3, keep_alive=3, rest=rest) as load,
        odd.at_it(),
        totals_watched(server, every=0.1) as backwards,
    ):
        _trouble(server, site, outcome, chance, end, say)
    outcome.requests = server.counters()["requests"]
    outcome.answered = Counter(load.answered) + odd.done
    failures = [(each["client"], each["since"], each["at"], each["what"], each["text"]) for each in load.failures]
    for who, since, at, what, text in failures + odd.failures:
        if outcome.explained(since, at, what):
            outcome.lost[who] += 1
        else:
            outcome.amiss.append(f"{who} at {at - began:.1f} s: {what} {text}")
    outcome.amiss += [f"a total went back: {each}" for each in backwards[:5]]
    outcome.amiss += [
        f"no {kind} client got anything" for kind in ("one-shot", "keep-alive") if not load.answered[kind]
    ]

    wait_until(server.all_ready, within=30)
    wait_until(lambda: server.counters()["connections_open"] == 0, within=30, why="a quiet server")
    assert_no_slot_leaked(server, 1024)
    with contextlib.suppress(AssertionError):
        wait_until(lambda: len(own_descriptors(server.pid, site.home)) <= len(before_master), within=10)
    if len(now := own_descriptors(server.pid, site.home)) > len(before_master):
        outcome.amiss.append(f"descriptors of the master: {now}, at first {before_master}")
    for pid in server.workers().values():
        if len(now := own_descriptors(pid, site.home)) > len(before_worker):
            outcome.amiss.append(f"descriptors of a worker: {now}, at first {before_worker}")
    outcome.amiss += [f"zombie {pid}" for pid in zombies(server)]


def _trouble(
    server: Server, site: Site, outcome: Outcome, chance: random.Random, end: float, say: Callable[[str], object]
) -> None:
    """Sample, kill, deploy and reload, each in its time."""
    began = outcome.began
    # The last part of a run is as the first: what it ends with is to be compared.
    deploy_at, kill_at = began + DEPLOYED_EVERY_S, began + KILLED_EVERY_S
    reloads = RELOADS if outcome.seconds >= SHORT_S else RELOADS_SHORT
    reload_every = outcome.seconds / (reloads + 1)
    reload_at, say_at = began + reload_every, began + 60
    while (now := time.monotonic()) < end:
        seen = sample(server, began)
        if seen is not None:
            outcome.samples.append(seen)
        if now >= deploy_at:
            deploy_at = now + DEPLOYED_EVERY_S
            site.deploy()
            outcome.deploys += 1
            _sees_release(server, site, outcome)
        if now >= kill_at:
            kill_at = now + KILLED_EVERY_S * chance.uniform(0.5, 1.5)
            look = server.look()
            ready = [one.pid for one in look.workers if one.state == "ready" and one.crew == look.crew and one.pid]
            if ready:
                outcome.kills.append(time.monotonic())
                server.kill_process(chance.choice(ready))
        if now >= reload_at and len(outcome.reloads) < reloads:
            reload_at += reload_every
            done = server.reload()
            outcome.reloads.append(time.monotonic())
            if done.returncode != 0:
                outcome.amiss.append(f"reload at {now - began:.1f} s: {done.stderr.strip()}")
        if now >= say_at:
            say_at += 60
            say(f"{(now - began) / 60:.0f} min: {outcome.samples[-1]}, {server.counters()['requests']} requests")
        time.sleep(max(0.0, min(1.0, outcome.seconds / 60, end - time.monotonic())))


def _sees_release(server: Server, site: Site, outcome: Outcome) -> None:
    """A release is served soon after its link was switched, also while workers die."""

    def seen() -> bool:
        since = time.monotonic()
        try:
            return server.ask("/release.txt", within=10).content == b"%d\n" % site.release
        except Failure as error:
            if not outcome.explained(since, time.monotonic(), type(error).__name__):
                raise
            return False

    try:
        wait_until(seen, within=20)
    except (AssertionError, Failure) as error:
        outcome.amiss.append(f"release {site.release} at {time.monotonic() - outcome.began:.1f} s: {error}")


# -- the picture ---------------------------------------------------------------------------------------------

_WIDTH, _HEIGHT = 880, 420
_LEFT, _RIGHT, _TOP, _MIDDLE, _BOTTOM = 64, 24, 64, 250, 372

_STYLE = """\
.page { fill: #ffffff } .grid { stroke: #d1d9e0 } .reload { stroke: #d4751b; stroke-dasharray: 2 3 }
text { fill: #1f2328; font: 13px system-ui, "Segoe UI", "DejaVu Sans", sans-serif }
.title { font-size: 16px; font-weight: 600 }
.soft { fill: #59636e; font-size: 12px } .tick { fill: #59636e; font-size: 11px }
.all { stroke: #0969da; fill: none; stroke-width: 1.5 } .master { stroke: #1a7f37; fill: none; stroke-width: 1.5 }
.kill { stroke: #818b98 }
@media (prefers-color-scheme: dark) {
.page { fill: #0d1117 } .grid { stroke: #3d444d } .reload { stroke: #e8963f }
text { fill: #f0f6fc } .soft, .tick { fill: #9198a1 }
.all { stroke: #4493f8 } .master { stroke: #3fb950 } .kill { stroke: #7d8590 }
}"""


def draw(outcome: Outcome, footer: str) -> str:
    """Return memory and descriptors over time, as a picture for light and dark pages."""
    # A peak is not to be lost where there are more samples than points.
    step = max(1, len(outcome.samples) // 400)
    samples = [
        max(outcome.samples[at : at + step], key=lambda each: each.kib) for at in range(0, len(outcome.samples), step)
    ]
    high_mib = max(each.kib for each in samples) / 1024 * 1.15
    high_fd = max(each.master_descriptors + each.workers_descriptors for each in samples) * 1.15

    def x(at: float) -> float:
        return _LEFT + at / outcome.seconds * (_WIDTH - _LEFT - _RIGHT)

    def line(kind: str, top: int, bottom: int, high: float, value: Callable[[Sample], float]) -> str:
        points = " ".join(f"{x(each.at):.1f},{bottom - value(each) / high * (bottom - top):.1f}" for each in samples)
        return f'<polyline class="{kind}" points="{points}"/>'

    def grid(top: int, bottom: int, high: float, unit: str) -> Iterator[str]:
        step = next(each for each in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 1 << 20) if high / each <= 5)
        for number in range(int(high // step) + 1):
            y = bottom - number * step / high * (bottom - top)
            yield f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            text = f"{number * step}{unit}"
            yield f'<text class="tick" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'

    minutes = outcome.seconds / 60
    growth, _noise = grown(outcome.samples)
    spoken = f"Memory of the server over {minutes:.3g} minutes: it grew by {growth / 1024:+.2f} MiB after the warm-up."
    size = f'viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}"'
    legend = f"orange: {len(outcome.reloads)} reloads; ticks: {len(outcome.kills)} workers killed"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(spoken)}">',
        f"<style>{_STYLE}</style>",
        f'<rect class="page" width="{_WIDTH}" height="{_HEIGHT}" rx="6"/>',
        '<text class="title" x="20" y="28">Memory and descriptors, master and workers together</text>',
        f'<text class="soft" x="20" y="48">blue: all; green: the master; {legend}</text>',
        *grid(_TOP, _MIDDLE, high_mib, " MiB"),
        *grid(_MIDDLE + 24, _BOTTOM, high_fd, ""),
    ]
    for at in outcome.reloads:
        where = x(at - outcome.began)
        parts.append(f'<line class="reload" x1="{where:.1f}" x2="{where:.1f}" y1="{_TOP}" y2="{_BOTTOM}"/>')
    for at in outcome.kills:
        where = x(at - outcome.began)
        parts.append(f'<line class="kill" x1="{where:.1f}" x2="{where:.1f}" y1="{_MIDDLE + 3}" y2="{_MIDDLE + 9}"/>')
    parts += [
        line("all", _TOP, _MIDDLE, high_mib, lambda each: each.kib / 1024),
        line("master", _TOP, _MIDDLE, high_mib, lambda each: each.master_kib / 1024),
        line("all", _MIDDLE + 24, _BOTTOM, high_fd, lambda each: each.master_descriptors + each.workers_descriptors),
        line("master", _MIDDLE + 24, _BOTTOM, high_fd, lambda each: each.master_descriptors),
    ]
    for part in range(7):
        at = outcome.seconds * part / 6
        parts.append(
            f'<text class="tick" x="{x(at):.1f}" y="{_BOTTOM + 16}" text-anchor="middle">{at / 60:.3g} min</text>'
        )
    parts += [
        f'<text class="tick" x="20" y="{_HEIGHT - 9}">{escape(footer)}</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def new_seed() -> int:
    """Return the seed that is asked for, or any."""
    return int(os.environ.get("PYSERVER_SEED", "0")) or random.SystemRandom().randrange(1 << 32)
