"""As PID 1 of a container: `pyserver serve` in a PID namespace of its own, with its own /proc and /dev/shm."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.service.client import ask
from tests.service.harness import TREE, parse_url, process_state, wait_until

# A segment is named after the PID of its master, and swept by others: /dev/shm is not to be the host's.
SCRIPT = 'mount -t tmpfs tmpfs /dev/shm && exec "$@"'
UNSHARE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--ipc", "sh", "-c", SCRIPT, "sh")


class Container:
    """The server, and around it what `docker run` would make."""

    def __init__(self, root: Path) -> None:
        serve = ("-m", "pyserver", "serve", "--root", str(root), "--bind", "127.0.0.1:0", "--workers", "2")
        self.process = subprocess.Popen(
            [*UNSHARE, sys.executable, "-W", "error", "-X", "dev", *serve],
            env={**os.environ, "PYTHONPATH": str(TREE / "service")},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)

    def said(self, words: str) -> str:
        """Return the first line with these words, or nothing yet."""
        return next((line for line in list(self.log) if words in line), "")

    @property
    def init(self) -> int:
        """PID 1 of the namespace, as it is numbered here."""
        return self.children(self.process.pid)[0]

    @staticmethod
    def children(pid: int) -> list[int]:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def inside(self, *command: str) -> None:
        """Run a command beside the server, as `docker exec` does."""
        into = ("nsenter", "--target", str(self.init), "--pid", "--mount")
        subprocess.run([*into, *command], check=True, timeout=30)

    def close(self) -> None:
        self.process.kill()  # --kill-child: the namespace goes with it
        self.process.wait(10)
        self._reader.join(10)
        assert self.process.stderr is not None
        self.process.stderr.close()


@pytest.fixture
def container(site: Path) -> Iterator[Container]:
    namespaces = ("unshare", "--pid", "--fork", "--mount-proc", "--ipc", "true")
    if os.geteuid() != 0 or not shutil.which("unshare") or subprocess.run(namespaces, check=False).returncode != 0:
        pytest.skip("needs root, and leave to make namespaces")
    running = Container(site)
    try:
        wait_until(lambda: running.said("ready, 2 workers"), 30, "ready")
        yield running
    finally:
        running.close()
    assert not running.said("Traceback"), running.log


def test_orphans_are_reaped_and_workers_are_not_mistaken(container: Container) -> None:
    """T-59: both kinds of ends come to PID 1; one is nobody's, and the other is to be replaced."""
    address = parse_url(container.said("listening on").partition("listening on ")[2].split()[0])
    init = container.init
    workers = set(container.children(init))
    assert len(workers) == 2
    # Its parent ends at once; what is left comes to the server, and ends there.
    container.inside("sh", "-c", "(sleep 0.2; exit 7) & (sleep 0.2; exit 7) & exit 0")
    container.inside("sh", "-c", "sleep 600 & exit 0")
    wait_until(lambda: len(container.children(init)) == 3, 20, "the orphans that end are gone, and one lives")
    assert workers < set(container.children(init))
    (orphan,) = set(container.children(init)) - workers
    os.kill(orphan, signal.SIGKILL)
    wait_until(lambda: set(container.children(init)) == workers, 20, "nothing is left of the orphan")
    assert ask(address, "/").status == 200
    assert not container.said("generation 2"), "nothing of this was about workers"

    killed = min(workers)
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: container.said("generation 2"), 20, "a worker in place of the one that was killed")
    wait_until(lambda: killed not in container.children(init), 20)
    assert "killed by SIGKILL" in "".join(container.log)
    assert ask(address, "/").status == 200


def test_reload_as_pid_1_reaps_who_stood_in(container: Container) -> None:
    """It is among the children of the next life, which looks for orphans."""
    init = container.init
    before = set(container.children(init))
    os.kill(init, signal.SIGHUP)
    wait_until(lambda: container.said("reloaded within"), 30, "reloaded")
    wait_until(lambda: len(container.children(init)) == 2, 20, "two workers, and nobody else")
    assert not before & set(container.children(init))
    assert not container.said("stand-in")


def test_sigterm_drains_and_ends_pid_1(container: Container) -> None:
    """As `docker stop` does; the kernel drops signals that PID 1 has no handler for."""
    init = container.init
    assert process_state(init) != "Z"
    os.kill(init, signal.SIGTERM)
    assert container.process.wait(30) == 0
    wait_until(lambda: container.said("stopped"), 10)
