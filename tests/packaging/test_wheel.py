"""What pip makes of the tree: a wheel and a source distribution with everything in it, and a command that serves."""

import os
import re
import subprocess
import sys
import tarfile
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.packaging.builds import TREE, copy_tree
from tests.packaging.conftest import required
from tests.service.harness import wait_until
from tests.systemd.image import image
from tests.systemd.machine import Machine

from pyserver import __version__
from pyserver.config import DEFAULT_FILE

FOLDERS = {"service/pyserver": "pyserver", "systemd": "pyserver/data/systemd", "www": "pyserver/data/www"}
SDIST = "from setuptools import build_meta; build_meta.build_sdist({!r})"
ENVIRON = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "NOTIFY_", "LISTEN_"))}


def run(*command: object, cwd: Path | None = None) -> str:
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env=ENVIRON, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the tree: building leaves things behind."""
    tree = copy_tree(tmp_path_factory.mktemp("source") / "tree")
    for name in ("pyproject.toml", "MANIFEST.in"):
        (tree / name).write_bytes((TREE / name).read_bytes())
    return tree


@pytest.fixture(scope="module")
def sdist(source: Path) -> Path:
    run(sys.executable, "-c", SDIST.format(str(source.parent / "sdist")), cwd=source)
    (found,) = (source.parent / "sdist").glob("*.tar.gz")
    return found


@pytest.fixture(scope="module")
def wheel(sdist: Path) -> Path:
    """Return the wheel that the source distribution gives: nothing that it needs is only in the tree."""
    folder = sdist.parent / "wheel"
    quiet = ("--quiet", "--disable-pip-version-check")
    run(sys.executable, "-m", "pip", "wheel", *quiet, "--no-build-isolation", "--no-deps", "-w", folder, sdist)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def command(wheel: Path) -> Path:
    """Return the command of an installation in a venv, which finds the libraries where these tests have them."""
    venv = wheel.parent / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", venv)
    (packages,) = venv.glob("lib/python3*/site-packages")
    (packages / "libraries.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")))
    options = ("--quiet", "--disable-pip-version-check", "--no-deps", "--no-index", "--ignore-installed")
    run(sys.executable, "-m", "pip", f"--python={venv}/bin/python", "install", *options, wheel)
    return venv / "bin/pyserver"


@pytest.fixture
def served(command: Path, tmp_path: Path) -> Iterator[str]:
    """Serve without being told what, and return where."""
    if os.path.lexists(DEFAULT_FILE):
        pytest.skip(f"{DEFAULT_FILE} says what to serve")
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        server = subprocess.Popen(
            [command, "serve", "--bind", "127.0.0.1:0", "--workers", "1"], cwd=tmp_path, env=ENVIRON, stderr=stderr
        )
    try:
        wait_until(lambda: "ready, 1 worker" in log.read_text() or server.poll() is not None, 30, "ready")
        found = re.search(r"listening on (http://\S+)", log.read_text())
        assert found, log.read_text()
        yield found[1]
    finally:
        server.terminate()
        status = server.wait(30)
    assert status == 0, log.read_text()
    assert "serving the page that comes with pyserver" in log.read_text()


def test_the_wheel_has_every_file_and_no_other(wheel: Path) -> None:
    expected = {f"{place}/{name}" for folder, place in FOLDERS.items() for name in files(TREE / folder)}
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
        assert found == expected
        for folder, place in FOLDERS.items():
            for name in files(TREE / folder):
                assert archive.read(f"{place}/{name}") == (TREE / folder / name).read_bytes(), name
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        assert f"\nVersion: {__version__}\n" in archive.read(metadata).decode()
    assert wheel.name == f"pyserver-{__version__}-py3-none-any.whl"


def test_the_source_distribution_has_what_other_packages_are_built_from(sdist: Path, source: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    assert names >= {f"{part}/{name}" for part in (*FOLDERS, "docs", "packaging") for name in files(source / part)}
    assert {"CHANGELOG.md", "LICENSE", "README.md", "pyproject.toml"} <= names


def test_it_serves_its_page_when_nothing_is_given(served: str) -> None:
    with urllib.request.urlopen(served, timeout=30) as answer:
        assert answer.read() == (TREE / "www/index.html").read_bytes()


def test_the_command_tells_its_version_and_prints_units(command: Path) -> None:
    assert run(command, "--version") == f"pyserver {__version__}\n"
    printed = run(command, "units", "--print", "--command", "/opt/pyserver/bin/pyserver")
    assert "# /etc/systemd/system/pyserver.socket\n" in printed
    assert "\nExecStart=/opt/pyserver/bin/pyserver serve --config /etc/pyserver/pyserver.toml\n" in printed
    assert "/usr/bin/pyserver" not in printed


# What pip does, in a machine without it: the same venv, files and script.
INSTALL = """
    python3 -m venv --system-site-packages --without-pip /opt/pyserver
    python3 -m zipfile -e /srv/wheels/*.whl /opt/pyserver/lib/python3*/site-packages
    cat >/opt/pyserver/bin/pyserver
    chmod 755 /opt/pyserver/bin/pyserver
    ln -s /opt/pyserver/bin/pyserver /usr/local/bin/pyserver
"""

SCRIPT = """\
#!/opt/pyserver/bin/python3
import sys
from pyserver.cli import main
sys.exit(main())
"""


@pytest.fixture
def machine(wheel: Path) -> Iterator[Machine]:
    """Boot a Debian with the libraries, and the wheel in a venv."""
    with required():
        booted = Machine.boot(image("bookworm"), {wheel.parent: "/srv/wheels"})
    with booted:
        booted.output("sh", "-ec", INSTALL, stdin=SCRIPT)
        yield booted


def test_its_units_run_it_under_systemd_as_those_of_a_package_do(machine: Machine) -> None:
    said = machine.output("/usr/local/bin/pyserver", "units", "--install", "/")
    _, _, next_steps = said.partition("next, as root:\n")
    assert next_steps.count("\n") == 2
    machine.output("sh", "-ec", next_steps)
    page = machine.output("curl", "--silent", "--fail", "http://localhost/")
    assert page == (TREE / "www/index.html").read_text()
    machine.output("systemctl", "reload", "pyserver.service")
    assert machine.output("curl", "--silent", "--fail", "http://localhost/") == page
    shown = machine.output("systemctl", "show", "--property=User,ExecStart,RootDirectory", "pyserver.service")
    assert "path=/opt/pyserver/bin/pyserver" in shown
    assert "User=pyserver" in shown
    assert "RootDirectory=/run/pyserver.root" in shown
    assert machine.output("systemctl", "is-enabled", "pyserver.socket") == "enabled\n"
