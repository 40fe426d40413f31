"""How long the backlogs of listeners are to be that the master has shortened, for whoever follows it.

Owns:    the table of that, a pair of words for each: the kernel's number of the socket (backlog.cookie), the length.
Never:   says more of a length than that it can be one: a compromised worker may have written here (T-61), and what it
         can do with that is to have a backlog lengthened.
Used by: ipc.segment (layout; reads what the dead have left), master.backlogs; master.handover (layout).
"""

from collections.abc import Mapping
from typing import Final

from pyserver.limits import LISTENERS_MAX

WORDS: Final = 2 * LISTENERS_MAX
_MOST: Final = (1 << 31) - 1  # an int of listen(2)


def write(words: memoryview, at: int, lengths: Mapping[int, int]) -> None:
    """Keep these, by the numbers of their sockets, and no others.

    A kill between two writes loses nothing that is kept already: each stays in its place, whatever order they come in,
    and only the places of others are used.
    """
    new, free = dict(lengths), list[int]()
    for index in range(at, at + WORDS, 2):
        length = new.pop(words[index], None)
        if length is None:
            free.append(index)
        elif words[index + 1] != length:
            words[index + 1] = length
    for index in free:
        number = next(iter(new), 0)
        length = new.pop(number, 0)
        if (words[index], words[index + 1]) != (number, length):
            words[index] = 0  # whoever follows must not find one socket's number with another's length
            words[index + 1] = length
            words[index] = number


def read(words: memoryview, at: int) -> dict[int, int]:
    """Return what is kept."""
    found = {words[at + index]: words[at + index + 1] for index in range(0, WORDS, 2)}
    return {number: length for number, length in found.items() if number and 0 < length <= _MOST}
