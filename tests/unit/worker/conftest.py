"""A worker's connections over socketpairs: the test is the client, the pool and the clock."""

import logging
import select
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from pyserver.clock import Clock
from pyserver.config import Limits, Site
from pyserver.files.resolve import Root, WouldBlock
from pyserver.handlers.cache import FileCache
from pyserver.handlers.memo import Memo
from pyserver.handlers.static import StaticSite
from pyserver.http.scanner import Bounds
from pyserver.ipc.assignment import Origin
from pyserver.ipc.clients import ClientTable
from pyserver.ipc.stats import Tally
from pyserver.limits import FILE_IN_MEMORY_MAX_BYTES
from pyserver.worker.accesslog import AccessLog
from pyserver.worker.client import Job
from pyserver.worker.connection import JOB, Connections
from pyserver.worker.records import Records

# Too large to be kept in memory.
LARGE_BYTES = 3 * FILE_IN_MEMORY_MAX_BYTES

LIMITS = Limits(head_deadline=10.0, keep_alive=60.0, send_stall=30.0, body_deadline=20.0)


class ColdRoot(Root):
    """A root whose files can be as if they were not in memory, whatever the file system."""

    cold = False

    def open(self, path: bytes, *, cached_only: bool) -> int:
        if cached_only and self.cold:
            raise WouldBlock
        return super().open(path, cached_only=cached_only)


class Hall:
    """Where clients come in; nothing happens in it until turn() is called, and no time passes until wait() is."""

    def __init__(
        self,
        site: Path,
        log: Path,
        errors: Mapping[int, str] | None = None,
        limits: Limits = LIMITS,
        queue_wait: float = 30.0,
    ) -> None:
        self.clock = Clock()
        self.tally = Tally()
        self.poll = select.epoll()
        self.log = log
        self.access = AccessLog(str(log), self.clock)
        self.root = ColdRoot(str(site))
        settings = Site(str(site), precompressed=False, errors=errors or {})
        self.memo = Memo(1 << 20, Bounds(limits.head_bytes, limits.target_bytes, limits.head_fields))
        handler = StaticSite(settings, self.root, self.clock, FileCache(1 << 20, 100))
        handler.on_switch = self.memo.forget
        self.handler = handler
        self.parts: dict[str, Any] = {}
        self.connections: Connections
        self.equip(access=self.access, memo=self.memo, limits=limits, queue_wait=queue_wait)
        self.opened: list[socket.socket] = []

    def equip(self, **parts: Any) -> None:  # noqa: ANN401  of several types
        """Give the worker further parts, before it has clients."""
        assert not self.parts or not self.connections.table
        self.parts |= parts
        if parts.get("access"):
            self.access = parts["access"]
        of = self.parts.get
        self.connections = Connections(
            self.handler,
            (Origin("http", socket.AF_UNIX),),
            self.parts["limits"],
            self.clock,
            self.tally,
            Records(self.clock, of("access"), of("failures"), of("slow"), of("proxies")),
            self.poll,
            64,
            self.parts["memo"],
            of("admission"),
            proxies=of("proxies"),
            tracing=of("tracing"),
            queue_wait=self.parts["queue_wait"],
        )

    def client(
        self, first: bytes = b"", *, buffer: int = 0, queued: float = 0.0, parked: bool = False
    ) -> socket.socket:
        """A client that is connected, has sent `first`, and was passed to this worker."""
        ours, theirs = socket.socketpair()
        if buffer:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        ours.setblocking(False)
        ours.sendall(first)
        self.opened.append(ours)
        self.connections.adopt(theirs.detach(), 0, parked=parked, waited_ns=int(queued * 1e9))
        return ours

    def turn(self) -> None:
        """What the pool does until nothing is left to do at this moment."""
        for _ in range(100_000):
            while self.connections.jobs:
                self.do(self.connections.jobs.popleft())
            events = self.poll.poll(0)
            if not events:
                return
            failures, reported = self.tally.failures, iter(events)
            while (other := self.connections.see_to(reported)) is not None:
                assert other == JOB, "nothing but clients is polled"
                while self.connections.jobs:
                    self.do(self.connections.jobs.popleft())
            assert self.tally.failures == failures
        raise AssertionError("endless")

    @staticmethod
    def do(job: Job) -> None:
        job.run()
        job.then()

    def wait(self, seconds: float) -> None:
        """Let time pass, and end what is over."""
        self.clock.now += seconds
        self.connections.expire(self.clock.now)
        self.turn()

    def lines(self) -> list[str]:
        """The access log so far."""
        batch = self.access._batch()
        batch.run()
        return self.log.read_text().splitlines()

    def close(self) -> None:
        for connection in tuple(self.connections.table.values()):
            self.connections.holding.close(connection)
        for client in self.opened:
            client.close()
        self.access.close()
        self.poll.close()


class Heard(logging.Handler):
    """What was logged."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def told() -> Iterator[list[logging.LogRecord]]:
    """What the server says in its log during a test."""
    log, handler = logging.getLogger("pyserver"), Heard()
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield handler.records
    log.removeHandler(handler)
    log.setLevel(before)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Path]:
    """A site with a page, a small and a large file."""
    root = tmp_path / "site"
    root.mkdir()
    (root / "index.html").write_bytes(b"<p>hello</p>")
    (root / "small.txt").write_bytes(b"small\n")
    (root / "large.bin").write_bytes(bytes(range(256)) * (LARGE_BYTES // 256))
    yield root
    (root / "large.bin").unlink()  # pytest keeps the folders of three runs


@pytest.fixture
def hall(site: Path, tmp_path: Path) -> Iterator[Hall]:
    made = Hall(site, tmp_path / "log")
    yield made
    made.close()


@pytest.fixture
def table() -> Iterator[ClientTable]:
    """What clients have, by the first of two workers."""
    made = ClientTable(2)
    made.clear(0)
    yield made
    made.close()
