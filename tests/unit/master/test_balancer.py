"""Who gets what: compared with a model that hands out one connection after the other."""

from hypothesis import given
from hypothesis import strategies as st

from pyserver.limits import BATCH_MAX
from pyserver.master.balancer import share

loads_of = st.dictionaries(st.integers(0, 63), st.integers(0, 200), max_size=12)


def by_water_level(loads: dict[int, int], connections: int) -> list[int]:
    """The most even outcome there is: raise the lowest, one at a time; sorted, for who is lowest does not matter."""
    levels = sorted(loads.values())
    for _ in range(connections):
        levels[0] += 1
        levels.sort()
    return levels


@given(loads_of, st.integers(0, 64), st.integers(0, 64))
def test_shares_add_up_and_are_as_even_as_can_be(loads: dict[int, int], connections: int, first: int) -> None:
    shares = share(loads, connections, first)
    if not loads:
        assert shares == []
        return
    assert sum(count for _, count in shares) == connections
    assert len({slot for slot, _ in shares}) == len(shares), "each slot once"
    assert {slot for slot, _ in shares} <= set(loads)
    after = dict(loads)
    for slot, count in shares:
        after[slot] += count
    assert sorted(after.values()) == by_water_level(loads, connections)


@given(loads_of, st.integers(1, 64), st.integers(0, 64))
def test_who_gets_nothing_is_not_named(loads: dict[int, int], connections: int, first: int) -> None:
    assert all(count > 0 for _, count in share(loads, connections, first))


@given(st.sets(st.integers(0, 63), min_size=1, max_size=12), st.integers(0, 100), st.integers(0, 64))
def test_among_equals_the_next_in_turn_is_first(slots: set[int], load: int, first: int) -> None:
    expected = min(slots, key=lambda slot: (slot < first, slot))
    assert share(dict.fromkeys(slots, load), 1, first) == [(expected, 1)]


@given(st.integers(1, 12), st.integers(0, 5))
def test_a_quiet_server_uses_its_workers_in_turns(workers: int, load: int) -> None:
    """One client at a time, each gone before the next comes: nobody gets two before all had one."""
    turn, order = 0, []
    for _ in range(2 * workers):
        ((slot, _),) = share(dict.fromkeys(range(workers), load), 1, turn)
        order.append(slot)
        turn = slot + 1
    assert order == [*range(workers)] * 2


def test_a_batch_fills_up_the_idle_before_the_busy() -> None:
    assert dict(share({0: 10, 1: 0, 2: 8}, BATCH_MAX)) == {0: 2, 1: 11, 2: 3}


def test_nobody_is_ready() -> None:
    assert share({}, 5) == []


def test_a_single_worker_gets_all() -> None:
    assert share({7: 1000}, 16, 3) == [(7, 16)]


@given(loads_of, st.integers(0, 16))
def test_what_it_is_given_stays_as_it_is(loads: dict[int, int], connections: int) -> None:
    before = dict(loads)
    share(loads, connections)
    assert loads == before
