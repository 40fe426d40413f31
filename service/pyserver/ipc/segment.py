"""The one shared memory segment: its name, its words, who may see it, and what is left of the dead.

Owns:    the layout (header, totals, notes, a row per worker slot), the lock that says an instance lives, the sweep.
Never:   trusts a length or an index that it read from the segment: sizes come from the configuration, and a reader
         checks them against the file's (a compromised worker can write here).
Fails:   SegmentError with one line for a person.
Used by: master (creates, or adopts after it executed itself), ipc.assignment (a worker inherits the mapping by fork),
         ipc.observe, top.main (attach to read), ipc.queue (its ledger), ipc.control (names).

Everything is a 64-bit word in host order, so that a store is one instruction and never seen half (x86-64, aarch64).
Each word has one writer; rows are whole cache lines, so writers do not slow each other down.

The name is `/pyserver.PID`. The master holds a record lock on the segment (fcntl(2), F_SETLK) as long as it lives:
the kernel drops it with the process, whatever way it ends, so a name without a lock is a dead server's. It passes
through execve(2), but goes with the first descriptor of the segment that the process closes.
"""

import contextlib
import fcntl
import mmap
import os
import re
import struct
import time
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, Self

import posix_ipc

from pyserver.ipc import activity, lengths, notes, semaphores
from pyserver.ipc.stats import CELLS, fold

MAGIC: Final = int.from_bytes(b"pyserver", "little")
VERSION: Final = 5
WORD: Final = 8
LINE_WORDS: Final = 8  # a cache line

# The folder in which Linux shows POSIX shared memory and semaphores (shm_overview(7), sem_overview(7)).
SHM: Final = Path("/dev/shm")  # noqa: S108  # nosec B108  # not a temporary file of ours: the kernel's place for these names
_NAME: Final = re.compile(r"(?P<segment>pyserver\.[0-9]+(?:-[0-9]+)?)")
_SEMAPHORE: Final = re.compile(rf"sem\.{_NAME.pattern}\.(?:{'|'.join(semaphores.NAMES)})")

# struct flock of fcntl(2): l_type, l_whence, l_start, l_len, l_pid.
_FLOCK: Final = struct.Struct("@hhqqi0q")

# A segment that is younger than this and has no size yet is being made, not left behind.
_MAKING_S: Final = 10.0


class SegmentError(Exception):
    """The segment cannot be made, found or understood; the text is one line for a person."""


def _indexed(*names: str) -> dict[str, int]:
    return {name: index for index, name in enumerate(names)}


