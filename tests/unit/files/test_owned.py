"""The policies for links: `owner`, walked name by name, and `none`, by the kernel."""

import errno
import os
import time
from pathlib import Path

import pytest
from tests.unit.files.process import open_descriptors
from tests.unit.processes import forked

from pyserver import limits
from pyserver.files.resolve import Links, OpenFile, Root, WouldBlock, status_for

SECRET = b"nobody may see this"
OTHER = 65534

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only the superuser gives links to others")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    www = tmp_path / "www"
    (www / "dir" / "deep").mkdir(parents=True)
    (www / "page").write_bytes(b"page")
    (www / "dir" / "page").write_bytes(b"page in dir")
    (www / "others").write_bytes(b"others")
    os.chown(www / "others", OTHER, OTHER)
    (tmp_path / "secret").write_bytes(SECRET)
    links = {
        "to-page": "page",
        "to-dir": "dir",
        "dir/deep/up": "../../page",
        "dir/deep/through": "../../to-dir/page",
        "twice": "to-page",
        "to-root": ".",
        "to-others": "others",  # ours, and the file is not
        "out": "../secret",
        "out-and-in": "../www/page",
        "full": str(www / "page"),
        "ring": "ring",
        "dangling": "nothing",
        "file-as-folder": "page/.",
        "file-dot-dot": "page/../page",
        "link-dot-dot": "dir/deep/../page",
    }
    of_another = {
        "evil": "page",
        "evil-dir": "dir",
        "evil-others": "others",  # theirs, both
        "evil-out": "../secret",
    }
    for name, text in {**links, **of_another, "to-evil": "evil"}.items():
        (www / name).symlink_to(text)
    for name in of_another:
        os.lchown(www / name, OTHER, OTHER)
    return www


FOLLOWED = {
    b"/page": b"page",
    b"/to-page": b"page",
    b"/to-dir/page": b"page in dir",
    b"/dir/deep/up": b"page",
    b"/dir/deep/through": b"page in dir",
    b"/twice": b"page",
    b"/to-root/to-root/page": b"page",
    b"/evil-others": b"others",
    b"/link-dot-dot": b"page in dir",
    b"/to-dir/deep/../page": b"page in dir",  # http.target lets none through; the walk keeps it inside all the same
}

REFUSED = {
    b"/evil": errno.ELOOP,
    b"/evil-dir/page": errno.ELOOP,
    b"/to-others": errno.ELOOP,
    b"/to-evil": errno.ELOOP,  # each link on the way, not the first only
    b"/out": errno.EXDEV,
    b"/out-and-in": errno.EXDEV,
    b"/evil-out": errno.EXDEV,
    b"/full": errno.EXDEV,
    b"/to-dir/../../secret": errno.EXDEV,
    b"/ring": errno.ELOOP,
    b"/dangling": errno.ENOENT,
    b"/to-dir/nothing": errno.ENOENT,
    b"/to-page/x": errno.ENOTDIR,
    b"/to-page/": errno.ENOTDIR,  # T-11
    b"/file-as-folder": errno.ENOTDIR,
    b"/file-dot-dot": errno.ENOTDIR,
    b"/to-dir/" + b"a" * 300: errno.ENAMETOOLONG,
}


def opened(root: Root, path: bytes) -> bytes | int:
    """The content, or the errno."""
    try:
        return OpenFile(root.open(path, cached_only=False)).read_all(cached_only=False)
    except OSError as error:
        return -1 if status_for(error) != 404 or error.errno is None else error.errno


@pytest.mark.parametrize(("path", "expected"), [*FOLLOWED.items(), *REFUSED.items()])
def test_links_by_their_owner(site: Path, path: bytes, expected: bytes | int) -> None:
    root = Root(site, "owner")
    before = open_descriptors()
    assert opened(root, path) == expected
    assert open_descriptors() == before


@pytest.mark.parametrize("path", [*FOLLOWED, *REFUSED])
def test_no_links_at_all(site: Path, path: bytes) -> None:
    followed = opened(Root(site, "none"), path)
    assert followed == b"page" if path == b"/page" else isinstance(followed, int)


def test_what_the_default_follows(site: Path) -> None:
    root = Root(site)
    assert opened(root, b"/evil") == b"page"
    assert opened(root, b"/out") == errno.EXDEV


@pytest.mark.parametrize("path", [b"/to-dir", b"/to-dir/", b"/to-root", b"/to-root/"])
def test_a_link_to_a_folder_opens_as_a_folder(site: Path, path: bytes) -> None:
    assert OpenFile(Root(site, "owner").open(path, cached_only=False)).is_directory


