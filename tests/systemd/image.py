"""A Debian root file system with systemd and what pyserver depends on, built once and kept.

Owns:    .cache/systemd/ of the project: one directory for each content (suite and packages are in its name).
Never:   installs pyserver itself: that is mounted, so that a test sees the tree as it is now.
Fails:   Unavailable where nothing can be built (not root, a tool is missing); BuildError where building failed.
Used by: tests.systemd.conftest, tests.systemd.events.
"""

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from tests.systemd.machine import Unavailable

# What a suite is, by the systemd in it.
SUITES = {"bookworm": 252, "trixie": 257}

# Beside systemd and the server's dependencies: what an administrator has at hand, and the tests with him.
PACKAGES = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "python3",
    "python3-systemd",
    "python3-sdnotify",
    "python3-setproctitle",
    "curl",
    "iproute2",
    "procps",
    "logrotate",
)

# Not in Debian: the wheel of the version that we test with elsewhere.
POSIX_IPC = f"posix_ipc=={version('posix_ipc')}"

CACHE = Path(__file__).parents[2] / ".cache" / "systemd"


class BuildError(Exception):
    """The root file system could not be made; the text ends with what the tool said."""


def image(suite: str = "bookworm", more: tuple[str, ...] = ()) -> Path:
    """Return the root file system with `more` packages, building it if this is the first time (half a minute)."""
    need_tools()
    packages = [*PACKAGES, *more]
    key = hashlib.sha256(" ".join([suite, *packages, POSIX_IPC]).encode()).hexdigest()[:12]
    kind = "+".join([suite, *more])
    root = CACHE / f"{kind}-{key}"
    with lock():
        if not root.is_dir():
            remove_others(kind)
            build(root, suite, packages)
    return root


def need_tools() -> None:
    """Raise Unavailable unless this process may build and boot a root file system."""
    if os.geteuid() != 0:
        raise Unavailable("booting systemd in a container needs root")
    missing = [tool for tool in ("mmdebstrap", "systemd-nspawn", "nsenter", "setpriv") if not shutil.which(tool)]
    if missing:
        raise Unavailable(f"not installed: {', '.join(missing)}")


@contextmanager
def lock() -> Iterator[None]:
    """Let one test run build while another waits for it."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def remove_others(kind: str) -> None:
    """Remove what an earlier package list or an interrupted build left."""
    for old in CACHE.glob(f"{kind}-*"):
        shutil.rmtree(old)


def build(root: Path, suite: str, packages: list[str]) -> None:
    """Make the root file system beside its place, and move it there when it is whole."""
    part = root.with_name(f"{root.name}.part")
    command(
        "mmdebstrap",
        "--variant=minbase",
        f"--include={','.join(packages)}",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        suite,
        str(part),
    )
    install_posix_ipc(part)
    (part / "etc/machine-id").write_text("")  # each boot is a machine of its own
    part.rename(root)


def install_posix_ipc(root: Path) -> None:
    """Unpack the wheel that fits the Python in there, which need not be ours."""
    python = (root / "usr/bin/python3").readlink().name.removeprefix("python")
    wheels = [
        f"{tag}_{platform.machine()}" for tag in ("manylinux1", "manylinux_2_5", "manylinux2014", "manylinux_2_17")
    ]
    command(
        *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"),
        *(f"--target={root}/usr/local/lib/python{python}/dist-packages", "--only-binary=:all:"),
        *(f"--python-version={python}", *(f"--platform={wheel}" for wheel in wheels), POSIX_IPC),
    )


def command(*argv: str) -> None:
    done = subprocess.run(
        argv, check=False, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode != 0:
        raise BuildError(f"{argv[0]} ended with {done.returncode}:\n{done.stdout[-3000:]}")
