"""What the master writes down in the segment for those who look: what happened lately, and where the access log is.

Owns:    the ring of the last events, the kinds there are, the path.
Never:   holds a byte of a client's; grows: an old event makes room for a new one. The totals count what was forgotten.
Fails:   never. A reader that is overtaken by the writer leaves out what it saw half written; what a compromised worker
         may have written is shown as one printable line, whatever it is.
Used by: ipc.segment (in which the master writes them), ipc.observe (reads), master.handover (layout).
"""

import os
import time
from typing import Final, NamedTuple

from pyserver.config import printable

KINDS: Final = {
    "started": "the server has started",
    "died": "a worker ended that should not have, or was killed",
    "hung": "a worker gave no sign of life, and is being killed",
    "replaced": "the successor of a worker is ready",
    "reloaded": "a reload took effect",
    "reload failed": "a reload did not, and all is as it was",
    "stopping": "the server is about to end",
}
_KINDS: Final = tuple(KINDS)

EVENTS_MAX: Final = 32
_EVENT: Final = 24  # words: number, kind, second, and the text
_TEXT_AT: Final = 3
_PATH_WORDS: Final = 64  # 512 bytes
WORDS: Final = EVENTS_MAX * _EVENT + _PATH_WORDS
_WORD: Final = 8
_NUMBER_MAX: Final = (1 << 63) - 1  # one that was broken into may have written a larger one


class Event(NamedTuple):
    """Something that happened."""

    at: int  # wall clock, seconds
    kind: str
    text: str


def event(words: memoryview, at: int, kind: str, text: str) -> None:
    """Write down that something happened, after whatever an earlier life of the master, or server, wrote here."""
    number = 1 + max(words[at + index * _EVENT] for index in range(EVENTS_MAX))
    place = at + number % EVENTS_MAX * _EVENT
    words[place] = 0  # whoever reads it now shall not believe it
    words[place + 1], words[place + 2] = _KINDS.index(kind), int(time.time())
    _put(words, place + _TEXT_AT, _EVENT - _TEXT_AT, text)
    words[place] = number & _NUMBER_MAX


def log_at(words: memoryview, at: int, path: str) -> None:
    """Write down where the access log is; one that is no file ("") or has a longer path is not told."""
    path = "" if len(os.fsencode(path)) > _PATH_WORDS * _WORD else path
    _put(words, at + EVENTS_MAX * _EVENT, _PATH_WORDS, path)


def events(words: memoryview, at: int) -> list[Event]:
    """Return what happened lately, the oldest first."""
    found = []
    for index in range(EVENTS_MAX):
        place = at + index * _EVENT
        number, kind, second, *_ = words[place : place + _TEXT_AT]
        text = printable(_text(words, place + _TEXT_AT, _EVENT - _TEXT_AT))
        if number and number == words[place] and kind < len(_KINDS):
            found.append((number, Event(second, _KINDS[kind], text)))
    return [event for _, event in sorted(found)]


def access_log(words: memoryview, at: int) -> str:
    """Return where the access log is; "" if there is none, or none that can be read."""
    return _text(words, at + EVENTS_MAX * _EVENT, _PATH_WORDS)


def _put(words: memoryview, at: int, size: int, text: str) -> None:
    data = os.fsencode(text)[: size * _WORD].ljust(size * _WORD, b"\0")
    words[at : at + size] = memoryview(data).cast("Q")


def _text(words: memoryview, at: int, size: int) -> str:
    return words[at : at + size].tobytes().rstrip(b"\0").decode(errors="surrogateescape")
