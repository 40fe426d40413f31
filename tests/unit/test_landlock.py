"""What is given up is gone: each right tried by a real call in a real process, before and after."""

import ctypes
import errno
import json
import os
import socket
import struct
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from tests.unit.processes import run_forked

from pyserver import landlock
from pyserver.files.resolve import Root, RootError

VERSION = landlock.version()

confined = pytest.mark.skipif(not VERSION, reason="this kernel has no Landlock")

Attempt = Callable[[], object]


def outcome(attempt: Attempt) -> str:
    try:
        attempt()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


def outcomes(attempts: Mapping[str, Attempt], before: Attempt) -> dict[str, str]:
    """Return how each attempt ends in a process of its own that did `before`."""
    report = os.memfd_create("outcomes")

    def body() -> None:
        before()
        os.write(report, json.dumps({what: outcome(attempt) for what, attempt in attempts.items()}).encode())

    assert run_forked(body) == 0
    ended: dict[str, str] = json.loads(os.pread(report, 65536, 0))
    os.close(report)
    return ended


def read(path: Path) -> None:
    os.close(os.open(path, os.O_RDONLY))


def append(path: Path) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
    os.write(fd, b"line\n")
    os.close(fd)


def execute() -> None:
    pid = os.fork()
    if pid == 0:
        try:
            os.execv(sys.executable, [sys.executable, "-S", "-c", ""])
        except OSError as error:
            os._exit(error.errno or 255)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        raise OSError(status, os.strerror(status))


def bind() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))


def in_a_thread(attempt: Attempt) -> Attempt:
    """Return the attempt as a thread makes it that is started now."""

    def run() -> None:
        caught: list[OSError] = []

        def body() -> None:
            try:
                attempt()
            except OSError as error:
                caught.append(error)

        thread = threading.Thread(target=body)
        thread.start()
        thread.join()
        if caught:
            raise caught[0]

    return run


@confined
def test_what_is_given_up_is_gone_and_the_rest_is_there(tmp_path: Path) -> None:
    for folder in ("site", "logs", "other"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "file").write_text("content")
    site, logs, other = tmp_path / "site", tmp_path / "logs", tmp_path / "other"
    opened = os.open(other / "file", os.O_RDWR)
    parent = os.getpid()
    allowed: dict[str, Attempt] = {
        "read the site": lambda: read(site / "file"),
        "list it": lambda: os.close(os.open(site, os.O_RDONLY | os.O_DIRECTORY)),
        "write to the log": lambda: append(logs / "file"),
        "make it anew": lambda: append(logs / "new"),
        "import a module": lambda: __import__("colorsys"),
        "use what was open": lambda: os.pread(opened, 1, 0) and os.pwrite(opened, b"C", 0),
        "a UNIX socket": socket.socketpair,
    }
    refused: dict[str, Attempt] = {
        "/etc/passwd": lambda: read(Path("/etc/passwd")),
        "another folder": lambda: read(other / "file"),
        "the folder above": lambda: os.close(os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)),
        "the log": lambda: read(logs / "file"),
        "write to the site": lambda: append(site / "file"),
        "a new file in the site": lambda: append(site / "new"),
        "a new folder": (logs / "folder").mkdir,
        "take the log away": (logs / "file").unlink,
        "a program": execute,
        "the same in a thread": in_a_thread(lambda: read(other / "file")),
    }
    if VERSION >= 4:
        refused["a TCP listener"] = bind
        refused["a TCP connection"] = lambda: socket.socket().connect(("127.0.0.1", 9))
    if VERSION >= 6:
        refused["a signal to the parent"] = lambda: os.kill(parent, 0)
    every = {**allowed, **refused}
    for name in ("new", "folder"):
        assert not (site / name).exists()

    def confine() -> None:
        assert landlock.confine([str(site)], [str(logs)]) == VERSION

    ended = outcomes(every, before=confine)
    assert {what: ended[what] for what in allowed} == dict.fromkeys(allowed, "done")
    assert {what: ended[what] for what in refused} == {
        what: "EPERM" if what == "a signal to the parent" else "EACCES" for what in refused
    }
    # Without it all of them can be done (but for the connection, which nobody takes): none fails by its own mistake.
    free = outcomes({what: every[what] for what in every if what != "a TCP connection"}, before=lambda: None)
    assert set(free.values()) == {"done"}, free


# -- a root that is switched -------------------------------------------------------------------------


def release(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "page").write_text(text)
    return folder


def switch(link: Path, target: str) -> None:
    (link.parent / "next").symlink_to(target)
    (link.parent / "next").rename(link)


def linked(at: Path) -> tuple[Path, Attempt]:
    """A link to a release beside others, as deploys have it."""
    release(at / "releases/1", "1")
    (at / "current").symlink_to("releases/1")

    def deploy() -> None:
        release(at / "releases/2", "2")
        switch(at / "current", "releases/2")

    return at / "current", deploy


def inner(at: Path) -> tuple[Path, Attempt]:
    """A folder of the release is served."""
    release(at / "site/releases/1/public", "1")
    (at / "site/current").symlink_to("releases/1")

    def deploy() -> None:
        release(at / "site/releases/2/public", "2")
        switch(at / "site/current", "releases/2")

    return at / "site/current/public", deploy


