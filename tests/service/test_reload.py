"""A reload: new configuration and new code are in force, and no client notices; or nothing has changed, and why."""

import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.service.client import Failure, request
from tests.service.conftest import Serve
from tests.service.harness import (
    CAP_DAC_OVERRIDE,
    CAP_DAC_READ_SEARCH,
    TREE,
    Load,
    Server,
    descriptors,
    run,
    wait_until,
)

from pyserver.ipc import control

DECIDED_S = 10.0  # what is promised for a reload that fails


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def reloaded(server: Server) -> None:
    done = server.reload()
    assert (done.returncode, done.stderr) == (0, ""), "\n".join(server.log[-20:])
    assert re.fullmatch(r"reloaded within [0-9.]+ s: \d+ workers of \d+ threads\n", done.stdout)


def only_serving(server: Server, crew: int) -> None:
    """Wait until the workers of earlier crews have gone."""
    wait_until(lambda: {worker.crew for worker in server.look().workers} == {crew}, 30, "earlier workers gone")


class Configured:
    """A server with a configuration file to edit."""

    def __init__(self, serve: Serve, folder: Path, site: Path) -> None:
        self.path = folder / "pyserver.toml"
        self.site = site
        self._serve = serve

    def write(self, *, root: Path | None = None, more: str = "") -> None:
        self.path.write_text(f'[[site]]\nroot = "{root or self.site}"\n{more}')

    def start(self, **options: object) -> Server:
        self.write()
        return self._serve(config=self.path, **options)


@pytest.fixture
def configured(serve: Serve, tmp_path: Path, site: Path) -> Configured:
    return Configured(serve, tmp_path, site)


# -- nobody notices ------------------------------------------------------------------------------------


@pytest.mark.timeout(300)
def test_twenty_reloads_under_load(serve: Serve, site: Path) -> None:
    # Each takes half a second, and on a machine with much else to do several: how long is not what is asked here.
    server = serve(dev=False, settings={"server.start_within": 60, "server.hung_after": 60})
    targets = {f"/{name}": digest(site / name) for name in ("small.txt", "middling.bin", "index.html")}
    seen = server.counters()["requests"]
    with server.clients(200, within=20) as idle:
        for client in idle:
            assert client.ask("/small.txt").persists
        with Load(server.address, targets) as load:
            for _ in range(20):
                reloaded(server)
                before, seen = seen, server.counters()["requests"]
                assert seen >= before, "no total goes backwards"
        answers = [client.ask("/small.txt") for client in idle]
    assert load.failures == []
    assert min(load.answered.values()) > 20
    assert {(answer.status, answer.persists) for answer in answers} == {(200, True)}, "not one was cut"
    only_serving(server, 21)
    looked = server.look()
    assert (looked.master_pid, looked.alive, looked.reloads) == (server.pid, True, 20)
    wait_until(lambda: server.counters()["requests"] == 400 + sum(load.answered.values()), 30)
    looked = server.look()
    assert (looked.empty_slots, looked.filled_slots, looked.in_hand) == (looked.capacity, 0, 0)
    assert len(server.names()) == 5


def test_an_answer_under_way_is_finished_by_its_old_worker(serve: Serve, site: Path, large: bytes) -> None:
    (site / "large.bin").write_bytes(large)
    server = serve(settings={"server.drain": 1})
    with server.client(receive_buffer=65536, within=20) as busy:
        busy.send(request("/large.bin"))
        wait_until(lambda: server.counters()["responses_2xx"] == 1)
        old = set(server.workers().values())
        reloaded(server)
        wait_until(lambda: len(server.workers()) == 3, 10, "the idle one of the two gone")
        assert server.ask().status == 200
        assert len(old & set(server.workers().values())) == 1
        time.sleep(2)  # longer than a stop would wait
        assert hashlib.sha256(busy.answer().content).digest() == hashlib.sha256(large).digest()
        assert busy.ask("/small.txt").content == b"small\n", "and the connection goes on, with another worker"
        only_serving(server, 2)
        assert busy.ask("/small.txt").content == b"small\n"
    assert not server.logged("cutting")


