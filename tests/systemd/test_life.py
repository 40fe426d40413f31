"""What befalls a service, a few times each: tests/systemd/events prints the whole as a table.

On the newer systemd what its service manager has a part in; a watchdog and the totals are in test_service, test_reload.
"""

import pytest
from tests.systemd import life
from tests.systemd.image import SUITES
from tests.systemd.life import Impossible, Outcome
from tests.systemd.service import Service

pytestmark = [pytest.mark.systemd, pytest.mark.timeout(600)]  # the first one may have to build the machine

each_systemd = pytest.mark.parametrize("suite", SUITES, indirect=True, scope="session")
older_systemd = pytest.mark.parametrize("suite", ["bookworm"], indirect=True, scope="session")  # the same machine


def holds(outcome: Outcome) -> None:
    print(outcome)
    assert outcome.amiss == []


@each_systemd
def test_orders(service: Service) -> None:
    """Each under load, with idle connections: what twenty of them cost is in test_reload."""
    with life.serving(service) as peer:
        holds(life.restarts(peer, 2))
        holds(life.reloads(peer, 2))
        holds(life.reload_under_a_download(peer, 3))


@each_systemd
def test_deaths(service: Service) -> None:
    holds(life.worker_kills(service, 3))
    holds(life.master_kills(service, 2))


@each_systemd
def test_a_worker_that_stands_still(service: Service) -> None:
    holds(life.stopped_worker(service))


@older_systemd
def test_a_worker_that_the_kernel_ends_for_want_of_memory(service: Service) -> None:
    try:
        outcome = life.oom_kill(service)
    except Impossible as why:
        pytest.skip(str(why))
    holds(outcome)


@older_systemd
def test_a_journal_that_stands_still(service: Service) -> None:
    holds(life.stopped_journal(service, 1))


@older_systemd
def test_a_stop_waits_for_what_moves(service: Service) -> None:
    """Longer than the unit allows it: the server asks systemd for the time."""
    holds(life.stop_under_a_download(service, 4))


@older_systemd
def test_a_stop_cuts_what_takes_too_long_and_says_so(service: Service) -> None:
    holds(life.stop_past_the_deadline(service))
