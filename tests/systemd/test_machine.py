"""The machine itself, seen with a unit that is not ours: it boots, runs, keeps a journal, and stops without a trace."""

import json
import os
import select
import subprocess
import sys
from pathlib import Path

import pytest
from tests.systemd.image import image
from tests.systemd.machine import HIERARCHIES, PREFIX, CommandError, Machine, sweep_groups, wait_until

pytestmark = [pytest.mark.systemd, pytest.mark.timeout(600)]  # the first one may have to build the machine

STAND_IN = """
[Service]
ExecStart=/usr/bin/python3 -u -m http.server --directory /var/www/pyserver 8000
"""


def test_a_unit_runs_answers_and_is_in_the_journal(booted: Machine) -> None:
    booted.write("/run/systemd/system/stand-in.service", STAND_IN)
    booted.output("systemctl", "daemon-reload")
    booted.output("systemctl", "start", "stand-in")
    fetch = ("curl", "--silent", "--fail", "--retry-connrefused", "--retry", "20", "--retry-delay", "1")
    assert booted.output(*fetch, "http://localhost:8000/") != ""
    booted.output("systemctl", "stop", "stand-in")
    booted.output("journalctl", "--sync")
    lines = booted.output("journalctl", "--unit=stand-in", "--output=json").splitlines()
    assert any("GET / HTTP/1.1" in json.loads(line)["MESSAGE"] for line in lines)


def test_an_exit_status_is_passed_on(booted: Machine) -> None:
    with pytest.raises(CommandError, match="ended with 7"):
        booted.output("sh", "-c", "exit 7")
    assert booted.output("sh", "-c", "echo said; exit 7", status=7) == "said\n"


def test_the_tree_is_seen_and_cannot_be_written(booted: Machine) -> None:
    assert "Never" in booted.output("cat", "/usr/share/pyserver/service/pyserver/limits.py")
    with pytest.raises(CommandError, match="Read-only file system"):
        booted.output("touch", "/usr/share/pyserver/service/pyserver/limits.py")


def test_nothing_is_left_of_a_machine(booted: Machine) -> None:
    with Machine.boot(image(), {}) as machine:
        machine.write("/etc/written", "in memory")
        assert machine.output("cat", "/etc/written") == "in memory"
        assert booted.output("cat", "/etc/machine-id") != machine.output("cat", "/etc/machine-id")
        assert any((tree / machine.name).exists() for tree in HIERARCHIES)
    assert not (image() / "etc/written").exists()
    assert not any((tree / machine.name).exists() for tree in HIERARCHIES)


BOOT_AND_HANG = """
import time
from tests.systemd.image import image
from tests.systemd.machine import Machine
machine = Machine.boot(image(), {})
print(machine._leader, flush=True)
time.sleep(600)
"""


def test_a_machine_does_not_outlive_the_tests(booted: Machine) -> None:
    tree = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", BOOT_AND_HANG], cwd=tree, stdout=subprocess.PIPE, text=True) as hung:
        assert hung.stdout is not None
        leader = int(hung.stdout.readline())
        ended = os.pidfd_open(leader)
        hung.kill()
    wait_until(lambda: is_over(ended), 30, "the machine of a killed test run shut down")
    os.close(ended)
    wait_until(lambda: not groups_of(hung.pid), 10, "its control groups swept")


def groups_of(owner: int) -> list[Path]:
    sweep_groups()
    return [group for tree in HIERARCHIES for group in tree.glob(f"{PREFIX}{owner}-*")]


def is_over(process: int) -> bool:
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(0))
