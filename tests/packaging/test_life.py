"""The life of the package on Debian 12 and 13: what an administrator types, and what must hold after it."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.packaging.package import APT, Package
from tests.systemd.machine import wait_until

pytestmark = [pytest.mark.systemd, pytest.mark.timeout(600)]  # the first one builds packages and a machine

TREE = Path(__file__).parents[2]
PAGE = (TREE / "www/index.html").read_text()

BOTH_ENABLED = ["enabled", "enabled"]
BOTH_ACTIVE = ["active", "active"]

MINE = "<p>mine\n"


# -- installation --------------------------------------------------------------------------------------


def assert_whole(package: Package) -> None:
    """All files are as they were packaged, compiled for the Python that is there, and root's."""
    output = package.machine.output
    assert output("dpkg", "--verify", "pyserver") == ""
    assert output("dpkg", "--audit") == ""
    # Nothing is compiled while it serves: it could not write there.
    sources = output("find", "/usr/lib/pyserver/pyserver", "-name", "*.py").split()
    compiled = output("find", "/usr/lib/pyserver/pyserver", "-name", "*.pyc").split()
    assert len(sources) == len(compiled) > 50
    assert output("pyserver", "check").startswith("/etc/pyserver/pyserver.toml: ok")
    assert re.fullmatch(r"pyserver:x:\d+:\d+:pyserver web server:/:\S+\n", output("getent", "passwd", "pyserver"))
    owners = output("find", "/usr/lib/pyserver/pyserver", "/etc/pyserver", "/var/www/pyserver", "-printf", "%u:%g %M\n")
    assert set(owners.splitlines()) <= {"root:root drwxr-xr-x", "root:root -rw-r--r--"}


def test_installed_it_serves(package: Package) -> None:
    package.install(package.builds.this)
    assert package.listener()
    assert package.get("/") == PAGE
    package.machine.output("systemctl", "start", "pyserver")
    assert package.enabled() == BOTH_ENABLED
    assert package.active() == BOTH_ACTIVE
    assert package.state() == f"installed {package.builds.this}"
    assert package.machine.output("pyserver", "--version") == f"pyserver {package.builds.this}\n"
    assert package.complaints() == []
    assert package.machine.output("systemctl", "--failed", "--no-legend") == ""
    # What Debian's autopkgtest runs; itself it is run by packaging/e2e.
    package.machine.output("sh", stdin=(TREE / "packaging/debian/tests/smoke").read_text())
    assert_whole(package)


def test_a_taken_port_is_told_and_chosen_anew(package: Package) -> None:
    output = package.machine.output
    holder = ("--service-type=exec", "--unit=holder", "python3", "-m", "http.server", "80")
    output(*APT, "install", "python3", within=300)
    output("systemd-run", *holder)
    wait_until(package.listener, 20, "port 80 is taken")
    try:
        said = package.install(package.builds.this)
        assert package.state() == f"installed {package.builds.this}"
        assert "systemctl edit pyserver.socket" in said
        drop_in = "[Socket]\nListenStream=\nListenStream=8080\n"
        package.machine.write("/etc/systemd/system/pyserver.socket.d/override.conf", drop_in)
        output("systemctl", "daemon-reload")
        output("systemctl", "restart", "pyserver.socket", "pyserver.service")
        assert output("curl", "--silent", "--fail", "http://localhost:8080/") == PAGE
    finally:
        output("systemctl", "stop", "holder")
        output("rm", "-rf", "/etc/systemd/system/pyserver.socket.d")
        output("systemctl", "daemon-reload")


def test_where_services_must_not_start_it_is_only_installed(package: Package) -> None:
    """As in a build of a machine's image: policy-rc.d says so."""
    package.machine.write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", "755")
    try:
        package.install(package.builds.this)
        assert package.enabled() == BOTH_ENABLED
        assert package.active() == ["inactive", "inactive"]
    finally:
        package.machine.output("rm", "/usr/sbin/policy-rc.d")


README = (TREE / "README.md").read_text()


def commands(heading: str) -> list[str]:
    """Return the blocks of commands below a heading of the README."""
    section = README.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)


