import os
from pathlib import Path

import pytest
from tests.unit.files.process import as_nobody, open_descriptors

from pyserver import limits
from pyserver.files.look import Found, Known, Look
from pyserver.files.resolve import Root, WouldBlock
from pyserver.files.variants import NOTHING_KNOWN, KnownSiblings

SECOND_NS = 1_000_000_000
SOURCE_NS = 1_000_000_000 * SECOND_NS
CONTENT = b"a text " * 300


@pytest.fixture
def site(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    www = tmp_path / "www"
    www.mkdir()
    put(www / "a.css", CONTENT)
    put(tmp_path / "outside.gz", b"secret")
    return www


def put(path: Path, content: bytes, mtime_ns: int = SOURCE_NS) -> None:
    path.write_bytes(content)
    os.utime(path, ns=(mtime_ns, mtime_ns))


def take(site: Path, path: bytes = b"/a.css", known: Known | None = None, *, cached_only: bool = False) -> Found:
    return Look(Root(site), path, (b"index.html",), known, precompressed=True).take(cached_only=cached_only)


def codings(found: Found) -> list[bytes]:
    assert found.siblings is not None
    return [sibling.coding for sibling in found.siblings.found]


def test_siblings_in_our_order(site: Path) -> None:
    for extension in ("gz", "br", "zst"):
        put(site / f"a.css.{extension}", extension.encode())
    found = take(site)
    assert codings(found) == [b"zstd", b"br", b"gzip"]
    assert found.content == CONTENT
    assert found.siblings is not None
    assert [sibling.content for sibling in found.siblings.found] == [b"zst", b"br", b"gz"]
    assert found.siblings.absent == frozenset()


def test_the_variants_of_an_index(site: Path) -> None:
    put(site / "index.html", CONTENT)
    put(site / "index.html.gz", b"coded")
    assert codings(take(site, b"/")) == [b"gzip"]


def older(site: Path) -> None:  # T-36
    put(site / "a.css.gz", b"coded", SOURCE_NS - 1)


def larger(site: Path) -> None:
    put(site / "a.css.gz", CONTENT + b"x")


def as_large(site: Path) -> None:
    put(site / "a.css.gz", CONTENT)


def empty(site: Path) -> None:  # of no coding: what a full disk leaves
    put(site / "a.css.gz", b"")


def folder(site: Path) -> None:
    (site / "a.css.gz").mkdir()


def fifo(site: Path) -> None:  # T-6
    os.mkfifo(site / "a.css.gz")


def outward(site: Path) -> None:  # T-4
    (site / "a.css.gz").symlink_to("../outside.gz")


def outward_in_full(site: Path) -> None:
    (site / "a.css.gz").symlink_to(site.parent / "outside.gz")


def dangling(site: Path) -> None:
    (site / "a.css.gz").symlink_to("nothing")


def ring(site: Path) -> None:
    (site / "a.css.gz").symlink_to("a.css.gz")


@pytest.mark.parametrize(
    "sibling", [older, larger, as_large, empty, folder, fifo, outward, outward_in_full, dangling, ring]
)
def test_not_a_variant(site: Path, sibling: object) -> None:
    assert callable(sibling)
    sibling(site)
    assert codings(take(site)) == []
    assert take(site).content == CONTENT


def test_a_link_that_stays_inside_is_followed_as_that_of_a_source_is(site: Path) -> None:
    put(site / "elsewhere", b"coded")
    (site / "a.css.gz").symlink_to("elsewhere")
    assert codings(take(site)) == [b"gzip"]
    root = Root(site, "none")  # T-36: the same policy
    found = Look(root, b"/a.css", (), None, precompressed=True).take(cached_only=False)
    assert codings(found) == []


def test_one_that_may_not_be_read_is_not_there(site: Path) -> None:
    put(site / "a.css.gz", b"coded")
    (site / "a.css.gz").chmod(0)
    root = Root(site)

    def body() -> None:
        found = Look(root, b"/a.css", (), None, precompressed=True).take(cached_only=False)
        assert codings(found) == []

    as_nobody(body)


@pytest.mark.parametrize("name", ["a.png", "a.woff2", "a.zip", "a.css.gz"])
def test_what_is_packed_has_no_variants(site: Path, name: str) -> None:
    # T-38; and T-37: the variant itself, asked for by its name
    put(site / name, CONTENT)
    put(site / f"{name}.br", b"coded")
    assert take(site, b"/" + name.encode()).siblings is None


def test_nobody_looks_where_they_are_not_wanted(site: Path) -> None:
    put(site / "a.css.gz", b"coded")
    assert Look(Root(site), b"/a.css", (), None).take(cached_only=False).siblings is None


def test_a_large_one_stays_on_the_disk(site: Path) -> None:
    put(site / "a.css", bytes(limits.FILE_IN_MEMORY_MAX_BYTES * 2))
    put(site / "a.css.gz", bytes(limits.FILE_IN_MEMORY_MAX_BYTES + 1))
    found = take(site)
    assert found.siblings is not None
    assert [sibling.content for sibling in found.siblings.found] == [None]


def known_of(found: Found) -> Known:
    assert found.file is not None
    assert found.siblings is not None
    assert found.siblings.folder is not None
    stamps = {sibling.coding: sibling.file.stamp for sibling in found.siblings.found}
    beside = KnownSiblings(found.siblings.folder.stamp, found.siblings.absent, stamps)
    return Known(found.name, found.file.stamp, beside)


def test_what_is_known_is_not_read_again(site: Path) -> None:
    put(site / "a.css.gz", b"coded")
    known = known_of(take(site))
    found = take(site, known=known)
    assert found.siblings is not None
    assert [sibling.content for sibling in found.siblings.found] == [None]
    put(site / "a.css.gz", b"other")
    found = take(site, known=known)
    assert found.siblings is not None
    assert [sibling.content for sibling in found.siblings.found] == [b"other"]


def test_without_waiting_an_unchanged_folder_is_enough(site: Path) -> None:
    known = known_of(take(site))
    found = take(site, known=known, cached_only=True)
    assert found.siblings is not None
    assert (found.siblings.found, len(found.siblings.absent)) == ((), 3)


def test_a_new_sibling_is_seen_in_the_changed_folder(site: Path) -> None:
    known = known_of(take(site))
    put(site / "a.css.br", b"coded")
    assert codings(take(site, known=known)) == [b"br"]


def test_one_that_was_stale_and_is_renewed_in_place_is_seen(site: Path) -> None:
    older(site)
    known = known_of(take(site))
    put(site / "a.css.gz", b"fresh")  # in place: the folder does not change
    assert codings(take(site, known=known)) == [b"gzip"]


def test_what_cannot_be_told_without_waiting_waits(site: Path) -> None:
    root = Root(site)
    root._cached = False
    with pytest.raises(WouldBlock):
        Look(root, b"/a.css", (), Known(b"/a.css", None, NOTHING_KNOWN), precompressed=True).take(cached_only=True)


def test_a_folder_that_may_only_be_searched_has_variants(site: Path) -> None:
    put(site / "a.css.gz", b"coded")
    site.chmod(0o311)
    root = Root(site)

    def body() -> None:
        found = Look(root, b"/a.css", (), None, precompressed=True).take(cached_only=False)
        assert codings(found) == [b"gzip"]
        assert found.siblings is not None
        assert found.siblings.folder is None

    as_nobody(body)


def test_descriptors_do_not_stay(site: Path) -> None:
    put(site / "a.css.gz", b"coded")
    older_one = site / "a.css.br"
    put(older_one, b"coded", SOURCE_NS - 1)
    before = open_descriptors()
    for _ in range(5):
        take(site)
    assert open_descriptors() == before
