"""The bounds of the sketch are those that its inventors proved, whatever comes."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pyserver.top.sketch import Sketch

NAMES = st.lists(st.integers(0, 40), max_size=400)


@given(names=NAMES, kept=st.integers(1, 20))
def test_no_name_is_taken_for_rarer_and_none_for_much_more_frequent(names: list[int], kept: int) -> None:
    sketch: Sketch[int] = Sketch(kept)
    sketch.add(names)
    true = Counter(names)
    found = {each.name: each for each in sketch.most(kept)}
    assert sketch.total == len(names)
    assert len(found) <= kept
    for name, each in found.items():
        assert true[name] <= each.times <= true[name] + each.excess
        assert each.excess <= len(names) / kept
    for name, count in true.items():
        assert name in found or count <= len(names) / kept, "who comes that often is never missed"


@given(names=st.lists(st.text(max_size=3), max_size=200))
def test_with_room_for_all_it_counts(names: list[str]) -> None:
    sketch: Sketch[str] = Sketch(200)
    sketch.add(names)
    assert {each.name: each.times for each in sketch.most(200)} == dict(Counter(names))
    assert [each.times for each in sketch.most(5)] == sorted(Counter(names).values(), reverse=True)[:5]


def test_what_was_long_ago_weighs_little() -> None:
    sketch: Sketch[str] = Sketch(10)
    sketch.add(["before"] * 1000)
    for _ in range(10):
        sketch.fade(0.5)
        sketch.add(["now"] * 10)
    assert [each.name for each in sketch.most(2)] == ["now", "before"]
    assert sketch.most(1)[0].times < 20 < sketch.total < 22