def test_connections_that_wait_are_left_to_the_new_workers(serve: Serve) -> None:
    """One between two requests, one that has not asked yet, and one in the middle of its request's head."""
    server = serve(settings={"limits.head_deadline": 60, "limits.keep_alive": 60})
    with server.clients(3, within=20) as (parked, fresh, asking):
        parked.ask()
        asking.send(b"GET /small.txt HTTP/1.1\r\n")
        wait_until(lambda: server.counters()["bytes_received"] > len(request()))
        wait_until(lambda: server.counters()["connections"] == 3)
        old = set(server.workers().values())
        reloaded(server)
        for client in (parked, fresh):
            assert client.ask("/small.txt").persists
        assert old & set(server.workers().values()), "half a request is the old worker's"
        asking.send(b"Host: localhost\r\n\r\n")
        answer = asking.answer()
        assert (answer.content, answer.persists) == (b"small\n", True)
        only_serving(server, 2)
        assert asking.ask("/small.txt").persists
    wait_until(lambda: server.counters()["connections_open"] == 0)
    assert server.counters()["connections"] == 3, "nobody is counted twice"


def test_an_idle_connection_has_its_whole_time_with_the_new_worker(serve: Serve) -> None:
    """It is not taken for a new one, whose first request has to come soon."""
    server = serve(settings={"limits.head_deadline": 0.5, "limits.keep_alive": 60})
    with server.client(within=20) as client:
        client.ask()
        reloaded(server)
        only_serving(server, 2)
        time.sleep(1.5)
        assert client.ask().status == 200


def test_connections_in_the_channel_of_an_old_worker_that_dies_are_answered(serve: Serve) -> None:
    server = serve(workers=1, settings={"server.hung_after": 600})
    (old,) = server.stop_workers()
    with server.clients(5, within=20) as clients:
        for client in clients:
            client.send(request("/small.txt"))
        wait_until(lambda: server.look().filled_slots == 5)
        reloaded(server)
        server.kill_process(old)
        assert [client.answer().content for client in clients] == [b"small\n"] * 5
    only_serving(server, 2)
    wait_until(lambda: server.look().empty_slots == 1024)
    looked = server.look()
    assert (looked.filled_slots, looked.in_hand, looked.restarts) == (0, 0, 0)


def test_killed_old_workers_cost_only_what_they_had(serve: Serve, site: Path, large: bytes) -> None:
    (site / "large.bin").write_bytes(large)
    server = serve()
    with server.client(receive_buffer=65536) as busy:
        busy.send(request("/large.bin"))
        wait_until(lambda: server.counters()["responses_2xx"] == 1)
        old = set(server.workers().values())
        reloaded(server)
        wait_until(lambda: len(server.workers()) == 3, 10)
        (last,) = old & set(server.workers().values())
        with server.logs(r"killed by SIGKILL .* 1 connections lost, 0 wait for its successor$"):
            server.kill_process(last)
        with pytest.raises(Failure):
            busy.answer()
    only_serving(server, 2)
    assert server.ask().status == 200


@pytest.mark.timeout(180)
def test_nothing_grows(serve: Serve) -> None:
    """Descriptors and slots of one reload are given back by the next."""
    server = serve(dev=False)
    reloaded(server)
    only_serving(server, 2)
    before = sorted(descriptors(server.pid).values())
    for crew in range(3, 7):
        reloaded(server)
        only_serving(server, crew)
    assert len(descriptors(server.pid)) == len(before), (before, descriptors(server.pid))
    assert {worker.slot for worker in server.look().workers} <= {0, 1, 2, 3}


# -- what is in force ----------------------------------------------------------------------------------


def test_configuration_is_new(configured: Configured, tmp_path: Path) -> None:
    server = configured.start(workers=2)
    other = tmp_path / "other"
    other.mkdir()
    (other / "index.html").write_text("there\n")
    configured.write(root=other, more="[server]\nqueue = 77\n")
    assert server.ask().content != b"there\n"
    reloaded(server)
    assert server.ask().content == b"there\n"
    wait_until(lambda: server.look().capacity == server.look().empty_slots == 77)
    configured.write(root=other, more="[server]\nqueue = 3000\n")
    reloaded(server)
    wait_until(lambda: server.look().capacity == server.look().empty_slots == 3000)


