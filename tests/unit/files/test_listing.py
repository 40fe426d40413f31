import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.files.process import as_nobody, open_descriptors

from pyserver import limits
from pyserver.files.listing import Folder, Item, Key, Lister, Order
from pyserver.files.policy import hidden
from pyserver.files.resolve import OpenFile, Root

NS = 1_000_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of a site with all sorts of things in it, and a secret outside."""
    (tmp_path / "secret").write_text("nobody may see this")
    made = tmp_path / "www" / "folder"
    made.mkdir(parents=True)
    for name, size, second in (("b.txt", 10, 30), ("A.txt", 300, 20), ("c.txt", 10, 10)):
        (made / name).write_bytes(bytes(size))
        os.utime(made / name, ns=(second * NS, second * NS + 5))
    for name, second in (("zoo", 5), ("Art", 50)):
        (made / name).mkdir()
        os.utime(made / name, (second, second))
    return made


@pytest.fixture
def root(folder: Path) -> Iterator[Root]:
    opened = Root(folder.parent)
    yield opened
    opened.close()


def listed(root: Root, key: Key = "name", *, descending: bool = False) -> Folder:
    opened = OpenFile(root.open(b"/folder", cached_only=False))
    return Lister(b"", Order(key, descending), hidden).read(root, b"/folder/", opened)


def names(folder: Folder) -> list[bytes]:
    return [item.name for item in folder.items]


# -- what is there ---------------------------------------------------------------------------------


def test_files_and_folders_with_what_is_known_of_them(root: Root) -> None:
    found = listed(root)
    assert found.items[2:] == [
        Item(b"A.txt", is_folder=False, size=300, modified_ns=20 * NS + 5),
        Item(b"b.txt", is_folder=False, size=10, modified_ns=30 * NS + 5),
        Item(b"c.txt", is_folder=False, size=10, modified_ns=10 * NS + 5),
    ]
    assert [item.is_folder for item in found.items] == [True, True, False, False, False]
    assert (found.path, found.total, found.shown_whole) == (b"/folder/", 5, True)


def test_names_are_bytes(root: Root, folder: Path) -> None:
    # T-8
    for name in (b"\xff\xfe", "日本".encode(), b"a\xcc\x88"):
        (folder / os.fsdecode(name)).write_text("")
    assert {b"\xff\xfe", "日本".encode(), b"a\xcc\x88"} < set(names(listed(root)))


@pytest.mark.parametrize("key", ["name", "size", "time"])
def test_only_what_would_be_served_is_listed(root: Root, folder: Path, key: Key) -> None:
    before = names(listed(root, key))
    for name in (".git", ".htaccess", "page.html~", "page.bak", "#edited#"):  # T-12
        (folder / name).write_text("")
    (folder / "outward").symlink_to(folder.parent.parent / "secret")
    (folder / "outward-relative").symlink_to("../../secret")
    (folder / "dangling").symlink_to("nowhere")
    (folder / "ring").symlink_to("ring")
    (folder / "to-hidden-fifo").symlink_to("fifo")
    os.mkfifo(folder / "fifo")
    with socket.socket(socket.AF_UNIX) as made:
        here = Path.cwd()
        os.chdir(folder)
        try:
            made.bind("socket")
        finally:
            os.chdir(here)
    found = listed(root, key)
    assert names(found) == before
    assert (found.total, found.shown_whole) == (5, True)


def test_paths_are_those_of_the_site(root: Root, folder: Path) -> None:
    """The root may be that of an alias; what is hidden is asked by the path that clients see."""
    asked: list[bytes] = []

    def hides(path: bytes) -> bool:
        asked.append(path)
        return False

    opened = OpenFile(root.open(b"/folder", cached_only=False))
    found = Lister(b"/alias", Order("name"), hides).read(root, b"/folder/", opened)
    assert found.path == b"/alias/folder/"
    assert b"/alias/folder/A.txt" in asked


def test_a_link_is_what_it_leads_to(root: Root, folder: Path) -> None:
    (folder / "link").symlink_to("A.txt")
    (folder / "to-folder").symlink_to("zoo")
    (folder / "upward").symlink_to("../folder/b.txt")
    found = {item.name: item for item in listed(root).items}
    assert found[b"link"] == Item(b"link", is_folder=False, size=300, modified_ns=20 * NS + 5)
    assert found[b"to-folder"].is_folder
    assert found[b"upward"].size == 10


def test_the_policy_for_links_is_that_of_the_root(folder: Path) -> None:
    (folder / "link").symlink_to("A.txt")
    root = Root(folder.parent, "none")
    assert b"link" not in names(listed(root))
    root.close()


def test_an_unreadable_folder_is_an_error(folder: Path) -> None:
    for each in (folder, *folder.parents[:-2]):
        each.chmod(0o755)
    folder.chmod(0o311)

    def body() -> None:
        root = Root(folder.parent)
        with pytest.raises(PermissionError):
            listed(root)

    as_nobody(body)
    folder.chmod(0o755)


# -- order -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "descending", "order"),
    [
        ("name", False, b"Art zoo A.txt b.txt c.txt"),  # folders first, upper case among lower
        ("name", True, b"zoo Art c.txt b.txt A.txt"),
        ("size", False, b"Art zoo b.txt c.txt A.txt"),  # equal sizes by name; a folder's size says nothing
        ("size", True, b"Art zoo A.txt b.txt c.txt"),
        ("time", False, b"zoo Art c.txt A.txt b.txt"),
        ("time", True, b"Art zoo b.txt A.txt c.txt"),
    ],
)
def test_order(root: Root, key: Key, descending: bool, order: bytes) -> None:
    assert names(listed(root, key, descending=descending)) == order.split()


@pytest.mark.parametrize("key", ["name", "size", "time"])
def test_many_are_in_order_too(root: Root, folder: Path, key: Key) -> None:
    """They are sorted in steps."""
    for number in range(3000):
        path = folder / f"{number * 7919 % 3000:04d}"
        path.write_bytes(bytes(number % 50))
    found = listed(root, key).items[2:]
    wanted = {
        "name": sorted(found, key=lambda item: item.name.lower()),
        "size": sorted(found, key=lambda item: (item.size, item.name.lower())),
        "time": sorted(found, key=lambda item: (item.modified_ns, item.name.lower())),
    }
    assert found == wanted[key]
    assert len(found) == 3003


# -- bounds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["name", "size", "time"])
def test_the_first_rows_of_many(root: Root, monkeypatch: pytest.MonkeyPatch, key: Key) -> None:
    everything = names(listed(root, key))
    monkeypatch.setattr(limits, "LISTING_ROWS_MAX", 3)
    found = listed(root, key)
    assert names(found) == everything[:3]
    assert (found.total, found.read_whole, found.shown_whole) == (5, True, False)


def test_no_more_names_are_read_than_may_be(root: Root, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LISTING_NAMES_MAX", 5)
    assert listed(root).read_whole
    (folder / ".hidden").write_text("")
    (folder / "more").write_text("")
    found = listed(root)
    assert not found.read_whole
    assert not found.shown_whole
    assert found.total <= 5


def test_what_goes_while_the_folder_is_read_is_not_there(root: Root, folder: Path) -> None:
    def hides(path: bytes) -> bool:
        (folder / "b.txt").unlink(missing_ok=True)
        return False

    opened = OpenFile(root.open(b"/folder", cached_only=False))
    found = Lister(b"", Order("name"), hides).read(root, b"/folder/", opened)
    assert b"b.txt" not in names(found)
    assert (found.total, found.shown_whole) == (4, True)


def test_no_descriptor_is_left(root: Root, folder: Path) -> None:
    (folder / "link").symlink_to("A.txt")
    before = open_descriptors()
    listed(root)
    assert open_descriptors() == before
