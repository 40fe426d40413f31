import sys

import pytest
from tests.unit.processes import at_each_step, run_forked

from pyserver.ipc.lengths import WORDS, read, write


def table() -> memoryview:
    return memoryview(bytearray(8 * (WORDS + 2))).cast("Q")


def test_what_is_kept_is_found_again_and_nothing_else() -> None:
    words = table()
    write(words, 1, {7: 4096, 1 << 40: 128})
    assert read(words, 1) == {7: 4096, 1 << 40: 128}
    write(words, 1, {9: 64})
    assert read(words, 1) == {9: 64}
    write(words, 1, {})
    assert read(words, 1) == {}
    assert not any(words)


def test_what_stands_there_already_is_not_touched() -> None:
    """So that no kill in the middle of it can lose what an earlier life has noted."""
    words = table()
    write(words, 1, {7: 4096, 9: 128})
    write(words.toreadonly(), 1, {7: 4096, 9: 128})
    with pytest.raises(TypeError):
        write(words.toreadonly(), 1, {7: 4096, 9: 64})


def test_as_many_as_there_are_listeners() -> None:
    words = table()
    words[0] = words[WORDS + 1] = 99
    write(words, 1, {number: number for number in range(1, WORDS)})
    assert read(words, 1) == {number: number for number in range(1, WORDS // 2 + 1)}
    assert (words[0], words[WORDS + 1]) == (99, 99)


def test_what_can_be_no_length_is_none() -> None:
    words = table()
    words[1], words[2] = 5, 1 << 40
    words[3], words[4] = 6, 0
    words[5], words[6] = 0, 7
    assert read(words, 1) == {}


KEPT = {7: 4096, 1 << 40: 128, 9: 256}


@pytest.mark.parametrize("wanted", [{9: 256, 7: 4096}, {5: 64, 9: 256, 1 << 40: 128, 7: 4096}, {7: 8192, 9: 256}])
def test_a_kill_at_any_step_loses_no_length_that_is_still_wanted(wanted: dict[int, int]) -> None:
    """Whatever order the listeners come in. The table is all that outlives a kill: it is looked at before each step."""
    words = table()
    write(words, 1, KEPT)
    found = []

    def body() -> None:
        at_each_step((write.__code__,), lambda: found.append(read(words, 1)), opcodes=False)
        write(words, 1, wanted)
        sys.settrace(None)
        assert len(found) > 10
        for each in (*found, read(words, 1)):
            assert all(each[number] in {KEPT[number], wanted[number]} for number in KEPT.keys() & wanted.keys())
            assert all(length in {KEPT.get(number), wanted.get(number)} for number, length in each.items())
        assert read(words, 1) == wanted

    assert run_forked(body) == 0