@pytest.mark.parametrize(("first", "then"), [(1, 5), (4, 1)])
def test_number_of_workers_changes(serve: Serve, tmp_path: Path, site: Path, first: int, then: int) -> None:
    path = tmp_path / "pyserver.toml"
    path.write_text(f'server.workers = {first}\n[[site]]\nroot = "{site}"\n')
    server = serve(config=path, workers=None)
    assert len(server.workers()) == first
    path.write_text(f'server.workers = {then}\n[[site]]\nroot = "{site}"\n')
    reloaded(server)
    only_serving(server, 2)
    assert len(server.workers()) == then
    wait_until(lambda: f"serving {then}/{then} workers" in server.notified("STATUS")[-1].values["STATUS"])
    assert f"{then}/{then} workers ready" in server.status().stdout


# Of a worker, behind which another release can do something else.
_START = "    faulthandler.enable()\n"


def edit(code: Path, module: str, before: str, after: str) -> None:
    path = code / "pyserver" / module
    text = path.read_text()
    assert text.count(before) == 1
    path.write_text(text.replace(before, after))
    shutil.rmtree(path.parent / "__pycache__", ignore_errors=True)


def test_code_is_new(serve: Serve, release: Path) -> None:
    server = serve(code=release)
    edit(release, "__init__.py", '__version__ = "', '__version__ = "9.')
    edit(
        release,
        "worker/main.py",
        _START,
        _START + '    log.error("new worker")\n',
    )
    with server.logs(r"err .*worker \d: new worker", times=2):
        reloaded(server)
    assert server.logged(r"version 9\.\S+ follows version ")
    assert server.ask().status == 200


def test_queue_of_orders(serve: Serve) -> None:
    """Who asks while one is under way gets another, which has seen what he has changed."""
    server = serve(dev=False)
    command = [sys.executable, "-m", "pyserver", "reload", "--name", f"pyserver.{server.pid}"]
    environ = {**os.environ, "PYTHONPATH": str(TREE / "service")}
    orders = [subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL) for _ in range(3)]
    for order in orders:
        assert order.wait(60) == 0
    assert server.look().reloads >= 1
    assert server.ask().status == 200


# -- systemd and signals -------------------------------------------------------------------------------


def test_hangup_reloads(serve: Serve) -> None:
    server = serve()
    with server.logs("reloaded within .* 2 workers of 4 threads", within=20):
        server.send_signal(signal.SIGHUP)
    assert server.look().reloads == 1


def test_systemd_is_told(serve: Serve) -> None:
    server = serve(watchdog=20)
    before = time.monotonic()
    mark = len(server.notifications)
    reloaded(server)
    told = [each.values for each in server.notifications[mark:] if {"READY", "RELOADING"} & each.values.keys()]
    assert [next(iter(each)) for each in told] == ["RELOADING", "READY"]
    assert before <= int(told[0]["MONOTONIC_USEC"]) / 1e6 <= time.monotonic()
    assert "serving 2/2 workers" in told[1]["STATUS"]
    mark = len(server.notifications)
    wait_until(lambda: any("WATCHDOG" in each.values for each in server.notifications[mark:]), 15)


def test_pings_go_on_although_lives_are_short(serve: Serve) -> None:
    """Reloads may follow each other faster than the master ticks; systemd would take it for hung."""
    server = serve(watchdog=20, dev=False)
    end = time.monotonic() + 4
    while time.monotonic() < end:
        reloaded(server)
    assert server.look().reloads >= 2
    pings = [each.at for each in server.notified("WATCHDOG")]
    assert len(pings) >= 2
    assert pings[-1] > end - 3


def test_stop_during_a_reload(serve: Serve) -> None:
    """Whatever step the signal meets, also in the instant when nobody is there to take it."""
    for delay in (0, 0.1, 0.2, 0.3, 0.4, 0.6):
        server = serve()
        server.send_signal(signal.SIGHUP)
        time.sleep(delay)
        assert server.stop() == 0
        server.finish()


def test_stop_while_an_earlier_worker_still_sends(serve: Serve, site: Path, large: bytes) -> None:
    (site / "large.bin").write_bytes(large)
    server = serve(settings={"server.drain": 20})
    with server.client(receive_buffer=65536, within=20) as busy:
        busy.send(request("/large.bin"))
        wait_until(lambda: server.counters()["responses_2xx"] == 1)
        reloaded(server)
        server.send_signal(signal.SIGTERM)
        wait_until(lambda: server.logged("SIGTERM: stopping"))
        assert hashlib.sha256(busy.answer().content).digest() == hashlib.sha256(large).digest()
        assert busy.ended()
    assert server.wait() == 0


