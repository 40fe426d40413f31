import errno
import fcntl
import os
import resource
import signal
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.unit.files.process import as_nobody, forbid_openat2, in_child, open_descriptors

from pyserver.files.resolve import STATUS_FOR_ERRNO, OpenFile, Root, RootError, WouldBlock, status_for

SECRET = b"nobody may see this"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A root with all sorts of names in it, beside a folder whose name begins the same way (T-2)."""
    www = tmp_path / "www"
    (www / "dir" / "deep").mkdir(parents=True)
    www.chmod(0o755)
    (www / "page.html").write_bytes(b"page")
    (www / "dir" / "index.html").write_bytes(b"index")
    (tmp_path / "www-private").mkdir()
    (tmp_path / "www-private" / "secret").write_bytes(SECRET)
    (tmp_path / "secret").write_bytes(SECRET)

    (www / "inward").symlink_to("dir/index.html")
    (www / "dir" / "deep" / "upward").symlink_to("../../page.html")
    (www / "absolute").symlink_to(tmp_path / "secret")
    (www / "absolute-inward").symlink_to(www / "page.html")
    (www / "relative").symlink_to("../secret")
    (www / "folder-outward").symlink_to("../www-private")
    (www / "ring").symlink_to("ring")
    (www / "dangling").symlink_to("nothing")
    os.mkfifo(www / "fifo")
    return www


@pytest.fixture
def root(site: Path) -> Iterator[Root]:
    opened = Root(site)
    yield opened
    opened.close()


def read(root: Root, path: bytes) -> bytes:
    return OpenFile(root.open(path, cached_only=False)).read_all(cached_only=False)


# -- what opens ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "content"),
    [
        (b"/page.html", b"page"),
        (b"/dir/index.html", b"index"),
        (b"/inward", b"index"),  # links inside the root are fine
        (b"/dir/deep/upward", b"page"),  # ".." of a link too, as long as it stays inside
    ],
)
def test_a_name_below_the_root_opens(root: Root, path: bytes, content: bytes) -> None:
    assert read(root, path) == content


@pytest.mark.parametrize("path", [b"/", b"/dir", b"/dir/"])
def test_a_folder_opens_as_a_folder(root: Root, path: bytes) -> None:
    file = OpenFile(root.open(path, cached_only=False))
    assert file.is_directory
    assert not file.is_regular


def test_a_name_is_bytes_not_text(root: Root, site: Path) -> None:
    # T-8: a name that is not UTF-8, and one that an overlong encoding of ".." would be
    for name in (b"\xff\xfe\x80", b"\xc0\xae\xc0\xae", b"a\\b"):
        (site / os.fsdecode(name)).write_bytes(name)
        assert read(root, b"/" + name) == name


# -- what does not, and as what (T-2, T-4, T-7, T-11, T-14) -----------------------------------------


@pytest.mark.parametrize(
    ("path", "number", "status"),
    [
        (b"/nothing", errno.ENOENT, 404),
        (b"/dangling", errno.ENOENT, 404),
        (b"/page.html/", errno.ENOTDIR, 404),  # T-11: file/ is not file
        (b"/page.html/index.html", errno.ENOTDIR, 404),
        (b"/absolute", errno.EXDEV, 404),  # T-4: a link outward, by a full path
        (b"/absolute-inward", errno.EXDEV, 404),  # a full path begins outside, wherever it ends
        (b"/relative", errno.EXDEV, 404),
        (b"/folder-outward/secret", errno.EXDEV, 404),
        (b"/../secret", errno.EXDEV, 404),  # http.target never lets it come so far
        (b"/../www-private/secret", errno.EXDEV, 404),  # T-2: www-private is not below www
        (b"/../www/page.html", errno.EXDEV, 404),
        (b"//etc/passwd", errno.EXDEV, 404),
        (b"/ring", errno.ELOOP, 404),
        (b"/page.html\0.png", errno.ENOENT, 404),  # T-7: never the part before the NUL
        (b"/" + b"a" * 300, errno.ENAMETOOLONG, 404),  # T-14
        (b"/" + b"a/" * 3000, errno.ENAMETOOLONG, 404),
    ],
)
@pytest.mark.parametrize("cached_only", [True, False])
def test_a_name_that_leads_nowhere(root: Root, path: bytes, number: int, status: int, cached_only: bool) -> None:
    before = open_descriptors()
    with pytest.raises((OSError, WouldBlock)) as caught:
        root.open(path, cached_only=cached_only)
    if isinstance(caught.value, OSError):
        assert (caught.value.errno, status_for(caught.value)) == (number, status)
    else:
        assert cached_only
    assert open_descriptors() == before


def test_a_magic_link_does_not_open() -> None:
    # /proc/self/cwd and the like leave any root without a ".." or a full path in them
    with pytest.raises(OSError, match="cwd") as caught:
        Root("/proc/self").open(b"/cwd", cached_only=False)
    assert caught.value.errno == errno.ELOOP
    assert status_for(caught.value) == 404


def test_a_socket_does_not_open(root: Root, site: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(site, os.O_PATH)
        listener.bind(f"/proc/self/fd/{here}/socket")  # a socket's path may have 107 bytes only
        os.close(here)
        with pytest.raises(OSError, match="socket") as caught:
            root.open(b"/socket", cached_only=False)
    assert (caught.value.errno, status_for(caught.value)) == (errno.ENXIO, 404)


@pytest.mark.parametrize("cached_only", [True, False])
def test_a_fifo_opens_at_once_and_is_not_regular(root: Root, cached_only: bool) -> None:
    # T-6: Apache, Caddy 2.6, granian and http.server hang here
    file = OpenFile(root.open(b"/fifo", cached_only=cached_only))
    assert not file.is_regular
    assert not file.is_directory


@pytest.mark.skipif(os.geteuid() != 0, reason="only the superuser makes device nodes")
def test_a_device_is_not_regular(root: Root, site: Path) -> None:
    try:
        os.mknod(site / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("no device nodes in this container")
    try:
        file = OpenFile(root.open(b"/null", cached_only=False))
    except PermissionError:
        return  # a file system mounted nodev
    assert not file.is_regular


def test_what_is_ours_to_search_but_not_to_read_is_403(site: Path) -> None:
    (site / "closed.html").write_bytes(SECRET)
    (site / "closed.html").chmod(0)
    (site / "locked").mkdir()
    (site / "locked" / "page.html").write_bytes(SECRET)
    (site / "locked").chmod(0)
    root = Root(site)

    def body() -> None:
        for path in (b"/closed.html", b"/locked", b"/locked/page.html", b"/locked/nothing"):
            with pytest.raises(PermissionError) as caught:
                root.open(path, cached_only=False)
            assert status_for(caught.value) == 403

    as_nobody(body)


def test_out_of_descriptors_is_503(root: Root) -> None:
    def body() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        with suppress(OSError):
            while True:
                os.dup(0)
        with pytest.raises(OSError, match="page") as caught:
            root.open(b"/page.html", cached_only=False)
        assert (caught.value.errno, status_for(caught.value)) == (errno.EMFILE, 503)

    in_child(body)


@pytest.mark.parametrize(
    ("number", "status"),
    [(errno.EIO, 500), (errno.EPERM, 403), (errno.ENFILE, 503), (errno.ENOMEM, 503), (errno.EBUSY, 503), (0, 500)],
)
def test_errors_that_a_test_cannot_make(number: int, status: int) -> None:
    assert status_for(OSError(number, "")) == status


def test_no_error_is_a_success() -> None:
    assert set(STATUS_FOR_ERRNO.values()) == {403, 404, 503}


# -- names that change while they are opened (T-5) ---------------------------------------------------


def test_no_swap_of_a_folder_and_a_link_lets_anybody_out(root: Root, site: Path) -> None:
    """The classic race: what was a folder when it was checked is a link outward when it is opened."""
    (site / "dir" / "secret").write_bytes(b"harmless")
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            (site / "swap").symlink_to("../www-private")
            (site / "swap").rename(site / "door")
            (site / "door").unlink()
            (site / "dir").rename(site / "door")
            (site / "door").rename(site / "dir")

    swapper = threading.Thread(target=swap)
    swapper.start()
    seen = set()
    try:
        for turn in range(6000):
            try:
                file = OpenFile(root.open(b"/door/secret", cached_only=turn % 2 == 0))
                seen.add(file.read_all(cached_only=False))
            except WouldBlock:
                pass
            except OSError as error:
                assert error.errno in {errno.ENOENT, errno.EXDEV}  # noqa: PT017
    finally:
        done.set()
        swapper.join()
    assert seen <= {b"harmless"}


def test_a_rename_elsewhere_is_no_error(root: Root, site: Path) -> None:
    # openat2(2): ".." with RESOLVE_BENEATH is EAGAIN while anything is renamed anywhere
    done = threading.Event()

    def rename() -> None:
        while not done.is_set():
            (site / "fifo").rename(site / "fifo2")
            (site / "fifo2").rename(site / "fifo")

    renamer = threading.Thread(target=rename)
    renamer.start()
    try:
        for _ in range(2000):
            os.close(root.open(b"/dir/deep/upward", cached_only=False))
    finally:
        done.set()
        renamer.join()


def test_a_lease_is_waited_for_only_where_waiting_is_allowed(root: Root, site: Path) -> None:
    """A file server on the same host holds a lease and gives it back when the kernel tells it (fcntl(2))."""
    ready, told = os.pipe()

    def hold() -> None:
        fd = os.open(site / "page.html", os.O_RDWR)
        signal.signal(signal.SIGIO, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGIO})
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        os.write(told, b"!")
        signal.sigwait({signal.SIGIO})
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)

    holder = threading.Thread(target=in_child, args=(hold,))
    holder.start()
    try:
        assert os.read(ready, 1) == b"!"
        with pytest.raises(WouldBlock):
            root.open(b"/page.html", cached_only=True)
        assert read(root, b"/page.html") == b"page"
    finally:
        holder.join()
        os.close(ready)
        os.close(told)


# -- the root itself (T-3) ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "why"), [("nothing", "No such file or directory"), ("www/page.html", "Not a directory")]
)
def test_a_root_that_is_no_folder(site: Path, name: str, why: str) -> None:
    with pytest.raises(RootError, match=why):
        Root(site.parent / name)


def test_a_root_that_may_not_be_searched(site: Path) -> None:
    site.chmod(0o644)
    folder = os.open(site.parent, os.O_PATH)

    def body() -> None:
        os.fchdir(folder)
        with pytest.raises(RootError, match="root www: Permission denied"):
            Root("www")

    site.parent.chmod(0o755)
    as_nobody(body)
    os.close(folder)


@pytest.mark.parametrize(
    ("number", "why"),
    [(errno.ENOSYS, "kernel has no openat2"), (errno.EPERM, "seccomp"), (errno.EACCES, "seccomp"), (errno.EIO, "EIO")],
)
def test_without_openat2_nothing_is_served(site: Path, number: int, why: str) -> None:
    """T-3: no fallback, whatever the reason; and one that appears later is an error of that open, not a way round."""
    root = Root(site)

    def body() -> None:
        forbid_openat2(number)
        with pytest.raises(RootError, match=why):
            Root(site)
        with pytest.raises(OSError, match="page") as caught:
            root.open(b"/page.html", cached_only=False)
        assert caught.value.errno == number

    in_child(body)


def test_without_resolve_cached_the_leader_never_opens(site: Path) -> None:
    root = Root(site)
    root._cached = False  # Linux 5.6 to 5.11, which the probe tells by EINVAL
    with pytest.raises(WouldBlock):
        root.open(b"/page.html", cached_only=True)
    assert read(root, b"/page.html") == b"page"


def test_the_root_stays_when_its_name_moves(root: Root, site: Path) -> None:
    site.rename(site.with_name("moved"))
    assert read(root, b"/page.html") == b"page"


def test_what_lies_in_the_root_is_known(root: Root, site: Path) -> None:
    # T-15: a configuration, log or key below the root can be asked for
    (site.parent / "link").symlink_to("www/dir")
    inside = (site, site / "page.html", site / "dir" / "new.log", site.parent / "link" / "key.pem", site / "x" / "y")
    outside = (
        site.parent,
        site.parent / "www-private" / "secret",
        site.parent / "secret",
        Path("/"),
        site / "relative",
    )
    assert [root.holds(path) for path in inside] == [True] * len(inside)
    assert [root.holds(path) for path in outside] == [False] * len(outside)


# -- open files -------------------------------------------------------------------------------------


def test_a_descriptor_is_close_on_exec_and_goes_with_its_file(root: Root) -> None:
    before = open_descriptors()
    file = OpenFile(root.open(b"/page.html", cached_only=False))
    assert not os.get_inheritable(file.fd)
    other = file
    del file
    assert open_descriptors() != before
    del other
    assert open_descriptors() == before


def test_close_twice_is_harmless(root: Root) -> None:
    before = open_descriptors()
    file = OpenFile(root.open(b"/page.html", cached_only=False))
    file.close()
    file.close()
    assert open_descriptors() == before


def test_what_fstat_says(root: Root, site: Path) -> None:
    os.utime(site / "page.html", ns=(1, 1_234_567_890_123_456_789))
    file = OpenFile(root.open(b"/page.html", cached_only=False))
    found = (site / "page.html").stat()
    assert file.is_regular
    assert file.size == 4
    assert file.modified_ns == 1_234_567_890_123_456_789
    assert file.stamp == (found.st_dev, found.st_ino, 4, found.st_mtime_ns, found.st_ctime_ns)


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(b"longer than it was"),
        lambda path: os.utime(path, (0, 0)),
        lambda path: path.chmod(0o600),  # ctime: also for what leaves size and mtime as they were
    ],
)
def test_refresh_tells_that_a_file_changed(root: Root, site: Path, change: object) -> None:
    assert callable(change)
    file = OpenFile(root.open(b"/page.html", cached_only=False))
    assert not file.refresh()
    change(site / "page.html")
    assert file.refresh()
    assert file.size == (site / "page.html").stat().st_size
    assert not file.refresh()


def test_a_file_larger_than_four_gibibytes(root: Root, site: Path) -> None:
    with (site / "large").open("wb") as large:
        large.truncate(5 << 30)
    assert OpenFile(root.open(b"/large", cached_only=False)).size == 5 << 30


def test_a_file_that_shrank_is_read_as_far_as_it_goes(root: Root, site: Path) -> None:
    file = OpenFile(root.open(b"/page.html", cached_only=False))
    os.truncate(site / "page.html", 2)
    assert file.read_all(cached_only=False) == b"pa"
    with pytest.raises(WouldBlock):  # only a read that waits can know that there is no more
        file.read_all(cached_only=True)


def test_a_file_that_grew_is_read_as_announced(root: Root, site: Path) -> None:
    file = OpenFile(root.open(b"/page.html", cached_only=False))
    with (site / "page.html").open("ab") as more:
        more.write(b" and more")
    assert file.read_all(cached_only=False) == b"page"


@pytest.mark.parametrize("size", [0, 1, 4096, 300_000])
def test_reading_whole_files(root: Root, site: Path, size: int) -> None:
    content = os.urandom(size)
    (site / "file").write_bytes(content)
    file = OpenFile(root.open(b"/file", cached_only=False))
    assert file.read_all(cached_only=False) == content
    try:
        assert file.read_all(cached_only=True) == content
    except WouldBlock:
        assert not tells_what_is_in_memory(site)


def test_what_is_not_in_memory_is_not_waited_for(root: Root, site: Path) -> None:
    if not tells_what_is_in_memory(site):
        pytest.skip("this file system cannot tell what is in memory")
    with (site / "cold").open("wb") as cold:
        cold.write(os.urandom(1 << 20))
        cold.flush()
        os.fsync(cold.fileno())
        os.posix_fadvise(cold.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    file = OpenFile(root.open(b"/cold", cached_only=False))
    assert not file.in_memory(0, 1 << 20)
    with pytest.raises(WouldBlock):
        file.read_all(cached_only=True)

    file.read_all(cached_only=False)
    assert file.in_memory(0, 1 << 20)
    assert file.in_memory(0, 0)
    assert file.in_memory(5000, 10)
    assert len(file.read_all(cached_only=True)) == 1 << 20


def test_a_file_system_that_cannot_tell_is_never_trusted(tmp_path: Path) -> None:
    memory = Path("/dev/shm")  # tmpfs: EOPNOTSUPP
    if not os.access(memory, os.W_OK) or tells_what_is_in_memory(memory):
        pytest.skip("no file system here that lacks RWF_NOWAIT")
    name = f"pyserver-test-{os.getpid()}"
    (memory / name).write_bytes(b"page")
    try:
        file = OpenFile(Root(memory).open(b"/" + name.encode(), cached_only=False))
        assert not file.in_memory(0, 4)
        with pytest.raises(WouldBlock):
            file.read_all(cached_only=True)
        assert file.read_all(cached_only=False) == b"page"
    finally:
        (memory / name).unlink()


def tells_what_is_in_memory(folder: Path) -> bool:
    """Whether RWF_NOWAIT works on the file system of `folder`."""
    name = folder / f"probe-{os.getpid()}"
    name.write_bytes(b"x")
    fd = os.open(name, os.O_RDONLY)
    try:
        return os.preadv(fd, [bytearray(1)], 0, os.RWF_NOWAIT) == 1
    except OSError:
        return False
    finally:
        os.close(fd)
        name.unlink()
