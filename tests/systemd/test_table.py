"""The text of the table that tests/systemd/events prints; what it says of a service is seen in test_life."""

from collections import Counter

import pytest
from tests.systemd import table
from tests.systemd.life import Outcome


def test_each_figure_is_below_its_name() -> None:
    outcome = Outcome(
        "a kill",
        answered=1234,
        lost=Counter(Refused=1, Reset=2, Truncated=3, ServerError=4, Slow=5),
        stalls=[0.1, 0.3, 0.2],
        idle=9,
        kept=8,
        told=["by the journal 6"],
        amiss=["not told"],
    )
    assert dict(zip(table.HEADER, table.row("pyserver", outcome), strict=True)) == {
        "event": "a kill",
        "server": "pyserver",
        "answered": "1,234",
        "refused": "1",
        "reset": "2",
        "truncated": "3",
        "5xx": "4",
        "slow": "5",
        "stall in ms": "200, at most 300",
        "idle kept": "8 of 9",
        "and": "by the journal 6; not told",
    }


@pytest.mark.parametrize(("stalls", "text"), [([], ""), ([0.02, 0.001], "< 20"), ([0.25], "250")])
def test_a_wait_that_nobody_notices_is_no_figure(stalls: list[float], text: str) -> None:
    assert table.stall(stalls) == text


def test_what_it_does_not_know_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        table.main(["--events", "restart,rstart"])
    assert "unknown: rstart" in capsys.readouterr().err