def test_an_earlier_worker_leaves_at_the_deadline_of_the_stop(serve: Serve, site: Path, large: bytes) -> None:
    (site / "large.bin").write_bytes(large)
    server = serve(settings={"server.drain": 1})
    with server.client(receive_buffer=65536, within=20) as busy:
        busy.send(request("/large.bin"))
        wait_until(lambda: server.counters()["responses_2xx"] == 1)
        reloaded(server)
        with server.logs("drain deadline passed, cutting 1 connections"):
            assert server.stop() == 0


# -- transactions --------------------------------------------------------------------------------------


class Before:
    """The server as it was, and is to be after a reload that fails."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.workers = server.workers()

    def fails(self, reason: str) -> None:
        server = self.server
        began = time.monotonic()
        done = server.reload()
        took = time.monotonic() - began
        assert done.returncode == 1
        assert done.stdout == ""
        assert re.fullmatch(f"pyserver: reload failed: .*{reason}.*\n", done.stderr), done.stderr
        assert took < DECIDED_S + 2, "the command's own start included"
        assert server.logged(f"err .* reload failed: .*{reason}")
        last = server.notified("READY")[-1].values
        assert re.search(f"reload failed: .*{reason}", last["STATUS"])
        assert server.workers() == self.workers, "the same processes"
        assert server.look().reloads == 0
        assert server.ask().status == 200

    def mended(self) -> None:
        reloaded(self.server)
        assert "failed" not in self.server.notified("READY")[-1].values["STATUS"]


def test_bad_toml(configured: Configured) -> None:
    server = configured.start()
    before = Before(server)
    configured.path.write_text("[server\n")
    before.fails(r"pyserver\.toml:1: not valid TOML")
    configured.write()
    before.mended()


def test_missing_root(configured: Configured, tmp_path: Path) -> None:
    server = configured.start()
    before = Before(server)
    configured.write(root=tmp_path / "nowhere")
    before.fails("does not exist")
    configured.write()
    before.mended()


def test_root_that_has_become_unreadable(configured: Configured, site: Path) -> None:
    server = configured.start(without=(CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH))
    before = Before(server)
    with server.client() as client:
        client.ask()
        site.chmod(0)
        try:
            done = server.reload()
        finally:
            site.chmod(0o755)
        assert done.returncode == 1
        assert "is closed to" in done.stderr
        assert server.workers() == before.workers
        assert client.ask().status == 200
    before.mended()


def sabotage(code: Path, line: str) -> None:
    edit(
        code,
        "worker/main.py",
        _START,
        f"{_START}    {line}\n",
    )


@pytest.mark.parametrize(
    ("module", "after", "reason"),
    [
        ("worker/pool.py", "from pyserver.worker.nowhere import x", "No module named 'pyserver.worker.nowhere'"),
        ("master/main.py", "import nowhere", "No module named 'nowhere'"),
        ("handlers/static.py", "def", "SyntaxError"),
    ],
)
def test_code_that_does_not_load(serve: Serve, release: Path, module: str, after: str, reason: str) -> None:
    server = serve(code=release)
    before = Before(server)
    path = release / "pyserver" / module
    good = path.read_text()
    path.write_text(f"{good}\n{after}\n")
    before.fails(reason)
    path.write_text(good)
    before.mended()
    server.may_complain = True  # of what did not load


def test_worker_that_does_not_start(serve: Serve, release: Path) -> None:
    server = serve(code=release)
    before = Before(server)
    sabotage(release, 'raise RuntimeError("no worker today")')
    before.fails("RuntimeError: no worker today")
    server.may_complain = True


def test_worker_that_ends_without_a_word(serve: Serve, release: Path) -> None:
    server = serve(code=release)
    before = Before(server)
    sabotage(release, "os._exit(5)")
    before.fails("exited with status 5")


def test_worker_that_hangs_at_its_start(serve: Serve, release: Path) -> None:
    server = serve(code=release, settings={"server.start_within": 3})
    before = Before(server)
    sabotage(release, "import time; time.sleep(3600)")
    before.fails("killed by SIGKILL")


REHEARSED = "os.environ.get('PYSERVER_REHEARSAL') is None and 'serve' and assignment.segment.slots > 1"


def test_workers_that_come_up_in_the_rehearsal_only(serve: Serve, release: Path) -> None:
    """The master is a new one then, and those who serve go on under it."""
    server = serve(code=release)
    before = Before(server)
    sabotage(release, f"if {REHEARSED}: os._exit(7)")
    with server.client() as client:
        client.ask()
        before.fails(r"no worker comes up \(exited with status 7\); the workers that serve go on")
        assert client.ask().status == 200
    edit(release, "worker/main.py", f"    if {REHEARSED}: os._exit(7)\n", "")
    before.mended()
    only_serving(server, 2)
    assert len(server.look().workers) == 2


def test_workers_that_hang_after_the_rehearsal(serve: Serve, release: Path) -> None:
    server = serve(code=release, settings={"server.start_within": 4})
    before = Before(server)
    sabotage(release, f"if {REHEARSED}: import time; time.sleep(3600)")
    before.fails(r"no worker was ready within")
    wait_until(lambda: len(server.look().workers) == 2, 10)


@pytest.mark.parametrize("files", ["gone", "of another version", "half"])
def test_a_worker_that_is_replaced_is_of_the_version_of_its_master(serve: Serve, release: Path, files: str) -> None:
    """New files may lie below an old master: its version is the last that took the configuration."""
    server = serve(code=release)
    if files == "gone":
        (release / "pyserver").rename(release / "elsewhere")
    elif files == "half":
        (release / "pyserver/http/request.py").unlink()
        (release / "pyserver/handlers/static.py").write_text("def")
    else:
        sabotage(release, 'raise RuntimeError("not with this master")')
    before = server.generations()
    for slot, generation in before.items():
        server.may_complain = True  # of the one that was killed
        server.kill_worker(slot)
        server.replaced(slot, generation)
    assert server.ask().status == 200
    assert not server.logged("Traceback|RuntimeError")


def test_another_layout_takes_a_restart(serve: Serve, release: Path) -> None:
    server = serve(code=release)
    before = Before(server)
    edit(release, "ipc/segment.py", "VERSION: Final = ", "VERSION: Final = 1000 + ")
    before.fails("that takes a restart")


# -- who may ---------------------------------------------------------------------------------------------


def order(address: bytes, words: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(address)
        connection.sendall(words)
        return connection.recv(1000)


def test_strangers_are_refused(serve: Serve) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to be somebody else")
    server = serve()
    asked = f"""
