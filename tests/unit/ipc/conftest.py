import os
from collections.abc import Iterator
from contextlib import suppress

import pytest
from tests.unit.processes import unswept

from pyserver.ipc import semaphores
from pyserver.ipc.segment import SHM, Segment


def ours_in_shm() -> list[str]:
    return sorted(path.name for path in SHM.iterdir() if f"pyserver.{os.getpid()}" in path.name)


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    """Each test begins and ends without a name of ours in /dev/shm."""
    assert ours_in_shm() == []
    yield
    left = ours_in_shm()
    for name in left:
        with suppress(FileNotFoundError):
            (SHM / name).unlink()
    assert left == []


@pytest.fixture
def of_nobody_else() -> Iterator[None]:
    """What is left in /dev/shm stays there until the test itself removes it."""
    with unswept():
        yield


@pytest.fixture
def segment() -> Iterator[Segment]:
    made = Segment.create(4, 64)
    yield made
    made.close()


@pytest.fixture
def quick_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns of 2 ms instead of 20, so that hundreds of deaths are recovered from in a few seconds."""
    monkeypatch.setattr(semaphores, "MUTEX_TURN_S", 0.002)
