"""Kill any worker at any moment: the server serves on, no slot leaks, no total goes back, no waiting client is lost."""

import hashlib
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from tests.service.client import Client, request
from tests.service.conftest import Serve
from tests.service.faults import hold_queue_mutex
from tests.service.harness import Load, descriptors, wait_until
from tests.service.invariants import assert_no_slot_leaked, totals_watched

KILLS = 200
TARGETS = ("index.html", "small.txt", "middling.bin")


def digests(site: Path) -> dict[str, str]:
    return {f"/{name}": hashlib.sha256((site / name).read_bytes()).hexdigest() for name in TARGETS}


@pytest.mark.timeout(240)
def test_two_hundred_kills_under_load(serve: Serve, site: Path) -> None:
    seed = int(os.environ.get("PYSERVER_SEED", "0")) or random.SystemRandom().randrange(1 << 32)
    chance = random.Random(seed)
    clients = {"one_shot": 4, "keep_alive": 4}
    capacity = 64
    server = serve(
        dev=False, workers=2, settings={"server.respawn_delay_max": 0.05, "server.queue": capacity, "server.drain": 5}
    )
    before = len(descriptors(server.pid))
    kills: list[float] = []
    dead = {0}
    with Load(server.address, digests(site), **clients) as load, totals_watched(server) as backwards:
        wait_until(lambda: server.counters()["requests"] > 100)
        while len(kills) < KILLS:
            time.sleep(chance.random() * 0.05)
            pid = chance.choice([*server.workers().values()] or [0])
            if pid not in dead and any(worker.state == "ready" for worker in server.look().workers):
                kills.append(time.monotonic())
                dead.add(pid)
                server.kill_process(pid)
                assert server.ask("/small.txt", within=15).content == b"small\n", (
                    f"after kill {len(kills)}, seed {seed}"
                )
    print(
        f"seed {seed}: {load.answered}, {Counter(f['client'] + ' ' + f['what'] for f in load.failures)}, {load.longest}"
    )
    assert not backwards, (seed, backwards[:5])
    assert load.answered["one-shot"] > KILLS
    assert load.answered["keep-alive"] > KILLS
    assert load.longest < 15
    # A client loses what the dead worker had open: cut, never refused, never kept waiting, never answered wrongly.
    assert {failure["what"] for failure in load.failures} <= {"Reset", "Truncated"}, (seed, load.failures[:5])
    unexplained = [
        failure for failure in load.failures if not any(failure["since"] - 0.05 <= at <= failure["at"] for at in kills)
    ]
    assert not unexplained, (seed, unexplained[:5])
    assert len(load.failures) <= KILLS * sum(clients.values())

    wait_until(lambda: server.look().restarts == KILLS, why="each death noted, once")
    wait_until(server.all_ready, within=10)
    assert_no_slot_leaked(server, capacity)
    wait_until(lambda: len(descriptors(server.pid)) <= before, why=f"{before} descriptors in the master, as at first")
    assert server.ask().status == 200


def test_queued_connections_are_answered_by_the_successors(serve: Serve) -> None:
    server = serve(settings={"server.hung_after": 60})
    pids = server.stop_workers()
    with server.clients(20, within=10) as clients:
        for client in clients:
            client.send(request("/small.txt"))
        wait_until(lambda: server.look().filled_slots == 20)
        for pid in pids:
            server.kill_process(pid)
        assert [client.answer().content for client in clients] == [b"small\n"] * 20
    assert len(server.logged("0 connections lost, 10 wait for its successor")) == 2
    assert_no_slot_leaked(server, 1024)


def test_connections_of_a_dead_worker_end_at_once(serve: Serve) -> None:
    """They are lost, but nobody is left waiting: the master keeps no copy."""
    server = serve()
    with server.clients(6) as clients:
        for client in clients:
            client.ask()
        began = time.monotonic()
        for pid in server.workers().values():
            server.kill_process(pid)
        for client in clients:
            assert client.ended()
        assert time.monotonic() - began < 6


