"""More clients than can be served, up to four times as many: how many are served all the same, and how long they wait.

Owns:    one server at a time, and what takes most of its core away.
Never:   compares servers with each other: each is given shares of what it can do itself.
Fails:   Failed, where the kernel cannot hold a server back.
Used by: benchmarks.main (--overload), benchmarks.curve.

One client cannot overload a server that has a core to itself. So an idle loop has that core, and the server a small
share of it, as a group (sched(7), the autogroup feature): one of many threads gets no more than one of a single one.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.client import Failed
from benchmarks.instance import free_port, running
from benchmarks.measure import CLIENT_CORE, SERVER_CORE
from benchmarks.openloop import Fared, offer, quantile, saturate
from benchmarks.servers import Server, Setting

SHARES: Final = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
PATIENCE_S: Final = 2.0  # then a client leaves
QUEUE_WAIT_S: Final = 0.5  # for which ours lets it wait
_CALIBRATED_S: Final = 1.5
_WARM_UP_S: Final = 3.0  # longer than the patience: by then what waits is what will wait
_CLIENTS: Final = 32  # of those that are always there, when it is measured what a server can do
_AUTOGROUP: Final = Path("/proc/sys/kernel/sched_autogroup_enabled")
_NICE: Final = 10  # of a server, against an idle loop's 0
_REQUEST: Final = b"GET /1m.bin HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class Point(NamedTuple):
    """One load."""

    share: float  # of what the server can do
    can: float  # what it could do just before: answers a second while it always has something to do, and no more
    offered: float  # clients a second
    goodput: float  # right answers a second, to clients that still waited for them
    refused: float  # of them, the share of clients that got 503 ...
    left: float  # ... or left with nothing ...
    cut: float  # ... or were cut off
    p50_ms: float | None  # of right answers
    p99_ms: float | None
    refused_p99_ms: float | None
    late_ms: float  # how much later than they should our clients came, at most


class Curve(NamedTuple):
    """One server."""

    server: str
    points: Sequence[Point]


def measure(server: Server, folder: Path, site: Path, seconds: float, shares: Sequence[float] = SHARES) -> Curve:
    """Measure one server under each share of what it can do, for so long."""
    setting = Setting(free_port(), site, folder / f"overload-{server.name}", None, queue_wait=QUEUE_WAIT_S)
    address = ("127.0.0.1", setting.port)
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {CLIENT_CORE})
    try:
        with running(server, setting, str(SERVER_CORE)) as instance, _held_back(instance.pid):
            saturate(address, _REQUEST, _CLIENTS, _CALIBRATED_S)
            points = []
            for share in shares:
                # Before each: a machine that others use too is not as fast all the time.
                can = saturate(address, _REQUEST, _CLIENTS, _CALIBRATED_S)
                if not can:
                    raise Failed(f"{server.name} answers nothing")
                fared = offer(address, _REQUEST, can * share, seconds, patience=PATIENCE_S, warm_up=_WARM_UP_S)
                points.append(point(share, can, fared))
            return Curve(server.name, points)
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def _held_back(pid: int) -> Iterator[None]:
    """Leave a server a small share of its core. It leads a session of its own, which is a group to the scheduler."""
    if not _AUTOGROUP.exists() or _AUTOGROUP.read_text().strip() != "1":
        raise Failed(f"{_AUTOGROUP} is not 1: the kernel cannot hold a server back as a whole")
    Path(f"/proc/{pid}/autogroup").write_text(f"{_NICE}\n")
    loop = ["taskset", "--cpu-list", str(SERVER_CORE), sys.executable, "-c", "while True: pass"]
    with subprocess.Popen(loop, start_new_session=True) as process:
        try:
            yield
        finally:
            process.kill()


def point(share: float, can: float, fared: Fared) -> Point:
    """Return what became of the clients of one load, as figures."""
    offered = max(1, fared.offered)
    return Point(
        share,
        can,
        fared.offered / fared.seconds,
        fared.goodput,
        len(fared.refused) / offered,
        fared.left / offered,
        (fared.cut + fared.wrong) / offered,
        _ms(fared.quantile(0.5)),
        _ms(fared.quantile(0.99)),
        _ms(quantile(fared.refused, 0.99)),
        fared.late * 1000,
    )


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000


def table(curves: Sequence[Curve]) -> list[list[str]]:
    """Return rows of text, the first one the header."""
    rows = [["server", "offered", "goodput", "refused", "left", "cut", "p50", "p99", "p99 of 503"]]
    rows += [
        [
            curve.server,
            f"{one.share:g} x {one.can:.0f}/s",
            f"{one.goodput / one.can:.0%}",
            f"{one.refused:.0%}",
            f"{one.left:.0%}",
            f"{one.cut:.0%}",
            _shown(one.p50_ms),
            _shown(one.p99_ms),
            _shown(one.refused_p99_ms),
        ]
        for curve in curves
        for one in curve.points
    ]
    return rows


def _shown(ms: float | None) -> str:
    return "-" if ms is None else f"{ms:.0f} ms"


def save(curves: Sequence[Curve], file: Path) -> None:
    """Write all figures."""
    file.write_text(json.dumps([[one.server, [list(point) for point in one.points]] for one in curves], indent=1))


def read(file: Path) -> list[Curve]:
    """Read what save() wrote."""
    return [Curve(server, [Point(*point) for point in points]) for server, points in json.loads(file.read_text())]
