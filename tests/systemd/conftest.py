"""A booted systemd with pyserver installed from the source tree, for the tests in this folder."""

import os
from collections.abc import Iterator

import pytest
from tests.systemd.image import image
from tests.systemd.machine import Machine, Unavailable
from tests.systemd.service import SHOWN, Service, install


@pytest.fixture(scope="session")
def suite(request: pytest.FixtureRequest) -> str:
    """Return which Debian is booted; a module that wants each of SUITES is parametrized by it."""
    return str(getattr(request, "param", "bookworm"))


@pytest.fixture(scope="session")
def booted(suite: str) -> Iterator[Machine]:
    """Boot the machine, once for all tests that want this one."""
    try:
        machine = Machine.boot(image(suite), SHOWN)
    except Unavailable as reason:
        if os.environ.get("CI") == "true":
            pytest.fail(f"under CI this must not be missing: {reason}")
        pytest.skip(str(reason))
    with machine:
        install(machine)
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
