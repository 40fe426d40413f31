"""`pyserver compress`: write the coded variants of a tree's files beside them, for the server to find.

Owns:    the siblings it writes, `a.css.gz` beside `a.css`; its temporary files, none of which outlives it.
Never:   changes or removes a file that it has not made, leaves the root (every name is opened below it, as the server
         does), writes a sibling that the server would not use, or shows anybody half of one: it is written under a
         hidden name, synchronised, and renamed.
Fails:   1 when a file could not be read or a sibling not written (the others are done all the same), 2 for formats
         whose library is missing; KeyboardInterrupt, after everything is tidied up.
Used by: cli.
"""

import contextlib
import fcntl
import os
import secrets
import signal
import stat
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from types import FrameType
from typing import Final, NamedTuple

from pyserver.config import printable
from pyserver.files.codings import CODINGS, EXTENSIONS, Coding
from pyserver.files.mediatypes import is_packed, media_type
from pyserver.files.policy import hidden
from pyserver.files.resolve import OpenFile, Root, RootError
from pyserver.files.variants import is_fresh

# What is smaller than this fits into a packet or two with its head, coded or not.
SIZE_MIN_BYTES: Final = 256

# A sibling must be smaller than its source by so much, or it is not worth its place (and its decoding).
GAIN_MIN: Final = 0.05

# One piece of a file: what is read at once, and how soon an interruption is noticed (half a second for brotli's best).
_PIECE_BYTES: Final = 256 * 1024

# Hidden by its dot and by its "~" (files.policy), and long enough to be nobody else's.
_TEMPORARY_START: Final = b".pyserver-compress-"
_TEMPORARY_END: Final = b"~"

# Files that are handed to the threads ahead of their need, for each of them.
_AHEAD: Final = 4

_PROGRESS_PERIOD_S: Final = 0.1


class _Stopped(Exception):
    """The run was interrupted; nobody looks at what became of this file."""


class Outcome(NamedTuple):
    """What became of one file and one format."""

    kind: str  # a key of _SAID
    source_bytes: int = 0
    coded_bytes: int = 0
    reason: str = ""  # of a failure


# In the order of the summary.
_SAID: Final = {
    "written": "written",
    "fresh": "up to date already",
    "no gain": f"not smaller by {GAIN_MIN:.0%}",
    "changed": "changed meanwhile, left out",
    "in the way": "left out for a link or folder in that place",
    "failed": "failed",
}


def main(root: str, level: str, formats: Sequence[str], jobs: int) -> int:
    """Compress below `root` and return the exit code; no `formats`: all that this machine can write."""
    codings = [each for each in CODINGS if not formats or _format(each) in formats]
    missing = [each for each in codings if not each.can_make]
    for each in missing:
        _say(f"pyserver compress: no {_format(each)}: it needs the package {each.package}")
    if missing and formats:
        return 2
    codings = [each for each in codings if each.can_make]
    try:
        below = Root(root)
    except RootError as error:
        _say(f"pyserver compress: {error}")
        return 1
    with _terminated_as_interrupted():
        return _Run(below, codings, level).go(jobs)


