"""A Debian booted by its systemd in a container, driven the way an administrator would.

Owns:    the container's processes and control groups; stop() ends and removes them. If we are killed, the kernel
         tells the container to shut down.
Never:   writes to the root file system it boots (what is written goes to memory), or ends a process by its name.
Fails:   Unavailable (this host does not boot containers), CommandError (a command in there failed).
Used by: tests.systemd.
"""

import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from tests.waiting import wait_until

# Where a host has control groups that a process can join: systemd's own tree of version 1, the hybrid, version 2.
HIERARCHIES = [Path("/sys/fs/cgroup") / tree for tree in ("systemd", "unified", ".")]

# A machine's name, of the process that booted it and a number, is also that of its control groups.
PREFIX = "pyserver-test-"
NUMBERS = count()

# A booted container is up in half a second; a loaded host may need many times that.
BOOT_BUDGET_S = 30.0
STOP_BUDGET_S = 20.0

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
    "SYSTEMD_PAGER": "",
    "SYSTEMD_COLORS": "0",
}

# Join the control groups named before "--", then become the command after it. The supervisor needs groups of its
# own from the start: nspawn puts the container's below its caller's, and two containers of one caller would share
# them.
JOIN = 'while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs" || exit; shift; done; shift; exec "$@"'


class Unavailable(Exception):
    """This host cannot do it; the text says why."""


class CommandError(Exception):
    """A command in the machine ended with another status than 0; the text is what it said."""


