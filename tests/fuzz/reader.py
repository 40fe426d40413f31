"""Fuzz the request reader: one connection's bytes, whole and cut. See README.md."""

from tests.fuzz import target as fuzzing

with fuzzing.instrumented():
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


SEEDS = tuple(
    b"\xff\x07\x00" + raw
    for raw in (*(row["send"].encode("latin-1") for row in ROWS), *(entry.raw for entry in requests()))
    if len(raw) <= 4096
)


if __name__ == "__main__":
    fuzzing.main(one_input, SEEDS)
