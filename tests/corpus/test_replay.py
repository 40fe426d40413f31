"""Every request of every corpus: what comes of it, and that it does not depend on how it was cut."""

import tomllib
from pathlib import Path

import pytest
from tests.corpus.replay import Outcome, chunkings, replay
from tests.corpus.sources import Entry, Expected, requests

ENTRIES = requests()
DISAGREEMENTS = {
    name: (group["ours"], group["reason"])
    for group in tomllib.loads((Path(__file__).parent / "disagreements.toml").read_text("utf-8"))["disagreement"]
    for name in group["entries"]
}


@pytest.mark.parametrize("entry", ENTRIES, ids=repr)
def test_outcome_is_theirs_or_has_a_reason(entry: Entry) -> None:
    outcome = replay([entry.raw])
    if entry.name in DISAGREEMENTS:
        ours, reason = DISAGREEMENTS[entry.name]
        assert outcome.word == ours, reason
        assert not _agrees(outcome, entry.expected), f"no disagreement any more: {reason}"
    else:
        assert _agrees(outcome, entry.expected), f"{outcome}, expected {entry.expected.value}: {entry.raw!r}"


@pytest.mark.parametrize("entry", ENTRIES, ids=repr)
def test_outcome_does_not_depend_on_chunking(entry: Entry) -> None:
    whole = replay([entry.raw])
    for name, parts in chunkings(entry.raw):
        assert replay(parts) == whole, name


@pytest.mark.skipif(not ENTRIES, reason="the corpora are not beside the repository")
def test_every_disagreement_is_about_an_entry() -> None:
    assert not DISAGREEMENTS.keys() - {entry.name for entry in ENTRIES}


def _agrees(outcome: Outcome, expected: Expected) -> bool:
    if expected is Expected.REFUSED:
        # What never gets to its end is not answered but by 408.
        unanswered = all(exchange.end is None for exchange in outcome.exchanges)
        return outcome.word == "refused" or (outcome.word == "incomplete" and unanswered)
    return expected is Expected.ANYTHING or outcome.word == expected.value
