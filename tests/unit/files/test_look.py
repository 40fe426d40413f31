import errno
import os
import threading
from pathlib import Path

import pytest
from tests.unit.files.process import as_nobody, open_descriptors

from pyserver import limits
from pyserver.files.look import Found, Known, Look
from pyserver.files.resolve import Root, WouldBlock, status_for

INDEX = (b"index.html", b"index.htm")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    for folder in ("both", "second", "none", "folder/index.html", "fifo", "outward", "closed", "deep/er"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "page.html").write_bytes(b"page")
    (tmp_path / "both" / "index.html").write_bytes(b"first")
    (tmp_path / "both" / "index.htm").write_bytes(b"second")
    (tmp_path / "second" / "index.htm").write_bytes(b"second")
    os.mkfifo(tmp_path / "fifo" / "index.html")
    (tmp_path / "outward" / "index.html").symlink_to("/etc/passwd")
    (tmp_path / "closed" / "index.html").write_bytes(b"closed")
    (tmp_path / "closed" / "index.html").chmod(0)
    (tmp_path / "large").write_bytes(bytes(limits.FILE_IN_MEMORY_MAX_BYTES + 1))
    (tmp_path / "largest-small").write_bytes(bytes(limits.FILE_IN_MEMORY_MAX_BYTES))
    return tmp_path


def take(site: Path, path: bytes, known: Known | None = None) -> Found:
    return Look(Root(site), path, INDEX, known).take(cached_only=False)


@pytest.mark.parametrize(
    ("path", "name", "content"),
    [
        (b"/page.html", b"/page.html", b"page"),
        (b"/both/", b"/both/index.html", b"first"),  # the first of the list that is there
        (b"/second/", b"/second/index.htm", b"second"),
    ],
)
def test_a_file_or_the_index_of_a_folder(site: Path, path: bytes, name: bytes, content: bytes) -> None:
    found = take(site, path)
    assert (found.name, found.content) == (name, content)
    assert found.file is not None


@pytest.mark.parametrize("path", [b"/both", b"/second"])
def test_a_folder_with_an_index_wants_its_slash(site: Path, path: bytes) -> None:
    assert take(site, path).file is None


@pytest.mark.parametrize(
    "path",
    [
        b"/",
        b"/nothing",
        b"/none",  # T-10: no redirect to a 404
        b"/none/",
        b"/page.html/",  # T-11
        b"/folder/",  # an index that is a folder
        b"/folder",
        b"/fifo/index.html",  # T-6
        b"/fifo/",
        b"/fifo",
        b"/outward/",  # T-4: the index is looked at as every name is, by opening it below the root
        b"/outward",
    ],
)
def test_not_there(site: Path, path: bytes) -> None:
    with pytest.raises(OSError, match=r".") as caught:
        take(site, path)
    assert status_for(caught.value) == 404


def test_an_unreadable_index_is_403_not_the_next_one(site: Path) -> None:
    (site / "closed" / "index.htm").write_bytes(b"second")
    root = Root(site)

    def body() -> None:
        for path in (b"/closed/", b"/closed"):
            with pytest.raises(PermissionError):
                Look(root, path, INDEX, None).take(cached_only=False)

    as_nobody(body)


def test_a_folder_that_may_only_be_searched_has_its_pages(site: Path) -> None:
    (site / "both").chmod(0o311)
    (site / "none").chmod(0o311)
    root = Root(site)

    def body() -> None:
        assert Look(root, b"/both", INDEX, None).take(cached_only=False).file is None
        assert Look(root, b"/both/", INDEX, None).take(cached_only=False).content == b"first"
        with pytest.raises(PermissionError):
            Look(root, b"/none", INDEX, None).take(cached_only=False)

    as_nobody(body)


def test_what_is_too_large_for_memory_is_not_read(site: Path) -> None:
    found = take(site, b"/large")
    assert found.content is None
    assert found.file is not None
    assert found.file.size == limits.FILE_IN_MEMORY_MAX_BYTES + 1
    assert take(site, b"/largest-small").content == bytes(limits.FILE_IN_MEMORY_MAX_BYTES)


def test_what_is_known_is_not_read_again(site: Path) -> None:
    first = take(site, b"/both/")
    assert first.file is not None
    known = Known(first.name, first.file.stamp)
    assert take(site, b"/both/", known).content is None

    (site / "both" / "index.html").write_bytes(b"other")
    assert take(site, b"/both/", known).content == b"other"


def test_another_name_of_the_same_file_is_not_known(site: Path) -> None:
    # A hard link has the same stamp and another media type.
    first = take(site, b"/both/")
    assert first.file is not None
    (site / "both" / "index.htm").unlink()
    (site / "both" / "index.htm").hardlink_to(site / "both" / "index.html")
    (site / "both" / "index.html").unlink()
    assert take(site, b"/both/", Known(first.name, first.file.stamp)).content == b"first"


def test_a_look_that_would_wait_can_be_repeated(site: Path) -> None:
    root = Root(site)
    root._cached = False  # a kernel that cannot tell: every look of the leader would block
    look = Look(root, b"/page.html", INDEX, None)
    with pytest.raises(WouldBlock):
        look.take(cached_only=True)
    assert look.take(cached_only=False).content == b"page"


def test_content_and_stamp_are_of_one_moment(site: Path) -> None:
    """T-51: a file that is rewritten all the time is never found with one version's stamp and another's content."""
    done = threading.Event()
    versions = {bytes([65 + n]) * (1000 + n) for n in range(20)}

    def rewrite() -> None:
        while not done.is_set():
            for content in versions:
                (site / "page.html").write_bytes(content)  # in place: truncate, then write

    writer = threading.Thread(target=rewrite)
    writer.start()
    root = Root(site)
    try:
        for _ in range(2000):
            try:
                found = Look(root, b"/page.html", INDEX, None).take(cached_only=False)
            except OSError as error:
                assert error.errno == errno.EBUSY  # noqa: PT017  # or it went well
                continue
            assert found.file is not None
            assert found.content is not None
            assert len(found.content) == found.file.size == found.file.stamp[2]
    finally:
        done.set()
        writer.join()


def test_descriptors_do_not_stay(site: Path) -> None:
    root = Root(site)
    before = open_descriptors()
    for path in (b"/page.html", b"/both", b"/both/", b"/none", b"/fifo", b"/large", b"/nothing"):
        try:
            Look(root, path, INDEX, None).take(cached_only=False)
        except OSError as error:
            assert status_for(error) == 404  # noqa: PT017  # or it went well
    assert open_descriptors() == before
