"""The listener for administrators: it tells how the server is, and the public one does not."""

import contextlib
import json
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from tests.service.client import Address, Client, ask, request
from tests.service.conftest import Serve
from tests.service.harness import Server, descriptors, wait_until

PATHS = ("/metrics", "/status.json", "/healthz", "/readyz")
WORKER_METRICS = ("start_time_seconds", "resident_memory_bytes", "connections_parked", "restarts_total")


@pytest.fixture(params=["tcp", "unix"])
def admin(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    """A listener as systemd makes it from pyserver-admin.socket."""
    with TemporaryDirectory(prefix="pyserver-") as folder:
        unix = request.param == "unix"
        made = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
        made.bind(f"{folder}/admin" if unix else ("127.0.0.1", 0))
        made.listen(64)
        yield made
        made.close()


def at(admin: socket.socket) -> Address:
    address: Address = admin.getsockname()
    return address


def public(server: Server) -> Address:
    """The server binds this one itself, and says so second."""
    return next(
        (host, int(port))
        for url in server.urls
        if url.startswith("http://")
        for host, _, port in [url.removeprefix("http://").rpartition(":")]
    )


def test_it_tells_how_the_server_is(serve: Serve, admin: socket.socket) -> None:
    server = serve(listeners=[("admin", admin)])
    for _ in range(5):
        assert ask(public(server), "/small.txt").status == 200
    wait_until(lambda: server.counters()["requests"] == 5)
    with Client(at(admin)) as client:
        assert client.ask("/healthz").content == b"alive\n"
        assert client.ask("/readyz").content == b"ready\n"
        document = json.loads(client.ask("/status.json").content)
        assert document["master_pid"] == server.pid
        assert document["totals"]["responses_2xx"] >= 5
        metrics = client.ask("/metrics")
        assert metrics.status == 200
        assert b"\npyserver_queue_wait_seconds_count 6.0\n" in metrics.content
        assert client.ask("/metrics", method="HEAD").content == b""
        client.send(request("/healthz") + request("/readyz") + request("/healthz"))
        assert [client.answer().content for _ in range(3)] == [b"alive\n", b"ready\n", b"alive\n"]
        assert client.ask("/small.txt").status == 404
        assert client.ask("/metrics", method="POST").status == 405


def test_the_same_bytes_mean_another_thing_at_each_listener(serve: Serve, site: Path, admin: socket.socket) -> None:
    """However often they come, and so whatever the memo has of them; one worker has both."""
    for path in PATHS:
        (site / path.lstrip("/")).write_text("of the site")
    server = serve(listeners=[("admin", admin)], workers=1)
    with Client(public(server)) as visitor, Client(at(admin)) as administrator:
        for _ in range(30):
            for path in PATHS:
                assert visitor.ask(path).content == b"of the site"
                assert administrator.ask(path).content != b"of the site"
    assert server.counters()["memo_misses"] < 240, "the visitor's came from the memo"


def test_at_the_public_listener_there_is_nothing_of_it(serve: Serve, admin: socket.socket) -> None:
    server = serve(listeners=[("admin", admin)])
    for path in PATHS:
        assert ask(public(server), path).status == 404


def test_without_the_listener_there_is_nothing_of_it(serve: Serve) -> None:
    server = serve()
    for path in PATHS:
        assert server.ask(path).status == 404


@pytest.mark.parametrize("admin", ["tcp"], indirect=True)
def test_a_page_that_was_led_to_loopback_reads_nothing(serve: Serve, admin: socket.socket) -> None:
    serve(listeners=[("admin", admin)])
    with Client(at(admin)) as client:
        assert client.ask("/status.json", host="rebound.example").status == 421
        assert client.ask("/status.json", host="127.0.0.1:9180").status == 200


def test_not_ready_while_it_drains(serve: Serve, admin: socket.socket) -> None:
    server = serve(listeners=[("admin", admin)], settings={"server.drain": 10})
    received = server.counters()["bytes_received"]
    with Client(at(admin)) as client:
        client.send(b"GET /readyz HTTP/1.1\r\n")
        wait_until(lambda: server.counters()["bytes_received"] > received)
        server.send_signal(signal.SIGTERM)
        wait_until(lambda: server.logged("stopping"))
        client.send(b"Host: localhost\r\n\r\n")
        answer = client.answer()
        assert answer.status == 503
        assert answer.content == b"not ready: the server is stopping\n"


def test_it_lives_through_deaths_and_reloads(serve: Serve, site: Path, admin: socket.socket) -> None:
    server = serve(listeners=[("admin", admin)])
    first = json.loads(ask(at(admin), "/status.json").content)["times"]["queue_wait"]["count"]
    killed = server.kill_worker(0)
    server.replaced(0, 1)
    done = server.reload()
    assert done.returncode == 0, done.stderr
    document = json.loads(ask(at(admin), "/status.json").content)
    assert (document["restarts"], document["reloads"]) == (1, 1)
    assert [event["kind"] for event in document["events"]] == ["started", "died", "replaced", "reloaded"]
    assert f"pid {killed}) killed by SIGKILL" in document["events"][1]["text"]
    assert document["access_log"] == ""
    assert document["times"]["queue_wait"]["count"] > first
    assert ask(public(server), "/small.txt").status == 200
    assert ask(public(server), "/metrics").status == 404
    site.rename(site.with_name("away"))
    assert server.reload().returncode == 1
    last = json.loads(ask(at(admin), "/status.json").content)["events"][-1]
    assert (last["kind"], str(site) in last["text"]) == ("reload failed", True)
    wait_until(lambda: ask(at(admin), "/readyz").status == 200)


def series(admin: socket.socket, process: str) -> dict[str, float]:
    """What /metrics says of the master or of workers."""
    text = ask(at(admin), "/metrics").content.decode()
    return {name: float(value) for name, value in re.findall(rf"^pyserver_{process}_(\S+) (\S+)$", text, re.MULTILINE)}


def resident(pid: int) -> int:
    (found,) = re.findall(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found) * 1024


def test_it_tells_of_each_process_what_it_takes_and_since_when(serve: Serve, admin: socket.socket) -> None:
    """Whoever answers sees nothing of the others (landlock), and nothing of its own either: the master has told it."""
    began = int(time.time())
    server = serve(listeners=[("admin", admin)])
    server.weighed()
    master, workers = series(admin, "master"), series(admin, "worker")
    assert list(master) == ["start_time_seconds", "resident_memory_bytes", "open_fds"]
    assert set(workers) == {f'{name}{{worker="{slot}"}}' for name in WORKER_METRICS for slot in (0, 1)}
    started = [workers[f'start_time_seconds{{worker="{slot}"}}'] for slot in (0, 1)]
    assert began <= master["start_time_seconds"] <= min(started) <= max(started) <= time.time()
    # They grow while they start, and the master looks once a second.
    wait_until(lambda: 0.5 < series(admin, "master")["resident_memory_bytes"] / resident(server.pid) < 2, within=20)
    for slot, pid in server.workers().items():
        name = f'resident_memory_bytes{{worker="{slot}"}}'
        wait_until(lambda name=name, pid=pid: 0.5 < series(admin, "worker")[name] / resident(pid) < 2, within=20)  # type: ignore[misc]
    wait_until(lambda: series(admin, "master")["open_fds"] == len(descriptors(server.pid)), within=20)
    with contextlib.ExitStack() as idle:
        for _ in range(5):
            idle.enter_context(Client(public(server))).ask("/small.txt")
        names = [f'connections_parked{{worker="{slot}"}}' for slot in (0, 1)]
        wait_until(lambda: sum(series(admin, "worker")[name] for name in names) == 5, within=20)


def test_who_follows_a_worker_is_told_of_anew(serve: Serve, admin: socket.socket) -> None:
    server = serve(listeners=[("admin", admin)])
    master, workers = series(admin, "master"), series(admin, "worker")
    began = 'start_time_seconds{worker="0"}'
    wait_until(lambda: time.time() >= workers[began] + 1)  # the next second, so that it can be told from this one
    server.kill_worker(0)
    server.replaced(0, 1)
    server.weighed()
    after = series(admin, "worker")
    assert [after[f'restarts_total{{worker="{slot}"}}'] for slot in (0, 1)] == [1, 0]
    assert after[began] > workers[began]
    assert server.reload().returncode == 0
    server.weighed()
    assert series(admin, "master")["start_time_seconds"] == master["start_time_seconds"], "it is the same process"
    later = series(admin, "worker")
    assert [later[f'restarts_total{{worker="{slot}"}}'] for slot in (2, 3)] == [0, 0]
    assert later['resident_memory_bytes{worker="3"}'] > 1 << 20


def test_looks_cost_no_descriptor(serve: Serve, admin: socket.socket) -> None:
    server = serve(listeners=[("admin", admin)], workers=1)
    (worker,) = server.workers().values()
    with Client(at(admin)) as client:
        client.ask("/metrics")
        before = len(descriptors(worker))
        for _ in range(50):
            for path in PATHS:
                assert client.ask(path).status == 200
        assert len(descriptors(worker)) == before


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_promtool_has_nothing_to_say(serve: Serve, admin: socket.socket) -> None:
    server = serve(listeners=[("admin", admin)])
    ask(public(server), "/small.txt")
    metrics = ask(at(admin), "/metrics").content
    done = subprocess.run(["promtool", "check", "metrics"], input=metrics, capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
