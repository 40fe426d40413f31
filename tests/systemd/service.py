"""pyserver in a booted machine: what an administrator types and sees.

Owns:    the installed configuration, launcher and state of the units in there.
Never:   looks into the server by other means than systemctl, journalctl, ps, curl and /dev/shm.
Fails:   AssertionError or CommandError: each is a test's failure.
Used by: tests.systemd.
"""

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.service.client import NOTHING, STALL_S
from tests.systemd.machine import Machine, wait_until

TREE = Path(__file__).parents[2]
PAGE = TREE / "www/index.html"
LAUNCHER = (TREE / "packaging/launcher").read_text()

# What of the tree is seen in the machine, read-only.
SHOWN = {
    TREE / "service/pyserver": "/usr/share/pyserver/service/pyserver",
    TREE / "systemd": "/usr/share/pyserver/systemd",
    TREE / "www": "/var/www/pyserver",
}

# What a package brings and does. Its modules are compiled: otherwise each start takes twice the time.
INSTALL = """
    cp -rp /usr/share/pyserver/service /usr/lib/pyserver
    python3 -I -m compileall -q /usr/lib/pyserver
    cp /usr/share/pyserver/systemd/*.service /usr/share/pyserver/systemd/*.socket /etc/systemd/system/
    mkdir -p /usr/local/lib/sysusers.d
    cp /usr/share/pyserver/systemd/pyserver.sysusers.conf /usr/local/lib/sysusers.d/pyserver.conf
    systemd-sysusers
    systemctl daemon-reload
"""

CONFIG = """\
[server]
workers = 2

[log]
access = "/var/log/pyserver/access.log"

[[site]]
root = "/var/www/pyserver"
"""

UNITS = ("pyserver.socket", "pyserver-control.socket", "pyserver.service")


def install(machine: Machine) -> None:
    """Install from the tree, which a machine that was booted with SHOWN sees."""
    machine.write("/usr/bin/pyserver", LAUNCHER, "755")
    machine.write("/etc/pyserver/pyserver.toml", CONFIG)
    machine.output("sh", "-ec", INSTALL)


@dataclass
class Load:
    """What the clients of Service.load() saw; known when its block has ended."""

    answered: int = 0
    lost: dict[str, int] = field(default_factory=dict)


@dataclass
class Clients:
    """What the clients of clients() saw; known when its block has ended."""

    answered: dict[str, int] = field(default_factory=dict)
    longest: float = 0.0
    stalls: list[tuple[float, float]] = field(default_factory=list)  # since when (monotonic), and how long
    failures: list[dict[str, Any]] = field(default_factory=list)
    idle: dict[str, int] = field(default_factory=dict)
    download: tuple[str, float] | None = None  # its outcome, and when that was


@contextmanager
def clients(
    machine: Machine,
    *,
    idle: int = 0,
    one_shot: int = 2,
    keep_alive: int = 2,
    rest: float = 0.0,
    download: tuple[str, str, float] | None = None,
    missing: str = "",
    stall: float = STALL_S,
) -> Iterator[Clients]:
    """Keep clients of every kind while the block runs; each answer is compared with what there is to get.

    `rest` is what each of them waits before a request, `download` a target, its digest and the seconds it shall take,
    `missing` a target that is not there, for which they ask every other time, `stall` the wait that is worth noting.
    """
    seen = Clients()
    page = hashlib.sha256(PAGE.read_bytes()).hexdigest()
    targets = {"/": page} | ({missing: NOTHING} if missing else {})
    order: dict[str, Any] = {"address": ["127.0.0.1", 80], "targets": targets, "stall": stall}
    order |= {"one_shot": one_shot, "keep_alive": keep_alive, "idle": idle, "rest": rest}
    if download is not None:
        order["download"] = download
    program = machine.beside(sys.executable, "-m", "tests.service.client", json.dumps(order))
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=TREE) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "begun\n"
        try:
            yield seen
        finally:
            report, _ = running.communicate(timeout=90)
    assert running.returncode == 0
    vars(seen).update(json.loads(report))


@contextmanager
def journal_stopped(machine: Machine) -> Iterator[None]:
    """Have journald stand still while the block runs."""
    pid = machine.output("systemctl", "show", "--value", "--property=MainPID", "systemd-journald.service").strip()
    assert int(pid) > 1
    machine.output("kill", "-STOP", pid)
    try:
        yield
        assert "State:\tT" in machine.output("cat", f"/proc/{pid}/status")  # all the time
    finally:
        machine.output("kill", "-CONT", pid)


