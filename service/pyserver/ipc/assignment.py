"""What a worker is given at its birth: all that the master hands over by fork.

Used by: master (fills it; knows listeners by their Origin), worker (lives on it).
"""

import socket
from typing import Final, NamedTuple

from pyserver.config import Config
from pyserver.ipc.channel import End
from pyserver.ipc.clients import ClientTable
from pyserver.ipc.queue import Queue
from pyserver.ipc.segment import Segment

# The name of a listener at which it is told how the server is (handlers.status), and nothing else.
ADMIN: Final = "admin"


class Origin(NamedTuple):
    """A listener, as far as a worker has to know it."""

    name: str  # "http"
    family: socket.AddressFamily


class Assignment(NamedTuple):
    """One worker's place in the server."""

    slot: int
    generation: int
    config: Config
    end: End  # of its channel
    segment: Segment
    queue: Queue  # with this worker's own cells
    origins: tuple[Origin, ...]  # by index, as messages name them
    clients: ClientTable | None = None  # where there are limits of [clients]
