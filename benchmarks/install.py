"""Installing what is compared: Debian's packages as they are, PyPI's into a private environment.

Owns:    .cache/benchmarks.
Never:   starts a service: the packages of servers would, and a policy-rc.d forbids it while they are installed.
Fails:   Failed, with the command's last words.
Used by: benchmarks.main.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.client import Failed
from benchmarks.servers import CACHE, FLOOR, VENV, Server

_TOOLS: Final = ("wrk", "util-linux")
_POLICY: Final = Path("/usr/sbin/policy-rc.d")


def install(servers: Iterable[Server], *tools: str) -> None:
    """Install what is missing, with some more packages of Debian."""
    chosen = list(servers)
    CACHE.mkdir(parents=True, exist_ok=True)
    _debs([*_TOOLS, *tools, *(deb for server in chosen for deb in server.debs)])
    _pypi([name for server in chosen for name in server.pypi])
    for server in chosen:
        if server.prepare:
            _run(list(server.prepare))
    if any(server.name == "floor" for server in chosen):
        source = Path(__file__).with_name("floor.c")
        _run(["cc", "-O2", "-Wall", "-Wextra", "-o", str(FLOOR), str(source)])


def _debs(names: list[str]) -> None:
    if not shutil.which("dpkg-query"):
        return  # not a Debian: what is on PATH has to do
    missing = [name for name in names if not _installed(name)]
    if not missing:
        return
    if os.geteuid() != 0:
        raise Failed(f"missing; as root: apt-get install {' '.join(missing)}")
    _say(f"installing {' '.join(missing)} (apt-get)")
    command = ["apt-get", "-q", "-y", "--no-install-recommends", "install", *missing]
    with _no_service_starts():
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        if subprocess.run(command, check=False, capture_output=True, env=environment).returncode != 0:
            _run(["apt-get", "-q", "update"])
            _run(command, environment)


def _installed(name: str) -> bool:
    query = ["dpkg-query", "-W", "-f", "${db:Status-Status}", name]
    return subprocess.run(query, check=False, capture_output=True, text=True).stdout == "installed"


@contextmanager
def _no_service_starts() -> Iterator[None]:
    """Tell the packages not to start their services: what is on port 80 of this machine is not ours to choose."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()


def _pypi(names: list[str]) -> None:
    stamp = VENV / ".holds"
    held = set(stamp.read_text().split()) if stamp.exists() else set()
    if set(names) <= held:
        return
    _say(f"installing {' '.join(sorted(set(names) - held))} (pip)")
    if not (VENV / "bin/python").exists():
        _run([sys.executable, "-m", "venv", str(VENV)])
    _run([str(VENV / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *names])
    stamp.write_text("\n".join(sorted(held | set(names))))


def version(server: Server) -> str:
    """Return what a server says of its version, one line."""
    if server.name == "floor":
        return "floor.c"
    done = subprocess.run(server.version, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0] if lines else "?"


def _run(command: list[str], environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL
    )
    if done.returncode != 0:
        raise Failed(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()[-2000:]}")


def _say(text: str) -> None:
    print(f"benchmarks: {text}", file=sys.stderr, flush=True)