def test_totals_survive_every_worker(serve: Serve) -> None:
    server = serve()
    for _ in range(10):
        server.ask()
    wait_until(lambda: server.counters()["requests"] == 10)
    sent = server.counters()["bytes_sent"]
    for slot in (0, 1):
        server.kill_worker(slot)
        server.replaced(slot, 1)
    totals = server.counters()
    assert (totals["requests"], totals["responses_2xx"], totals["bytes_sent"]) == (10, 10, sent)
    assert totals["connections_open"] == 0


def test_master_keeps_no_descriptor_of_the_dead(serve: Serve) -> None:
    server = serve(settings={"server.respawn_delay_max": 0.02})
    before = sorted(descriptors(server.pid))
    for generation in range(1, 6):
        for slot in (0, 1):
            server.kill_worker(slot)
            server.replaced(slot, generation)
    assert server.ask().status == 200
    wait_until(lambda: sorted(descriptors(server.pid)) == before, why="the descriptors it had at first")


def test_worker_killed_while_it_holds_the_mutex(serve: Serve) -> None:
    """A semaphore has no owner (T-54): the master must find out, and meanwhile neither spin nor die."""
    server = serve(settings={"server.hung_after": 10})
    pids = dict(server.workers())
    os.kill(pids[0], signal.SIGSTOP)
    hold_queue_mutex(server, 0)
    with server.clients(8, within=15) as clients:
        began = time.monotonic()
        os.kill(pids[0], signal.SIGKILL)
        for client in clients:
            client.send(request("/small.txt"))
        assert [client.answer().content for client in clients] == [b"small\n"] * 8
        assert time.monotonic() - began < 5
    server.replaced(0, 1)
    assert server.logged("worker 0 died inside the queue's accounting, mended")
    assert_no_slot_leaked(server, 1024)


def test_worker_killed_while_it_holds_the_mutex_and_clients_come_before_it_dies(serve: Serve) -> None:
    """The master meets the held mutex first and the death second."""
    server = serve(settings={"server.hung_after": 10})
    pids = dict(server.workers())
    os.kill(pids[0], signal.SIGSTOP)
    hold_queue_mutex(server, 0)
    with server.clients(8, within=15) as clients:
        for client in clients:
            client.send(request("/small.txt"))
        time.sleep(1)
        os.kill(pids[0], signal.SIGKILL)
        began = time.monotonic()
        assert [client.answer().content for client in clients] == [b"small\n"] * 8
        assert time.monotonic() - began < 5
    server.replaced(0, 1)
    assert_no_slot_leaked(server, 1024)


def test_worker_stopped_while_it_holds_the_mutex(serve: Serve) -> None:
    """Nobody can go on, so the watch over heartbeats must end it: within its patience, and the master lives on."""
    server = serve(settings={"server.hung_after": 2})
    server.may_complain = True
    os.kill(server.workers()[0], signal.SIGSTOP)
    hold_queue_mutex(server, 0)
    with server.clients(4, within=20) as clients:
        for client in clients:
            client.send(request("/small.txt"))
        assert [client.answer().content for client in clients] == [b"small\n"] * 4
    server.replaced(0, 1)
    assert_no_slot_leaked(server, 1024)


def test_who_waits_for_the_mutex_is_not_taken_for_hung(serve: Serve) -> None:
    """Both have clients waiting; one stops inside, and the other serves its own."""
    # Both stand still for what comes first, so it must be long enough for a machine that has other things to do.
    server = serve(settings={"server.hung_after": 10})
    server.may_complain = True
    server.stop_workers()
    with server.clients(8, within=40) as clients:
        for client in clients:
            client.send(request("/small.txt"))
        wait_until(lambda: server.look().filled_slots == 8)
        hold_queue_mutex(server, 0)
        with server.logs("worker 1: the queue's accounting is not to be had"):
            server.kill_worker(1, signal.SIGCONT)
        assert [client.answer().content for client in clients] == [b"small\n"] * 8
        server.replaced(0, 1, within=30)
        wait_until(lambda: server.look().empty_slots == 1024, why="the other has settled its account")
    assert server.generations() == {0: 2, 1: 1}
    assert server.ask().status == 200


def test_client_in_the_dead_workers_hands_can_come_again(serve: Serve) -> None:
    server = serve(workers=1)
    with server.client() as client:
        client.ask()
        server.kill_worker(0)
        assert client.ended()
    with Client(server.address, within=10) as again:
        assert again.ask().status == 200
