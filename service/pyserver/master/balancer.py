"""Choose who gets the connections that are waiting: a pure function of what the segment shows.

Never:   looks at anything but the loads it is given.
Used by: master.acceptor.
"""

from collections.abc import Mapping


def share(loads: Mapping[int, int], connections: int, first: int = 0) -> list[tuple[int, int]]:
    """Split `connections` over the slots so that the loads come out as even as they can.

    `loads` maps each ready slot to what it has already: waiting in its channel plus open. Returns (slot, count) for
    each slot that gets some. Among equals the first slot at or after `first`, in cyclic order, comes first, so that a
    quiet server does not keep all its clients in one worker.
    """
    if not loads:
        return []
    if len(loads) == 1:
        return [(next(iter(loads)), connections)]
    order = sorted(loads, key=lambda slot: (slot < first, slot))
    levels = {slot: loads[slot] for slot in order}
    shares = dict.fromkeys(order, 0)
    for _ in range(connections):
        slot = min(levels, key=levels.__getitem__)
        levels[slot] += 1
        shares[slot] += 1
    return [(slot, count) for slot, count in shares.items() if count]
