import gzip
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.unit.handlers.test_static import Answer, request

from pyserver import limits
from pyserver.clock import Clock
from pyserver.config import Site
from pyserver.files.codings import BY_NAME, CAN_MAKE, Coding
from pyserver.files.resolve import Root
from pyserver.handlers import variants
from pyserver.handlers.cache import FileCache
from pyserver.handlers.static import Pending, StaticSite
from pyserver.handlers.variants import Workshop
from pyserver.http.response import Response

MODIFIED_NS = 1_000_000_000_123_456_789
TEXT = b"".join(b"<li>line %d of a page that shrinks</li>\n" % n for n in range(100))
BROWSER = b"Accept-Encoding: gzip, deflate, br, zstd"
GZIP = b"Accept-Encoding: gzip"
BEST = CAN_MAKE[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in {
        "page.html": TEXT,
        "index.html": TEXT,
        "small.txt": b"x" * (limits.CODED_MIN_BYTES - 1),
        "picture.png": TEXT,
        "unknown.xyzzy": TEXT,
        "noise.txt": os.urandom(5000),
        "large.js": TEXT * (limits.FILE_IN_MEMORY_MAX_BYTES // len(TEXT) + 1),
        "style.css": TEXT,
        "style.css.gz": gzip.compress(TEXT),
        "style.css.br": b"not really brotli",
        "old.css": TEXT,
        "old.css.gz": gzip.compress(TEXT),
    }.items():
        (tmp_path / name).write_bytes(content)
        os.utime(tmp_path / name, ns=(MODIFIED_NS, MODIFIED_NS))
    os.utime(tmp_path / "old.css.gz", ns=(MODIFIED_NS - 1, MODIFIED_NS - 1))
    return tmp_path


class Visitor:
    """Asks a site, with a workshop whose work is done when the test says so."""

    def __init__(self, folder: Path, settings: Site | None = None, max_bytes: int = 1 << 24) -> None:
        self.clock = Clock()
        self.clock.second += 10  # all that was written is settled
        self.cache = FileCache(max_bytes, max_entries=100)
        self.root = Root(folder)
        self.jobs: list[tuple[Callable[[], None], Callable[[], None]]] = []
        self.takes = True
        site = settings or Site(str(folder))
        self.workshop = Workshop(self.submit, max_bytes // 8)
        self.site = StaticSite(site, self.root, self.clock, self.cache, (), self.workshop)

    def submit(self, run: Callable[[], None], then: Callable[[], None]) -> bool:
        if self.takes:
            self.jobs.append((run, then))
        return self.takes

    def work(self) -> int:
        """Do all that was ordered, in another thread; return how much that was."""
        done = 0
        while self.jobs:
            run, then = self.jobs.pop(0)
            runner = threading.Thread(target=run)
            runner.start()
            runner.join()
            then()
            done += 1
        return done

    def ask(self, path: bytes, *lines: bytes, method: bytes = b"GET") -> Response:
        answer = self.site.respond(request(path, *lines, method=method), True)
        while isinstance(answer, Pending):
            answer.run()
            answer = answer.finish()
        return answer

    def get(self, path: bytes, *lines: bytes, method: bytes = b"GET") -> Answer:
        return Answer(self.ask(path, *lines, method=method))

    def made(self, path: bytes, *lines: bytes) -> Answer:
        """Ask, wait until it is made, and ask again."""
        self.get(path, *lines)
        self.work()
        return self.get(path, *lines)


@pytest.fixture
def visitor(folder: Path) -> Iterator[Visitor]:
    made = Visitor(folder)
    yield made
    made.root.close()


# -- beside the file ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        (b"gzip", b"gzip"),
        (b"gzip, br", b"br"),  # ours decides between equals
        (b"gzip, br;q=0.9", b"gzip"),  # RFC 9110 12.4.2
        (b"zstd", None),  # there is none beside it; made it is below
        (b"gzip;q=0", None),  # T-34
        (b"*;q=0", None),
        (b"gzip;q=0, *", b"br"),
        (b"x-gzip", b"gzip"),  # RFC 9110 8.4.1.3
        (b"identity", None),
        (b"identity;q=0.5, gzip;q=0.4", None),
        (b"gzipped", None),
        (b"", None),
    ],
)
def test_a_sibling_is_chosen_by_weight(folder: Path, accepted: bytes, coding: bytes | None) -> None:
    visitor = Visitor(folder, Site(str(folder), compress=False))
    for _ in range(3):
        answer = visitor.get(b"/style.css", b"Accept-Encoding: " + accepted)
        assert answer.status == 200
        assert answer.fields.get(b"Content-Encoding") == coding
        assert answer.fields[b"Vary"] == b"Accept-Encoding"  # T-35: on identity too
        assert answer.fields[b"Content-Type"] == b"text/css; charset=utf-8"  # T-37
        assert answer.fields[b"Content-Length"] == b"%d" % len(answer.content)  # T-36
        if coding is None:
            assert answer.content == TEXT
        elif coding == b"gzip":
            assert gzip.decompress(answer.content) == TEXT


def test_without_the_field_it_is_identity(visitor: Visitor) -> None:
    assert visitor.get(b"/style.css").content == TEXT


def test_a_sibling_that_is_older_is_none(visitor: Visitor, folder: Path) -> None:
    # T-36
    assert b"Content-Encoding" not in visitor.get(b"/old.css", GZIP).fields
    os.utime(folder / "old.css.gz", ns=(MODIFIED_NS, MODIFIED_NS))
    visitor.clock.second += 1
    assert visitor.get(b"/old.css", GZIP).fields[b"Content-Encoding"] == b"gzip"


def test_the_variant_asked_for_by_its_name_is_not_coded(visitor: Visitor) -> None:
    # T-37
    answer = visitor.get(b"/style.css.gz", BROWSER)
    assert answer.fields[b"Content-Type"] == b"application/gzip"
    assert not answer.fields.keys() & {b"Content-Encoding", b"Vary"}


@pytest.mark.parametrize("path", [b"/picture.png", b"/small.txt", b"/unknown.xyzzy"])
def test_what_is_never_negotiated_does_not_vary(visitor: Visitor, path: bytes) -> None:
    answer = visitor.made(path, BROWSER)
    assert not answer.fields.keys() & {b"Content-Encoding", b"Vary"}


def test_a_sibling_comes_and_goes(visitor: Visitor, folder: Path) -> None:
    for _ in range(2):
        (folder / "unknown.xyzzy.gz").write_bytes(b"coded")
        visitor.clock.second += 1
        assert visitor.get(b"/unknown.xyzzy", GZIP).content == b"coded"
        (folder / "unknown.xyzzy.gz").unlink()
        visitor.clock.second += 1
        answer = visitor.get(b"/unknown.xyzzy", GZIP)
        assert (answer.content, b"Vary" in answer.fields) == (TEXT, False)


def test_options_turn_it_off(folder: Path) -> None:
    off = Visitor(folder, Site(str(folder), precompressed=False, compress=False))
    answer = off.made(b"/style.css", BROWSER)
    assert answer.content == TEXT
    assert b"Vary" not in answer.fields


def test_each_coding_has_its_tag_and_it_is_recognised(visitor: Visitor) -> None:
    # T-20, RFC 9110 8.8.3.3
    tags = set()
    for accepted in (b"identity", b"gzip", b"br"):
        line = b"Accept-Encoding: " + accepted
        tag = visitor.get(b"/style.css", line).fields[b"ETag"]
        tags.add(tag)
        for asked in (tag, b"W/" + tag, b'"x", ' + tag, b"*"):
            answer = visitor.get(b"/style.css", line, b"If-None-Match: " + asked)
            assert (answer.status, answer.content) == (304, b"")
            assert answer.fields[b"Vary"] == b"Accept-Encoding"  # T-21, T-35
            if asked != b"*":
                assert answer.fields[b"ETag"] == tag
            assert b"Content-Encoding" not in answer.fields
    assert len(tags) == 3


def test_who_has_another_variant_that_may_be_sent_has_it_still(visitor: Visitor) -> None:
    tag = visitor.get(b"/style.css").fields[b"ETag"]
    assert visitor.get(b"/style.css", GZIP, b"If-None-Match: " + tag).status == 304
    coded = visitor.get(b"/style.css", GZIP).fields[b"ETag"]
    assert visitor.get(b"/style.css", b"If-None-Match: " + coded).status == 200  # but not what it cannot decode
    assert visitor.get(b"/style.css", GZIP, b"If-Match: " + coded).fields[b"Content-Encoding"] == b"gzip"
    assert visitor.get(b"/style.css", b"If-Match: " + coded).status == 412


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((b"If-None-Match: %(other)b", b"If-Match: %(gzip)b"), (200, b"gzip")),
        ((b"If-None-Match: %(br)b", b"If-Match: %(gzip)b"), (200, b"gzip")),  # 13.2.2: If-Match is decided first
        ((b"If-Match: %(gzip)b", b"If-None-Match: %(gzip)b"), (304, None)),
        ((b"If-Match: *", b"If-None-Match: %(gzip)b"), (304, None)),
        ((b"If-Match: %(other)b", b"If-None-Match: %(gzip)b"), (412, None)),
        ((b"If-None-Match: %(other)b", b"If-Range: %(gzip)b", b"Range: bytes=0-9"), (206, b"gzip")),
        ((b"If-Match: *", b"If-Range: %(gzip)b", b"Range: bytes=0-9"), (206, b"gzip")),
        ((b"If-None-Match: %(other)b", b"If-Match: *"), (200, b"br")),  # nothing is named: the best one
        ((b"If-Range: %(gzip)b",), (200, b"br")),  # 13.1.5: nothing without Range
    ],
)
def test_the_first_condition_that_names_a_variant_counts(
    visitor: Visitor, lines: tuple[bytes, ...], expected: tuple[int, bytes | None]
) -> None:
    tags = {b"other": b'"x"'}
    for coding in (b"br", b"gzip"):
        tags[coding] = visitor.get(b"/style.css", b"Accept-Encoding: " + coding).fields[b"ETag"]
    answer = visitor.get(b"/style.css", b"Accept-Encoding: gzip, br", *(line % tags for line in lines))
    assert (answer.status, answer.fields.get(b"Content-Encoding")) == expected