class Machine:
    """One container, from boot() to stop()."""

    def __init__(
        self, name: str, groups: list[Path], supervisor: "subprocess.Popen[bytes]", console: IO[bytes]
    ) -> None:
        self.name = name
        self._groups = groups
        self._supervisor = supervisor
        self._console = console
        self._leader = 0  # the container's PID 1, as a process of the host
        self._leader_fd = -1

    # -- life -----------------------------------------------------------------------------------------

    @classmethod
    def boot(cls, root: Path, shown: Mapping[Path, str]) -> Self:
        """Boot the root file system `root`; `shown` is what of the host is seen in there (read-only), and where."""
        sweep_groups()
        name = f"{PREFIX}{os.getpid()}-{next(NUMBERS)}"
        groups = [tree / name for tree in HIERARCHIES if (tree / "cgroup.procs").exists()]
        for group in groups:
            group.mkdir()
        console = tempfile.TemporaryFile()  # noqa: SIM115 - closed in stop()
        supervisor = subprocess.Popen(
            [
                *("sh", "-c", JOIN, "sh", *map(str, groups), "--"),
                *("setpriv", "--pdeathsig=TERM"),  # nspawn shuts the container down on SIGTERM
                *("systemd-nspawn", "--quiet", f"--directory={root}", f"--machine={name}", "--boot"),
                "--volatile=overlay",
                "--register=no",
                "--keep-unit",
                "--private-network",
                "--kill-signal=SIGRTMIN+3",
                "--console=pipe",
                # What nspawn keeps from its guests, and a kernel would not.
                "--system-call-filter=landlock_create_ruleset landlock_add_rule landlock_restrict_self",
                *(f"--bind-ro={outside}:{inside}" for outside, inside in shown.items()),
            ],
            env={**ENVIRONMENT, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},  # cgroup 2 in there on any host
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a terminal's ^C is for us; we end it in order
        )
        machine = cls(name, groups, supervisor, console)
        try:
            wait_until(machine._is_up, BOOT_BUDGET_S, f"{name} booted")
        except BaseException as error:
            console.seek(0)
            said = console.read()[-3000:].decode(errors="replace")
            machine.stop()
            if isinstance(error, Unavailable | AssertionError):
                raise Unavailable(f"systemd does not boot in a container here ({error}): {said}") from error
            raise
        return machine

    def _is_up(self) -> bool:
        if self._supervisor.poll() is not None:
            raise Unavailable(f"systemd-nspawn ended with {self._supervisor.returncode}")
        if not self._leader and not self._find_leader():
            return False
        # Not all of a Debian works in a container: "degraded" is as up as "running".
        return self.output("systemctl", "is-system-running", status=None).strip() in ("running", "degraded")

    def _find_leader(self) -> bool:
        # nspawn forks more than once before one child becomes systemd, so look again each time.
        for task in Path(f"/proc/{self._supervisor.pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                with suppress(OSError):
                    if Path(f"/proc/{child}/comm").read_text() == "systemd\n":
                        self._leader = int(child)
                        self._leader_fd = os.pidfd_open(self._leader)
                        return True
        return False

    def stop(self) -> None:
        """End the container at once and remove what the host had for it. Nothing in there is worth a shutdown."""
        with suppress(ProcessLookupError):
            if self._leader:
                signal.pidfd_send_signal(self._leader_fd, signal.SIGKILL)  # takes its whole PID namespace with it
            else:
                self._supervisor.terminate()
        try:
            self._supervisor.wait(STOP_BUDGET_S)
        except subprocess.TimeoutExpired:
            self._supervisor.kill()
            self._supervisor.wait()
        if self._leader:
            os.close(self._leader_fd)
        for group in self._groups:
            wait_until(partial(remove_group, group), STOP_BUDGET_S, f"{group} removed")
        self._console.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- commands in there ----------------------------------------------------------------------------------

    def command(self, *argv: str) -> list[str]:
        """Return what to run on the host so that `argv` runs in there, as root."""
        enter = f"nsenter --target={self._leader} --mount --uts --ipc --net --pid --cgroup --root --wd --".split()
        environment = [f"{name}={value}" for name, value in ENVIRONMENT.items()]
        return [*enter, "/usr/bin/env", "-i", *environment, *argv]

    def beside(self, *argv: str) -> list[str]:
        """Return what to run so that `argv` runs with the host's files and the container's network."""
        return ["nsenter", f"--target={self._leader}", "--net", "--", *argv]

    def outside(self, pid: int) -> int:
        """Return the process id that a process in there has on the host."""
        namespace = Path(f"/proc/{self._leader}/ns/pid").readlink()
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has just ended
                if (folder / "ns/pid").readlink() == namespace:
                    inside = re.search(r"^NSpid:.*\s(\d+)$", (folder / "status").read_text(), re.MULTILINE)
                    if inside is not None and int(inside[1]) == pid:
                        return int(folder.name)
        raise ProcessLookupError(f"no process {pid} in {self.name}")

    def output(self, *argv: str, status: int | None = 0, stdin: str = "", within: float = 60.0) -> str:
        """Run `argv` in there and return what it said; raise CommandError if it ends otherwise than with `status`."""
        done = subprocess.run(
            self.command(*argv), check=False, input=stdin, capture_output=True, text=True, timeout=within
        )
        if status is not None and done.returncode != status:
            raise CommandError(f"{' '.join(argv)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def write(self, path: str, text: str, mode: str = "644") -> None:
        """Put a file there, with its folders."""
        self.output("sh", "-ec", 'mkdir -p "${1%/*}"; cat >"$1"; chmod "$2" "$1"', "sh", path, mode, stdin=text)


def sweep_groups() -> None:
    """Remove the groups of test runs that were killed."""
    for tree in HIERARCHIES:
        for group in tree.glob(f"{PREFIX}*"):
            owner = group.name.removeprefix(PREFIX).partition("-")[0]
            if not Path("/proc", owner).exists():
                remove_group(group)


def remove_group(group: Path) -> bool:
    """Remove a control group with all below it; False if the kernel still holds one of its processes."""
    try:
        for folder, _, _ in os.walk(group, topdown=False):
            Path(folder).rmdir()
    except OSError:
        return False
    return True


__all__ = [
    "HIERARCHIES",
    "PREFIX",
    "CommandError",
    "Machine",
    "Unavailable",
    "sweep_groups",
    "wait_until",
]
