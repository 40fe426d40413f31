"""What a server needs around it where no package has put it there: units, account, catalog, log rotation, a first site.

Owns:    where each of these files belongs, and what its text is for the command that runs here.
Never:   starts or enables anything; replaces a configuration or a site that is there.
Fails:   Unusable: units for this command could not work, or are not here to be had; OSError from writing.
Used by: cli.

An installation by pip has the files in data/ beside this module, which pyproject.toml makes of systemd/ and www/; a
checkout has them where they are written. A package of the distribution has put them in their places already.
"""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

_DATA: Final = Path(__file__).with_name("data")
_TREE: Final = Path(__file__).parents[2]

# By ending: the folder, and the name there if it is another. Those of an administrator, where an upgrade of the
# distribution changes nothing; journalctl looks for catalogs below /usr only.
_PLACES: Final = {
    ".service": ("etc/systemd/system", ""),
    ".socket": ("etc/systemd/system", ""),
    ".catalog": ("usr/local/lib/systemd/catalog", ""),
    ".sysusers.conf": ("etc/sysusers.d", "pyserver.conf"),
    ".logrotate": ("etc/logrotate.d", "pyserver"),
    ".toml": ("etc/pyserver", ""),
}
_EXAMPLES: Final = "usr/local/share/doc/pyserver/examples"
_SITE: Final = "var/www/pyserver"

_COMMAND: Final = "/usr/bin/pyserver"  # as the units of the tree have it
_PYTHON: Final = "/usr/bin/python3"

# Where the units let the service see nothing of the host (ProtectHome=, PrivateTmp=), or nothing stays.
_HIDDEN: Final = ("/home", "/root", "/tmp", "/var/tmp", "/run", "/dev", "/proc", "/sys")  # noqa: S108  # nosec B108  # named, not used

# A path that means itself in a unit: no blank, no quote, no specifier.
_PLAIN: Final = re.compile(r"(/[A-Za-z0-9._+-]+)+")


class Unusable(Exception):
    """Why there are no units for this command, as a line for the administrator."""


class File(NamedTuple):
    """One file, and whether it becomes the administrator's own: then it is written once."""

    place: str  # below the root
    content: bytes
    once: bool = False


def data(name: str) -> Path | None:
    """Return the folder `systemd` or `www` of this installation, or None where a package has put it elsewhere."""
    if (_DATA / name).is_dir():
        return _DATA / name
    # Above a module in site-packages there is somebody else's.
    return _TREE / name if (_TREE / "systemd/pyserver.service").is_file() else None


def files(command: str) -> Iterator[File]:
    """Yield the files for a server that runs by this command, without the site."""
    folder = data("systemd")
    if folder is None:
        raise Unusable("this pyserver came with its units: systemctl cat pyserver.service")
    shown = _shown(command)
    found = [path for path in folder.rglob("*") if path.is_file()]
    for path in sorted(found, key=lambda path: (path.parent != folder, path.name)):  # examples last
        text = path.read_text()
        text = text.replace(f"BindReadOnlyPaths={_COMMAND} {_PYTHON}", f"BindReadOnlyPaths={shown}")
        yield File(_place(path, folder), text.replace(_COMMAND, command).encode(), path.suffix == ".toml")


def _place(path: Path, folder: Path) -> str:
    if path.parent != folder:
        return f"{_EXAMPLES}/{path.name}"
    for ending, (place, name) in _PLACES.items():
        if path.name.endswith(ending):
            return f"{place}/{name or path.name}"
    raise AssertionError(f"say in _PLACES where {path.name} belongs")


def _shown(command: str) -> str:
    """Return what the service has to see of the host to run: the command, with the venv that it is of, and Python."""
    venv = Path(command).parents[1]
    parts = [str(venv) if (venv / "pyvenv.cfg").exists() else command, _python()]
    for part in parts:
        if not _PLAIN.fullmatch(part):
            raise Unusable(f"{part!r} has a character that means something else in a unit; install pyserver elsewhere")
        hidden = next((each for each in _HIDDEN if part == each or part.startswith(f"{each}/")), None)
        if hidden:
            raise Unusable(
                f"{part} is in {hidden}, where the service sees nothing; install pyserver in a venv below /opt"
            )
    return " ".join(parts)


def _python() -> str:
    """Return the interpreter by the name that a venv links to; one that is not the distribution's, with all of it."""
    if sys.base_prefix != "/usr":
        return sys.base_prefix
    path = Path(sys.executable)
    while path.is_symlink() and path.is_relative_to(sys.prefix) and sys.prefix != sys.base_prefix:
        path = path.parent / path.readlink()
    return str(path)


def this_command() -> str:
    """Return the path of the command that runs, past all links: they are not there for the service."""
    path = os.path.realpath(sys.argv[0])
    if path.endswith(".py"):
        raise Unusable("this is not the command of an installation; name it: --command /opt/pyserver/bin/pyserver")
    return path


def check_command(root: Path, command: str) -> str:
    """Return a warning where a root does not have the command so far; raises Unusable if it is this system's."""
    path = root / command.lstrip("/")
    if path.is_file() and os.access(path, os.X_OK):
        return ""
    if os.path.realpath(root) == "/":
        raise Unusable(f"{command} is no program here; install pyserver there first, or name its own: --command FILE")
    return f"{path} is no program so far; the units that name it cannot start before it is"


def install(root: Path, command: str) -> Iterator[str]:
    """Write everything below a root, and yield what was done with each file."""
    for file in files(command):
        yield _write(root, file)
    site, pages = root / _SITE, data("www")
    if pages is None or os.path.lexists(site):
        yield f"{site}: left as it is"
        return
    for path in sorted(each for each in pages.rglob("*") if each.is_file()):
        yield _write(root, File(f"{_SITE}/{path.relative_to(pages)}", path.read_bytes()))


def _write(root: Path, file: File) -> str:
    path = root / file.place
    if file.once and os.path.lexists(path):
        return f"{path}: left as it is"
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")  # systemd never reads half a unit
    beside.write_bytes(file.content)
    beside.chmod(0o644)
    beside.replace(path)
    return f"{path}: written"
