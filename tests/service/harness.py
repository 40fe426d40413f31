"""The running service, seen and handled the way its operator does: a small service manager, for tests.

It hands over listeners, has a notification socket and a watchdog, reads the log, and knows every process it started.
`finish` ends the service and says what was left: a traceback in the log, a process, a name in /dev/shm, a wrong exit
status. Nothing here sleeps for a thing to happen: it is told (READY=1), or asked for with `wait_until`.
"""

import contextlib
import json
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.service.client import Address, Answer, Client, ask
from tests.waiting import wait_until

from pyserver.ipc import observe, segment
from pyserver.ipc.observe import Snapshot
from pyserver.ipc.segment import Segment, SegmentError

TREE = Path(__file__).parents[2]
HERE = Path(__file__).parent
SHM = Path("/dev/shm")

# What the interpreter or our own log says when something went wrong that nobody expected.
UNWANTED = re.compile(r"Traceback|Exception ignored|Warning:|Fatal Python error|an error of ours|internal error")

CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2  # capabilities(7): root without them obeys file modes


@dataclass(frozen=True, slots=True)
class Notification:
    """One message to the service manager."""

    at: float  # monotonic
    values: dict[str, str]


class Server:
    """One `pyserver serve`."""

    def __init__(
        self,
        root: Path,
        *,
        config: Path | None = None,  # instead of the root
        bind: Sequence[str] = ("127.0.0.1:0",),
        listeners: Sequence[tuple[str, socket.socket]] = (),
        listen_pid: int | None = None,  # None: its own
        named: bool = True,
        workers: int | None = 2,
        threads: int = 4,
        access_log: Path | None = None,
        settings: Mapping[str, object] | None = None,  # --set
        watchdog: float = 0,
        nofile: int = 0,
        without: Sequence[int] = (),  # capabilities
        dev: bool = True,
        code: Path = TREE / "service",
        within: Sequence[
            str
        ] = (),  # a program that becomes its command, in other circumstances: unshare(1), prlimit(1)
        environ: Mapping[str, str] | None = None,  # further variables
    ) -> None:
        self.log: list[str] = []
        self.notifications: list[Notification] = []
        self.expected_status = 0
        self.may_complain = False  # about a Traceback in the log
        self._home = tempfile.TemporaryDirectory(prefix="pyserver-")  # short: it is part of a socket's address
        self._watchdog = watchdog
        self._code = code
        self._environ = environ or {}
        arguments = ["serve", *(("--root", str(root)) if config is None else ("--config", str(config)))]
        arguments += ["--threads", str(threads), *(() if workers is None else ("--workers", str(workers)))]
        for address in bind:
            arguments += ["--bind", address]
        if access_log is not None:
            arguments += ["--access-log", str(access_log)]
        for key, value in (settings or {}).items():
            arguments += ["--set", f"{key}={value}"]
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(f"{self._home.name}/notify")
        self._process = self._start(
            [*within, sys.executable, *(("-W", "error", "-X", "dev") if dev else ()), "-m", "pyserver", *arguments],
            {
                "listeners": [one.fileno() for _, one in listeners],
                "names": [name for name, _ in listeners] if named else [],
                "listen_pid": listen_pid,
                "nofile": nofile,
                "without": list(without),
            },
        )
        self.pid = self._process.pid
        self._segment: Segment | None = None
        self._over = threading.Event()
        self._reader = threading.Thread(target=self._read, name=f"log of {self.pid}")
        self._reader.start()

    def _start(self, command: list[str], order: Mapping[str, object]) -> subprocess.Popen[bytes]:
        environ = {key: value for key, value in os.environ.items() if not key.startswith(("LISTEN_", "PYTHON"))}
        environ |= {"PYTHONPATH": str(self._code), "NOTIFY_SOCKET": f"{self._home.name}/notify"}
        if self._watchdog:
            environ["WATCHDOG_USEC"] = str(int(self._watchdog * 1e6))
        environ |= self._environ
        descriptors = order["listeners"]
        assert isinstance(descriptors, list)
        return subprocess.Popen(
            [sys.executable, "-I", "-S", str(HERE / "launch.py"), json.dumps(order), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=descriptors,
            start_new_session=True,
            env=environ,
            cwd=self._home.name,
        )

    # -- what it says ---------------------------------------------------------------------------

    def _read(self) -> None:
        """Collect log lines and notifications until the last process is gone."""
        stderr = self._process.stderr
        assert stderr is not None
        rest = b""
        with selectors.DefaultSelector() as selector:
            selector.register(stderr, selectors.EVENT_READ)
            selector.register(self._notify, selectors.EVENT_READ)
            while not self._over.is_set():
                for key, _ in selector.select(0.1):
                    if key.fileobj is self._notify:
                        text = self._notify.recv(8192).decode()
                        values = dict(line.split("=", 1) for line in text.splitlines())
                        self.notifications.append(Notification(time.monotonic(), values))
                    else:
                        data = os.read(stderr.fileno(), 65536)
                        *lines, rest = (rest + data).split(b"\n")
                        self.log.extend(line.decode(errors="backslashreplace") for line in lines)
                        if not data:
                            selector.unregister(stderr)

    def notified(self, name: str) -> list[Notification]:
        """Return the notifications so far that carry `name`."""
        return [each for each in self.notifications if name in each.values]

    def logged(self, pattern: str) -> list[str]:
        """Return the log lines so far that match."""
        return [line for line in self.log if re.search(pattern, line)]

    @contextlib.contextmanager
    def logs(self, pattern: str, times: int = 1, within: float = 5.0) -> Iterator[None]:
        """Expect so many new matching lines from what is done inside."""
        mark = len(self.log)
        yield
        self._wait_for_lines(pattern, mark, times, within)
        seen = [line for line in self.log[mark:] if re.search(pattern, line)]
        assert len(seen) == times, (pattern, self.log[mark:])

    def _wait_for_lines(self, pattern: str, mark: int, times: int, within: float) -> None:
        wait_until(
            lambda: sum(bool(re.search(pattern, line)) for line in self.log[mark:]) >= times,
            within,
            f"{times} log lines {pattern!r}, only:\n" + "\n".join(self.log[mark:]),
        )

    def ready(self, within: float = 15.0) -> Self:
        """Wait until it says READY=1."""
        wait_until(lambda: self.notified("READY") or self._process.poll() is not None, within, "READY=1")
        if not self.notified("READY"):
            self._settle()
            raise AssertionError(f"exited with {self._process.returncode} before it was ready:\n" + "\n".join(self.log))
        return self

    @property
    def urls(self) -> list[str]:
        """Where it says that it listens."""
        return [found[1] for line in self.log if (found := re.search(r"listening on (\S+)", line))]

    @property
    def address(self) -> Address:
        """The first address that it listens on."""
        return parse_url(self.urls[0])

    # -- what a client does ------------------------------------------------------------------------

    def client(self, *, within: float = 5.0, receive_buffer: int = 0, source: str = "") -> Client:
        """Connect."""
        return Client(self.address, within=within, receive_buffer=receive_buffer, source=source)

    @contextlib.contextmanager
    def clients(self, count: int, *, within: float = 5.0) -> Iterator[list[Client]]:
        """Connect so many at once."""
        with contextlib.ExitStack() as stack:
            yield [stack.enter_context(self.client(within=within)) for _ in range(count)]

    def ask(self, target: str = "/", *fields: str, method: str = "GET", within: float = 5.0) -> Answer:
        """Send one request on a connection of its own."""
        return ask(self.address, target, *fields, method=method, within=within)

    # -- what an operator looks at --------------------------------------------------------------------

    def look(self, *, alive: bool = True) -> Snapshot:
        """Return what `pyserver status` would show, without the cost of a process."""
        if self._segment is None:
            self._segment = Segment.attach(f"pyserver.{self.pid}")
        return observe.snapshot(self._segment, alive=alive)

    def status(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `pyserver status` for this server."""
        return run("status", "--name", f"pyserver.{self.pid}", *arguments)

    def reload(self, *arguments: str, within: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run `pyserver reload` for this server."""
        return run("reload", "--name", f"pyserver.{self.pid}", *arguments, within=within)

    def counters(self) -> dict[str, int]:
        """Return the totals."""
        return self.look().totals

    def workers(self) -> dict[int, int]:
        """Return the process id of each slot that has a process."""
        return {worker.slot: worker.pid for worker in self.look().workers if worker.pid}

    def generations(self) -> dict[int, int]:
        """Return how often each slot was filled."""
        return {worker.slot: worker.generation for worker in self.look().workers}

    def all_ready(self) -> bool:
        """Tell whether every worker is ready."""
        return all(worker.state == "ready" for worker in self.look().workers)

    def replaced(self, slot: int, generation: int, within: float = 10.0) -> None:
        """Wait until the successor of a worker is ready."""
        wait_until(
            lambda: any(
                worker.slot == slot and worker.generation > generation and worker.state == "ready"
                for worker in self.look().workers
            ),
            within,
            f"a successor of worker {slot} (generation {generation})",
        )

    def weighed(self, within: float = 20.0) -> None:
        """Wait until the memory of all processes is known: the master looks once a second."""
        wait_until(lambda: all(worker.memory for worker in self.look().workers if worker.pid), within)

    # -- what an operator does --------------------------------------------------------------------------

    def send_signal(self, number: int) -> None:
        """Signal the master."""
        self._process.send_signal(number)

    def kill_worker(self, slot: int, number: int = signal.SIGKILL) -> int:
        """Signal a worker and return its process id."""
        pid = self.workers()[slot]
        os.kill(pid, number)
        return pid

    @staticmethod
    def kill_process(pid: int, number: int = signal.SIGKILL) -> None:
        """Signal a process of the service; one that has just gone is not an error."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def ended(self) -> bool:
        """Tell whether the master is gone."""
        return self._process.poll() is not None

    def stop_workers(self) -> list[int]:
        """SIGSTOP every worker, and wait until each has stopped."""
        pids = list(self.workers().values())
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: all(process_state(pid) == "T" for pid in pids))
        return pids

    def kill_master(self) -> None:
        """SIGKILL the master, and reap it."""
        self.expected_status = -signal.SIGKILL
        self._process.kill()
        self._process.wait(5)

    def wait(self, within: float = 10.0) -> int:
        """Return the exit status of the master."""
        try:
            return self._process.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {within} s:\n" + "\n".join(self.log[-20:])) from None

    def stop(self, number: int = signal.SIGTERM, within: float = 10.0) -> int:
        """Signal the master, and return its exit status."""
        self.send_signal(number)
        return self.wait(within)

    def survivors(self) -> list[int]:
        """Return the processes of the service's session that still run."""
        return [pid for pid in processes() if session_of(pid) == self.pid and process_state(pid) not in ("Z", "")]

    # -- the end --------------------------------------------------------------------------------------

    def finish(self) -> None:
        """End it if it runs, and assert that nothing is amiss and nothing is left."""
        if self._over.is_set():
            return
        amiss: list[str] = []
        for pid in self.survivors():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        if self._process.poll() is None:
            try:
                self.stop(within=15)
            except AssertionError:
                amiss.append("did not stop within 15 s of SIGTERM")
                self.kill_master()
        killed = self._process.wait() < 0
        try:
            wait_until(lambda: not self.survivors(), within=5)
        except AssertionError:
            amiss.append(f"processes that outlived it: {[(pid, title(pid)) for pid in self.survivors()]}")
            for pid in self.survivors():
                os.kill(pid, signal.SIGKILL)
        if self._process.returncode != self.expected_status:
            amiss.append(f"exit status {self._process.returncode}, expected {self.expected_status}")
        self._settle()
        if killed:
            segment.sweep()  # as the next start does
        amiss += [f"left in /dev/shm: {name}" for name in self.names()]
        if not self.may_complain:
            amiss += [f"in the log: {line}" for line in self.log if UNWANTED.search(line)]
        self._close()
        assert not amiss, "\n".join([*amiss, "-- log --", *self.log[-60:]])

    def names(self) -> list[str]:
        """Return what this server has in /dev/shm."""
        ours = re.compile(rf"(sem\.)?pyserver\.{self.pid}(?!\d)")
        return sorted(path.name for path in SHM.iterdir() if ours.match(path.name))

    def _settle(self) -> None:
        """Wait until everything that was said has been read."""
        time.sleep(0.02)  # the pipe's end is there at once; datagrams are in the queue
        self._over.set()
        self._reader.join(5)

    def _close(self) -> None:
        if self._segment is not None:
            self._segment.close()
        self._notify.close()
        assert self._process.stderr is not None
        self._process.stderr.close()
        self._home.cleanup()


class Load:
    """Clients in a process of their own, from `with` to its end; then `failures` and `answered` are there."""

    def __init__(
        self,
        address: Address,
        targets: Mapping[str, str],
        *,
        one_shot: int = 4,
        keep_alive: int = 4,
        rest: float = 0,  # seconds of each client between two requests
    ) -> None:
        self._order = {
            "address": address,
            "targets": targets,
            "one_shot": one_shot,
            "keep_alive": keep_alive,
            "rest": rest,
        }
        self.answered: dict[str, int] = {}
        self.failures: list[dict[str, Any]] = []
        self.longest = 0.0

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.service.client", json.dumps(self._order)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=TREE,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            output, _ = self._process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise
        if error is None:
            told = json.loads(output)
            self.answered, self.failures, self.longest = told["answered"], told["failures"], told["longest"]


# -- the system ------------------------------------------------------------------------------------


def run(*arguments: str, within: float = 20.0) -> subprocess.CompletedProcess[str]:
    """Run a command of pyserver to its end."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", "-m", "pyserver", *arguments],
        env={**os.environ, "PYTHONPATH": str(TREE / "service")},
        capture_output=True,
        text=True,
        timeout=within,
        check=False,
    )


def parse_url(url: str) -> Address:
    """Return the address in `http://127.0.0.1:80`, `http://[::1]:80` or `unix:/run/x.sock`."""
    if url.startswith("unix:"):
        return url.removeprefix("unix:")
    host, _, port = url.partition("://")[2].rpartition(":")
    return host.strip("[]"), int(port)


def processes() -> list[int]:
    """Return every process there is."""
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the name, which may hold anything; none if the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def process_state(pid: int) -> str:
    """Return the one-letter state of a process (proc(5)), "" if it is gone."""
    fields = _stat(pid)
    return fields[0] if fields else ""


def session_of(pid: int) -> int:
    """Return the session of a process."""
    fields = _stat(pid)
    return int(fields[3]) if fields else -1


def children_of(pid: int) -> list[int]:
    """Return the children of a process, also those that have ended and were not reaped."""
    return [each for each in processes() if (fields := _stat(each)) and int(fields[1]) == pid]


def cpu_seconds(pid: int) -> float:
    """Return user and system time of a process."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def title(pid: int) -> str:
    """Return the command line of a process, as ps shows it."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ").decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def descriptors(pid: int) -> dict[int, str]:
    """Return the open descriptors of a process, and what each is."""
    found = {}
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found[int(path.name)] = str(path.readlink())
    return found


__all__ = [
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "SHM",
    "Load",
    "SegmentError",
    "Server",
    "children_of",
    "cpu_seconds",
    "descriptors",
    "parse_url",
    "process_state",
    "processes",
    "run",
    "title",
    "wait_until",
]