def test_a_range_is_of_the_variant(visitor: Visitor, folder: Path) -> None:
    # T-31
    coded = (folder / "style.css.gz").read_bytes()
    answer = visitor.get(b"/style.css", GZIP, b"Range: bytes=10-19")
    assert (answer.status, answer.content) == (206, coded[10:20])
    assert answer.fields[b"Content-Range"] == b"bytes 10-19/%d" % len(coded)
    assert answer.fields[b"Content-Encoding"] == b"gzip"
    assert answer.fields[b"Vary"] == b"Accept-Encoding"
    tag = answer.fields[b"ETag"]
    rest = visitor.get(b"/style.css", GZIP, b"Range: bytes=20-", b"If-Range: " + tag)
    assert (rest.status, rest.content) == (206, coded[20:])
    assert visitor.get(b"/style.css", b"Range: bytes=20-", b"If-Range: " + tag).content == TEXT  # cannot decode it
    assert visitor.get(b"/style.css", GZIP, b"Range: bytes=99999-").status == 416


@pytest.mark.parametrize("path", [b"/style.css", b"/page.html", b"/large.js"])
@pytest.mark.parametrize("lines", [(), (GZIP,), (BROWSER,)])
def test_a_date_is_of_all_variants_and_so_of_none(
    visitor: Visitor, folder: Path, path: bytes, lines: tuple[bytes, ...]
) -> None:
    # RFC 9110 13.1.5, 8.8.2.2, T-30: the part that the client has may be of another variant
    for coding in ("br", "gz"):
        name = folder / f"style.css.{coding}"
        os.utime(name, ns=(MODIFIED_NS, MODIFIED_NS))
    (folder / "large.js.gz").write_bytes(b"x" * 1000)
    os.utime(folder / "large.js.gz", ns=(MODIFIED_NS, MODIFIED_NS))
    whole = visitor.get(path, *lines, b"Range: bytes=0-")
    assert whole.status == 206
    date, tag = whole.fields[b"Last-Modified"], whole.fields[b"ETag"]
    by_date = visitor.get(path, *lines, b"Range: bytes=5-", b"If-Range: " + date)
    assert (by_date.status, by_date.content) == (200, whole.content)
    by_tag = visitor.get(path, *lines, b"Range: bytes=5-", b"If-Range: " + tag)
    assert (by_tag.status, by_tag.content) == (206, whole.content[5:])


