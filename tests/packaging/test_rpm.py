"""The .rpm, built by Debian's rpmbuild and installed by rpm in a booted Debian: no Fedora is at hand to try it in."""

import os
import re
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.packaging.builds import TREE, Builds, copy_tree, need_tools, said
from tests.packaging.conftest import required
from tests.packaging.image import image
from tests.packaging.package import APT, SHELF, Package
from tests.systemd.machine import CommandError, Machine, wait_until

pytestmark = [pytest.mark.systemd, pytest.mark.timeout(600)]  # the first one builds packages and a machine

PAGE = (TREE / "www/index.html").read_text()

# Debian's rpm asks to be told that dpkg is not meant.
RPM = ("rpm", "--force-debian")


@pytest.fixture(scope="module")
def rpms(builds: Builds) -> Builds:
    """Build the packages of two versions, beside the others."""
    with required():
        need_tools("rpmbuild", "rpmlint")
    for tree in (TREE, builds.folder / builds.next, builds.folder / builds.renaming):
        said(str(tree / "packaging/build-rpm"), str(builds.folder))
    shim = ("rpmbuild", "-bb", f"--define=_topdir {builds.folder}/shim", f"--define=_rpmdir {builds.folder}/shim")
    said(*shim, str(Path(__file__).with_name("debian-shim.spec")))
    shutil.copy(next(builds.folder.glob("shim/noarch/*.rpm")), builds.folder / "debian-shim.rpm")
    return builds


def rpm_of(version: str) -> str:
    return f"{SHELF}/pyserver-{version}-1.noarch.rpm"


@pytest.fixture(scope="module")
def machine(rpms: Builds) -> Iterator[Machine]:
    """Boot a Debian with rpm in it, and with what Fedora has as packages."""
    with ExitStack() as stack:
        with required():
            booted = stack.enter_context(Machine.boot(image("bookworm"), {rpms.folder: SHELF}))
        booted.output(*APT, "install", "rpm", "python3-systemd", "python3-sdnotify", "python3-setproctitle", within=300)
        with zipfile.ZipFile(next((TREE / ".cache/vendor").glob("*-cp311-*.whl"))) as wheel:
            module = next(name for name in wheel.namelist() if name.endswith(".so"))
            wheel.extract(module, rpms.folder)
        booted.output("cp", f"{SHELF}/{module}", "/usr/lib/python3/dist-packages/")
        yield booted


def test_rpmlint_has_nothing_to_say(rpms: Builds) -> None:
    packages = [str(path) for path in rpms.folder.glob(f"pyserver-{rpms.this}-1.*.rpm")]
    assert len(packages) == 2  # noarch and src
    answer = said("rpmlint", "--config", str(TREE / "packaging/rpm/rpmlint.toml"), *packages)
    assert " 0 errors, 0 warnings" in answer


def test_both_kinds_of_package_have_the_same_files(rpms: Builds) -> None:
    ours = set(
        said("rpm", "--query", "--list", "--package", str(rpms.folder / rpm_of(rpms.this)[len(SHELF) + 1 :])).split()
    )
    listed = said("dpkg-deb", "--contents", str(rpms.folder / rpms.deb(rpms.this))).splitlines()
    theirs = {line.split()[5].removeprefix(".") for line in listed if not line.startswith("d")}
    place = {"/usr/share/zsh/site-functions/_pyserver": "/usr/share/zsh/vendor-completions/_pyserver"}
    only_debs = {name for name in theirs if re.search(r"/doc/|/lintian/|/posix_ipc|/ufw/|\.rtupdate$|/man/", name)}
    assert theirs - only_debs <= {place.get(name, name) for name in ours}


