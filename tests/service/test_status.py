"""`pyserver status`: one look from outside, also at a server that hangs."""

import contextlib
import json
import re
import signal
from pathlib import Path

from tests.service.client import request
from tests.service.conftest import Serve
from tests.service.harness import SHM, process_state, run, wait_until

from pyserver.ipc import observe


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


def test_tells_by_what_methods_it_is_asked(serve: Serve) -> None:
    """However often a head comes, and so also when the memo has answers."""
    server = serve(workers=1)
    with server.client() as client:
        for _ in range(40):
            assert client.ask("/small.txt").status == 200
            assert client.ask("/small.txt", method="HEAD").content == b""
        assert client.ask("/small.txt", method="OPTIONS").status < 300
        client.send(request("/small.txt", "Content-Length: 3", method="POST") + b"abc")
        assert client.answer().status == 405
    with server.client() as client:
        client.send(request("/small.txt", "Expect: 100-continue", "Content-Length: 3", method="PUT"))
        assert client.answer().status == 405
    with server.client() as client:
        client.send(b"no request\r\n\r\n")
        assert client.answer().status == 400
    with server.client() as client:
        client.send(request("/small.txt", "Transfer-Encoding: chunked", method="GET") + b"no chunk\r\n")
        assert client.answer().status == 400
    wait_until(lambda: server.counters()["requests"] == 85)
    counted = server.counters()
    assert (counted["requests_head"], counted["requests_other"]) == (40, 4)
    assert counted["memo_misses"] < counted["requests"], "a GET came from the memo"
    assert "\nby          GET 41, HEAD 40, other 4\n" in server.status().stdout


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


def test_tells_what_each_request_waits_for_also_of_a_server_that_hangs(serve: Serve, site: Path, large: bytes) -> None:
    (site / "large.bin").write_bytes(large)
    server = serve(workers=1, settings={"server.hung_after": 60})
    with server.client(receive_buffer=4096) as slow, server.client() as half, server.client() as parked:
        parked.ask()
        slow.send(request("/large.bin"))
        half.send(request("/form", method="POST").replace(b"\r\n\r\n", b"\r\nContent-Length: 9\r\n\r\nabc"))
        wait_until(lambda: len(server.look().workers[0].requests) == 2)
        server.stop_workers()
        server.send_signal(signal.SIGSTOP)
        text = server.status("--requests").stdout
        document = json.loads(server.status("--requests", "--json").stdout)
        plain = json.loads(server.status("--json").stdout)
        server.send_signal(signal.SIGCONT)
        for pid in server.workers().values():
            server.kill_process(pid, signal.SIGCONT)
    (worker,) = document["workers"]
    found = {each["phase"]: each for each in worker["requests"]}
    assert {phase: each["target"] for phase, each in found.items()} == {"sending": "/large.bin", "content": "/form"}
    assert 0 < found["sending"]["sent"] < found["sending"]["all_of_it"]
    assert (found["sending"]["status"], found["sending"]["client"]) == (200, "127.0.0.1")
    assert (worker["parked"], worker["unlisted"], len(worker["threads"])) == (1, 0, 4)
    assert worker["leading"] in ("waiting", "serving")
    assert worker["rss_bytes"] > 1 << 20
    assert "requests" not in plain["workers"][0]
    assert re.search(r"127\.0\.0\.1 sending for .* of 20\.0 MiB sent: GET /large\.bin\n", text), text
    assert re.search(r"127\.0\.0\.1 content for .*: POST /form", text), text
    assert re.search(r"thread \d leads, (waiting|serving) for .*, 3 follow", text), text


def test_tells_what_a_dead_server_was_at(serve: Serve, site: Path, large: bytes) -> None:
    """As long as its memory is there: the next start of a server removes it."""
    (site / "large.bin").write_bytes(large)
    server = serve(workers=1)
    with server.client(receive_buffer=4096) as slow:
        slow.send(request("/large.bin"))
        wait_until(lambda: server.look().workers[0].requests)
        server.kill_worker(0, signal.SIGSTOP)
        server.kill_master()
        for pid in server.survivors():
            server.kill_process(pid)
        wait_until(lambda: not server.survivors())
        left = server.look(alive=False)
    assert [each.target for each in left.workers[0].requests] == ["/large.bin"]
    assert "is gone; it was" in observe.requests_as_text(left)
    assert "sent: GET /large.bin" in observe.requests_as_text(left)


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
        assert "stopping: SIGTERM: stopping, 1 connections open" in server.status().stdout
        client.send(b"Host: a\r\n\r\n")
        client.answer()


def test_no_server(serve: Serve) -> None:
    done = run("status", "--name", "pyserver.999999999")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("pyserver: no segment 'pyserver.999999999' that we may read")
    assert done.stderr.count("\n") == 1


def test_dead_server(serve: Serve) -> None:
    server = serve()
    left, kept = SHM / f"pyserver.{server.pid}", SHM / f"kept-by-a-test.{server.pid}"
    kept.hardlink_to(left)
    server.kill_master()
    wait_until(lambda: not server.survivors())
    for _ in range(10):  # another test may start a server just now, which removes what this one has left
        with contextlib.suppress(FileExistsError):
            left.hardlink_to(kept)
        done = server.status()
        if done.returncode == 0:
            break
    kept.unlink()
    assert (done.returncode, done.stderr) == (0, "")
    assert f"pyserver is gone, master {server.pid}" in done.stdout
