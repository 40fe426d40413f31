import time

from pyserver.clock import Clock


def test_a_clock_is_read_when_it_is_made_and_when_it_is_turned() -> None:
    clock = Clock()
    assert abs(clock.second - time.time()) < 2
    assert abs(clock.now - time.monotonic()) < 1
    before = clock.now
    time.sleep(0.01)
    assert clock.now == before, "the same for all that happens in a round"
    clock.turn()
    assert clock.now >= before + 0.01


def test_the_second_is_whole_and_never_of_the_future() -> None:
    for _ in range(1000):
        clock = Clock()
        assert isinstance(clock.second, int)
        assert clock.second <= time.time()


def test_a_test_may_set_it() -> None:
    clock = Clock()
    clock.second, clock.now = 1, 2.0
    assert (clock.second, clock.now) == (1, 2.0)
