"""The segment: made once, readable for whom it may be, and what is left of the dead is told from the living."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.unit.processes import Child, forked, run_forked, wait_until

from pyserver.ipc import lengths, notes, semaphores, stats
from pyserver.ipc import segment as segments
from pyserver.ipc.queue import Queue
from pyserver.ipc.segment import (
    HEADER,
    LENGTHS,
    LINE_WORDS,
    MAGIC,
    NOTES,
    ROW,
    ROW_COUNTERS,
    ROW_WORDS,
    ROWS,
    SHM,
    TOTALS,
    VERSION,
    WORD,
    Segment,
    SegmentError,
    found,
    sweep,
    words_for,
)
from pyserver.ipc.stats import Tally, index_of, read_buckets

SERVICE = Path(__file__).parents[3] / "service"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def of_process(pid: int) -> list[Path]:
    return sorted(path for path in SHM.iterdir() if f"pyserver.{pid}" in path.name)


@pytest.fixture
def shm_file() -> Iterator[Callable[[bytes], Path]]:
    """Write a file of a segment's name, as somebody else might have left it."""
    made: list[Path] = []

    def make(content: bytes) -> Path:
        path = SHM / f"pyserver.{os.getpid()}-{900 + len(made)}"
        made.append(path)
        path.write_bytes(content)
        return path

    yield make
    for path in made:
        with suppress(FileNotFoundError):
            path.unlink()


# -- layout -----------------------------------------------------------------------------------------


def test_parts_begin_on_cache_lines_and_do_not_overlap() -> None:
    assert all(at % LINE_WORDS == 0 for at in (TOTALS, NOTES, LENGTHS, ROWS, ROW_COUNTERS, ROW_WORDS, words_for(3)))
    assert len(HEADER) <= TOTALS
    assert TOTALS + stats.CELLS <= NOTES
    assert NOTES + notes.WORDS <= LENGTHS
    assert LENGTHS + lengths.WORDS <= ROWS
    assert len(ROW) <= ROW_COUNTERS
    assert ROW_COUNTERS + stats.CELLS <= ROW_WORDS


@pytest.mark.parametrize("table", [HEADER, ROW])
@pytest.mark.parametrize("mutex", ["queue_mutex", "stats_mutex"])
def test_the_cells_of_a_mutex_are_side_by_side(table: dict[str, int], mutex: str) -> None:
    assert [table[f"{mutex}_{cell}"] - table[f"{mutex}_state"] for cell in ("state", "turns", "holds")] == [0, 1, 2]
    assert semaphores.CELLS == 3


def test_rows_of_slots_do_not_overlap(segment: Segment) -> None:
    used = [
        at
        for slot in range(segment.slots)
        for at in (
            *(segment.row(slot, field) for field in ROW),
            *range(segment.counters(slot), segment.counters(slot) + stats.CELLS),
        )
    ]
    assert len(set(used)) == len(used)
    assert min(used) == ROWS
    assert max(used) < len(segment.words)


# -- making it --------------------------------------------------------------------------------------


def test_a_new_segment_is_zero_but_for_what_it_is(segment: Segment) -> None:
    words = segment.words
    said = {name: words[at] for name, at in HEADER.items() if words[at]}
    assert said["since"] == said.pop("master_started")
    assert abs(said.pop("since") - time.time()) < 5
    assert said == {"magic": MAGIC, "version": VERSION, "slots": 4, "capacity": 64, "master_pid": os.getpid()}
    assert not any(words[len(HEADER) :])
    assert segment.name == f"/pyserver.{os.getpid()}"


@pytest.mark.parametrize("umask", [0o077, 0o000, 0o777])
def test_the_group_may_read_and_nobody_else_in_spite_of_the_umask(umask: int) -> None:
    before = os.umask(umask)
    try:
        made = Segment.create(1, 1)
    finally:
        os.umask(before)
    assert (SHM / made.name[1:]).stat().st_mode & 0o777 == 0o640
    made.close()


def test_a_name_that_lives_is_not_taken_over() -> None:
    """O_EXCL: a server with our PID in another PID namespace, on the same /dev/shm."""
    first, second = Segment.create(1, 1), Segment.create(2, 2)
    assert second.name == f"{first.name}-1"
    assert (first.words[HEADER["slots"]], second.words[HEADER["slots"]]) == (1, 2)
    second.close()
    first.close()


def test_closing_removes_the_name_but_not_in_a_forked_child() -> None:
    made = Segment.create(1, 1)
    assert run_forked(made.close) == 0
    assert (SHM / made.name[1:]).exists()
    made.close()
    assert not (SHM / made.name[1:]).exists()


def test_a_forked_child_shares_the_words(segment: Segment) -> None:
    def write() -> None:
        segment.words[segment.row(2, "beat_ns")] = 2**64 - 1

    assert run_forked(write) == 0
    assert segment.words[segment.row(2, "beat_ns")] == 2**64 - 1


CREATE = """
import os
import sys
from pathlib import Path
from pyserver.ipc.segment import Segment, SegmentError
os.setuid(int(sys.argv[1]))
try:
    Segment.create(64, 1024)
except SegmentError as error:
    print(error)
print(*Path("/dev/shm").iterdir())
"""


