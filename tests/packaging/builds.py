"""Packages of this tree and of two later versions of it, built by packaging/build-deb.

Owns:    the folder that it is given, with copies of the tree and the packages.
Never:   changes the tree, or gives the build anything that a build by hand would not have.
Fails:   Unavailable where a tool is missing; BuildError where building failed.
Used by: tests.packaging.conftest.
"""

import re
import shutil
import subprocess
from pathlib import Path

from tests.systemd.image import command
from tests.systemd.machine import Unavailable

from pyserver import __version__

TREE = Path(__file__).parents[2]

# What of the tree a package is made from.
PARTS = ("CHANGELOG.md", "LICENSE", "README.md", "docs", "packaging", "service", "systemd", "www")

# An option of this version, and its name in the last one: that refuses a configuration with the old name.
RENAMED = ("hung_after", "silence_max")


def need_tools(*tools: str) -> None:
    """Raise Unavailable unless packages can be built and looked at."""
    missing = [tool for tool in tools if not shutil.which(tool)]
    if missing:
        raise Unavailable(f"not installed: {', '.join(missing)}")


class Builds:
    """The three versions: this tree, the next, and one that has an option renamed and a unit changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.this = __version__
        self.next = _later(__version__, 1)
        self.renaming = _later(__version__, 2)
        self._build(TREE)
        self._build(self._tree(self.next))
        self._build(self._tree(self.renaming, *RENAMED))

    def deb(self, version: str) -> str:
        """Return the name of a package in the folder."""
        return f"pyserver_{version}_amd64.deb"

    def _tree(self, version: str, old: str = "", new: str = "") -> Path:
        tree = copy_tree(self.folder / version)
        if old:
            for module in (tree / "service").rglob("*.py"):
                module.write_text(re.sub(rf"\b{old}\b", new, module.read_text()))
            for unit in (tree / "systemd").glob("pyserver*.service"):
                unit.write_text(f"{unit.read_text()}# {version}\n")
        package = tree / "service/pyserver/__init__.py"
        package.write_text(package.read_text().replace(f'"{__version__}"', f'"{version}"'))
        return tree

    def _build(self, tree: Path) -> None:
        command(str(tree / "packaging/build-deb"), str(self.folder))


def copy_tree(to: Path) -> Path:
    """Copy what packages are made from, with the wheels that were fetched already."""
    to.mkdir()
    for part in PARTS:
        source = TREE / part
        if source.is_dir():
            shutil.copytree(source, to / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, to / part)
    if (TREE / ".cache/vendor").is_dir():
        shutil.copytree(TREE / ".cache/vendor", to / ".cache/vendor")
    return to


def _later(version: str, by: int) -> str:
    *leading, last = version.split(".")
    return ".".join([*leading, str(int(last) + by)])


def said(*argv: str, status: int = 0) -> str:
    """Run a program of the host and return what it said on both streams."""
    done = subprocess.run(argv, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == status, f"{argv[0]} ended with {done.returncode}: {done.stdout}"
    return done.stdout
