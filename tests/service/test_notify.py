"""What the service manager is told: ready when it is, how things stand, alive only while everybody is."""

import os
import re
import signal
import time
from itertools import pairwise

import pytest
from tests.service.conftest import Serve
from tests.service.harness import wait_until

STATUS = re.compile(r"serving \d+/\d+ workers, \d+ req/s, \d+ open, queue \d+")


def test_ready_comes_after_every_worker_is(serve: Serve) -> None:
    server = serve(workers=3)
    ready = server.notified("READY")
    assert [each.values["READY"] for each in ready] == ["1"]
    assert server.all_ready()
    assert len(server.logged(r"worker \d \(generation 1\) ready")) == 3
    assert ready[0].values["STATUS"] == "serving 3/3 workers, 0 req/s, 0 open, queue 0"


def test_not_ready_while_a_worker_starts(launch: Serve) -> None:
    """A worker that hangs in its start-up keeps the service from being ready; it is replaced, and then it is."""
    server = launch(workers=2, settings={"server.start_within": 2})
    server.may_complain = True  # a worker that is told to write its stacks
    # Stopped as soon as there is one: it has all its modules still to load.
    pid = wait_until(lambda: next((pid for pid in server.survivors() if pid != server.pid), 0))
    os.kill(pid, signal.SIGSTOP)
    slot = wait_until(lambda: next((f"{slot}" for slot, each in server.workers().items() if each == pid), ""))
    with server.logs(rf"worker {slot} \(generation 1\) silent for", within=8):
        wait_until(lambda: server.logged(rf"worker {1 - int(slot)} \(generation 1\) ready"))
        time.sleep(0.3)
        assert not server.notified("READY")
    server.ready()
    assert server.generations()[int(slot)] == 2


@pytest.mark.parametrize("watchdog", [0, 0.6])
def test_status_says_how_things_stand_and_not_too_often(serve: Serve, watchdog: float) -> None:
    server = serve(workers=2, watchdog=watchdog)
    with server.client() as client:
        began = time.monotonic()
        while time.monotonic() - began < 3.2:
            client.ask()
        wait_until(lambda: " 1 open" in server.notified("STATUS")[-1].values["STATUS"])
    told = [each for each in server.notified("STATUS") if "READY" not in each.values]
    assert told
    assert all(STATUS.fullmatch(each.values["STATUS"]) for each in told)
    assert any(int(each.values["STATUS"].split(", ")[1].split()[0]) > 10 for each in told)
    assert all(later.at - earlier.at > 0.9 for earlier, later in pairwise(told))
    wait_until(
        lambda: server.notified("STATUS")[-1].values["STATUS"] == "serving 2/2 workers, 0 req/s, 0 open, queue 0"
    )


def test_quiet_service_says_nothing_new(serve: Serve) -> None:
    server = serve()
    before = len(server.notifications)
    time.sleep(2.5)
    assert len(server.notifications) == before


def test_stopping(serve: Serve) -> None:
    server = serve()
    assert server.stop() == 0
    server.finish()
    assert [each.values["STOPPING"] for each in server.notified("STOPPING")] == ["1"]
    assert "STOPPING" in server.notifications[-2].values
    assert "EXTEND_TIMEOUT_USEC" in server.notifications[-1].values


def test_stop_asks_for_the_time_that_its_drain_may_take(serve: Serve) -> None:
    """sd_notify(3): or else TimeoutStopSec= would cut a longer server.drain short."""
    server = serve(settings={"server.drain": 120})
    assert server.stop() == 0
    server.finish()
    asked = server.notified("EXTEND_TIMEOUT_USEC")
    assert [each.values["EXTEND_TIMEOUT_USEC"] for each in asked] == ["125000000"]
    assert asked[0].at >= server.notified("STOPPING")[0].at


def test_watchdog_is_fed_at_half_its_period(serve: Serve) -> None:
    server = serve(watchdog=1.0)
    wait_until(lambda: len(server.notified("WATCHDOG")) >= 6)
    at = [each.at for each in server.notified("WATCHDOG")]
    gaps = [later - earlier for earlier, later in pairwise(at)]
    assert all(0.3 < gap < 0.9 for gap in gaps), gaps


def test_no_watchdog_unless_asked_for(serve: Serve) -> None:
    server = serve()
    time.sleep(1.5)
    assert not server.notified("WATCHDOG")


def test_watchdog_is_withheld_while_a_worker_hangs(serve: Serve) -> None:
    server = serve(watchdog=1.0, settings={"server.hung_after": 2})
    server.may_complain = True
    wait_until(lambda: server.notified("WATCHDOG"))
    with server.logs(r"worker 0 \(generation 1\) silent for"):
        server.kill_worker(0, signal.SIGSTOP)
    server.replaced(0, 1)
    since = time.monotonic()
    wait_until(lambda: server.notified("WATCHDOG")[-1].at > since)
    # Fresh until hung_after had passed; the tick that found it silent said nothing; its abort was the cure.
    gaps = [later.at - earlier.at for earlier, later in pairwise(server.notified("WATCHDOG"))]
    assert sum(gap > 0.85 for gap in gaps) == 1, gaps


def test_watchdog_is_silent_while_the_master_is_stopped(serve: Serve) -> None:
    server = serve(watchdog=0.6)
    wait_until(lambda: server.notified("WATCHDOG"))
    server.send_signal(signal.SIGSTOP)
    before = len(server.notified("WATCHDOG"))
    time.sleep(1.5)
    assert len(server.notified("WATCHDOG")) <= before + 1
    server.send_signal(signal.SIGCONT)
    since = time.monotonic()
    wait_until(lambda: server.notified("WATCHDOG")[-1].at > since)
    # A master that slept does not judge the workers by its own sleep.
    assert not server.logged("silent for")


def test_children_are_not_given_the_way_to_the_service_manager(serve: Serve) -> None:
    """NOTIFY_SOCKET would let a worker speak for the service (T-63)."""
    server = serve(watchdog=5)
    since = len(server.notifications)
    server.kill_worker(0)
    server.replaced(0, 1)
    assert not [each for each in server.notifications[since:] if "READY" in each.values or "STOPPING" in each.values]