def in_own_shm(*, size: str = "1m", mode: str = "1777", uid: int = 0) -> list[str]:
    """What a process says that makes a segment in a /dev/shm of its own."""
    mount = f'mount -t tmpfs -o size={size},mode={mode} tmpfs /dev/shm && exec "$@"'
    done = subprocess.run(
        [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            mount,
            "sh",
            sys.executable,
            "-c",
            CREATE,
            str(uid),
        ],
        env={"PYTHONPATH": str(SERVICE)},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@needs_root
def test_no_room_in_shm_is_an_error_and_no_bus_error() -> None:
    assert in_own_shm(size="4k") == [
        f"no shared memory of {words_for(64) * WORD} bytes: {os.strerror(errno.ENOSPC)}",
        "",
    ]


@needs_root
def test_a_shm_that_is_closed_to_us_is_an_error_of_one_line() -> None:
    lines = in_own_shm(mode="0755", uid=65534)
    assert len(lines) == 2
    assert lines[0].startswith("cannot make the shared memory /pyserver.")


# -- reading it from outside --------------------------------------------------------------------------


def test_a_reader_sees_the_words_and_cannot_write(segment: Segment) -> None:
    attached = Segment.attach(segment.name.lstrip("/"))
    segment.words[segment.row(3, "pid")] = 4711
    assert attached.words[attached.row(3, "pid")] == 4711
    assert (attached.slots, attached.name) == (segment.slots, segment.name)
    with pytest.raises(TypeError):
        attached.words[0] = 1
    attached.close()
    assert (SHM / segment.name[1:]).exists()


def header(**values: int) -> bytes:
    words = [0] * words_for(2)
    for name, value in {"magic": MAGIC, "version": VERSION, "slots": 2, **values}.items():
        words[HEADER[name]] = value
    return b"".join(word.to_bytes(8, sys.byteorder) for word in words)


@pytest.mark.usefixtures("of_nobody_else")
@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "cannot read {path}: it is empty"),
        (b"x" * 100, "{path} is not a segment of pyserver"),
        (b"x" * 4096, "{path} is not a segment of pyserver"),
        (header()[: 8 * (ROWS - 1)], "{path} is not a segment of pyserver"),
        (header(magic=1), "{path} is not a segment of pyserver"),
        (header(version=1), f"{{path}} has layout 1, this pyserver reads {VERSION}; use the server's own"),
        (header(slots=3), "{path} says 3 slots, which its size belies"),
        (header(slots=2**64 - 1), f"{{path}} says {2**64 - 1} slots, which its size belies"),
    ],
    ids=["empty", "no words", "other words", "cut short", "magic", "version", "slots", "slots beyond any size"],
)
def test_what_is_no_segment_is_refused(shm_file: Callable[[bytes], Path], content: bytes, why: str) -> None:
    path = shm_file(content)
    with pytest.raises(SegmentError) as raised:
        Segment.attach(path.name)
    assert str(raised.value) == why.format(path=path)


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(SegmentError, match=r"^cannot read /dev/shm/pyserver\.0: No such file or directory$"):
        Segment.attach("pyserver.0")


# -- the living and the dead ----------------------------------------------------------------------------


def serve_until_killed() -> None:
    """What a master leaves in /dev/shm: the segment and four semaphores."""
    os.umask(0o077)
    segment = Segment.create(2, 8)
    Queue.create(segment, 8)
    signal.pause()
    segment.close()


@pytest.fixture
def another_master() -> Iterator[Child]:
    with forked(serve_until_killed) as child:
        wait_until(lambda: len(of_process(child.pid)) == 5)
        yield child
        child.end()
    for path in of_process(child.pid):
        path.unlink()


def test_a_living_server_is_found_and_never_swept(another_master: Child) -> None:
    assert dict(found())[f"/pyserver.{another_master.pid}"] is True
    assert not [name for name in sweep() if str(another_master.pid) in name]
    assert len(of_process(another_master.pid)) == 5


@pytest.mark.usefixtures("of_nobody_else")
def test_what_a_killed_server_left_is_found_and_swept(another_master: Child) -> None:
    another_master.kill()
    assert dict(found())[f"/pyserver.{another_master.pid}"] is False
    assert len(of_process(another_master.pid)) == 5, "looking removes nothing"
    removed = [name for name in sweep() if str(another_master.pid) in name]
    assert len(removed) == 5
    assert of_process(another_master.pid) == []


def test_looking_at_a_living_server_does_not_take_its_lock_away(another_master: Child) -> None:
    for _ in range(20):
        Segment.attach(f"pyserver.{another_master.pid}").close()
        assert dict(found())[f"/pyserver.{another_master.pid}"] is True