def test_a_date_will_do_for_what_has_no_variants(visitor: Visitor) -> None:
    date = visitor.get(b"/picture.png").fields[b"Last-Modified"]
    assert visitor.get(b"/picture.png", GZIP, b"Range: bytes=5-", b"If-Range: " + date).status == 206


def test_a_date_that_releases_may_share_is_none_of_one(visitor: Visitor, folder: Path) -> None:
    """T-30: builds and archives give all releases of a file one time, in whole seconds."""
    os.utime(folder / "picture.png", (1_600_000_000, 1_600_000_000))
    whole = visitor.get(b"/picture.png")
    date, tag = whole.fields[b"Last-Modified"], whole.fields[b"ETag"]
    by_date = visitor.get(b"/picture.png", b"Range: bytes=5-", b"If-Range: " + date)
    assert (by_date.status, by_date.content) == (200, TEXT)
    by_tag = visitor.get(b"/picture.png", b"Range: bytes=5-", b"If-Range: " + tag)
    assert (by_tag.status, by_tag.content) == (206, TEXT[5:])


def test_several_ranges_of_a_variant_are_all_of_it(visitor: Visitor, folder: Path) -> None:
    # Whether Content-Encoding would speak of the parts or of multipart/byteranges is nowhere said.
    coded = os.urandom(2000)
    (folder / "unknown.xyzzy.gz").write_bytes(coded)
    lines = (b"Range: bytes=0-0,1500-1500",)
    answer = visitor.get(b"/unknown.xyzzy", GZIP, *lines)
    assert (answer.status, answer.content, answer.fields[b"Content-Encoding"]) == (200, coded, b"gzip")
    assert visitor.get(b"/unknown.xyzzy", *lines).status == 206