def test_the_same_tree_gives_the_same_bytes(rpms: Builds, tmp_path: Path) -> None:
    """Elsewhere, with another umask, zone and language."""
    tree, name = copy_tree(tmp_path / "elsewhere"), rpm_of(rpms.this).removeprefix(f"{SHELF}/")
    first = rpms.folder / name
    for path in tree.rglob("*"):
        os.utime(path, (1_800_000_000, 1_800_000_000))
    # The time that build-rpm takes from the tree: here there is no commit.
    epoch = said("rpm", "--query", "--queryformat=%{BUILDTIME}", "--package", str(first))
    subprocess.run(
        ["sh", "-c", 'umask 077; exec "$0" "$1"', str(tree / "packaging/build-rpm"), str(tmp_path / "out")],
        check=True,
        env={**os.environ, "LC_ALL": "C", "TZ": "Pacific/Auckland", "SOURCE_DATE_EPOCH": epoch},
        capture_output=True,
    )
    assert (tmp_path / "out" / name).read_bytes() == first.read_bytes()


def test_the_life_of_the_rpm(machine: Machine, rpms: Builds) -> None:
    package = Package(machine, rpms)
    package.reset()
    output = machine.output
    with pytest.raises(CommandError, match="posix-ipc"):
        output(*RPM, "-U", rpm_of(rpms.this))
    output(*RPM, "-U", "--nodeps", f"{SHELF}/debian-shim.rpm")

    output(*RPM, "-U", rpm_of(rpms.this))
    output("systemctl", "start", "pyserver")
    assert package.get("/") == PAGE
    assert package.complaints() == []
    compiled = output("find", "/usr/lib/pyserver", "-name", "*.pyc").split()
    assert len(compiled) == len(output("find", "/usr/lib/pyserver", "-name", "*.py").split()) > 50

    machine.write("/etc/pyserver/conf.d/mine.toml", "[server]\nhung_after = 7\n")
    output("sh", "-c", "echo '# mine' >>/etc/pyserver/pyserver.toml")
    output("sh", "-c", "head -c 33554432 /dev/urandom >/var/www/pyserver/large")  # more than what the kernel buffers
    download = machine.command("curl", "--silent", "--no-buffer", "http://localhost/large")
    with subprocess.Popen(download, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        begun = client.stdout.read(65536)
        master, before, listener = package.main_pid(), package.processes(), package.listener()
        with package.load() as seen:
            output(*RPM, "-U", rpm_of(rpms.next))
        assert seen.lost == {}
        assert package.listener() == listener
        assert package.main_pid() == master  # a reload, and not a restart, which would have cut the download
        assert set(package.processes()) - set(before)  # new workers, beside the one that has the download
        assert len(begun + client.stdout.read()) == 33554432
    assert output("pyserver", "--version") == f"pyserver {rpms.next}\n"
    assert "# mine" in output("cat", "/etc/pyserver/pyserver.toml")

    before = package.processes()
    refused = output("sh", "-c", 'exec "$@" 2>&1', "sh", *RPM, "-U", rpm_of(rpms.renaming))
    assert "unknown key 'hung_after'" in refused
    assert package.processes() == before
    assert package.get("/") == PAGE
    machine.write("/etc/pyserver/conf.d/mine.toml", "")
    with package.load() as seen:
        output(*RPM, "-U", "--oldpackage", rpm_of(rpms.this))
    assert seen.lost == {}
    assert package.listener() == listener
    assert package.main_pid() != master  # the units of the other version are not the same

    output("mkdir", "-p", "/etc/pyserver/blog", "/srv/blog")
    machine.write("/etc/pyserver/blog/pyserver.toml", '[[site]]\nroot = "/srv/blog"\n')
    output("systemctl", "start", "pyserver@blog")
    output(*RPM, "-e", "pyserver")
    assert package.show("ActiveState", "pyserver@blog.service") == "inactive"
    wait_until(lambda: package.active() == ["inactive", "inactive"], 30, "both units stopped")
    assert package.listener() == ""
    assert output("find", "/usr", "-name", "*pyserver*") == ""
    package.assert_nothing_left()
