"""What must hold again after any fault: it serves, nothing leaked in any process, nothing is left, no total went back.

`kept` is for a test's body: it looks before, watches the totals meanwhile, and waits for all of it afterwards.
"""

import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import posix_ipc
from tests.service.client import Failure
from tests.service.harness import Server, children_of, descriptors, process_state, wait_until

from pyserver.ipc.stats import COUNTERS

MONOTONE = [counter.name for counter in COUNTERS if not counter.gauge]


def semaphores(server: Server) -> dict[str, int]:
    """Return the real values, as the kernel has them."""
    values = {}
    for name in ("empty_slots", "filled_slots", "queue_mutex", "stats_mutex"):
        semaphore = posix_ipc.Semaphore(f"/pyserver.{server.pid}.{name}")
        values[name] = semaphore.value
        semaphore.close()
    return values


def assert_no_slot_leaked(server: Server, capacity: int) -> None:
    """When it is quiet, every slot is empty, by the ledger and by the semaphores."""
    wait_until(lambda: server.look().empty_slots == capacity, within=20, why="an empty queue by the ledger")
    seen = server.look()
    assert (seen.filled_slots, seen.in_hand) == (0, 0)
    assert semaphores(server) == {"empty_slots": capacity, "filled_slots": 0, "queue_mutex": 1, "stats_mutex": 1}


@contextmanager
def totals_watched(server: Server, every: float = 0.003) -> Iterator[list[str]]:
    """Sample the totals all along; what went backwards is in the list."""
    backwards: list[str] = []
    over = threading.Event()
    server.look()

    def watch() -> None:
        before = server.counters()
        while not over.wait(every):
            seen = server.look()
            backwards.extend(
                f"{name} from {before[name]} to {seen.totals[name]}"
                for name in MONOTONE
                if seen.totals[name] < before[name]
            )
            before = seen.totals

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield backwards
    finally:
        over.set()
        watcher.join()


def own_descriptors(pid: int, root: Path) -> list[str]:
    """Return what a process holds open but for the files that it serves: those it keeps for the next request."""
    return sorted(goal for goal in descriptors(pid).values() if not Path(goal).is_relative_to(root))


def zombies(server: Server) -> list[int]:
    """Return the children of the master that ended and were not reaped."""
    return [pid for pid in children_of(server.pid) if process_state(pid) == "Z"]


def answers(server: Server, target: str) -> bool:
    """Tell whether a fresh client is served."""
    try:
        return server.ask(target, within=5).status == 200
    except Failure:
        return False


@contextmanager
def kept(
    server: Server, root: Path, *, capacity: int = 1024, target: str = "/small.txt", within: float = 20.0
) -> Iterator[None]:
    """Look, let something happen, and see to it that afterwards everything is as it was."""
    wait_until(lambda: server.counters()["connections_open"] == 0, within, "a quiet server to begin with")
    names = server.names()
    master = own_descriptors(server.pid, root)
    # The most that any of them has: what is opened once, at the first need, one may have and another not yet.
    worker = max((own_descriptors(pid, root) for pid in server.workers().values()), key=len)
    with totals_watched(server) as backwards:
        yield
        # Every worker is asked, or at least might be.
        wait_until(lambda: answers(server, target), within, "an answer")
        wait_until(server.all_ready, within, "every worker ready")
        wait_until(lambda: server.counters()["connections_open"] == 0, within, "no connection open")
        assert_no_slot_leaked(server, capacity)
    assert not backwards, backwards[:5]
    wait_until(lambda: not zombies(server), within, "no zombie")
    _at_most(server.pid, root, master, within)
    for pid in server.workers().values():
        _at_most(pid, root, worker, within)
    assert server.names() == names, "names in /dev/shm"


def _at_most(pid: int, root: Path, before: list[str], within: float) -> None:
    """Wait until a process has no more descriptors than `before`."""
    with contextlib.suppress(AssertionError):
        wait_until(lambda: len(own_descriptors(pid, root)) <= len(before), within)
    now = own_descriptors(pid, root)
    assert len(now) <= len(before), f"process {pid} has leaked: {now}, was {before}"
