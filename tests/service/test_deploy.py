"""A root that is switched under load: every answer is of one release, and of one that was current then."""

import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.service.client import Client, Failure
from tests.service.conftest import Serve
from tests.service.harness import Server, wait_until

# The path of the root is looked at in every second in which something is asked for. How much later than that the last
# answer of the old release comes is the machine's affair: it may stand still for seconds.
TICK_S = 1.0
PATIENCE_S = 20.0

# Large enough for sendfile in several parts, and to be kept open between requests.
LARGE_LINES = 20_000

COMMON = ("/", "/page.html", "/folder/", "/large.txt")


def asset(release: int) -> str:
    return f"/assets/app.{release * 2654435761 % 2**32:08x}.js"


def build(folder: Path, release: int) -> Path:
    """Write a release: every line of every file names it, and all files of a name have one size and time."""
    line = f"release {release:06d}\n".encode()
    own = asset(release).encode()
    for name, content in {
        "index.html": own + b"\n" + line * 10,
        "page.html": line * 100,
        "folder/index.html": line,
        "large.txt": line * LARGE_LINES,
        own.decode().removeprefix("/"): line * 20,
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        os.utime(folder / name, (1_600_000_000, 1_600_000_000))
    return folder


@dataclass
class Visit:
    """Clients that ask for everything, and what they saw."""

    server: Server
    over: threading.Event = field(default_factory=threading.Event)
    seen: list[tuple[int, float, float]] = field(default_factory=list)  # release, when asked, when answered
    newest: int = 0
    wrong: list[str] = field(default_factory=list)
    own: list[int] = field(default_factory=list)  # statuses of the assets that a page named

    def go(self, *, stay: bool) -> None:
        while not self.over.is_set():
            try:
                with Client(self.server.address, within=20) as client:
                    while not self.over.is_set():
                        self._round(client)
                        if not stay:
                            break
            except Failure as error:
                self.wrong.append(f"{type(error).__name__}: {error}")

    def _round(self, client: Client) -> None:
        for target in COMMON:
            asked = time.monotonic()
            answer = client.ask(target)
            if answer.status != 200:
                self.wrong.append(f"{answer.status} for {target}")
                continue
            release = self._note(target, answer.content, asked)
            if target == "/":
                asked = time.monotonic()
                named = answer.content.partition(b"\n")[0].decode()
                own = client.ask(named)
                self.own.append(own.status)
                if own.status == 200 and self._note(named, own.content, asked) != release:
                    self.wrong.append(f"the asset of release {release} is of another")
                if own.status not in (200, 404):
                    self.wrong.append(f"{own.status} for {named}")

    def _note(self, target: str, content: bytes, asked: float) -> int:
        releases = set(re.findall(rb"release ([0-9]{6})\n", content))
        if len(releases) != 1:
            self.wrong.append(f"{target} is of {sorted(releases)}")
            return -1
        release = int(releases.pop())
        self.seen.append((release, asked, time.monotonic()))
        self.newest = max(self.newest, release)
        return release


@contextmanager
def visitors(server: Server) -> Iterator[Visit]:
    visit = Visit(server)
    threads = [threading.Thread(target=visit.go, kwargs={"stay": stay}) for stay in (True, True, True, False)]
    for thread in threads:
        thread.start()
    try:
        yield visit
    finally:
        visit.over.set()
        for thread in threads:
            thread.join()


def rename_link(root: Path, target: Path) -> None:
    """As deployment tools do it: a link beside the old one, renamed over it. The path is never missing."""
    (root.parent / "next").symlink_to(target)
    (root.parent / "next").rename(root)


def rename_folder(root: Path, target: Path) -> None:
    """As people do it: the old one out of the way, the new one in. For a moment nothing is there."""
    root.rename(root.parent / f"was-{time.monotonic_ns()}")
    time.sleep(0.002)
    target.rename(root)


def replace_link(root: Path, target: Path) -> None:
    """`ln -sfn`: the old link is removed, and then there is another."""
    root.unlink()
    root.symlink_to(target)


def deploy(
    server: Server, home: Path, root: Path, switch: Callable[[Path, Path], None], rests: list[float]
) -> tuple[Visit, list[float]]:
    """Switch after each rest to a new release, under load; return what was seen and when each switch began."""
    began = [time.monotonic()]  # release 0 is there
    with visitors(server) as visit:
        for release, rest in enumerate(rests, 1):
            built = build(home / f"release-{release}", release)
            time.sleep(rest)
            began.append(time.monotonic())
            switch(root, built)
            old = release - 40
            if old >= 0:  # an old release is removed, as deployment tools do
                shutil.rmtree(home / f"release-{old}", ignore_errors=True)
        wait_until(lambda: visit.newest == len(rests), PATIENCE_S, "the last release to be served")
        time.sleep(TICK_S)  # other workers come to it in their own second
    return visit, began


def untimely(visit: Visit, began: list[float]) -> list[str]:
    """Return the answers of a release that was not there yet, or had been replaced for long."""
    ends = [*began[1:], float("inf")]
    return [
        f"release {release} asked for {asked - ends[release]:.3f} s after its end"
        for release, asked, answered in visit.seen
        if answered < began[release] or asked - ends[release] > TICK_S + PATIENCE_S
    ]


def folders_held(server: Server, home: Path) -> set[str]:
    """Return which of the folders in `home` the workers hold a descriptor in, by their names."""
    held = set()
    for pid in server.workers().values():
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = entry.readlink()
            except FileNotFoundError:
                continue
            if target.is_relative_to(home):
                held.add(target.relative_to(home).parts[0])
    return held


def test_five_hundred_switches(serve: Serve, tmp_path: Path) -> None:
    home = tmp_path / "site-of-releases"
    build(home / "release-0", 0)
    root = home / "current"
    root.symlink_to("release-0")
    server = serve(root)
    rests = [0.01] * 240 + [0.35] * 20 + [0.01] * 240
    visit, began = deploy(server, home, root, rename_link, rests)

    assert visit.wrong == []
    assert untimely(visit, began) == []
    assert len(visit.seen) > 300
    assert len({release for release, _, _ in visit.seen}) >= 5
    assert visit.own.count(200) > 30  # it may be replaced between two requests, and else is there
    last = len(rests)
    wait_until(lambda: folders_held(server, home) == {f"release-{last}"}, PATIENCE_S, "older releases to be let go of")
    assert server.counters()["responses_5xx"] == 0
    assert server.logged("serving on from") == []


@pytest.mark.parametrize("switch", [rename_folder, replace_link])
def test_switches_that_are_not_atomic(serve: Serve, tmp_path: Path, switch: Callable[[Path, Path], None]) -> None:
    """The path is missing for a moment; what was there is served on."""
    home = tmp_path / "site-of-releases"
    build(home / "release-0", 0)
    root = home / "current"
    if switch is rename_folder:
        (home / "release-0").rename(root)
    else:
        root.symlink_to("release-0")
    server = serve(root)
    visit, began = deploy(server, home, root, switch, [0.01] * 60 + [0.3] * 10)

    assert visit.wrong == []
    assert untimely(visit, began) == []
    assert len({release for release, _, _ in visit.seen}) >= 3


def test_root_that_disappears_is_missed_once_and_served_on(serve: Serve, site: Path, tmp_path: Path) -> None:
    server = serve(workers=1)
    with server.logs("No such file or directory, serving on from the folder that was there", within=PATIENCE_S):
        away = site.rename(tmp_path / "away")
        end = time.monotonic() + 2.5
        while time.monotonic() < end:
            assert server.ask("/small.txt", within=PATIENCE_S).content == b"small\n"
    with server.logs(f"root {site} is back", within=PATIENCE_S):
        away.rename(site)


def test_idle_worker_lets_go_of_a_release_that_was_replaced(serve: Serve, tmp_path: Path) -> None:
    """Its file system may be one that is to be unmounted."""
    home = tmp_path / "site-of-releases"
    for release in range(2):
        build(home / f"release-{release}", release)
    root = home / "current"
    root.symlink_to("release-0")
    server = serve(root)
    for _ in range(10):
        assert server.ask("/large.txt").content.startswith(b"release 000000\n")
    assert folders_held(server, home) == {"release-0"}
    rename_link(root, Path("release-1"))
    wait_until(lambda: folders_held(server, home) == {"release-1"}, PATIENCE_S)
