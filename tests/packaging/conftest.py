"""Packages of this tree, and booted machines to install them in."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from tests.packaging.builds import Builds, need_tools
from tests.packaging.image import SUITES, image
from tests.packaging.package import SHELF, Package
from tests.systemd.machine import Machine, Unavailable


@contextmanager
def required() -> Iterator[None]:
    """Skip the test where this host cannot do it; under CI that is a failure."""
    try:
        yield
    except Unavailable as reason:
        if os.environ.get("CI") == "true":
            pytest.fail(f"under CI this must not be missing: {reason}")
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Builds:
    """Return the packages of three versions, built once for all tests."""
    with required():
        need_tools("dpkg-buildpackage", "dh", "dh_python3")
    return Builds(tmp_path_factory.mktemp("builds"))


@pytest.fixture(scope="session", params=SUITES)
def suite(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def machine(suite: str, builds: Builds) -> Iterator[Machine]:
    """Boot a Debian that has never seen the package, once for all tests of a suite."""
    with ExitStack() as stack:
        with required():
            booted = stack.enter_context(Machine.boot(image(suite), {builds.folder: SHELF}))
        yield booted


@pytest.fixture
def package(machine: Machine, builds: Builds) -> Iterator[Package]:
    """Return the package, never installed; afterwards nothing of the server is left."""
    package = Package(machine, builds)
    package.reset()
    try:
        yield package
    finally:
        package.reset()
    package.assert_nothing_left()