def _lines(words: int) -> int:
    return -(-words // LINE_WORDS) * LINE_WORDS


# -- layout ---------------------------------------------------------------------------------

HEADER: Final = _indexed(
    "magic",
    "version",
    "slots",  # worker slots: rows below
    "capacity",  # of the queue: what empty_slots starts at
    "master_pid",
    "since",  # wall clock, seconds: when the totals began to count
    "in_hand",  # connections the master took room for and has not published
    "saturated",  # 1: the master waits for a message ROOM
    "fold",  # odd while the totals are being changed
    "master_state",
    "master_beat",  # CLOCK_MONOTONIC, ns
    "restarts",  # workers that died and were replaced
    "accept_pauses",  # times the master ran out of descriptors
    "saturations",  # times the queue was full, or as full as it may be in an overload (master.backlogs)
    "backlog",  # connections that may wait in the kernel
    "backlog_drops",  # attempts to connect that found no room there
    "crew",  # the workers that serve: those whose row says the same; one more with each reload
    "reloads",  # that took effect
    "reloaded",  # wall clock, seconds: the last of them; 0: none yet
    "queue_mutex_state",  # the master's cells for queue_mutex: semaphores.CELLS words
    "queue_mutex_turns",
    "queue_mutex_holds",
    "stats_mutex_state",
    "stats_mutex_turns",
    "stats_mutex_holds",
    "protections",  # of the sandbox that the master is in: bits of sandbox.PROTECTIONS
    "master_started",  # wall clock, seconds
    "master_rss_bytes",  # resident memory at its last tick; 0: not to be known
    "master_open_fds",  # descriptors that it had then; 0: not to be known
)

ROW: Final = _indexed(
    "state",  # the slot's, written by the master
    "pid",  # master
    "generation",  # master
    "crew",  # master: which one it belongs to; 0: nobody uses this row
    "since_ns",  # master: CLOCK_MONOTONIC at the spawn
    "sent",  # master: the ledger, connections ever put into this slot's channel
    "received",  # worker: the ledger, connections ever taken out of it
    "queue_mutex_state",  # worker
    "queue_mutex_turns",
    "queue_mutex_holds",
    "stats_mutex_state",
    "stats_mutex_turns",
    "stats_mutex_holds",
    "beat_ns",  # worker: CLOCK_MONOTONIC at its last round
    "reopen_ns",  # master: CLOCK_MONOTONIC, when this generation was last told to open its log again
    "drain_by_ns",  # master: CLOCK_MONOTONIC, when this generation shall have drained; 0: it shall serve
    "drain_how",  # master: messages.Drain, written before drain_by_ns
    "round_ns",  # worker: CLOCK_MONOTONIC when its last round began; later than beat_ns while that goes on
    "unlisted",  # worker: requests under way that have no row of their own
    "started",  # master: wall clock, seconds, at the spawn
    "rss_bytes",  # master: resident memory at its last tick; 0: not to be known
)
ROW_COUNTERS: Final = _lines(len(ROW))  # the counters begin on a line of their own
ROW_ACTIVITY: Final = ROW_COUNTERS + _lines(CELLS)  # rows of threads and requests
ROW_WORDS: Final = ROW_ACTIVITY + _lines(activity.WORDS)
TOTALS: Final = _lines(len(HEADER))
NOTES: Final = TOTALS + _lines(CELLS)  # ipc.notes
LENGTHS: Final = NOTES + _lines(notes.WORDS)  # ipc.lengths
ROWS: Final = LENGTHS + _lines(lengths.WORDS)


def words_for(slots: int) -> int:
    """Return how many words a segment for so many worker slots has."""
    return ROWS + slots * ROW_WORDS


class Segment:
    """The mapped words, and where things are in them."""

    __slots__ = ("_fd", "_map", "_owner", "name", "slots", "words")

    def __init__(self, name: str, mapping: mmap.mmap, slots: int, fd: int | None) -> None:
        self.name = name
        self.slots = slots
        self.words = memoryview(mapping).cast("Q")
        self._map = mapping
        self._fd = fd  # the master's, which carries the lock
        self._owner = os.getpid() if fd is not None else None

    # -- made by the master ---------------------------------------------------------------

    @classmethod
    def create(cls, slots: int, capacity: int) -> Self:
        """Make this process's segment, locked and zeroed; raises SegmentError."""
        shared = _create_locked()
        size = words_for(slots) * WORD
        try:
            # Allocated, not only sized: a full /dev/shm is an error here and not a SIGBUS later.
            os.posix_fallocate(shared.fd, 0, size)
            # The umask has cut the mode. The group may read: `pyserver status`.
            os.fchmod(shared.fd, 0o640)
            mapping = mmap.mmap(shared.fd, size)
        except OSError as error:
            shared.unlink()
            raise SegmentError(f"no shared memory of {size} bytes: {error.strerror}") from error
        segment = cls(shared.name, mapping, slots, shared.fd)
        words = segment.words
        words[HEADER["version"]] = VERSION
        words[HEADER["slots"]] = slots
        words[HEADER["capacity"]] = capacity
        words[HEADER["master_pid"]] = os.getpid()
        words[HEADER["since"]] = words[HEADER["master_started"]] = int(time.time())
        words[HEADER["magic"]] = MAGIC  # last: from here on a reader may believe it
        return segment

    @classmethod
    def adopt(cls, name: str, descriptors: Sequence[int], slots: int) -> Self:
        """Map the segment that this process made before it executed itself; raises SegmentError."""
        fd, *others = descriptors
        try:
            mapping = mmap.mmap(fd, words_for(slots) * WORD)
            for other in others:
                os.close(other)
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (OSError, ValueError) as error:
            raise SegmentError(f"cannot map the segment that was handed over: {error}") from error
        return cls(name, mapping, slots, fd)

    def inherit(self, fd: int) -> bool:
        """Begin with the totals of an earlier server, whose segment this is; False if it is of another kind."""
        try:
            mapping = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
        except (OSError, ValueError):
            return False
        with mapping, memoryview(mapping) as octets:
            if len(octets) % WORD:
                return False
            with octets.cast("Q") as words:
                return self._add_up(words)

    def _add_up(self, left: memoryview) -> bool:
        """Take the totals of a whole segment, with those of its workers, and its notes."""
        if len(left) < ROWS or (left[HEADER["magic"]], left[HEADER["version"]]) != (MAGIC, VERSION):
            return False
        slots = left[HEADER["slots"]]
        if len(left) != words_for(slots):
            return False
        # Of its megabytes what is looked at, the rest not even read; and beside it room for one row at a time.
        words = memoryview(array("Q", left[:ROWS].tobytes() + bytes(CELLS * WORD)))
        for slot in range(slots):
            at = ROWS + slot * ROW_WORDS + ROW_COUNTERS
            row = left[at : at + CELLS]
            if row.tobytes().strip(b"\0"):  # most rows are of nobody
                words[ROWS:] = row
                fold(words, HEADER["fold"], TOTALS, ROWS)
        self.words[TOTALS:ROWS] = words[TOTALS:ROWS]  # and the notes, and the lengths
        for name in ("since", "restarts"):
            self.words[HEADER[name]] = words[HEADER[name]]
        return True

    def fileno(self) -> int:
        """Return the descriptor by which another process can map it."""
        assert self._fd is not None
        return self._fd

    def descriptors(self) -> list[int]:
        """Return this process's descriptors of it, to be handed over: the lock goes with the first that is closed.

        The mapping has one of its own, which it does not tell (mmap duplicates what it is given).
        """
        assert self._fd is not None
        mine = os.fstat(self._fd)
        found = [self._fd]
        for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  numbers, not files
            with contextlib.suppress(OSError):  # the one that lists
                if int(name) != self._fd and os.path.samestat(os.fstat(int(name)), mine):
                    found.append(int(name))
        return found

    @classmethod
    def private(cls, slots: int) -> Self:
        """Return one that is not in /dev/shm: for this process and its children, and nobody looks at it."""
        return cls(f"/pyserver.{os.getpid()}", mmap.mmap(-1, words_for(slots) * WORD), slots, None)

    # -- attached by a reader ---------------------------------------------------------------

    @classmethod
    def attach(cls, name: str) -> Self:
        """Map an existing segment for reading only; raises SegmentError."""
        path = SHM / name.lstrip("/")
        try:
            with path.open("rb") as file:
                mapping = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is empty"
            raise SegmentError(f"cannot read {path}: {why}") from error
        words = memoryview(mapping).cast("Q") if len(mapping) % WORD == 0 else memoryview(b"")
        if len(words) < ROWS or words[HEADER["magic"]] != MAGIC:
            raise SegmentError(f"{path} is not a segment of pyserver")
        if words[HEADER["version"]] != VERSION:
            raise SegmentError(
                f"{path} has layout {words[HEADER['version']]}, this pyserver reads {VERSION}; use the server's own"
            )
        slots = words[HEADER["slots"]]
        if len(words) != words_for(slots):
            raise SegmentError(f"{path} says {slots} slots, which its size belies")
        return cls("/" + path.name, mapping, slots, None)

    # -- where things are ---------------------------------------------------------------------

    def row(self, slot: int, field: str = "state") -> int:
        """Return the index of a field in a worker slot's row."""
        return ROWS + slot * ROW_WORDS + ROW[field]

    def counters(self, slot: int) -> int:
        """Return the index of a worker slot's first counter."""
        return ROWS + slot * ROW_WORDS + ROW_COUNTERS

    def activity(self, slot: int) -> int:
        """Return the index of the first of the rows of a worker's threads and requests."""
        return ROWS + slot * ROW_WORDS + ROW_ACTIVITY

    # -- the notes of the master ----------------------------------------------------------------

    def note(self, kind: str, text: str) -> None:
        """Write down that something happened (ipc.notes)."""
        notes.event(self.words, NOTES, kind, text)

    def note_log(self, path: str) -> None:
        """Write down where the access log is; "": nowhere."""
        notes.log_at(self.words, NOTES, path)

    def noted(self) -> tuple[list[notes.Event], str]:
        """Return what happened lately, the oldest first, and where the access log is."""
        return notes.events(self.words, NOTES), notes.access_log(self.words, NOTES)

    def close(self) -> None:
        """Unmap. In the process that made it, remove the name too (the lock goes with the descriptor)."""
        self.words.release()
        self._map.close()
        if self._fd is not None and self._owner == os.getpid():
            with contextlib.suppress(posix_ipc.ExistentialError):
                posix_ipc.unlink_shared_memory(self.name)
            os.close(self._fd)


def _create_locked() -> posix_ipc.SharedMemory:
    for attempt in range(100):
        name = f"/pyserver.{os.getpid()}" + (f"-{attempt}" if attempt else "")
        try:
            shared = posix_ipc.SharedMemory(name, posix_ipc.O_CREX, mode=0o600)
        except posix_ipc.ExistentialError:
            # Not swept, so it lives: a server in another PID namespace that shares /dev/shm with us.
            continue
        except (OSError, posix_ipc.PermissionsError) as error:  # the second is none of the first
            why = error.strerror if isinstance(error, OSError) else f"no permission in {SHM}"
            raise SegmentError(f"cannot make the shared memory {name}: {why}") from error
        fcntl.lockf(shared.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return shared
    raise SegmentError("no free name for the shared memory in /dev/shm")


# -- the living and the dead ----------------------------------------------------------------


def found() -> Iterator[tuple[str, bool]]:
    """Yield the name of every segment in /dev/shm that we may read, and whether its server lives."""
    for path in sorted(SHM.glob("pyserver.*")):
        if _NAME.fullmatch(path.name):
            with contextlib.suppress(OSError):
                yield "/" + path.name, not _is_left(path, readable_only=True)


def sweep(noted: dict[str, dict[int, int]] | None = None) -> list[str]:
    """Remove what servers of ours left behind when they were killed; return the names.

    Only what belongs to this user, and never a living server's. To be called before create(): a process cannot see
    its own locks. Segments in which a server noted the lengths of backlogs stay where `noted` is given, which is filled
    with these by their names: until they are noted elsewhere, and discard() is called.
    """
    removed = []
    for path in sorted(SHM.glob("pyserver.*")):
        if _NAME.fullmatch(path.name):
            with contextlib.suppress(OSError):
                if _is_left(path):
                    found = {} if noted is None else _lengths_in(path)
                    if noted is not None and found:
                        noted[path.name] = found
                    else:
                        path.unlink()
                        removed.append(path.name)
    return removed + _sweep_semaphores()


def discard(names: Iterable[str]) -> list[str]:
    """Remove, of these that sweep() has let stay, what is there still; return the names. Not to be asked of our own."""
    removed = []
    for name in sorted(names):
        with contextlib.suppress(OSError):
            if _is_left(SHM / name):
                (SHM / name).unlink()
                removed.append(name)
    return removed + _sweep_semaphores()


def _sweep_semaphores() -> list[str]:
    removed = []
    for path in sorted(SHM.glob("sem.pyserver.*")):
        match = _SEMAPHORE.fullmatch(path.name)
        # A segment is made before its semaphores and removed after them: without one they are orphans.
        if match and not (SHM / match["segment"]).exists():
            with contextlib.suppress(OSError):
                if path.stat().st_uid == os.geteuid():
                    path.unlink()
                    removed.append(path.name)
    return removed


def _lengths_in(path: Path) -> dict[int, int]:
    try:
        left = Segment.attach(path.name)
    except SegmentError:
        return {}
    found = lengths.read(left.words, LENGTHS)
    left.close()
    return found


def _is_left(path: Path, *, readable_only: bool = False) -> bool:
    """Tell whether no living master holds the lock on this segment."""
    with path.open("rb" if readable_only else "r+b") as file:
        found_stat = os.fstat(file.fileno())
        if not readable_only and found_stat.st_uid != os.geteuid():
            return False
        if found_stat.st_size == 0 and time.time() - found_stat.st_mtime < _MAKING_S:
            return False
        # Asked, not taken: a lock of ours, however short, could be in the way of a master that is just starting.
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, *_ = _FLOCK.unpack(fcntl.fcntl(file, fcntl.F_GETLK, asked))
        return bool(kind == fcntl.F_UNLCK)
