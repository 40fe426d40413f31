"""What all tests share.

When lint failed before them, pytest's summary says so too, and ./dev learns that it came. Where several processes share
them (pytest-xdist, see ./dev), each file is one process' work, and so is each folder whose tests share booted machines.
"""

import os
from pathlib import Path

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]  # it has no types

BOOTED = ("packaging", "systemd")  # folders

# A machine that has other things to do fails no property.
hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("patient")


class ByPlace(LoadScopeScheduling):  # type: ignore[misc]
    """Shares the tests out to processes so that those of a file are together, and those of BOOTED folders."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        folder = file.split("/")[1]
        return folder if folder in BOOTED else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByPlace:
    """Say which tests one process has to run, one after the other."""
    return ByPlace(config, log)


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
