"""Workers that die, hang or cannot start: replaced, told, throttled; and nobody else notices."""

import fcntl
import os
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
from tests.service.client import Client, request
from tests.service.conftest import Serve
from tests.service.harness import Server, process_state, wait_until


def client_of(server: Server, slot: int) -> Client:
    """Return a keep-alive client that is in the hands of a certain worker."""
    for _ in range(20):
        before = taken(server)
        client = server.client()
        client.ask()
        wait_until(lambda: sum(taken(server)) > sum(before))  # noqa: B023  it is called at once
        if taken(server)[slot] > before[slot]:
            return client
        client.close()
    raise AssertionError(f"worker {slot} was given none of 20 connections")


def taken(server: Server) -> list[int]:
    """Return how many connections each worker was given so far."""
    return [worker.counters["connections"] for worker in server.look().workers]


def test_killed_worker_is_replaced(serve: Serve) -> None:
    server = serve()
    with server.logs(r"worker 1 \(generation 1, pid \d+\) killed by SIGKILL after .* 0 connections lost, 0 wait"):
        server.kill_worker(1)
        server.replaced(1, 1)
    assert server.generations() == {0: 1, 1: 2}
    assert server.look().restarts == 1
    assert server.ask().status == 200


def test_lost_connections_are_told(serve: Serve) -> None:
    server = serve()
    with server.clients(6) as clients:
        for client in clients:
            client.ask()
        wait_until(lambda: server.counters()["connections_open"] == 6)
        theirs = server.look().workers[0].counters["connections_open"]
        assert theirs in (2, 3, 4)  # clients are shared out evenly
        with server.logs(f"{theirs} connections lost"):
            server.kill_worker(0)
        server.replaced(0, 1)


def below(server: Server, pattern: str) -> str:
    """Return what stands below the first line in the log that matches, with it."""
    first = next(at for at, line in enumerate(server.log) if re.search(pattern, line))
    end = next((at for at in range(first + 1, len(server.log)) if not server.log[at].startswith("    ")), None)
    return "\n".join(server.log[first:end])


def test_the_log_says_what_a_killed_worker_was_at(serve: Serve, site: Path, large: bytes) -> None:
    (site / "large.bin").write_bytes(large)
    server = serve(workers=1)
    with server.client(receive_buffer=4096) as slow, server.client() as half:
        slow.send(request("/large.bin?a"))
        half.send(b"GET /half")
        wait_until(lambda: {each.phase for each in server.look().workers[0].requests} == {"sending", "reading"})
        with server.logs(r"worker 0 \(generation 1, pid \d+\) killed by SIGKILL .* 2 connections lost"):
            server.kill_worker(0)
        server.replaced(0, 1)
    told = below(server, "2 connections lost")
    assert re.search(r"\n    thread \d leads, (waiting|serving) for ", told), told
    sent = r"request 127\.0\.0\.1 sending for .*, [0-9.]+ [KM]iB of 20\.0 MiB sent: GET /large\.bin\?a(\n|$)"
    assert re.search(sent, told), told
    assert re.search(r"request 127\.0\.0\.1 reading for [^:]*: GET /half(\n|$)", told), told
    assert server.look().workers[0].requests == [], "its successor has nothing of it"


