import os
from pathlib import Path

from tests.unit.files.process import open_descriptors

from pyserver.files.resolve import OpenFile
from pyserver.handlers.cache import Entry, FileCache
from pyserver.http.response import Head, Response

OVERHEAD = 1600


def entry(folder: Path, size: int = 0, *, large: bool = False) -> Entry:
    path = folder / "file"
    with path.open("wb") as file:
        file.truncate(size)
    found = OpenFile(os.open(path, os.O_RDONLY))
    made = Entry(b"/file", b"/file", found.stamp, found if large else None)
    path.unlink()
    return made


def test_what_was_put_is_there_until_dropped(tmp_path: Path) -> None:
    cache = FileCache(max_bytes=100_000, max_entries=10)
    one = entry(tmp_path, 1000)
    cache.put(b"/a", one)
    assert cache.get(b"/a") is one
    assert cache.get(b"/b") is None
    assert (len(cache), cache.weight) == (1, 1000 + OVERHEAD)
    cache.drop(b"/a")
    cache.drop(b"/a")
    assert cache.get(b"/a") is None
    assert (len(cache), cache.weight) == (0, 0)


def test_putting_again_replaces(tmp_path: Path) -> None:
    cache = FileCache(max_bytes=100_000, max_entries=10)
    cache.put(b"/a", entry(tmp_path, 1000))
    newer = entry(tmp_path, 5)
    cache.put(b"/a", newer)
    assert cache.get(b"/a") is newer
    assert (len(cache), cache.weight) == (1, 5 + OVERHEAD)


def test_entries_are_bounded_and_leave_singly_the_longest_unused_first(tmp_path: Path) -> None:
    cache = FileCache(max_bytes=100_000, max_entries=3)
    kept = entry(tmp_path)
    cache.put(b"/kept", kept)
    for name in (b"/a", b"/b"):
        cache.put(name, entry(tmp_path))
    cache.put(b"/kept", kept)  # used again
    cache.put(b"/c", entry(tmp_path))
    assert [cache.get(name) is not None for name in (b"/kept", b"/a", b"/b", b"/c")] == [True, False, True, True]


def test_bytes_are_bounded(tmp_path: Path) -> None:
    cache = FileCache(max_bytes=4 * (1000 + OVERHEAD), max_entries=1000)
    for number in range(100):
        cache.put(b"/%d" % number, entry(tmp_path, 1000))
        assert cache.weight <= 4 * (1000 + OVERHEAD)
    assert [cache.get(b"/%d" % number) is not None for number in (95, 96, 97, 98, 99)] == [
        False,
        True,
        True,
        True,
        True,
    ]


def test_one_that_is_larger_than_all_room_evicts_nobody(tmp_path: Path) -> None:
    cache = FileCache(max_bytes=10_000, max_entries=10)
    cache.put(b"/a", entry(tmp_path))
    cache.put(b"/huge", entry(tmp_path, 20_000))
    assert cache.get(b"/a") is not None
    assert cache.get(b"/huge") is None
    # ... but its former, smaller version is gone too
    cache.put(b"/a", entry(tmp_path, 20_000))
    assert (cache.get(b"/a"), len(cache), cache.weight) == (None, 0, 0)


def test_open_files_are_bounded_apart(tmp_path: Path) -> None:
    cache = FileCache(max_bytes=100_000, max_entries=100, max_open=2)
    before = len(open_descriptors())
    cache.put(b"/small", entry(tmp_path, 10))
    for number in range(5):
        cache.put(b"/%d" % number, entry(tmp_path, 1 << 30, large=True))  # its content is not in memory: no weight
    assert len(open_descriptors()) == before + 2
    assert [cache.get(b"/%d" % number) is not None for number in range(5)] == [False, False, False, True, True]
    assert cache.get(b"/small") is not None
    for number in range(5):
        cache.drop(b"/%d" % number)
    assert len(open_descriptors()) == before


def test_open_files_that_nobody_asks_for_are_closed(tmp_path: Path) -> None:
    cache = FileCache(max_bytes=100_000, max_entries=100)
    before = len(open_descriptors())
    cache.put(b"/small", entry(tmp_path, 10))
    for second in (1, 2, 3):
        large = entry(tmp_path, 1 << 20, large=True)
        large.looked_at = second
        cache.put(b"/%d" % second, large)
    del large
    cache.close_unused(since=3)
    assert len(open_descriptors()) == before + 1
    assert cache.get(b"/3") is not None
    cache.close_unused(since=4)
    assert len(open_descriptors()) == before
    assert len(cache) == 1  # what is in memory may stay


def test_who_still_sends_a_file_keeps_it_open(tmp_path: Path) -> None:
    cache = FileCache(max_bytes=100_000, max_entries=1)
    large = entry(tmp_path, 1 << 20, large=True)
    source = large.file
    cache.put(b"/a", large)
    del large
    cache.put(b"/b", entry(tmp_path))
    assert cache.get(b"/a") is None
    assert source is not None
    assert os.fstat(source.fd).st_size == 1 << 20


def test_a_prepared_answer_holds_the_only_copy_of_the_content(tmp_path: Path) -> None:
    one = entry(tmp_path, 5)
    one.keep_content(b"first", 7)
    one.looked_at = 7
    assert (one.read_at, one.plain) == (7, None)
    answer = Response(200, Head(b"head" + b"first"))
    one.keep_plain(answer, 4)
    assert (one.plain, one.plain_at) == (answer, 7)
    assert isinstance(one.content, memoryview)
    assert one.content.obj is answer.wire
    assert bytes(one.content) == b"first"

    one.keep_content(b"later", 9)  # a new reading is never answered with what was prepared from the old one
    assert one.plain is None
    assert bytes(one.content) == b"later"


def test_sites_share_one_room(tmp_path: Path) -> None:
    """The bounds hold for the sum, and of all entries the longest unused goes first, whosever it is."""
    one = FileCache(max_bytes=3 * (1000 + OVERHEAD), max_entries=10, max_open=1)
    other = one.beside()
    one.put(b"/a", entry(tmp_path, 1000))
    other.put(b"/a", entry(tmp_path, 1000))
    assert one.get(b"/a") is not other.get(b"/a")
    one.put(b"/b", entry(tmp_path, 1000))
    other.put(b"/b", entry(tmp_path, 1000))
    assert [cache.get(name) is not None for cache in (one, other) for name in (b"/a", b"/b")] == [
        *(False, True),
        *(True, True),
    ]
    assert one.weight == other.weight == 3 * (1000 + OVERHEAD)
    other.put(b"/large", entry(tmp_path, 1000, large=True))
    one.put(b"/large", entry(tmp_path, 1000, large=True))
    assert (other.get(b"/large"), one.get(b"/large") is not None) == (None, True)
    other.close_unused(since=1)  # of both
    assert one.get(b"/large") is None
    assert (len(one), len(other)) == (1, 1)