class _Run:
    """One run over one tree."""

    def __init__(self, root: Root, codings: Sequence[Coding], level: str) -> None:
        self._root = root
        self._codings = [(each, int(getattr(each.effort, level))) for each in codings]
        self._stop = threading.Event()
        self._seen = 0  # files
        self._outcomes: Counter[str] = Counter()
        self._failures: list[str] = []  # said when they happen; that there were any is said at the end
        self._saved = {each.name: [0, 0] for each in codings}  # bytes before and after
        self._progress = _Progress()

    def go(self, jobs: int) -> int:
        """Compress everything with so many threads, and say what was done."""
        running: set[Future[list[tuple[Coding, Outcome]]]] = set()
        # Threads suffice: all three libraries give the interpreter lock up while they work.
        with ThreadPoolExecutor(jobs, thread_name_prefix="compress") as pool:
            try:
                for path in self._sources():
                    running.add(pool.submit(self._file, path))
                    if len(running) >= jobs * _AHEAD:
                        done, running = wait(running, return_when=FIRST_COMPLETED)
                        self._note(done)
                while running:
                    done, running = wait(running, _PROGRESS_PERIOD_S, FIRST_COMPLETED)
                    self._note(done)
            except BaseException:
                self._stop.set()  # the threads remove what they were writing; the pool waits for them
                pool.shutdown(cancel_futures=True)
                self._progress.clear()
                raise
        self._progress.clear()
        print("\n".join(self._summary()))
        return 1 if self._outcomes["failed"] else 0

    # -- which files -------------------------------------------------------------------------------

    def _sources(self) -> Iterator[bytes]:
        """Yield the paths that are worth a look. Links to folders are not followed."""
        folders = [b""]
        while folders:
            folder = folders.pop()
            try:
                entries = self._list(folder)
            except OSError as error:
                self._failed(folder + b"/", error)
                continue
            for name, is_folder in entries:
                path = b"%b/%b" % (folder, name)
                if name.startswith(_TEMPORARY_START):
                    self._sweep(folder, name)
                elif hidden(path):
                    continue
                elif is_folder:
                    folders.append(path)
                elif not name.lower().endswith(EXTENSIONS) and not is_packed(media_type(name)):
                    yield path

    def _list(self, folder: bytes) -> list[tuple[bytes, bool]]:
        fd = self._root.open(folder or b"/", cached_only=False)
        try:
            with os.scandir(fd) as entries:
                # A link to a folder is met at its own place if that is in the tree.
                found = [(os.fsencode(each.name), each.is_dir(follow_symlinks=False)) for each in entries]
        finally:
            os.close(fd)
        return sorted(found)

    def _sweep(self, folder: bytes, name: bytes) -> None:
        """Remove what a killed run has left, which nobody holds a lock on."""
        with contextlib.suppress(OSError), _opened(self._root.open(folder or b"/", cached_only=False)) as folder_fd:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder_fd)
            with _opened(fd):
                if stat.S_ISREG(os.fstat(fd).st_mode):
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(name, dir_fd=folder_fd)

    # -- one file, in any thread -----------------------------------------------------------------------

    def _file(self, path: bytes) -> list[tuple[Coding, Outcome]]:
        """Write the siblings of one file."""
        try:
            source = OpenFile(self._root.open(path, cached_only=False))
        except FileNotFoundError:
            return []  # gone meanwhile, or a link to nothing
        except OSError as error:
            if stat.S_ISLNK(self._lstat_mode(path)):
                return []  # it leads out of the root: the server does not follow it either
            return [(coding, _failure(path, error)) for coding, _ in self._codings[:1]]
        if not source.is_regular or source.size < SIZE_MIN_BYTES:
            return []
        outcomes = []
        folder, _, name = path.rpartition(b"/")
        try:
            with _opened(self._root.open(folder or b"/", cached_only=False)) as folder_fd:
                for coding, level in self._codings:
                    outcomes.append((coding, self._sibling(source, folder_fd, name, coding, level)))
                if any(outcome.kind == "written" for _, outcome in outcomes):
                    os.fsync(folder_fd)
        except OSError as error:
            outcomes.append((self._codings[0][0], _failure(path, error)))
        return outcomes

    def _lstat_mode(self, path: bytes) -> int:
        folder, _, name = path.rpartition(b"/")
        with contextlib.suppress(OSError), _opened(self._root.open(folder or b"/", cached_only=False)) as folder_fd:
            return os.lstat(name, dir_fd=folder_fd).st_mode
        return 0

    def _sibling(self, source: OpenFile, folder_fd: int, name: bytes, coding: Coding, level: int) -> Outcome:
        """Write one sibling, unless it is there."""
        target = name + coding.extension
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISREG(os.lstat(target, dir_fd=folder_fd).st_mode):
                return Outcome("in the way")
            fd = os.open(target, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder_fd)
            if is_fresh(OpenFile(fd), source):
                return Outcome("fresh")
        if source.size > _PIECE_BYTES and not self._promising(source):
            return Outcome("no gain")
        temporary = _TEMPORARY_START + secrets.token_hex(8).encode() + _TEMPORARY_END
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder_fd)
        try:
            with _opened(fd):
                fcntl.flock(fd, fcntl.LOCK_EX)  # somebody is at it: see _sweep
                limit = int(source.size * (1 - GAIN_MIN))
                size = self._encode(source, fd, coding, level, limit)
                if size is None:
                    return Outcome("no gain")
                found = os.fstat(source.fd)
                if source.refresh():
                    return Outcome("changed")
                self._finish(fd, found)
                os.rename(temporary, target, src_dir_fd=folder_fd, dst_dir_fd=folder_fd)
            return Outcome("written", source.size, size)
        finally:
            with contextlib.suppress(FileNotFoundError):  # renamed
                os.unlink(temporary, dir_fd=folder_fd)

    @staticmethod
    def _promising(source: OpenFile) -> bool:
        """Tell by its first piece, quickly, whether a large file is worth the work: much is packed by itself."""
        piece = os.pread(source.fd, _PIECE_BYTES, 0)
        return len(zlib.compress(piece, 1)) <= len(piece) * (1 - GAIN_MIN)

    def _encode(self, source: OpenFile, fd: int, coding: Coding, level: int, limit: int) -> int | None:
        """Write `source` coded into `fd`; return the bytes written, or None as soon as they are too many."""
        encoder = coding.start(level, source.size)
        read = written = 0
        while read < source.size:
            if self._stop.is_set():
                raise _Stopped
            piece = os.pread(source.fd, min(_PIECE_BYTES, source.size - read), read)
            if not piece:
                break  # it shrank, which refresh() will tell
            read += len(piece)
            written += _write(fd, encoder.compress(piece))
            if written > limit:
                return None
        if read == source.size:
            written += _write(fd, encoder.flush())
        return written if written <= limit else None

    @staticmethod
    def _finish(fd: int, source: os.stat_result) -> None:
        """Make the sibling readable by whoever may read the source, and as old."""
        with contextlib.suppress(PermissionError):  # only root may give files away
            os.fchown(fd, source.st_uid, source.st_gid)
        os.fchmod(fd, stat.S_IMODE(source.st_mode) & 0o777)
        os.utime(fd, ns=(source.st_atime_ns, source.st_mtime_ns))
        os.fsync(fd)

    # -- what is said -------------------------------------------------------------------------------------

    def _note(self, done: set[Future[list[tuple[Coding, Outcome]]]]) -> None:
        for future in done:
            self._seen += 1
            for coding, outcome in future.result():
                self._outcomes[outcome.kind] += 1
                if outcome.kind == "failed":
                    self._progress.clear()
                    _say(outcome.reason)
                elif outcome.kind == "written":
                    self._saved[coding.name][0] += outcome.source_bytes
                    self._saved[coding.name][1] += outcome.coded_bytes
        self._progress.show(self._seen, self._outcomes["written"])

    def _failed(self, path: bytes, error: OSError) -> None:
        self._outcomes["failed"] += 1
        self._progress.clear()
        _say(_failure(path, error).reason)

    def _summary(self) -> list[str]:
        counts = [f"{self._outcomes[kind]} {text}" for kind, text in _SAID.items() if self._outcomes[kind]]
        lines = [f"{self._seen} file{'' if self._seen == 1 else 's'}; variants: {', '.join(counts) or 'none'}"]
        for coding, _ in self._codings:
            before, after = self._saved[coding.name]
            if before:
                lines.append(f"{_format(coding):>4}: {before:,} bytes became {after:,} ({after / before:.0%})")
        return lines


class _Progress:
    """A line that is written over and over, on a terminal; nothing elsewhere."""

    def __init__(self) -> None:
        self._on = sys.stderr.isatty()
        self._shown = False
        self._next_at = 0.0

    def show(self, files: int, written: int) -> None:
        now = time.monotonic()
        if self._on and now >= self._next_at:
            self._next_at = now + _PROGRESS_PERIOD_S
            self._shown = True
            print(f"\r\x1b[K{files} files, {written} variants written", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self._shown:
            self._shown = False
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


# -- small steps ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Take SIGTERM and SIGHUP as SIGINT is taken, so that they leave nothing behind either."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _opened(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)


def _write(fd: int, data: bytes) -> int:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]
    return len(data)


def _failure(path: bytes, error: OSError) -> Outcome:
    return Outcome("failed", reason=f"{os.fsdecode(path.lstrip(b'/')) or '.'}: {error.strerror}")


def _format(coding: Coding) -> str:
    return coding.extension[1:].decode()


def _say(line: str) -> None:
    print(printable(line), file=sys.stderr, flush=True)
