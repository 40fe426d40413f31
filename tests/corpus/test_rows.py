"""Requests of our own (requests.toml), each under every chunking."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from tests.corpus.replay import chunkings, replay

ROWS = tomllib.loads((Path(__file__).parent / "requests.toml").read_text("utf-8"))["row"]
EXPECTATIONS = {"status", "path_status", "path", "host", "length", "chunked", "keep_alive"}


@pytest.mark.parametrize("row", ROWS, ids=[row["about"] for row in ROWS])
def test_row(row: dict[str, Any]) -> None:
    assert row["section"]
    assert EXPECTATIONS & row.keys()
    raw = row["send"].encode("latin-1")
    outcome = replay([raw])
    assert outcome.status == row.get("status"), row["section"]
    if "status" not in row:
        last = outcome.exchanges[-1]._asdict()
        assert not outcome.started
        assert last["end"] == len(raw)
        for name in EXPECTATIONS & row.keys():
            expected = row[name].encode() if isinstance(row[name], str) else row[name]
            assert last["path" if name == "path_status" else name] == expected, row["section"]
    for cut, parts in chunkings(raw):
        assert replay(parts) == outcome, cut