def test_the_log_says_what_a_hung_worker_was_at(serve: Serve, tmp_path: Path) -> None:
    """One of its threads is stuck in the access log, and then it stands still."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    server = serve(workers=1, access_log=pipe, settings={"server.hung_after": 2})
    server.may_complain = True  # stacks
    for _ in range(30):
        server.ask("/small.txt", "User-Agent: " + "x" * 1000)
    wait_until(lambda: any(each.does == "logging" and each.for_s > 1 for each in server.look().workers[0].threads))
    with server.client() as half:
        half.send(b"GET /half")
        wait_until(lambda: server.look().workers[0].requests)
        server.kill_worker(0, signal.SIGSTOP)
        wait_until(lambda: server.logged(r"worker 0 \(generation 1\) silent for"), within=15)
        server.replaced(0, 1, within=15)
    told = below(server, r"worker 0 \(generation 1\) silent for")
    assert re.search(r"\n    thread \d logging for [0-9.]+ s\n", told), told
    assert re.search(r"\n    thread \d leads, (waiting|serving) for ", told), told
    assert re.search(r"\n    request 127\.0\.0\.1 reading for [^:]*: GET /half", told), told
    assert below(server, r"worker 0 .* killed by SIGABRT").count("\n") == 0, "it was told before"
    os.close(reader)


def test_both_workers_killed_at_once(serve: Serve) -> None:
    server = serve()
    server.kill_worker(0)
    server.kill_worker(1)
    assert server.ask(within=10).status == 200
    server.replaced(0, 1)
    server.replaced(1, 1)


def test_hung_worker_writes_its_stacks_and_is_replaced(serve: Serve) -> None:
    server = serve(settings={"server.hung_after": 2}, threads=3)
    server.may_complain = True
    with client_of(server, 0) as theirs, client_of(server, 1) as ours:
        began = time.monotonic()
        pid = server.kill_worker(0, signal.SIGSTOP)
        wait_until(lambda: process_state(pid) == "T")
        theirs.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        while not server.logged(r"worker 0 \(generation 1\) silent for"):
            asked = time.monotonic()
            assert ours.ask().status == 200  # the other worker's clients notice nothing
            assert time.monotonic() - asked < 1.5
            assert time.monotonic() - began < 5
            time.sleep(0.02)
        server.replaced(0, 1, within=5)
    assert 1.5 < time.monotonic() - began < 6
    stacks = r"^(Current thread|Thread) 0x[0-9a-f]+"
    wait_until(lambda: len(server.logged(stacks)) >= 3)  # each thread's stack is in the journal
    assert server.logged(r"worker_thread$")
    assert server.logged(r"worker 0 \(generation 1, pid \d+\) killed by SIGABRT")
    assert [event.kind for event in server.look().events] == ["started", "hung", "died", "replaced"]


def test_worker_that_lives_is_never_taken_for_hung(serve: Serve) -> None:
    """Idle for longer than the patience: it beats all the same."""
    server = serve(settings={"server.hung_after": 3})  # longer than a busy machine may stand still
    time.sleep(4)
    assert not server.logged("silent for")
    assert server.generations() == {0: 1, 1: 1}


def test_nobody_is_taken_for_hung_after_all_stood_still(serve: Serve) -> None:
    """Stopped as a whole, by a debugger or a frozen cgroup: the silence is the master's own as well."""
    server = serve(settings={"server.hung_after": 2}, watchdog=30)
    with server.client() as client:
        client.ask()
        for _ in range(2):
            os.killpg(server.pid, signal.SIGSTOP)
            time.sleep(3.2)
            os.kill(server.pid, signal.SIGCONT)  # the worst case: the master looks before any worker could beat
            time.sleep(0.3)
            os.killpg(server.pid, signal.SIGCONT)
            time.sleep(1.5)
        assert client.ask().status == 200
    assert not server.logged("silent for")
    assert server.generations() == {0: 1, 1: 1}


def test_early_deaths_are_throttled_and_told(serve: Serve) -> None:
    server = serve(workers=1, settings={"server.respawn_delay_max": 0.2})
    for generation in range(1, 7):
        server.kill_worker(0)
        server.replaced(0, generation)
    rests = [float(found[1]) for line in server.log if (found := re.search(r"respawn in ([\d.]+) s", line))]
    assert rests == [0.0, 0.05, 0.1, 0.2, 0.2, 0.2]


def test_worker_that_proved_itself_is_replaced_at_once(serve: Serve) -> None:
    server = serve(workers=1)
    server.kill_worker(0)
    server.replaced(0, 1)
    time.sleep(2.1)  # limits.PROVEN_AFTER_S
    with server.logs(r"respawn in 0.00 s"):
        server.kill_worker(0)
    server.replaced(0, 2)


def test_crash_loop_does_not_end_the_service_and_heals(serve: Serve, tmp_path: Path) -> None:
    """The root goes away and comes back, as a network disk does."""
    root = tmp_path / "elsewhere"
    root.mkdir()
    (root / "index.html").write_text("before\n")
    server = serve(root, settings={"server.respawn_delay_max": 0.3})
    shutil.rmtree(root)
    with server.logs(r"exited with status 78", times=4, within=10):
        server.kill_worker(0)
        server.kill_worker(1)
        wait_until(lambda: len(server.logged("exited with status 78")) >= 4, within=10)
        root.mkdir()
        (root / "index.html").write_text("after\n")
        mark = len(server.logged("exited with status 78"))
        wait_until(server.all_ready, within=10)
        assert len(server.logged("exited with status 78")) <= mark + 2
    assert server.ask().content == b"after\n"


def test_service_that_can_never_start_says_why_and_ends(launch: Serve, tmp_path: Path) -> None:
    """What only a worker can find out: nobody reads from the FIFO that is to be the log."""
    os.mkfifo(tmp_path / "log")
    server = launch(access_log=tmp_path / "log")
    server.expected_status = 78
    assert server.wait() == 78
    server.finish()
    assert server.logged("cannot open the access log .*/log: No such device or address")
    assert server.logged("no worker comes up .*, giving up")
    assert not server.notified("READY")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_start_that_fails_again_and_again_gives_up(launch: Serve, number: int) -> None:
    """Workers that die, or hang, before the service was ever ready."""
    server = launch(workers=2, settings={"server.respawn_delay_max": 0.01, "server.start_within": 0.3})
    server.may_complain = True
    server.expected_status = 1
    hit: set[int] = set()

    def given_up() -> bool:
        if not server.notified("READY"):
            for pid in set(server.survivors()) - hit - {server.pid}:
                hit.add(pid)
                server.kill_process(pid, number)
        return server.ended() or bool(server.notified("READY"))

    wait_until(given_up, within=20)
    if server.notified("READY"):
        server.expected_status = 0
        pytest.skip("the workers were quicker than the test")
    server.finish()
    assert server.logged(r"no worker comes up \(killed by .*\), giving up")