import socket
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect({control.address_of(f"pyserver.{server.pid}")!r})
    print(connection.recv(1000))
"""
    for uid, gid, groups, refused in ((65534, 65534, [], True), (65534, 65534, [0], False)):
        with subprocess.Popen(
            [sys.executable, "-c", asked], stdout=subprocess.PIPE, user=uid, group=gid, extra_groups=groups, cwd="/"
        ) as stranger:
            if refused:
                said, _ = stranger.communicate(timeout=20)
                assert b"failed only root and the group of the server may order it" in said
            else:
                with pytest.raises(subprocess.TimeoutExpired):  # it is listened to
                    stranger.communicate(timeout=1)
                stranger.kill()
    assert server.look().reloads == 0


def test_other_words_are_not_understood(serve: Serve) -> None:
    server = serve()
    address = control.address_of(f"pyserver.{server.pid}")
    assert order(address, b"GET / HTTP/1.1\r\n\r\n") == b"failed not understood; the one order is: reload\n"
    many = [socket.socket(socket.AF_UNIX) for _ in range(40)]
    with ExitStack() as opened:
        for each in many:
            opened.enter_context(each).connect(address)
        reloaded(server)
    assert server.ask().status == 200


def test_command_says_what_it_does_not_find() -> None:
    done = run("reload", "--name", "pyserver.0")
    assert done.returncode == 1
    assert "no segment 'pyserver.0'" in done.stderr
    done = run("reload", "--control", "/nowhere/control.sock")
    assert done.returncode == 1
    assert done.stderr == (
        "pyserver: the server cannot be ordered to reload: /nowhere/control.sock: no such file or directory; "
        "see whether it runs: systemctl status pyserver; or name its socket: --control PATH\n"
    )
