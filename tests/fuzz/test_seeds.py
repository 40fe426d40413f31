"""Every target holds for its seeds, which are also what was found with it, and for inputs that know nothing of it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fuzz import channel, config, path, proxy, reader, values
from tests.fuzz.target import OneInput

TARGETS = {each.__name__.rpartition(".")[2]: each for each in (channel, config, path, proxy, reader, values)}


@pytest.mark.parametrize("name", TARGETS)
def test_seeds(name: str) -> None:
    seeds = TARGETS[name].SEEDS
    assert seeds
    for seed in seeds:
        TARGETS[name].one_input(seed)


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes(name: str) -> None:
    one_input: OneInput = TARGETS[name].one_input

    @settings(max_examples=100)
    @given(st.binary(max_size=80) | st.sampled_from(TARGETS[name].SEEDS).flatmap(mutated))
    def play(data: bytes) -> None:
        one_input(data)

    play()


def mutated(seed: bytes) -> st.SearchStrategy[bytes]:
    """A seed in which some bytes are replaced, left out, or come on top."""
    places = st.integers(0, len(seed))
    return st.builds(lambda at, end, new: seed[:at] + new + seed[max(at, end) :], places, places, st.binary(max_size=4))