def test_the_readme_does_what_it_says(package: Package, suite: str) -> None:
    """Each block of its commands, in their order, on a machine that has never seen the package."""
    output = package.machine.output
    build, install = commands("Install")[0].splitlines()
    assert build.split()[0] == "packaging/build-deb"  # it has built this one
    blocks = commands("An administrator's five minutes")
    with_man = suite == "bookworm"  # the small Debians in there are without it; once is enough
    if with_man:
        output(*APT, "install", "man-db", within=300)
    else:
        blocks = [re.sub(r"^man .*", "", block, flags=re.MULTILINE) for block in blocks]
    output("sh", "-c", 'mkdir -p /root/tree/build && cp "$1" /root/tree/build', "sh", package.path(package.builds.this))
    try:
        installed = output("sh", "-exc", f"cd /root/tree; {install}", stdin="y\n", within=300)
        faults = output("sh", "-c", "systemd-analyze verify pyserver.service pyserver@any.service 2>&1", status=None)
        first, site, log, port, sizing, end = [output("sh", "-exc", block) for block in blocks]
    finally:
        output("rm", "-rf", "/etc/systemd/system/pyserver.socket.d", "/srv/example", "/root/tree")
        output("systemctl", "daemon-reload")
        if with_man:
            output(*APT, "purge", "man-db")
    assert "Setting up pyserver" in installed
    assert PAGE in first
    assert 'Status: "serving ' in first
    assert "/etc/pyserver/pyserver.toml: ok (" in site
    assert "\nIt is mine.\n" in site
    assert re.search(r"^ +site +example\.org: root /srv/example\b", site, re.MULTILINE)
    assert "/etc/pyserver/pyserver.toml: ok (" in log
    assert port == PAGE
    assert "workers ready" in sizing
    assert "Removing pyserver" in end
    assert package.state() == ""
    assert package.files() == set()
    if with_man:
        assert "a web server for Linux that is of systemd" in first
        assert faults == ""  # also the pages are there that the units name


# -- upgrade -------------------------------------------------------------------------------------------


def test_an_upgrade_under_load_loses_nothing(package: Package) -> None:
    package.install(package.builds.this)
    master, before, listener = package.main_pid(), package.workers(), package.listener()
    with package.load() as seen:
        package.install(package.builds.next)
    assert seen.lost == {}
    assert seen.answered > 4
    assert package.listener() == listener
    assert package.main_pid() == master  # a reload: the units are the same
    assert not set(before) & set(package.workers())
    assert package.state() == f"installed {package.builds.next}"
    assert package.complaints() == []


@pytest.fixture
def long_download(package: Package) -> Iterator["subprocess.Popen[bytes]"]:
    """Begin to read a file that is larger than what the kernel buffers."""
    package.install(package.builds.this)
    package.machine.output("sh", "-c", "head -c 33554432 /dev/urandom >/var/www/pyserver/large")
    argv = package.machine.command("curl", "--silent", "--no-buffer", "http://localhost/large")
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as client:
        yield client


def test_an_upgrade_lets_a_download_finish(package: Package, long_download: "subprocess.Popen[bytes]") -> None:
    assert long_download.stdout is not None
    begun = long_download.stdout.read(65536)
    with package.start_apt(package.builds.next) as upgrade:
        wait_until(lambda: package.says("stopping") or upgrade.poll() is not None, 300, "the old version is to go")
        received = begun + long_download.stdout.read()
        assert upgrade.wait(300) == 0
    assert len(received) == 33554432
    assert long_download.wait(60) == 0
    assert package.get("/") == PAGE
    assert package.state() == f"installed {package.builds.next}"


def test_what_the_administrator_changed_stays(package: Package) -> None:
    """And no upgrade stops at dpkg's question: the packaged file is short, and the same in each version."""
    package.install(package.builds.this)
    output = package.machine.output
    output("sh", "-c", "echo '# mine' >>/etc/pyserver/pyserver.toml")
    package.machine.write("/etc/pyserver/conf.d/mine.toml", "[server]\nworkers = 1\n")
    package.machine.write("/var/www/pyserver/index.html", MINE)
    output("rm", "/var/www/pyserver/favicon.svg")
    said = package.install(package.builds.next)
    assert "pyserver.toml" not in said
    assert "# mine" in output("cat", "/etc/pyserver/pyserver.toml")
    assert len(package.workers()) == 1
    assert package.get("/") == MINE
    assert "favicon.svg" not in output("ls", "/var/www/pyserver")


def test_a_version_that_refuses_the_configuration_waits(package: Package) -> None:
    package.install(package.builds.this)
    package.machine.write("/etc/pyserver/conf.d/mine.toml", "[server]\nhung_after = 7\n")
    package.machine.output("systemctl", "restart", "pyserver")
    before = package.processes()
    with package.load() as seen:
        said = package.install(package.builds.renaming)
    assert seen.lost == {}
    assert package.processes() == before
    assert "/etc/pyserver/conf.d/mine.toml:2: unknown key 'hung_after' in [server]" in said
    assert "systemctl restart pyserver.service" in said
    # A worker that has to be replaced meanwhile is of the old version, too.
    package.kill(next(iter(package.workers())))
    wait_until(lambda: package.says(r"worker \d \(generation 2\) ready"), 60, "a successor")
    assert package.get("/") == PAGE
    package.machine.write("/etc/pyserver/conf.d/mine.toml", "[server]\nsilence_max = 7\n")
    package.machine.output("sh", "-ec", "pyserver check && systemctl restart pyserver")
    assert not set(before) & set(package.processes())
    assert package.get("/") == PAGE


