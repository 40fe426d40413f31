"""Fuzz the request reader: one connection's bytes, whole and cut. See README.md."""

import sys
from pathlib import Path

import atheris  # type: ignore[import-untyped]  # not among what ./dev test installs

with atheris.instrument_imports(include=["pyserver"]):
    from tests.corpus.replay import replay
    from tests.corpus.sources import requests
    from tests.corpus.test_oracle import accepted, check
    from tests.corpus.test_rows import ROWS

# The first bytes of an input say where the rest is cut: each the length of a piece, repeated to the end.
CUTS = 3


def cut(data: bytes, lengths: bytes) -> list[bytes]:
    pieces: list[bytes] = []
    at = 0
    while at < len(data):
        length = 1 + lengths[len(pieces) % len(lengths)]
        pieces.append(data[at : at + length])
        at += length
    return pieces


def one_input(data: bytes) -> None:
    lengths, data = data[:CUTS], data[CUTS:]
    if not data:
        return
    assert replay(cut(data, lengths)) == replay([data]), "it depends on how the bytes arrive"
    for exchange, message in accepted(data):
        check(exchange, message)


def seeds(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    known = [row["send"].encode("latin-1") for row in ROWS] + [entry.raw for entry in requests()]
    for number, raw in enumerate(known):
        if len(raw) <= 4096:
            (folder / f"seed-{number}").write_bytes(b"\xff\x07\x00" + raw)


if __name__ == "__main__":
    folders = [Path(argument) for argument in sys.argv[1:] if not argument.startswith("-")]
    if folders and not folders[0].exists():
        seeds(folders[0])
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
