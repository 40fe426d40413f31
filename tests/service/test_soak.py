"""The short forms of tests/soak: everything at once, and nothing has grown or gone wrong.

Beside a whole run of the tests `./dev` has it run for three minutes, and what is waited for here is its outcome; in a
run of some tests only it takes twenty seconds.
"""

import json
import os
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from tests.service import soak
from tests.service.harness import process_state, wait_until
from tests.service.soak import Outcome, Sample

SECONDS = 20


def outcome_of_the_run_beside(beside: str) -> dict[str, Any]:
    """Wait for the outcome of the process that `./dev` began: its number, where it writes that, and what it says."""
    pid, outcome, log = beside.split(":")
    wait_until(
        lambda: Path(outcome).exists() or process_state(int(pid)) in ("Z", ""),
        within=400,
        why=f"the end of process {pid}",
    )
    assert Path(outcome).exists(), Path(log).read_text()
    told: dict[str, Any] = json.loads(Path(outcome).read_text())
    return told


@pytest.mark.timeout(500)
def test_nothing_grows_and_nobody_but_the_dead_workers_clients_fails() -> None:
    beside = os.environ.get("PYSERVER_SOAK")
    if beside:
        told = outcome_of_the_run_beside(beside)
    else:
        seed = soak.new_seed()
        told = {**soak.soak(SECONDS, seed=seed).told(), "seed": seed}
    assert not told["amiss"], (told["seed"], told["amiss"][:10], told["text"])
    assert told["requests"] > 100
    assert told["kills"]
    assert told["reloads"]
    assert told["deploys"]
    assert {"leaver", "one-shot", "keep-alive"} <= set(told["answered"])


def test_the_picture_has_its_lines() -> None:
    picture = ET.fromstring(soak.draw(run_of(1), "of a test"))
    assert len(picture.findall("{*}polyline")) == 4


def run_of(grows_kib_per_s: float) -> Outcome:
    """A run of ten minutes, its memory noisy and growing."""
    outcome = Outcome(600)
    for second in range(600):
        noise = (second * 7919) % 3000 - 1500
        outcome.samples.append(Sample(second, 9000, 30_000 + noise + int(grows_kib_per_s * second), 30, 60, 2))
    return outcome


def test_what_grows_is_told_from_what_is_noisy() -> None:
    growth, noise = soak.grown(run_of(0).samples)
    assert growth < noise / 2
    growth, noise = soak.grown(run_of(10).samples)
    assert growth > noise
