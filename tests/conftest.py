"""What all tests share.

When lint failed before them, pytest's summary says so too, and ./dev learns that it came. Where several processes share
them (pytest-xdist, see ./dev), each file is one process' work, and so is each folder whose tests share booted machines.
"""

import os
from pathlib import Path

import hypothesis
import pytest

TESTS = Path(__file__).parent
BOOTED = ("packaging", "systemd")  # folders

# A machine that has other things to do fails no property.
hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("patient")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist looks at it
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say which tests one process has to run, one after the other."""
    for item in items:
        place = item.path.relative_to(TESTS)
        group = place.parts[0] if place.parts[0] in BOOTED else str(place)
        item.add_marker(pytest.mark.xdist_group(group))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Tell ./dev that the run came to its end: what is tested here ends processes, and might end this one with 0."""
    ended = os.environ.get("PYSERVER_ENDED")
    if ended and not hasattr(config, "workerinput"):  # a process of pytest-xdist is not the run
        Path(ended).touch()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    failed = os.environ.get("PYSERVER_FAILED_PARTS")
    if failed:
        terminalreporter.section("before the tests", red=True)
        terminalreporter.line(f"FAILED {failed}: see above", red=True)
