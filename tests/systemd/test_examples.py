"""What the examples in systemd/examples say is what happens; and several instances do not meet."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.systemd.image import SUITES
from tests.systemd.machine import CommandError, wait_until
from tests.systemd.service import CONFIG, Service

pytestmark = [
    pytest.mark.systemd,
    pytest.mark.timeout(600),  # the first one may have to build the machine
    pytest.mark.parametrize("suite", SUITES, indirect=True, scope="session"),
]

TREE = Path(__file__).parents[2]
PAGE = (TREE / "www/index.html").read_text()
EXAMPLES = TREE / "systemd/examples"
UNITS = "/run/systemd/system"


@contextmanager
def installed(service: Service, name: str) -> Iterator[None]:
    """Have an example in force where its comment says, and started as it says."""
    text = (EXAMPLES / name).read_text()
    found = re.search(r"As /etc/systemd/system/(\S+?)[;,]? ", " ".join(text.split()))
    assert found is not None
    place = f"{UNITS}/{found[1]}"
    assert place.endswith(f"/{name}")
    service.machine.write(place, text)
    service.machine.output("systemctl", "daemon-reload")
    verify = "systemd-analyze verify --man=no pyserver.service pyserver.socket 2>&1"
    try:
        assert service.machine.output("sh", "-c", verify) == ""
        yield
    finally:
        service.stop()
        service.machine.output("rm", place)
        service.machine.output("systemctl", "daemon-reload")


def test_another_root(service: Service) -> None:
    service.machine.write("/home/alice/site/index.html", "of alice\n")
    service.configure(CONFIG.replace("/var/www/pyserver", "/home/alice/site"))
    with installed(service, "root.conf"):
        service.start()
        assert service.get("/") == "of alice\n"


def test_limits(service: Service) -> None:
    with installed(service, "limits.conf"):
        service.start()
        assert service.get("/") == PAGE
        # That they hold takes controllers, which a container may not have: tests/systemd/kernel.
        shown = {name: service.show(name) for name in ("MemoryMax", "CPUWeight", "TasksMax")}
        assert shown == {"MemoryMax": str(512 << 20), "CPUWeight": "50", "TasksMax": "256"}


def test_private_shared_memory(service: Service) -> None:
    with installed(service, "private-shm.conf"):
        service.start()
        assert service.get("/") == PAGE
        assert service.machine.output("ls", "-A", "/dev/shm") == ""
        with pytest.raises(CommandError, match="no running pyserver"):
            service.machine.output("pyserver", "status")
        within = ("nsenter", "--mount", "--target", str(service.main_pid()), "/usr/bin/pyserver", "status")
        assert "2/2 workers ready" in service.machine.output(*within)


def test_the_root_of_the_host(service: Service) -> None:
    service.machine.write("/data/site/index.html", "elsewhere\n")
    service.configure(CONFIG.replace("/var/www/pyserver", "/data/site"))
    with installed(service, "host-root.conf"):
        service.start()
        assert service.get("/") == "elsewhere\n"
        shown = service.machine.output("systemd-analyze", "security", "--no-pager", "pyserver.service")
        found = re.search(r"Overall exposure level for pyserver.service: ([\d.]+) ", shown)
        assert found is not None
        assert found[1] == "0.4"
        protections = json.loads(service.machine.output("pyserver", "status", "--json"))["protections"]
        assert {name for name, on in protections.items() if not on} == {"root", "programs"}


def test_a_unix_socket_for_a_proxy(service: Service) -> None:
    with installed(service, "unix.conf"):
        service.machine.output("systemctl", "restart", "pyserver.socket", "pyserver.service")
        asked = ("curl", "--silent", "--fail", "--unix-socket", "/run/pyserver.sock", "http://localhost/")
        assert service.machine.output(*asked) == PAGE
        stat = service.machine.output("stat", "--format=%G %a", "/run/pyserver.sock")
        assert stat == "www-data 660\n"
        with pytest.raises(CommandError):
            service.get("/", within=2)
    assert service.machine.output("ls", "/run/pyserver.sock", status=None) == ""


@contextmanager
def placed(service: Service, name: str) -> Iterator[str]:
    """Have an example that is no unit where its comment says."""
    text = (EXAMPLES / name).read_text()
    found = re.search(r"As (/etc/\S+?)[:,] ", " ".join(text.split()))
    assert found is not None
    service.machine.output("mkdir", "-p", str(Path(found[1]).parent))
    service.machine.write(found[1], text)
    try:
        yield found[1]
    finally:
        service.machine.output("rm", found[1])


def test_a_preset(service: Service) -> None:
    units = ("pyserver.socket", "pyserver.service")

    def enabled() -> str:
        return service.machine.output("systemctl", "is-enabled", *units, status=None)

    service.machine.output("systemctl", "disable", *units)
    assert enabled() == "disabled\ndisabled\n"
    with placed(service, "pyserver.preset"):
        try:
            service.machine.output("systemctl", "preset", *units)
            assert enabled() == "enabled\nenabled\n"
        finally:
            service.machine.output("systemctl", "disable", *units)


def test_a_folder_for_several_who_deploy(service: Service) -> None:
    """What is made in it is the group's, whoever makes it, and the server reads it."""
    with placed(service, "pyserver.tmpfiles.conf") as place:
        service.machine.output("systemd-tmpfiles", "--create", place)
        try:
            service.machine.write("/srv/www/index.html", "deployed\n")
            stat = service.machine.output("stat", "--format=%U %G %a", "/srv/www", "/srv/www/index.html")
            assert stat.splitlines()[0] == "root users 2775"
            assert stat.splitlines()[1].startswith("root users ")
            service.configure(CONFIG.replace("/var/www/pyserver", "/srv/www"))
            service.start()
            assert service.get("/") == "deployed\n"
            service.stop()
        finally:
            service.machine.output("rm", "-r", "/srv/www")


