"""A booted systemd with pyserver installed from the source tree, for the tests in this folder."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.systemd.image import image
from tests.systemd.machine import Machine, Unavailable
from tests.systemd.service import CONFIG, LAUNCHER, Service

TREE = Path(__file__).parents[2]

# What of the tree is seen in the machine, read-only, at the places where a package would put it.
SHOWN = {
    TREE / "service/pyserver": "/usr/lib/pyserver/pyserver",
    TREE / "systemd": "/usr/share/pyserver/systemd",
    TREE / "www": "/var/www/pyserver",
}

# What a package's maintainer script would do.
INSTALL = """
    cp /usr/share/pyserver/systemd/*.service /usr/share/pyserver/systemd/*.socket /etc/systemd/system/
    mkdir -p /usr/local/lib/sysusers.d
    cp /usr/share/pyserver/systemd/pyserver.sysusers.conf /usr/local/lib/sysusers.d/pyserver.conf
    systemd-sysusers
    systemctl daemon-reload
"""


@pytest.fixture(scope="session")
def booted() -> Iterator[Machine]:
    """Boot the machine, once for all tests."""
    try:
        machine = Machine.boot(image(), SHOWN)
    except Unavailable as reason:
        if os.environ.get("CI") == "true":
            pytest.fail(f"under CI this must not be missing: {reason}")
        pytest.skip(str(reason))
    with machine:
        machine.write("/usr/bin/pyserver", LAUNCHER, "755")
        machine.write("/etc/pyserver/pyserver.toml", CONFIG)
        machine.output("sh", "-ec", INSTALL)
        yield machine


@pytest.fixture
def service(booted: Machine) -> Iterator[Service]:
    """Return pyserver installed and stopped, as after a fresh installation; afterwards nothing of it is left."""
    service = Service(booted)
    service.reset()
    try:
        yield service
    finally:
        service.stop()
    service.assert_nothing_left()
