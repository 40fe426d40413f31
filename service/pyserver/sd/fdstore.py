"""The descriptor store (sd_notify(3), FDSTORE=1): what systemd keeps for us until our next start.

Owns:    the names there, and how a descriptor is told to be ours.
Never:   keeps anything over `systemctl stop`: systemd closes it then.
Used by: sd.activation (takes out), master.listeners, master.main (hand on), master.stored (goes on with it; puts in, by
         a Notifier).

systemd drops a client that hangs up meanwhile, and whatever is more than FileDescriptorStoreMax= allows.
"""

from typing import Final, NamedTuple

# The segment of the server that runs, or ran: the next one goes on with its totals.
SEGMENT: Final = "segment"

# Connections that wait between two requests; the name of their listener follows.
PARKED: Final = "parked-"


class Stored(NamedTuple):
    """A descriptor that an earlier start has left; the holder of this owns it."""

    name: str
    descriptor: int


def is_stored(name: str) -> bool:
    """Tell whether a descriptor of this name came out of the store: no listener may be called so."""
    return name == SEGMENT or name.startswith(PARKED)


def parked_name(listener: str) -> str:
    """Return the name for connections of a listener."""
    return PARKED + listener
