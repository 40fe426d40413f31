"""What passes from one life of the master to the next: whole, or not at all."""

import fcntl
import json
import os
import sys

import pytest
from tests.unit.processes import run_forked

from pyserver.master import handover
from pyserver.master.handover import (
    Foreign,
    HandedConnections,
    HandedListener,
    HandedPlace,
    HandedStandIn,
    Handover,
)

PLACE = HandedPlace(
    slot=3, crew=2, state=2, generation=7, since=1.5, spawned_at=1.25, early_deaths=1, not_before=0.0, drain_by=9.0,
    pid=4711, sent=99, master_end=20, worker_end=21,
)  # fmt: skip
ALL = Handover(
    version="0.1",
    began=12.5,
    ticked=12.25,
    crew=2,
    listeners=[HandedListener("http", 3, True), HandedListener("http", 4, False)],
    control=HandedListener("control", 5, True),
    segment="/pyserver.1",
    segment_descriptors=[6, 7],
    slots=192,
    capacity=1024,
    in_hand=2,
    places=[PLACE],
    connections=[HandedConnections([30, 31], 1, 0, 123, True)],
    owed=[(3, 2)],
    unmended=[1],
    replaced=[2],
    restarts=5,
    requests=1000,
    pauses=1,
    saturations=2,
    listen=["127.0.0.1:80"],
    waiting=[40],
    waiting_next=[41, 42],
    again=True,
    stand_in=HandedStandIn(4712, 50),
)


@pytest.mark.parametrize("handed", [ALL, ALL._replace(control=None, connections=[], owed=[], stand_in=None)])
def test_what_is_written_is_received(handed: Handover) -> None:
    environ = {handover.VARIABLE: str(handover.write(handed)), "HOME": "/"}
    assert handover.receive(environ) == handed
    assert environ == {"HOME": "/"}, "no child takes it for its own"


def test_nothing_is_handed_over_at_a_start() -> None:
    assert handover.receive({}) is None


def test_every_descriptor_is_among_them() -> None:
    assert sorted(ALL.descriptors()) == [3, 4, 5, 6, 7, 20, 21, 30, 31, 40, 41, 42, 50]


def test_another_layout_is_refused_with_one_line() -> None:
    with pytest.raises(
        Foreign, match=r"^version 0\.1 has other things in shared memory than \S+: that takes a restart$"
    ):
        handover.understood({"layout": [*handover.LAYOUT, 1], "version": "0.1"})


def test_the_layout_is_what_json_makes_of_it() -> None:
    assert json.loads(json.dumps(handover.LAYOUT)) == handover.LAYOUT


def test_the_command_is_the_one_that_this_process_began_with() -> None:
    assert handover.command() == [sys.executable, *sys.orig_argv[1:]]


def test_only_what_is_handed_over_goes_through_execve() -> None:
    given, kept = os.pipe()

    def become() -> None:
        sys.orig_argv[1:] = [
            "-c",
            f"import os, sys; os.fstat({given}); sys.exit(os.path.exists('/proc/self/fd/{kept}') or 42)",
        ]
        handover.execute([given], {"PATH": os.environ["PATH"]})

    assert run_forked(become) == 42
    os.close(given)
    os.close(kept)


def test_an_interpreter_that_is_gone_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    given, kept = os.pipe()
    monkeypatch.setattr(sys, "executable", "/nowhere/python3")
    with pytest.raises(FileNotFoundError):
        handover.execute([given], {})
    assert fcntl.fcntl(given, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    os.close(given)
    os.close(kept)
