"""Nothing can get out: what the units forbid, tried from within, on each systemd."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.systemd import probe
from tests.systemd.image import SUITES
from tests.systemd.machine import CommandError
from tests.systemd.service import CONFIG, Service

from pyserver import sandbox

pytestmark = [
    pytest.mark.systemd,
    pytest.mark.timeout(600),  # the first one may have to build the machine
    pytest.mark.parametrize("suite", SUITES, indirect=True, scope="session"),
]

# The network would not be seen: the machine itself has none.
OPENED = """
[Service]
RestrictAddressFamilies=
MemoryDenyWriteExecute=no
"""

PAGE = (Path(__file__).parents[2] / "www/index.html").read_text()


def test_the_machine_has_the_systemd_that_it_should(service: Service, suite: str) -> None:
    assert service.machine.output("systemctl", "--version").startswith(f"systemd {SUITES[suite]} ")


def test_units_are_without_fault(service: Service) -> None:
    # One stream: what systemd-analyze has to say goes to standard error.
    units = "/etc/systemd/system/pyserver*.service /etc/systemd/system/pyserver*.socket"
    verify = f"systemd-analyze verify --man=no {units} 2>&1"
    assert service.machine.output("sh", "-c", verify) == ""


@pytest.mark.parametrize("offline", [False, True], ids=["as it runs", "by its file"])
def test_exposure_is_at_most_0_3_while_it_serves(service: Service, offline: bool) -> None:
    service.start()
    assert service.get("/") == PAGE
    unit = ["--offline=true", "/etc/systemd/system/pyserver.service"] if offline else ["pyserver.service"]
    shown = service.machine.output("systemd-analyze", "security", "--no-pager", *unit)
    found = re.search(r"Overall exposure level for pyserver.service: ([\d.]+) ", shown)
    assert found is not None
    assert float(found[1]) <= 0.3, shown


# -- from within ---------------------------------------------------------------------------------------


PROBE = """
[Service]
Type=oneshot
Restart=no
WatchdogSec=0
ExecStart=
ExecStart=/usr/bin/python3 -I -B /srv/probe.py
"""

# Refused, not merely failed: each of these says so.
REFUSALS = {"EACCES", "EPERM", "EROFS", "EAFNOSUPPORT", "ENOENT"}

# What is not there at all; elsewhere ENOENT would only mean that the attempt was none.
HIDDEN = {
    "another program",
    "/etc/shadow",
    "/etc/passwd",
    "/home",
    "/root",
    "a process of another user",
    "the kernel's log",
    "the kernel's settings",
}


@pytest.fixture
def tried(service: Service) -> Iterator[dict[str, str]]:
    """Return how each of probe.ATTEMPTS ended in a copy of the unit that runs the probe in place of the server."""
    machine = service.machine
    folder = "/run/systemd/system/pyserver-probe.service"
    machine.write("/srv/probe.py", Path(probe.__file__).read_text())
    machine.output("cp", "/etc/systemd/system/pyserver.service", folder)
    machine.write(f"{folder}.d/probe.conf", PROBE)
    machine.output("systemctl", "daemon-reload")
    try:
        machine.output("systemctl", "start", "pyserver-probe.service")
        machine.output("journalctl", "--sync")
        lines = machine.output("journalctl", "--unit=pyserver-probe.service", "--output=cat", "_COMM=python3")
        yield json.loads(lines.splitlines()[-1])
    finally:
        machine.output("rm", "-r", folder, f"{folder}.d", "/srv/probe.py")
        machine.output("rm", "-f", "/var/log/pyserver/new", "/dev/shm/probe")
        machine.output("systemctl", "daemon-reload")


def test_every_way_out_is_refused(tried: dict[str, str]) -> None:
    assert tried.keys() == probe.ATTEMPTS.keys()
    allowed = {what: ended for what, ended in tried.items() if what.startswith("allowed: ")}
    assert set(allowed.values()) == {"done"}, allowed
    ways_out = {what: ended for what, ended in tried.items() if what not in allowed}
    got_out = {
        what: ended
        for what, ended in ways_out.items()
        if ended not in REFUSALS or (ended == "ENOENT" and what not in HIDDEN)
    }
    assert got_out == {}


def test_the_probe_gets_out_where_there_is_no_wall(service: Service) -> None:
    # As root, without a unit: what is refused above is not refused by the probe's own mistake.
    service.machine.write("/srv/probe.py", Path(probe.__file__).read_text())
    said = service.machine.output("unshare", "--mount", "--uts", "--net", "/usr/bin/python3", "-I", "/srv/probe.py")
    ended = json.loads(said)
    service.machine.output(
        "sh", "-c", "rm -f /srv/probe.py /new /run/new /usr/new /dev/shm/probe /var/log/pyserver/new"
    )
    free = ("an INET socket", "another program", "a file at the top", "/etc/shadow", "a process of another user")
    assert {what: ended[what] for what in free} == dict.fromkeys(free, "done")


# -- what it says of it itself -------------------------------------------------------------------------


def test_every_protection_is_on_and_told(service: Service) -> None:
    service.start()
    protections = json.loads(service.machine.output("pyserver", "status", "--json"))["protections"]
    assert protections == {protection.name: True for protection in sandbox.PROTECTIONS}
    assert service.says(f"^sandbox on: {', '.join(protections)}$")


def test_a_wall_that_was_taken_down_is_told(service: Service) -> None:
    drop_in = "/run/systemd/system/pyserver.service.d/open.conf"
    service.machine.write(drop_in, OPENED)
    service.machine.output("systemctl", "daemon-reload")
    try:
        service.start()
        assert service.get("/") == PAGE
        protections = json.loads(service.machine.output("pyserver", "status", "--json"))["protections"]
        off = {"sockets", "memory"}
        assert protections == {protection.name: protection.name not in off for protection in sandbox.PROTECTIONS}
        assert "off: sockets, memory" in service.machine.output("pyserver", "status").replace("\n" + " " * 11, "")
    finally:
        service.stop()
        service.machine.output("rm", drop_in)
        service.machine.output("systemctl", "daemon-reload")


# -- what it cannot see ------------------------------------------------------------------------------


def test_a_root_that_the_service_cannot_see_is_told_with_the_way_out(service: Service) -> None:
    service.machine.output("mkdir", "-p", "/data/site")
    service.configure(CONFIG.replace("/var/www/pyserver", "/data/site"))
    with pytest.raises(CommandError):
        service.start()
    assert service.says(r'root "/data/site" is not among what the service can see; .*BindReadOnlyPaths=')
