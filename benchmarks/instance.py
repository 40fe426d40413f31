"""A running server: started on one core with its configuration, and ended whatever happens.

Owns:    the processes of a server, which end with the `running` block, each by its id.
Fails:   Failed, with what the server said, when it ends by itself or does not answer in time.
Used by: benchmarks.measure, benchmarks.extras.
"""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks import cpu
from benchmarks.client import Failed, ask
from benchmarks.servers import Plan, Server, Setting

_READY_WITHIN_S: Final = 30
_END_WITHIN_S: Final = 15


class Instance(NamedTuple):
    """A server that answers."""

    server: Server
    setting: Setting
    pid: int


def free_port() -> int:
    """Return a port that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def running(server: Server, setting: Setting, cores: str, niceness: int = 0) -> Iterator[Instance]:
    """Start a server on these cores; it and all its processes end with the block."""
    plan = server.plan(setting)
    setting.folder.mkdir(parents=True)
    setting.folder.chmod(0o777)  # servers that give up root write here as well
    for name, text in plan.files.items():
        (setting.folder / name).write_text(text)
    output = setting.folder / "output"
    with output.open("wb") as sink:
        process = subprocess.Popen(
            _command(plan, cores, niceness),
            cwd=setting.folder,
            env=os.environ | plan.environment,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for us, who end it then
        )
    with process:
        try:
            _wait(process, setting, output)
            yield Instance(server, setting, process.pid)
        finally:
            _end(process)


def _command(plan: Plan, cores: str, niceness: int) -> list[str]:
    nice = ["nice", "-n", str(niceness)] if niceness else []
    return [*nice, "taskset", "--cpu-list", cores, *plan.argv]  # both become what they start: the id is the server's


def _wait(process: subprocess.Popen[bytes], setting: Setting, output: Path) -> None:
    deadline = time.monotonic() + _READY_WITHIN_S
    while True:
        if process.poll() is not None:
            said = output.read_text(errors="replace").strip()[-2000:]
            raise Failed(f"ended with {process.returncode}: {said}")
        with suppress(OSError, Failed):
            if (
                ask(setting.port, b"GET /1k.html HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").status
                == 200
            ):
                return
        if time.monotonic() > deadline:
            raise Failed(f"does not answer: {output.read_text(errors='replace').strip()[-2000:]}")
        time.sleep(0.05)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end; what is left of its tree then is killed."""
    if process.poll() is not None:
        return
    # By descriptor: an id could be somebody else's by the time that we kill.
    descriptors = []
    for pid in cpu.tree(process.pid):
        with suppress(OSError):
            descriptors.append(os.pidfd_open(pid))
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_END_WITHIN_S)
    for descriptor in descriptors:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        os.close(descriptor)
    process.wait()
