"""The line, and when systemd hears it."""

from tests.unit.master.around import Around

from pyserver.ipc.stats import index_of
from pyserver.limits import TICK_S
from pyserver.master.supervisor import State


def count(around: Around, name: str, number: int) -> None:
    around.segment.words[around.segment.counters(0) + index_of(name)] = number


def test_the_line_is_of_the_crew_that_serves(around: Around) -> None:
    around.enlist(1, State.READY, State.STARTING)
    around.enlist(2, State.READY)
    count(around, "connections_open", 7)
    assert around.standing.line() == "serving 1/2 workers, 0 req/s, 7 open, queue 0"
    around.workers.crew = 2
    assert around.standing.line() == "serving 1/1 workers, 0 req/s, 7 open, queue 0"


def test_the_rate_is_of_the_time_since_the_line_before(around: Around) -> None:
    around.enlist(1, State.READY)
    count(around, "requests", 100)
    assert ", 50 req/s, " in around.standing.line(2.0)
    count(around, "requests", 130)
    assert ", 10 req/s, " in around.standing.line(3.0)
    assert ", 0 req/s, " in around.standing.line(3.0)


def test_a_failed_reload_is_in_it_until_one_succeeds(around: Around) -> None:
    around.enlist(1, State.READY)
    around.reload.failed(around.standing.line(), "no such root")
    assert around.standing.line().endswith("queue 0; reload failed: no such root")
    around.reload.done(around.standing.line(), "reloaded")
    assert around.standing.line().endswith("queue 0")


def test_systemd_hears_of_changes_once_it_knows_that_we_are_ready(around: Around) -> None:
    around.enlist(1, State.READY)
    standing = around.standing
    standing.tell(1000.0)
    assert around.told() == []
    standing.tell_ready(1000.0)
    line = "serving 1/1 workers, 0 req/s, 0 open, queue 0"
    assert [("READY=1" in text, line in text) for text in around.told()] == [(True, True)]
    standing.tell(1000.0 + TICK_S)
    assert around.told() == []  # nothing new
    count(around, "connections_open", 1)
    standing.tell(1000.0 + 1.5 * TICK_S)
    assert around.told() == []  # too soon
    standing.tell(1000.0 + 2 * TICK_S)
    assert around.told() == ["STATUS=serving 1/1 workers, 0 req/s, 1 open, queue 0"]
    standing.told_otherwise(1000.0 + 2 * TICK_S)
    standing.tell(1000.0 + 3 * TICK_S)
    assert len(around.told()) == 1
