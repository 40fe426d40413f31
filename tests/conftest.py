"""What all tests share: when lint failed before them, pytest's summary says so too, and ./dev learns that it came."""

import os
from pathlib import Path

import hypothesis
import pytest

# A machine that has other things to do fails no property.
hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("patient")


def pytest_unconfigure() -> None:
    """Tell ./dev that the run came to its end: what is tested here ends processes, and might end this one with 0."""
    ended = os.environ.get("PYSERVER_ENDED")
    if ended:
        Path(ended).touch()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    failed = os.environ.get("PYSERVER_FAILED_PARTS")
    if failed:
        terminalreporter.section("before the tests", red=True)
        terminalreporter.line(f"FAILED {failed}: see above", red=True)