def test_addresses(service: Service) -> None:
    with installed(service, "addresses.conf"):
        service.machine.output("systemctl", "restart", "pyserver.socket", "pyserver.service")
        assert service.get("/") == PAGE
        # That others are refused is BPF's business, which a container has not: tests/systemd/kernel.
        allowed = service.show("IPAddressAllow", "pyserver.socket").split()
        assert "192.0.2.0/24" in allowed
        assert service.show("IPAccounting", "pyserver.socket") == "yes"


def test_a_listener_for_administrators(service: Service) -> None:
    with installed(service, "pyserver-admin.socket"):
        service.machine.output("systemctl", "restart", "pyserver-admin.socket", "pyserver.service")
        try:
            asked = ("curl", "--silent", "--fail", "--unix-socket", "/run/pyserver-admin.sock")
            assert service.machine.output(*asked, "http://localhost/readyz") == "ready\n"
            document = json.loads(service.machine.output(*asked, "http://localhost/status.json"))
            assert document["master_pid"] == service.main_pid()
            assert service.get("/") == PAGE

            def known() -> bool:
                """Of processes, behind all the walls: the master sees them, and tells those who see nothing."""
                seen = json.loads(service.machine.output(*asked, "http://localhost/status.json"))
                memory = [seen["master_rss_bytes"], *(worker["rss_bytes"] for worker in seen["workers"])]
                return bool(seen["master_open_fds"]) and all(memory)

            wait_until(known, 20, "the memory of all processes")
            stat = service.machine.output("stat", "--format=%G %a", "/run/pyserver-admin.sock")
            assert stat == "pyserver 660\n"
        finally:
            service.machine.output("systemctl", "stop", "pyserver-admin.socket")


def test_a_second_listener(service: Service) -> None:
    with installed(service, "pyserver-second.socket"):
        service.machine.output("systemctl", "restart", "pyserver-second.socket", "pyserver.service")
        try:
            for port in (80, 8080):
                assert service.machine.output("curl", "--silent", "--fail", f"http://127.0.0.1:{port}/") == PAGE
        finally:
            service.machine.output("systemctl", "stop", "pyserver-second.socket")


# -- instances ---------------------------------------------------------------------------------------


NAMES = ("blog", "shop-2")


@pytest.fixture
def instances(service: Service) -> Iterator[Service]:
    """Two instances beside the service itself, each with a page, a log and a configuration of its own."""
    machine = service.machine
    for name in NAMES:
        machine.write(f"/srv/{name}/index.html", f"{name}\n")
        config = CONFIG.replace("/var/www/pyserver", f"/srv/{name}").replace("workers = 2", "workers = 1")
        machine.write(f"/etc/pyserver/{name}/pyserver.toml", config.replace("/access.log", f"/{name}/access.log"))
    units = [f"pyserver@{name}.{kind}" for name in NAMES for kind in ("socket", "service")]
    try:
        yield service
    finally:
        machine.output("systemctl", "stop", *units)
        machine.output("sh", "-c", "rm -rf /etc/pyserver/blog /etc/pyserver/shop-2 /srv/blog /srv/shop-2")


