"""Debian root file systems without Python, for packages to be installed in: one for each suite, built once and kept.

Owns:    .cache/packaging/ of the project: one directory for each content (suite and packages are in its name).
Never:   installs what the package depends on. That is downloaded into apt's cache there, so that apt itself resolves
         and installs it, in a container that has no network.
Fails:   Unavailable where nothing can be built (not root, a tool is missing); BuildError where building failed.
Used by: tests.packaging.conftest.
"""

import hashlib
import re
import shutil
from pathlib import Path

from tests.systemd.image import command, lock, need_tools

TREE = Path(__file__).parents[2]
CACHE = TREE / ".cache" / "packaging"

# What an administrator has at hand, and the tests with him.
PACKAGES = ("systemd", "systemd-sysv", "dbus", "curl", "iproute2", "procps")

SUITES = ("bookworm", "trixie")


def wanted() -> list[str]:
    """Return what is downloaded: all that ours depends on or recommends, rpm for its other form, and `man`."""
    return [
        "man-db",
        "rpm",
        *sorted(set(re.findall(r"\bpython3\b[\w-]*", (TREE / "packaging/debian/control").read_text()))),
    ]


def recipe(suite: str, *more: str) -> list[str]:
    """Return the command that makes a root file system, but for its place; `more` is downloaded, too."""
    # Recommended packages come along, as they do for an administrator: mmdebstrap has that switched off.
    download = "apt-get -o APT::Install-Recommends=true --yes --download-only install"
    return [
        "mmdebstrap",
        "--variant=minbase",
        f"--include={','.join(PACKAGES)}",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        '--aptopt=Acquire::Languages "none"',
        "--skip=cleanup/apt",  # package lists and downloads stay for the apt in there
        f'--customize-hook=chroot "$1" {download} {" ".join([*wanted(), *more])}',
        suite,
    ]


def image(suite: str, *more: str) -> Path:
    """Return the root file system, building it if this is the first time (a quarter of a minute)."""
    need_tools()
    key = hashlib.sha256("\n".join(recipe(suite, *more)).encode()).hexdigest()[:12]
    kind = "-".join([*more[:1], suite])
    root = CACHE / f"{kind}-{key}"
    with lock():
        if not root.is_dir():
            CACHE.mkdir(parents=True, exist_ok=True)
            for old in CACHE.glob(f"{kind}-*"):
                shutil.rmtree(old)
            build(recipe(suite, *more), root)
    return root


def build(recipe: list[str], root: Path) -> None:
    """Make the root file system beside its place, and move it there when it is whole."""
    part = root.with_name(f"{root.name}.part")
    command(*recipe, str(part))
    (part / "etc/machine-id").write_text("")  # each boot is a machine of its own
    part.rename(root)
