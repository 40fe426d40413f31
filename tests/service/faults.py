"""Put a server into a state that a kill hits once in a million times: dead inside a critical section."""

from pathlib import Path

import posix_ipc
from tests.service.harness import Server

from pyserver.ipc.segment import HEADER, SHM, Segment
from pyserver.ipc.semaphores import State


def hold_queue_mutex(server: Server, slot: int | None) -> None:
    """Take the mutex in the name of a stopped party: the worker of a slot, or the master (None).

    Of its cells, state and holds are written as Mutex.__enter__ writes them.
    """
    semaphore = posix_ipc.Semaphore(f"/pyserver.{server.pid}.queue_mutex")
    semaphore.acquire(1)
    semaphore.close()
    path: Path = SHM / f"pyserver.{server.pid}"
    segment = Segment.attach(path.name)
    at = HEADER["queue_mutex_state"] if slot is None else segment.row(slot, "queue_mutex_state")
    holds = segment.words[at + 2]
    segment.close()
    with path.open("r+b") as file:
        for index, value in ((at, int(State.HELD)), (at + 2, holds + 1)):
            file.seek(index * 8)
            file.write(value.to_bytes(8, "little"))
