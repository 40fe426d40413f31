"""The table of events, held against the code that logs them."""

import ast
import logging
import re
from pathlib import Path

import pytest

import pyserver
from pyserver.sd.events import EVENTS, MESSAGE_IDS, Event, catalog
from pyserver.sd.journal import journal_entry

SOURCE = Path(pyserver.__file__).parent


def logged() -> set[str]:
    """Return every string constant of the code: what is logged is among them, however the call is written."""
    trees = (ast.parse(file.read_text()) for file in SOURCE.rglob("*.py") if file.name != "events.py")
    return {
        node.value
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def test_every_event_is_logged_somewhere() -> None:
    assert set(MESSAGE_IDS) - logged() == set()


def test_no_two_events_are_one() -> None:
    assert len({event.message_id for event in EVENTS}) == len({event.name for event in EVENTS}) == len(EVENTS)
    assert len(MESSAGE_IDS) == sum(len(event.logged_as) for event in EVENTS)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.name)
def test_a_row_is_complete(event: Event) -> None:
    assert re.fullmatch(r"[0-9a-f]{32}", event.message_id)
    assert re.fullmatch(r"[A-Z][^\n]*[^.\n]", event.subject)
    assert event.text.endswith(".\n") or event.text.endswith(".")
    assert all(len(line) <= 78 for line in event.text.splitlines())
    assert f"-- {event.message_id}\nSubject: {event.subject}\n" in catalog()


def test_a_record_of_an_event_carries_its_identifier() -> None:
    def entry(text: object) -> bytes:
        return journal_entry(logging.LogRecord("pyserver", logging.INFO, "", 0, text, (), None), "master")

    assert f"\nMESSAGE_ID={MESSAGE_IDS['stopped']}\n".encode() in entry("stopped")
    assert b"MESSAGE_ID" not in entry("stopped by nobody")
    assert b"MESSAGE_ID" not in entry(ValueError("of no text"))