@pytest.mark.parametrize("links", ["owner", "none"])
def test_the_root_itself_may_be_a_link(site: Path, links: Links) -> None:
    # the administrator's own, and how releases are switched
    (site.parent / "current").symlink_to("www")
    assert opened(Root(site.parent / "current", links), b"/page") == b"page"


def test_the_leader_opens_what_has_no_link_and_leaves_the_walk_to_others(site: Path) -> None:
    root = Root(site, "owner")
    OpenFile(root.open(b"/page", cached_only=True))
    for path in (b"/to-page", b"/evil", b"/ring"):
        with pytest.raises(WouldBlock):
            root.open(path, cached_only=True)


@pytest.mark.parametrize(
    ("depth", "found"), [(limits.LINKED_FOLDERS_MAX - 1, True), (limits.LINKED_FOLDERS_MAX, False)]
)
def test_a_walk_holds_so_many_folders(site: Path, depth: int, found: bool) -> None:
    folder = site.joinpath(*["d"] * depth)
    folder.mkdir(parents=True)
    (folder / "page").write_bytes(b"deep")
    (site / "link").symlink_to("/".join(["d"] * depth) + "/page")
    assert opened(Root(site, "owner"), b"/link") == (b"deep" if found else errno.ENAMETOOLONG)
    assert opened(Root(site, "owner"), b"/" + b"d/" * depth + b"page") == b"deep"  # without a link, no walk


def test_a_chain_of_links_ends(site: Path) -> None:
    for number in range(50):
        (site / f"chain{number}").symlink_to(f"chain{number + 1}" if number < 49 else "page")
    root = Root(site, "owner")
    assert opened(root, b"/chain10") == b"page"  # forty
    assert opened(root, b"/chain9") == errno.ELOOP


def test_a_fifo_behind_a_link_is_not_waited_for(site: Path) -> None:
    # T-6
    os.mkfifo(site / "fifo")
    (site / "link").symlink_to("fifo")
    assert not OpenFile(Root(site, "owner").open(b"/link", cached_only=False)).is_regular


def swap(one: Path, other: Path) -> None:
    """Put `one` and `other` under the name of `one` in turn, each by a rename, for ever."""
    aside = one.with_name("aside")
    while True:
        one.rename(aside)
        other.rename(one)
        one.rename(other)
        aside.rename(one)


@pytest.mark.parametrize(
    ("honest", "evil", "ask"),
    [
        ("door", "evil-door", b"/door"),  # a link of ours and one of theirs
        ("page-door", "evil-door", b"/to-page-door"),  # a file behind a link of ours, and a link of theirs
        ("dir-door", "evil-dir-door", b"/to-dir-door/victim"),  # the same with folders on the way
    ],
)
def test_no_swap_gets_anybody_through_a_link_of_another(site: Path, honest: str, evil: str, ask: bytes) -> None:
    """T-5: the races that checking by name and opening by name loses."""
    victim = site / "victim"
    victim.write_bytes(SECRET)
    (site / "dir" / "victim").write_bytes(b"harmless")
    (site / "vault").mkdir()
    (site / "vault" / "victim").write_bytes(SECRET)
    (site / "door").symlink_to("page")
    (site / "evil-door").symlink_to("victim")
    (site / "page-door").write_bytes(b"page")
    (site / "to-page-door").symlink_to("page-door")
    (site / "dir-door").mkdir()
    (site / "dir-door" / "victim").write_bytes(b"harmless")
    (site / "to-dir-door").symlink_to("dir-door")
    (site / "evil-dir-door").symlink_to("vault")
    for name in ("evil-door", "evil-dir-door"):
        os.lchown(site / name, OTHER, OTHER)
    root, seen, refused = Root(site, "owner"), list[bytes](), list[int | None]()
    until = time.monotonic() + 60
    # A process of its own, which no interpreter lock keeps in step with this one. It may stand still for a while, with
    # whatever under the name: so there is no number of tries that is enough.
    with forked(lambda: swap(site / honest, site / evil)):
        while len(seen) + len(refused) < 4000 or len(seen) < 50 or refused.count(errno.ELOOP) < 50:
            assert time.monotonic() < until
            try:
                seen.append(OpenFile(root.open(ask, cached_only=False)).read_all(cached_only=False))
            except OSError as error:
                refused.append(error.errno)
    assert set(seen) <= {b"page", b"harmless"}
    assert set(refused) <= {errno.ENOENT, errno.ELOOP, errno.EBUSY, errno.ENOTDIR}