def test_disabled_stays_disabled(package: Package) -> None:
    package.install(package.builds.this)
    package.machine.output("systemctl", "disable", "--now", "pyserver.socket", "pyserver.service")
    package.install(package.builds.this, "--reinstall")
    package.install(package.builds.next)
    assert package.enabled() == ["disabled", "disabled"]
    assert package.active() == ["inactive", "inactive"]
    assert package.listener() == ""
    package.machine.output("systemctl", "enable", "--now", "pyserver.socket", "pyserver.service")
    assert package.get("/") == PAGE


def test_the_way_back_is_as_open(package: Package) -> None:
    """From a version that has another unit, so that it takes a restart."""
    package.install(package.builds.renaming)
    master, listener = package.main_pid(), package.listener()
    with package.load() as seen:
        package.install(package.builds.this, "--allow-downgrades")
    assert seen.lost == {}
    assert package.listener() == listener
    assert package.main_pid() != master
    assert package.state() == f"installed {package.builds.this}"
    assert package.get("/") == PAGE


INSTANCE = """
[[site]]
root = "/srv/{}"
"""


def test_instances_go_along(package: Package) -> None:
    package.install(package.builds.this)
    output, write = package.machine.output, package.machine.write
    units = {name: f"pyserver@{name}.service" for name in ("blog", "shop")}
    for name in units:
        write(f"/etc/pyserver/{name}/pyserver.toml", INSTANCE.format(name))
        write(f"/srv/{name}/index.html", f"{name}, mine\n")

    def asked() -> dict[str, str]:
        curl = ("curl", "--silent", "--fail", "--unix-socket")
        return {name: output(*curl, f"/run/pyserver@{name}.sock", "http://any/") for name in units}

    def masters() -> dict[str, str]:
        return {name: package.show("MainPID", unit) for name, unit in units.items()}

    def processes() -> set[str]:
        groups = [package.show("ControlGroup", unit) for unit in units.values()]
        return {pid for group in groups for pid in output("cat", f"/sys/fs/cgroup{group}/cgroup.procs").split()}

    mine = {name: f"{name}, mine\n" for name in units}
    try:
        output("systemctl", "start", *units.values())
        assert asked() == mine
        running, before = masters(), processes()
        package.install(package.builds.next)
        assert masters() == running
        assert before & processes() == set(running.values())  # all workers are new
        assert asked() == mine
        write("/etc/pyserver/blog/pyserver.toml", f"{INSTANCE.format('blog')}[server]\nhung_after = 7\n")
        said = package.install(package.builds.renaming)
        assert "/etc/pyserver/blog/pyserver.toml:5: unknown key" in said
        assert "systemctl restart pyserver@blog.service" in said
        assert masters()["blog"] == running["blog"]
        assert masters()["shop"] != running["shop"]  # a restart: the units have changed
        assert asked() == mine
        package.remove()
        assert [package.show("ActiveState", unit) for unit in units.values()] == ["inactive", "inactive"]
        assert output("find", "/run", "-name", "pyserver@*.sock") == ""
    finally:
        output("rm", "-rf", "/srv/blog", "/srv/shop")


# -- end -----------------------------------------------------------------------------------------------


def test_removed_it_is_silent_and_remembers(package: Package) -> None:
    package.install(package.builds.this)
    package.machine.write("/etc/pyserver/conf.d/mine.toml", "[server]\nworkers = 1\n")
    package.machine.write("/var/www/pyserver/mine.html", MINE)
    package.remove()
    assert package.active() == ["inactive", "inactive"]
    assert package.listener() == ""
    assert package.processes() == {}
    assert not [name for name in package.files() if name.startswith(("/usr/bin/", "/usr/lib/pyserver"))]
    package.install(package.builds.this)
    assert package.get("/mine.html") == MINE
    assert len(package.workers()) == 1


def test_purged_nothing_of_it_is_left(package: Package) -> None:
    """But for the account: files that it owned must not become another's."""
    package.install(package.builds.this)
    package.get("/")
    package.purge()
    assert package.files() == set()


def test_purged_the_administrators_site_is_left(package: Package) -> None:
    package.install(package.builds.this)
    package.machine.write("/var/www/pyserver/mine.html", MINE)
    package.machine.write("/etc/pyserver/conf.d/mine.toml", "[log]\naccess = '/var/log/pyserver/access.log'\n")
    package.machine.output("systemctl", "restart", "pyserver")
    package.get("/")
    package.purge()
    assert package.files() == {"/var/www/pyserver", "/var/www/pyserver/mine.html"}