def page_of(service: Service, name: str) -> str:
    socket = f"/run/pyserver@{name}.sock"
    return service.machine.output("curl", "--silent", "--fail", "--unix-socket", socket, "http://localhost/")


def test_instances_do_not_meet(instances: Service) -> None:
    service, machine = instances, instances.machine
    service.start()
    machine.output("systemctl", "start", *(f"pyserver@{name}" for name in NAMES))
    assert service.get("/") == PAGE
    assert [page_of(service, name) for name in NAMES] == [f"{name}\n" for name in NAMES]

    masters = {
        name: machine.output("systemctl", "show", "--value", "-p", "MainPID", f"pyserver@{name}") for name in NAMES
    }
    titles = machine.output("ps", "-e", "-o", "args=").splitlines()
    for title in ("pyserver: master", "pyserver@blog: master", "pyserver@shop-2: master", "pyserver@blog: worker 0"):
        assert titles.count(title) == 1

    # `status` finds each by its name, and does not guess.
    with pytest.raises(CommandError, match=r"choose one with --name: ") as refused:
        machine.output("pyserver", "status")
    assert all(f" ({name})" in str(refused.value) for name in NAMES)

    def status(name: str) -> dict[str, Any]:
        seen: dict[str, Any] = json.loads(machine.output("pyserver", "status", "--json", "--name", name))
        return seen

    for name in NAMES:
        assert status(name)["master_pid"] == int(masters[name])
        wait_until(partial(lambda name: status(name)["totals"]["requests"] == 1, name), 10, "the request counted")

    # What happens to one happens to no other.
    machine.output("systemctl", "stop", "pyserver@blog.socket", "pyserver@blog.service")
    assert page_of(service, "shop-2") == "shop-2\n"
    assert service.get("/") == PAGE
    machine.output("kill", "-KILL", masters["shop-2"].strip())
    assert page_of(service, "shop-2") == "shop-2\n"
    assert status("shop-2")["alive"]

    def logged(name: str) -> str:
        return machine.output("cat", f"/var/log/pyserver/{name}/access.log", status=None)

    wait_until(lambda: logged("shop-2").count("GET / ") >= 2, 10, "lines in the log of the instance")
    assert logged("blog").count("GET / ") == 1
    assert "/shop-2" not in machine.output("journalctl", "--unit=pyserver@blog", "--output=cat")


def test_an_instance_is_as_confined_as_the_service(instances: Service) -> None:
    machine = instances.machine
    machine.output("systemctl", "start", "pyserver@blog")
    shown = machine.output("systemd-analyze", "security", "--no-pager", "pyserver@blog.service")
    assert "Overall exposure level for pyserver@blog.service: 0.3 " in shown
    protections = json.loads(machine.output("pyserver", "status", "--json", "--name", "blog"))["protections"]
    assert set(protections.values()) == {True}


def test_an_instance_is_reloaded_by_itself(instances: Service) -> None:
    machine = instances.machine
    instances.start()
    machine.output("systemctl", "start", "pyserver@blog")
    machine.write("/srv/blog-2/index.html", "blog, new\n")
    config = CONFIG.replace("/var/www/pyserver", "/srv/blog-2").replace("/access.log", "/blog/access.log")
    machine.write("/etc/pyserver/blog/pyserver.toml", config)
    machine.output("systemctl", "reload", "pyserver@blog")
    assert page_of(instances, "blog") == "blog, new\n"
    assert instances.get("/") == PAGE


def test_a_port_for_an_instance(instances: Service) -> None:
    machine = instances.machine
    drop_in = f"{UNITS}/pyserver@blog.socket.d/port.conf"
    machine.write(drop_in, "[Socket]\nListenStream=\nListenStream=8081\n")
    machine.output("systemctl", "daemon-reload")
    try:
        machine.output("systemctl", "start", "pyserver@blog")
        assert machine.output("curl", "--silent", "--fail", "http://localhost:8081/") == "blog\n"
    finally:
        machine.output("systemctl", "stop", "pyserver@blog.socket", "pyserver@blog.service")
        machine.output("rm", drop_in)
        machine.output("systemctl", "daemon-reload")
