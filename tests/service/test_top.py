"""`pyserver top`, on a real terminal beside a server under load: what is seen, what keys do, what is left."""

import hashlib
import os
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.service.conftest import Serve
from tests.service.harness import Load, Server, run, wait_until
from tests.service.terminal import Terminal

from pyserver import __version__


def name(server: Server) -> tuple[str, str]:
    return "--name", f"pyserver.{server.pid}"


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def busy(serve: Serve, site: Path, large: bytes, tmp_path: Path) -> Iterator[Server]:
    """A server under load, of whose clients one does not take the answer that it asked for."""
    (site / "large.bin").write_bytes(large)
    server = serve(access_log=tmp_path / "access.log", settings={"limits.send_stall": 120})
    targets = {f"/{file}": digest((site / file).read_bytes()) for file in ("small.txt", "middling.bin")}
    with ExitStack() as stack:
        stack.enter_context(Load(server.address, targets, one_shot=1, keep_alive=1))
        stuck = stack.enter_context(server.client(receive_buffer=4096))
        stuck.send(b"GET /large.bin HTTP/1.1\r\nHost: localhost\r\n\r\n")
        yield server


def test_it_shows_what_a_busy_server_does(busy: Server) -> None:
    with Terminal("top", *name(busy), "--period", "0.5") as terminal:
        terminal.shows("pyserver serving, 2/2 workers ready", "GET /large.bin", "/small.txt", "127.0.0.1")
        wait_until(lambda: re.search(r"^requests +[1-9]\d* /s: 2xx [1-9]", terminal.text, re.MULTILINE), within=20)
        wait_until(lambda: re.search(r"^took +50% \d.*99\.9% \d", terminal.text, re.MULTILINE), within=20)
        rows = terminal.rows
        assert rows[-1].startswith("q quit")
        workers = {int(row.split()[2]): row for row in rows if " ready " in row}
        assert set(workers) == set(busy.workers().values())
        # It moves: by what the server does, and with what happens to it.
        wait_until(lambda: terminal.rows != rows, within=20)
        killed = busy.kill_worker(0)
        terminal.shows(f"pid {killed}) killed by SIGKILL", "1 restarted", within=30)
        busy.replaced(0, 1)
        terminal.shows(f" {busy.workers()[0]} ", within=30)


def test_keys_and_a_new_size_are_obeyed(busy: Server) -> None:
    with Terminal("top", *name(busy), "--period", "0.5") as terminal:
        terminal.shows("sort by: worker")
        terminal.type("s")
        terminal.shows("sort by: requests")
        terminal.type("p")
        terminal.shows(" paused")
        held = terminal.rows
        before = busy.counters()["requests"]
        wait_until(lambda: busy.counters()["requests"] > before + 50, within=30)
        assert terminal.rows == held
        terminal.type("p")
        wait_until(lambda: terminal.rows != held, within=20)
        for columns, rows in ((120, 40), (40, 10), (1, 1), (80, 24)):
            terminal.resize(columns, rows)
            wait_until(lambda: terminal.rows[-1].startswith("q"), within=20)
        terminal.shows("pyserver serving", "sort by: requests")
        terminal.type("q")
        assert terminal.ended() == 0
        assert terminal.restored
        assert b"Traceback" not in terminal.said


def test_nothing_flickers(busy: Server) -> None:
    """What did not change is not sent again, and nothing is cleared."""
    with Terminal("top", *name(busy), "--period", "0.2") as terminal:
        terminal.shows("pyserver serving", "/small.txt", "GET /large.bin", "q quit")
        first = len(terminal.said)
        clocks = {terminal.rows[0][-8:]}
        while len(clocks) < 3:
            clocks.add(wait_until(lambda: terminal.rows[0][-8:]))
        assert b"\x1b[2J" not in terminal.said[first:]
        assert b"\x1b[J" not in terminal.said[first:]
        assert b"workers ready" not in terminal.said[first:]
        assert b"q quit" not in terminal.said[first:]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_the_terminal_is_as_it_was(serve: Serve, number: signal.Signals) -> None:
    server = serve(workers=1)
    with Terminal("top", *name(server), "--period", "60") as terminal:
        terminal.shows("pyserver serving, 1/1 workers ready", "no access log", "q quit")
        terminal.process.send_signal(number)
        assert terminal.ended() == 0
        assert terminal.restored
        assert b"Traceback" not in terminal.said


def test_a_server_that_is_gone_is_shown_as_such(serve: Serve) -> None:
    server = serve(workers=1)
    with Terminal("top", *name(server), "--period", "0.2") as terminal:
        terminal.shows("pyserver serving")
        server.stop()
        terminal.shows("pyserver is gone")
        terminal.type("q")
        assert terminal.ended() == 0


def test_the_server_that_follows_is_followed(serve: Serve) -> None:
    """As after a restart, by the name of the instance; without one it is the only server that runs."""
    instance = f"top-{os.getpid()}"
    first = serve(workers=1, settings={"server.instance": instance})
    with Terminal("top", "--name", instance, "--period", "0.2") as terminal:
        for _ in range(20):
            first.ask("/small.txt")
        terminal.shows("pyserver serving, 1/1 workers ready", f" {first.workers()[0]} ")
        first.stop()
        terminal.shows("pyserver is gone")
        second = serve(workers=2, settings={"server.instance": instance})
        terminal.shows("pyserver serving, 2/2 workers ready", *(f" {pid} " for pid in second.workers().values()))
        terminal.shows(f"started: version {__version__}, process {second.pid}")

        def moves() -> bool:
            second.ask("/small.txt")
            return re.search(r"^requests +[1-9]\d* /s: 2xx [1-9]", terminal.text, re.MULTILINE) is not None

        wait_until(moves, within=20)
        terminal.type("q")
        assert terminal.ended() == 0


def test_a_terminal_of_ascii_gets_ascii(busy: Server) -> None:
    with Terminal("top", *name(busy), "--period", "0.5", LC_ALL="C", PYTHONCOERCECLOCALE="0") as terminal:
        wait_until(lambda: re.search(r"^waited for  50% [0-9.]+ us", terminal.text, re.MULTILINE), within=20)
        assert terminal.said.isascii()


def test_a_terminal_that_nobody_knows_is_an_error_in_one_line(serve: Serve) -> None:
    server = serve(workers=1)
    with Terminal("top", *name(server), TERM="never-heard-of") as terminal:
        assert terminal.ended() == 1
        assert terminal.said.startswith(b"pyserver: no terminal that is known (")
        assert terminal.said.count(b"\n") == 1


def test_without_a_terminal_it_says_what_to_do_and_once_does_it(busy: Server) -> None:
    done = run("top", *name(busy))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "pyserver: top is for a terminal; --once prints what it would show\n"
    done = run("top", "--once", *name(busy))
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("pyserver serving, 2/2 workers ready")
    assert all(0 < len(line) <= 80 for line in lines)
    assert "GET /large.bin" in done.stdout


def test_no_server_is_an_error_in_one_line() -> None:
    done = run("top", "--once", "--name", "pyserver.999999999")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("pyserver: no segment 'pyserver.999999999'")
    assert done.stderr.count("\n") == 1