def test_head_is_get(visitor: Visitor) -> None:
    get, head = visitor.get(b"/style.css", GZIP), visitor.get(b"/style.css", GZIP, method=b"HEAD")
    assert (head.fields, head.content) == (get.fields, b"")


def test_head_with_a_range_is_get_without(visitor: Visitor) -> None:
    # RFC 9110 14.2, T-29: only GET has ranges, so a part is no reason for another representation
    get = visitor.made(b"/page.html", GZIP)
    assert get.fields[b"Content-Encoding"] == b"gzip"
    head = visitor.get(b"/page.html", GZIP, b"Range: bytes=0-9", method=b"HEAD")
    assert (head.status, head.fields) == (200, get.fields)


def test_variants_of_a_large_file(visitor: Visitor, folder: Path) -> None:
    coded = bytes(range(256)) * (limits.FILE_IN_MEMORY_MAX_BYTES // 256 + 1)
    (folder / "large.js").write_bytes(coded * 2)
    (folder / "large.js.gz").write_bytes(coded)
    for _ in range(2):
        response = visitor.ask(b"/large.js", BROWSER)
        assert response.source is not None
        assert Answer(response).content == coded
        assert visitor.get(b"/large.js").content == coded * 2
    with (folder / "large.js.gz").open("r+b") as file:  # in place, within the second: never under the old tag
        file.write(b"changed")
    assert visitor.get(b"/large.js", BROWSER).content[:7] == b"changed"


# -- made of the content -----------------------------------------------------------------------------------


def test_nobody_waits_and_the_next_one_gets_it(visitor: Visitor) -> None:
    first = visitor.get(b"/page.html", BROWSER)
    assert (first.content, first.fields[b"Vary"]) == (TEXT, b"Accept-Encoding")
    assert b"Content-Encoding" not in first.fields
    assert visitor.work() == 1
    second = visitor.get(b"/page.html", BROWSER)
    assert second.fields[b"Content-Encoding"] == BEST
    assert len(second.content) < len(TEXT) / 4
    assert second.fields[b"ETag"] != first.fields[b"ETag"]
    assert visitor.get(b"/page.html").content == TEXT
    assert visitor.work() == 0


def test_each_coding_is_made_for_who_asks_for_it(visitor: Visitor) -> None:
    assert gzip.decompress(visitor.made(b"/page.html", GZIP).content) == TEXT
    between = visitor.get(b"/page.html", BROWSER)  # while the better one is made, what is there
    assert between.fields[b"Content-Encoding"] == b"gzip"
    visitor.work()
    assert visitor.get(b"/page.html", BROWSER).fields[b"Content-Encoding"] == BEST
    assert visitor.get(b"/page.html", GZIP).fields[b"Content-Encoding"] == b"gzip"


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What is coded, while it is."""
    coded: list[bytes] = []

    def start(level: int, size: int) -> object:
        coded.append(b"gzip")
        return BY_NAME[b"gzip"].start(level, size)

    counting: dict[bytes, Coding] = {
        name: coding._replace(start=start) if name == b"gzip" else coding  # type: ignore[arg-type]
        for name, coding in BY_NAME.items()
    }
    monkeypatch.setattr(variants, "BY_NAME", counting)
    return coded


def test_64_first_requests_at_once_make_one(folder: Path, counted: list[bytes]) -> None:
    visitor = Visitor(folder)
    visitor.root._cached = False  # nothing is in memory: all of them wait for the disk
    pending = [visitor.site.respond(request(b"/page.html", GZIP), True) for _ in range(64)]
    for each in pending:
        assert isinstance(each, Pending)
        each.run()
    for each in pending:
        assert isinstance(each, Pending)
        answer = each.finish()
        assert isinstance(answer, Response)
        assert Answer(answer).content == TEXT
    assert visitor.work() == 1
    assert counted == [b"gzip"]
    assert gzip.decompress(visitor.get(b"/page.html", GZIP).content) == TEXT
    for _ in range(3):
        visitor.clock.second += 1
        assert visitor.get(b"/page.html", GZIP).fields[b"Content-Encoding"] == b"gzip"
    assert visitor.work() == 0


def test_one_content_is_coded_once_whatever_it_is_called(visitor: Visitor, folder: Path, counted: list[bytes]) -> None:
    visitor.get(b"/page.html", GZIP)  # at work
    visitor.get(b"/", GZIP)
    visitor.get(b"/index.html", GZIP)
    visitor.work()
    for path in (b"/page.html", b"/", b"/index.html"):
        assert gzip.decompress(visitor.get(path, GZIP).content) == TEXT
    (folder / "later.txt").write_bytes(TEXT)
    assert gzip.decompress(visitor.made(b"/later.txt", GZIP).content) == TEXT
    assert counted == [b"gzip"]


def test_one_content_is_coded_once_for_all_sites_and_releases(
    folder: Path, tmp_path: Path, counted: list[bytes]
) -> None:
    first = Visitor(folder)
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "a.html").write_bytes(TEXT)
    second = Visitor(copy)
    second.site = StaticSite(Site(str(copy)), second.root, second.clock, first.cache.beside(), (), first.workshop)
    assert gzip.decompress(first.made(b"/page.html", GZIP).content) == TEXT
    second.get(b"/a.html", GZIP)
    first.work()
    assert gzip.decompress(second.get(b"/a.html", GZIP).content) == TEXT
    first.cache.clear()  # as when the root is another folder
    assert gzip.decompress(first.made(b"/page.html", GZIP).content) == TEXT
    assert counted == [b"gzip"]
    for visitor in (first, second):
        visitor.root.close()


def test_what_was_in_vain_is_remembered_by_content(visitor: Visitor, folder: Path, counted: list[bytes]) -> None:
    visitor.made(b"/noise.txt", GZIP)
    (folder / "copy.txt").write_bytes((folder / "noise.txt").read_bytes())
    assert b"Content-Encoding" not in visitor.made(b"/copy.txt", GZIP).fields
    assert counted == [b"gzip"]


def test_what_is_remembered_of_contents_is_bounded(folder: Path, counted: list[bytes]) -> None:
    pages = [TEXT + b"%d" % number for number in range(20)]
    for number, content in enumerate(pages):
        (folder / f"{number}.html").write_bytes(content)
    room = len(gzip.compress(TEXT)) * 12
    visitor = Visitor(folder, max_bytes=8 * room)
    for number in range(20):
        visitor.made(b"/%d.html" % number, GZIP)
    outcomes = visitor.workshop._outcomes
    assert outcomes._bytes <= room
    assert outcomes._bytes == sum(map(outcomes._weight, outcomes._by_content.values()))
    assert 2 <= len(outcomes._by_content) < 20
    visitor.cache.clear()
    del counted[:]
    visitor.made(b"/19.html", GZIP)
    assert counted == []  # the latest is remembered
    visitor.made(b"/0.html", GZIP)
    assert counted == [b"gzip"]  # the first is not
    visitor.root.close()


def test_one_at_a_time(visitor: Visitor) -> None:
    for path in (b"/page.html", b"/index.html", b"/large.js", b"/unknown.xyzzy"):
        visitor.get(path, BROWSER)
    assert len(visitor.jobs) == 1


def test_never_larger_than_identity(visitor: Visitor) -> None:
    answer = visitor.made(b"/noise.txt", BROWSER)
    assert b"Content-Encoding" not in answer.fields
    for _ in range(5):
        visitor.made(b"/noise.txt", BROWSER)
        visitor.clock.second += 1
    assert visitor.work() == 0  # and it was not tried again


def test_what_changes_is_made_again(visitor: Visitor, folder: Path) -> None:
    visitor.made(b"/page.html", GZIP)
    (folder / "page.html").write_bytes(TEXT[::-1])
    visitor.clock.second += 1
    assert visitor.get(b"/page.html", GZIP).content == TEXT[::-1]
    visitor.work()
    assert gzip.decompress(visitor.get(b"/page.html", GZIP).content) == TEXT[::-1]


def test_what_changed_meanwhile_is_not_kept(visitor: Visitor, folder: Path) -> None:
    visitor.get(b"/page.html", GZIP)
    (folder / "page.html").write_bytes(TEXT[::-1])
    visitor.clock.second += 1
    visitor.get(b"/page.html")
    visitor.work()
    assert visitor.get(b"/page.html", GZIP).content == TEXT[::-1]


def test_content_that_changes_unseen_is_coded_anew(visitor: Visitor, folder: Path) -> None:
    """T-19: the same stamp, because the clock of the file system did not move."""
    visitor.clock.second = int((folder / "page.html").stat().st_ctime)  # so what is read is read again
    visitor.made(b"/page.html", GZIP)
    entry = visitor.cache.get(b"/page.html")
    assert entry is not None
    entry.content = TEXT[::-1]  # as if it had been read before the change
    visitor.clock.second += 1
    assert visitor.get(b"/page.html", GZIP).content == TEXT


def test_its_bytes_are_counted(visitor: Visitor) -> None:
    visitor.get(b"/page.html", GZIP)
    before = visitor.cache.weight
    visitor.work()
    coded = visitor.get(b"/page.html", GZIP).content
    assert visitor.cache.weight >= before + len(coded)
    visitor.cache.drop(b"/page.html")
    assert visitor.cache.weight == 0


def test_without_room_it_is_not_made_over_and_over(folder: Path) -> None:
    none = Visitor(folder, max_bytes=0)
    assert none.made(b"/page.html", BROWSER).content == TEXT
    assert none.work() == 0
    tight = Visitor(folder, max_bytes=len(TEXT) + 1700)  # for the page, and not for a variant of it
    assert tight.made(b"/page.html", BROWSER).content == TEXT
    assert tight.made(b"/page.html", BROWSER).content == TEXT
    assert tight.work() == 0


def test_a_worker_that_leaves_takes_no_work(visitor: Visitor) -> None:
    visitor.takes = False
    assert visitor.made(b"/page.html", GZIP).content == TEXT
    visitor.takes = True
    visitor.clock.second += 1
    assert visitor.made(b"/page.html", GZIP).fields[b"Content-Encoding"] == b"gzip"


def test_what_waits_is_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CODINGS_WAITING_MAX", 1)
    visitor = Visitor(folder)
    for path in (b"/page.html", b"/index.html", b"/"):
        visitor.get(path, GZIP)
    assert visitor.work() == 2
    assert visitor.get(b"/", GZIP).content == TEXT
    visitor.clock.second += 1
    assert visitor.made(b"/", GZIP).fields[b"Content-Encoding"] == b"gzip"


def test_a_part_of_what_was_made_is_for_who_names_it(visitor: Visitor) -> None:
    # T-31: the next worker may not have made it yet
    whole = visitor.made(b"/page.html", GZIP)
    answer = visitor.get(b"/page.html", GZIP, b"Range: bytes=10-19")
    assert (answer.status, answer.content) == (206, TEXT[10:20])
    assert not answer.fields.keys() & {b"Content-Encoding"}
    tag = whole.fields[b"ETag"]
    answer = visitor.get(b"/page.html", GZIP, b"Range: bytes=10-19", b"If-Range: " + tag)
    assert (answer.status, answer.content) == (206, whole.content[10:20])
    assert answer.fields[b"Content-Encoding"] == b"gzip"


def test_a_download_goes_on_with_the_bytes_that_it_began_with(visitor: Visitor) -> None:
    tag = visitor.get(b"/page.html", GZIP).fields[b"ETag"]  # identity, for it is not made yet
    visitor.work()
    answer = visitor.get(b"/page.html", GZIP, b"Range: bytes=10-", b"If-Range: " + tag)
    assert (answer.status, answer.content) == (206, TEXT[10:])


def test_who_has_it_from_another_worker_is_not_sent_it_again(folder: Path, visitor: Visitor) -> None:
    tag = visitor.made(b"/page.html", GZIP).fields[b"ETag"]
    other = Visitor(folder)
    answer = other.get(b"/page.html", GZIP, b"If-None-Match: " + tag)
    assert (answer.status, answer.fields[b"ETag"]) == (304, tag)
    assert other.get(b"/page.html", b"If-None-Match: " + tag).content == TEXT  # says that it cannot decode
    # What looks like it and is not, or is not a list of tags:
    for value in (tag.replace(b"gzip-", b"gzip-0"), b"x" + tag, tag + b" x"):
        assert other.get(b"/page.html", GZIP, b"If-None-Match: " + value).status == 200


# -- the short cut -----------------------------------------------------------------------------------------


def test_the_same_answer_for_the_same_field(visitor: Visitor) -> None:
    visitor.made(b"/page.html", BROWSER)
    for lines in ((BROWSER,), (GZIP,), ()):
        visitor.get(b"/page.html", *lines)
        visitor.work()
        first = visitor.ask(b"/page.html", *lines)
        visitor.root.close()
        assert visitor.ask(b"/page.html", *lines) is first
    assert visitor.ask(b"/page.html", BROWSER) is not visitor.ask(b"/page.html")


def test_many_different_fields_leave_little_behind(visitor: Visitor) -> None:
    for number in range(1000):
        assert visitor.get(b"/style.css", b"Accept-Encoding: gzip, x%d" % number).fields[b"Content-Encoding"] == b"gzip"
    assert visitor.get(b"/style.css", b"Accept-Encoding: gzip" + b", x" * 1000).status == 200
    entry = visitor.cache.get(b"/style.css")
    assert entry is not None
    assert len(entry.ready) <= 16


def test_aliases_and_rules_hold_for_variants_too(folder: Path) -> None:
    settings = Site(str(folder)).replaced(immutable=True, cors=("https://a.example",))
    (folder / "app.0123abcd.js").write_bytes(TEXT)
    visitor = Visitor(folder, settings)
    answer = visitor.made(b"/app.0123abcd.js", GZIP)
    assert answer.fields[b"Content-Encoding"] == b"gzip"
    assert answer.fields[b"Cache-Control"] == b"public, max-age=31536000, immutable"
    assert answer.fields[b"Vary"] == b"Accept-Encoding, Origin"