class Service:
    """The two units of pyserver in one machine."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._cursor = ""

    # -- life ------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Put it into the state after installation, and forget the journal so far."""
        self.stop()
        self.machine.output("systemctl", "reset-failed", *UNITS, status=None)
        self.configure(CONFIG)
        self._cursor = self._last_cursor()

    def configure(self, text: str) -> None:
        """Replace the configuration file."""
        self.machine.write("/etc/pyserver/pyserver.toml", text)

    def start(self) -> None:
        """Start as the promise says: one command, and when it returns pages are served."""
        self.machine.output("systemctl", "start", "pyserver")

    def stop(self) -> None:
        """Stop listener and service."""
        self.machine.output("systemctl", "stop", *UNITS)

    def assert_nothing_left(self) -> None:
        """After stop: no process, nothing in /dev/shm; and nothing in the journal that is a mistake of ours."""
        assert self.processes() == {}
        assert self.machine.output("ls", "-A", "/dev/shm") == ""
        told = "\n".join(self.messages())
        assert "Traceback" not in told, told[told.index("Traceback") :][:4000]

    # -- what is seen ----------------------------------------------------------------------------------------

    def show(self, name: str, unit: str = "pyserver.service") -> str:
        """Return one property of a unit (systemctl show)."""
        return self.machine.output("systemctl", "show", "--value", f"--property={name}", unit).strip()

    def is_active(self, unit: str = "pyserver.service") -> bool:
        return self.show("ActiveState", unit) == "active"

    def main_pid(self) -> int:
        """Return the master's process id in there; it has one."""
        pid = int(self.show("MainPID"))
        assert pid > 1, "pyserver.service has no main process"  # kill(0) and kill(1) would hit others
        return pid

    def processes(self) -> dict[int, str]:
        """Return the service's processes, by id, with their titles."""
        group = self.show("ControlGroup")
        if not group:
            return {}
        pids = self.machine.output("cat", f"/sys/fs/cgroup{group}/cgroup.procs", status=None).split()
        if not pids:
            return {}
        lines = self.machine.output("ps", "-o", "pid=,args=", "-p", ",".join(pids), status=None).splitlines()
        return {int(pid): title for pid, title in (line.split(maxsplit=1) for line in lines)}

    def workers(self) -> dict[int, str]:
        """Return the processes that are not the master."""
        return {pid: title for pid, title in self.processes().items() if pid != self.main_pid()}

    def kill(self, pid: int) -> None:
        """End one of the service's processes without any warning."""
        assert pid > 1
        self.machine.output("kill", "-KILL", str(pid))

    def status(self) -> dict[str, Any]:
        """Return what `pyserver status` knows."""
        found: dict[str, Any] = json.loads(self.machine.output("pyserver", "status", "--json"))
        return found

    def get(self, path: str = "/", *, within: float = 20.0) -> str:
        """Fetch from http://localhost as a visitor of the machine would; any status but 2xx is a failure."""
        curl = ("curl", "--silent", "--show-error", "--fail", "--max-time", str(within))
        return self.machine.output(*curl, f"http://localhost{path}")

    # -- the journal -----------------------------------------------------------------------------------------

    def journal(self) -> list[dict[str, Any]]:
        """Return the unit's records since reset(), systemd's about it included."""
        self.machine.output("journalctl", "--sync")
        lines = self.machine.output(
            "journalctl", "--unit=pyserver.service", "--output=json", f"--after-cursor={self._cursor}"
        )
        return [json.loads(line) for line in lines.splitlines()]

    def messages(self) -> list[str]:
        return [str(record["MESSAGE"]) for record in self.journal()]

    def says(self, pattern: str) -> bool:
        """Tell whether a message since reset() matches."""
        return any(re.search(pattern, message) for message in self.messages())

    def _last_cursor(self) -> str:
        self.machine.output("journalctl", "--sync")
        shown = self.machine.output("journalctl", "--lines=1", "--output=json")
        return str(json.loads(shown)["__CURSOR"])

    # -- load ------------------------------------------------------------------------------------------------

    @contextmanager
    def load(self, clients: int = 4) -> Iterator[Load]:
        """Keep clients asking, each request on a new connection, while the block runs."""
        seen = Load()
        program = self.machine.beside(sys.executable, str(Path(__file__).with_name("load.py")), "80", str(clients))
        with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
            try:
                yield seen
            finally:
                report, _ = running.communicate(timeout=60)
        assert running.returncode == 0
        vars(seen).update(json.loads(report))

    @contextmanager
    def clients(self, idle: int = 0, one_shot: int = 2, keep_alive: int = 2) -> Iterator[Clients]:
        """Keep clients of every kind while the block runs; each answer is compared with what there is to get."""
        with clients(self.machine, idle=idle, one_shot=one_shot, keep_alive=keep_alive) as seen:
            yield seen

    def wait_until_active(self, within: float = 20.0) -> None:
        wait_until(self.is_active, within, "pyserver.service is active")