def renamed(at: Path) -> tuple[Path, Attempt]:
    """A folder that another one takes the place of."""
    release(at / "site/now", "1")

    def deploy() -> None:
        release(at / "site/next", "2")
        (at / "site/now").rename(at / "site/old")
        (at / "site/next").rename(at / "site/now")

    return at / "site/now", deploy


def elsewhere(at: Path) -> tuple[Path, Attempt]:
    """A link that leads away from where the first release was."""
    release(at / "www/releases/1", "1")
    (at / "www/current").symlink_to("releases/1")

    def deploy() -> None:
        release(at / "disk/2", "2")
        switch(at / "www/current", "../disk/2")

    return at / "www/current", deploy


@confined
@pytest.mark.parametrize("layout", [linked, inner, renamed])
def test_the_next_release_can_be_read(tmp_path: Path, layout: Callable[[Path], tuple[Path, Attempt]]) -> None:
    root, deploy = layout(tmp_path / "a")
    went, go = os.pipe(), os.pipe()

    def body() -> int:
        opened = Root(root)
        landlock.confine(landlock.homes_of(str(root)), [])
        os.write(went[1], b".")
        os.read(go[0], 1)  # the deploy is somebody else's, who is not confined
        descriptor = opened.again(cached_only=False).open(b"/page", cached_only=False)
        return 0 if os.read(descriptor, 9) == b"2" else 1

    assert _with(body, went[0], deploy, go[1]) == 0


@confined
def test_a_root_that_leads_out_of_reach_is_an_error_with_its_reason(tmp_path: Path) -> None:
    root, deploy = elsewhere(tmp_path / "a")
    went, go = os.pipe(), os.pipe()

    def body() -> int:
        opened = Root(root)
        landlock.confine(landlock.homes_of(str(root)), [])
        os.write(went[1], b".")
        os.read(go[0], 1)
        with pytest.raises(RootError, match=r"may not read \(server.landlock\)"):
            opened.again(cached_only=False)
        return 0

    assert _with(body, went[0], deploy, go[1]) == 0


def _with(body: Callable[[], int], ready: int, action: Attempt, go: int) -> int:
    """Run `body` in a child, and `action` here once it is ready; return its status."""

    def act() -> None:
        os.read(ready, 1)
        action()
        os.write(go, b".")

    other = threading.Thread(target=act)
    other.start()
    status = run_forked(body)
    other.join()
    return status


@pytest.mark.skipif(os.geteuid() != 0, reason="a mode that closes a folder closes it to others only")
def test_a_folder_that_is_closed_by_its_mode_is_not_landlocks(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o711)

    def body() -> int:
        os.setresuid(65534, 65534, 65534)
        return int(landlock.forbids_reading(descriptor))

    tmp_path.chmod(0o755)
    descriptor = os.open(tmp_path / "closed", os.O_PATH)
    assert run_forked(body) == 0
    os.close(descriptor)


# -- which folders -------------------------------------------------------------------------------


def test_the_folder_above_is_what_a_root_needs(tmp_path: Path) -> None:
    root, _ = inner(tmp_path)
    site = tmp_path / "site"
    homes = {str(Path(home).resolve()) for home in landlock.homes_of(str(root))}
    assert homes == {str(site), str(site / "releases"), str(site / "releases/1")}


@pytest.mark.parametrize(("root", "homes"), [("/usr/lib", {"/usr"}), ("/usr", {"/usr"}), ("/", {"/"})])
def test_the_top_of_all_is_no_home(root: str, homes: set[str]) -> None:
    assert set(landlock.homes_of(root)) == homes


def test_a_log_needs_its_folder_and_a_device_only_itself(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("logs/access.log")
    (tmp_path / "logs").mkdir()
    assert set(landlock.homes_of_log(str(tmp_path / "new.log"))) == {str(tmp_path)}
    assert set(landlock.homes_of_log(str(tmp_path / "link"))) == {str(tmp_path), str(tmp_path / "logs")}
    assert set(landlock.homes_of_log("/dev/null")) == {"/dev/null"}


# -- where there is none ---------------------------------------------------------------------------


def forbid(number: int) -> None:
    """Have a system call fail with EPERM from now on, as a container's profile does (seccomp(2))."""
    load, equal, give = 0x20, 0x15, 0x06  # BPF_LD | BPF_W | BPF_ABS; BPF_JMP | BPF_JEQ | BPF_K; BPF_RET | BPF_K
    steps = [(load, 0, 0, 0), (equal, 0, 1, number), (give, 0, 0, 0x00050000 | errno.EPERM), (give, 0, 0, 0x7FFF0000)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.prctl(22, 2, program, 0, 0) == 0


@pytest.mark.parametrize("number", [444, 445, 446])
def test_where_it_is_forbidden_nothing_is_given_up(tmp_path: Path, number: int) -> None:
    def body() -> int:
        forbid(number)
        with pytest.raises(landlock.Unavailable, match=r"Landlock"):
            landlock.confine([str(tmp_path)], [])
        read(Path("/etc/passwd"))
        os.kill(os.getppid(), 0)
        return 0

    assert run_forked(body) == 0
