"""The short form of tests/soak: everything at once for half a minute, and nothing has grown or gone wrong."""

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from tests.service import soak
from tests.service.soak import Outcome, Sample

SECONDS = 20


@pytest.mark.timeout(240)
def test_nothing_grows_and_nobody_but_the_dead_workers_clients_fails(tmp_path: Path) -> None:
    seed = soak.new_seed()
    outcome = soak.soak(SECONDS, seed=seed)
    assert not outcome.amiss, (seed, outcome.amiss[:10], outcome.text())
    assert outcome.requests > 100
    assert outcome.kills
    assert outcome.reloads
    assert outcome.deploys
    assert {"leaver", "one-shot", "keep-alive"} <= set(outcome.answered)
    picture = ET.fromstring(soak.draw(outcome, "of a test"))
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