@pytest.mark.usefixtures("of_nobody_else")
def test_workers_do_not_keep_a_dead_masters_segment_alive() -> None:
    """A record lock is not inherited: the worker that survives its master for a moment holds nothing."""
    readable, writable = os.pipe()

    def master() -> None:
        Segment.create(1, 1)
        worker = os.fork()
        if worker == 0:
            signal.pause()
        os.write(writable, worker.to_bytes(4, "little"))
        signal.pause()

    with forked(master) as child:
        worker = int.from_bytes(os.read(readable, 4), "little")
        child.kill()
        assert dict(found())[f"/pyserver.{child.pid}"] is False
        assert f"pyserver.{child.pid}" in sweep()
        os.kill(worker, signal.SIGKILL)
    os.close(readable)
    os.close(writable)


@pytest.mark.usefixtures("of_nobody_else")
def test_a_segment_that_is_just_being_made_is_left_alone(shm_file: Callable[[bytes], Path]) -> None:
    path = shm_file(b"")
    assert path.name not in sweep()
    assert path.exists()
    old = time.time() - 2 * segments._MAKING_S
    os.utime(path, (old, old))
    assert path.name in sweep()
    assert not path.exists()


@pytest.mark.usefixtures("of_nobody_else")
def test_semaphores_without_a_segment_are_swept(shm_file: Callable[[bytes], Path]) -> None:
    orphan = SHM / f"sem.pyserver.{os.getpid()}-800.queue_mutex"
    orphan.write_bytes(bytes(32))
    assert orphan.name in sweep()
    assert not orphan.exists()


@pytest.mark.parametrize(
    "name", ["pyserver.{pid}x", "pyserver.{pid}-", "pyserver.", "sem.pyserver.{pid}.other", "sem.pyserver.{pid}"]
)
def test_names_that_are_not_quite_ours_are_left_alone(name: str) -> None:
    path = SHM / name.format(pid=os.getpid())
    path.write_bytes(b"x" * 64)
    try:
        assert path.name not in sweep()
        assert path.exists()
        assert f"/{path.name}" not in dict(found())
    finally:
        path.unlink()


@needs_root
def test_what_belongs_to_another_user_is_left_alone(shm_file: Callable[[bytes], Path]) -> None:
    path = shm_file(b"x" * 64)
    os.chown(path, 65534, 65534)
    assert path.name not in sweep()
    assert path.exists()


def test_a_folder_or_link_of_such_a_name_harms_nobody(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"x" * 64)
    link, folder = SHM / f"pyserver.{os.getpid()}-701", SHM / f"pyserver.{os.getpid()}-702"
    link.symlink_to(tmp_path / "target")
    folder.mkdir()
    try:
        list(found())
        sweep()
        assert (tmp_path / "target").exists()
        assert folder.is_dir()
    finally:
        with suppress(FileNotFoundError):
            link.unlink()
        folder.rmdir()


# -- handed over by a master to itself ------------------------------------------------------------------


def test_what_was_handed_over_is_the_same_and_still_locked(segment: Segment) -> None:
    segment.words[HEADER["restarts"]] = 17
    descriptors = segment.descriptors()
    assert len(descriptors) == 2, "ours, and that of the mapping"
    copies = [os.dup(each) for each in descriptors]
    adopted = Segment.adopt(segment.name, copies, segment.slots)
    assert adopted.words[HEADER["restarts"]] == 17
    assert run_forked(lambda: 0 if dict(found())[segment.name] else 1) == 0, "the lock says that we live"
    adopted.words.release()
    os.close(copies[0])


# -- left by an earlier server ----------------------------------------------------------------------------


def counted(segment: Segment, slot: int, requests: int) -> None:
    tally = Tally()
    tally.attach(segment.words, segment.counters(slot))
    tally.requests, tally.connections_open = requests, 3
    tally.took(5_000, requests)
    tally.publish(segment.words, segment.counters(slot))


def test_totals_of_an_earlier_server_go_on(segment: Segment) -> None:
    counted(segment, 0, 40)
    counted(segment, 3, 2)
    segment.words[TOTALS + index_of("requests")] = 1000
    segment.words[HEADER["since"]] = 4711
    segment.words[HEADER["restarts"]] = 5
    later = Segment.create(2, 8)
    assert later.inherit(segment.descriptors()[0])
    assert later.words[TOTALS + index_of("requests")] == 1042
    assert sum(read_buckets(later.words, TOTALS, [])["answer_time"]) == 42
    assert later.words[TOTALS + index_of("connections_open")] == 0, "nobody is connected to it yet"
    assert (later.words[HEADER["since"]], later.words[HEADER["restarts"]]) == (4711, 5)
    assert (later.words[HEADER["slots"]], later.words[HEADER["master_pid"]]) == (2, os.getpid())
    assert segment.words[segment.counters(0) + index_of("requests")] == 40, "it is only looked at"
    later.close()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x" * 100,
        b"x" * 4096,
        header(version=VERSION + 1),
        header(magic=1),
        header(slots=3),
        header(slots=2**64 - 1),
    ],
)
def test_what_is_no_segment_of_ours_is_not_gone_on_with(segment: Segment, tmp_path: Path, content: bytes) -> None:
    before = segment.words[: len(segment.words)].tolist()
    path = tmp_path / "left"
    path.write_bytes(content)
    with path.open("rb") as file:
        assert not segment.inherit(file.fileno())
    assert segment.words.tolist() == before
