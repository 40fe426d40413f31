"""What all tests share: when lint failed before them, pytest's summary says so too."""

import os

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    failed = os.environ.get("PYSERVER_FAILED_PARTS")
    if failed:
        terminalreporter.section("before the tests", red=True)
        terminalreporter.line(f"FAILED {failed}: see above", red=True)
