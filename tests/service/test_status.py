"""`pyserver status`: one look from outside, also at a server that hangs."""

import json
import signal

from tests.service.conftest import Serve
from tests.service.harness import process_state, run, wait_until


def test_tells_a_person_within_eighty_columns(serve: Serve) -> None:
    server = serve(workers=3)
    for _ in range(7):
        server.ask()
    server.ask("/nothing")
    wait_until(lambda: server.counters()["requests"] == 8)
    done = server.status()
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == f"pyserver serving, master {server.pid}, 3/3 workers ready, 0 restarted"
    assert "requests    8: 2xx 7, 3xx 0, 4xx 1, 5xx 0" in lines
    assert len([line for line in lines if " ready " in line and line.lstrip()[0].isdigit()]) == 3
    assert max(map(len, lines)) <= 80, done.stdout


def test_tells_a_program(serve: Serve) -> None:
    server = serve()
    with server.client() as client:
        client.ask()
        wait_until(lambda: server.counters()["connections_open"] == 1 and server.counters()["requests"] == 1)
        seen = json.loads(server.status("--json").stdout)
    assert seen["schema"] == 1
    assert (seen["master_pid"], seen["alive"], seen["stopping"]) == (server.pid, True, False)
    assert seen["totals"]["requests"] == 1
    assert (seen["ready"], seen["times"]["queue_wait"]["count"]) == (True, 1)
    assert 0 < seen["times"]["answer_time"]["p50_s"] < 60
    assert [worker["pid"] for worker in seen["workers"]] == list(server.workers().values())
    assert sum(worker["counters"]["connections_open"] for worker in seen["workers"]) == 1
    assert seen["empty_slots"] + seen["filled_slots"] + seen["in_hand"] == seen["capacity"] == 1024


def test_tells_memory_from_disk(serve: Serve) -> None:
    server = serve(workers=1)
    server.ask()
    assert wait_until(lambda: server.counters()["file_cache_misses"]) == 1

    def is_in_memory() -> bool:
        before = server.counters()
        server.ask()
        wait_until(lambda: server.counters()["requests"] > before["requests"])
        return server.counters()["file_cache_misses"] == before["file_cache_misses"]

    wait_until(is_in_memory)


def test_looks_at_a_server_that_hangs(serve: Serve) -> None:
    server = serve(settings={"server.hung_after": 60})
    server.stop_workers()
    server.send_signal(signal.SIGSTOP)
    wait_until(lambda: process_state(server.pid) == "T")
    done = server.status("--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["alive"]
    server.send_signal(signal.SIGCONT)


def test_shows_deaths_and_waiting_clients(serve: Serve) -> None:
    server = serve(settings={"server.hung_after": 60})
    server.kill_worker(0)
    server.replaced(0, 1)
    server.stop_workers()
    with server.clients(6):
        wait_until(lambda: server.look().filled_slots == 6)
        text = server.status().stdout
        assert "1 restarted" in text
        assert "queue       6 waiting, 1018 of 1024 free" in text
        for pid in server.workers().values():
            server.kill_process(pid, signal.SIGCONT)


def test_says_that_it_is_stopping(serve: Serve, site: object) -> None:
    server = serve(settings={"server.drain": 10})
    with server.client() as client:
        client.send(b"GET / HTTP/1.1\r\n")
        wait_until(lambda: server.counters()["bytes_received"] > 0)
        server.send_signal(signal.SIGTERM)
        wait_until(lambda: server.logged("stopping"))
        assert "pyserver stopping" in server.status().stdout
        client.send(b"Host: a\r\n\r\n")
        client.answer()


def test_no_server(serve: Serve) -> None:
    done = run("status", "--name", "pyserver.999999999")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("pyserver: no segment 'pyserver.999999999' that we may read")
    assert done.stderr.count("\n") == 1


def test_dead_server(serve: Serve) -> None:
    server = serve()
    server.kill_master()
    wait_until(lambda: not server.survivors())
    done = server.status()
    assert (done.returncode, done.stderr) == (0, "")
    assert f"pyserver is gone, master {server.pid}" in done.stdout
