"""More clients than can be served, up to four times as many: how many are served all the same, and how long they wait.

Owns:    one server at a time, and what takes most of its core away.
Never:   compares servers with each other: each is given shares of what it can do itself.
Fails:   Failed, where the kernel cannot hold a server back.
Used by: benchmarks.main (--overload), benchmarks.curve.

One client cannot overload a server that has a core to itself. So a server has a small quota of its core's time, all its
processes together. The clients, and all that the kernel does for them on their core, have another core to themselves.
"""

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.client import Failed
from benchmarks.cpu import tree
from benchmarks.instance import free_port, running
from benchmarks.measure import CLIENT_CORE, SERVER_CORE
from benchmarks.openloop import Fared, offer, quantile, saturate
from benchmarks.servers import Server, Setting

SHARES: Final = (0.5, 0.9, 1.0, 1.5, 2.0, 3.0, 4.0)
CONTENTS: Final = {"10 KiB": "/10k.html", "1 MiB": "/1m.bin"}
PATIENCE_S: Final = 2.0  # then a client leaves
QUEUE_WAIT_S: Final = 0.5  # for which ours lets it wait
_CALIBRATED_S: Final = 1.5
_REST_S: Final = 4.0  # between two loads: what waits is over by then, and what was done about it
_WARM_UP_S: Final = 3.0  # longer than the patience: by then what waits is what will wait
_CLIENTS: Final = 32  # of those that are always there, when it is measured what a server can do
_GROUPS: Final = (Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup"))  # of version 1, of version 2
_LATE_MS: Final = 50  # clients that come no later are on time: 8 ms at most where their core has nothing else to do
_QUOTA_US: Final = 1000  # of a core, that a server has ...
_PERIOD_US: Final = 20_000  # ... in so much time


class Point(NamedTuple):
    """One load."""

    share: float  # of what the server could do before
    can: float  # what it could do just before and after: answers a second while it always has something to do
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
    """One server, and one content that all its clients ask for."""

    server: str
    content: str
    points: Sequence[Point]


def measure(
    server: Server, folder: Path, site: Path, seconds: float, content: str, shares: Sequence[float] = SHARES
) -> Curve:
    """Measure one server under each share of what it can do, for so long."""
    scratch = folder / f"overload-{server.name}-{CONTENTS[content].strip('/')}"
    setting = Setting(free_port(), site, scratch, None, queue_wait=QUEUE_WAIT_S)
    address = ("127.0.0.1", setting.port)
    request = b"GET %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % CONTENTS[content].encode()
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {CLIENT_CORE})
    try:
        with running(server, setting, str(SERVER_CORE)) as instance, held_back(instance.pid):
            saturate(address, request, _CLIENTS, _CALIBRATED_S)
            can = [saturate(address, request, _CLIENTS, _CALIBRATED_S)]
            points = []
            for share in shares:
                if not can[-1]:
                    raise Failed(f"{server.name} answers nothing")
                fared = offer(address, request, can[-1] * share, seconds, patience=PATIENCE_S, warm_up=_WARM_UP_S)
                time.sleep(_REST_S)
                # Before and after each: a machine that others use too is not as fast all the time.
                can.append(saturate(address, request, _CLIENTS, _CALIBRATED_S))
                points.append(point(share, (can[-2] + can[-1]) / 2, fared))
            return Curve(server.name, content, points)
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def held_back(pid: int) -> Iterator[None]:
    """Leave a server a small share of its core: by quota (cgroups), in every few milliseconds."""
    group = next((each for each in _GROUPS if each.exists()), None)
    if group is None:
        raise Failed("no cgroup with a controller for the CPU: nothing can hold a server back as a whole")
    group /= f"pyserver-overload-{os.getpid()}"
    group.mkdir()
    try:
        if (group / "cpu.max").exists():
            (group / "cpu.max").write_text(f"{_QUOTA_US} {_PERIOD_US}\n")
        else:
            (group / "cpu.cfs_period_us").write_text(f"{_PERIOD_US}\n")
            (group / "cpu.cfs_quota_us").write_text(f"{_QUOTA_US}\n")
        for process in tree(pid):
            (group / "cgroup.procs").write_text(f"{process}\n")
        yield
    finally:
        for left in (group / "cgroup.procs").read_text().split():
            (group.parent / "cgroup.procs").write_text(f"{left}\n")
        group.rmdir()


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
    """Return rows of text, the first one the header; goodput is told in shares of what the server can do."""
    rows = [["server", "answers", "offered", "goodput", "refused", "left", "cut", "p50", "p99", "p99 of 503"]]
    rows += [
        [
            curve.server,
            curve.content,
            f"{one.share:g} x {one.can:.0f}/s" + _late(one),
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


def _late(one: Point) -> str:
    """Return what the reader has to know where our own clients were late: their waits are longer than the server's."""
    return f" (clients up to {one.late_ms:.0f} ms late)" if one.late_ms > _LATE_MS else ""


def _shown(ms: float | None) -> str:
    return "-" if ms is None else f"{ms:.0f} ms"


def save(curves: Sequence[Curve], file: Path) -> None:
    """Write all figures."""
    file.write_text(json.dumps([[*one[:2], [list(point) for point in one.points]] for one in curves], indent=1))


def read(file: Path) -> list[Curve]:
    """Read what save() wrote."""
    return [
        Curve(server, content, [Point(*point) for point in points])
        for server, content, points in json.loads(file.read_text())
    ]
