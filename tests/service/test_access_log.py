"""The access log: each request a line of the combined format, none lost when the file is moved away."""

import contextlib
import fcntl
import hashlib
import os
import re
import select
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from tests.service.client import request
from tests.service.conftest import Serve
from tests.service.harness import Load, Server, wait_until

COMBINED = re.compile(
    r"(?P<client>\S+) - - \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "
    r'"(?P<request>[^"]*)" (?P<status>\d{3}) (?P<bytes>\d+) "(?P<referer>[^"]*)" "(?P<agent>[^"]*)"'
)


def lines(path: Path) -> list[re.Match[str]]:
    """Return the lines of a log, each of which must be of the format."""
    found = []
    for line in path.read_text("ascii").splitlines():
        match = COMBINED.fullmatch(line)
        assert match, line
        found.append(match)
    return found


def test_each_request_is_a_line(serve: Serve, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    server = serve(access_log=log)
    with server.client() as client:
        client.ask("/small.txt?q=1", "User-Agent: tester/1.0", "Referer: http://example.org/")
        client.ask("/nothing")
        client.ask("/small.txt", method="HEAD")
        client.send(b"nonsense\r\n\r\n")
        client.answer()
    wait_until(lambda: len(lines(log)) == 4)
    first, second, third, fourth = lines(log)
    assert first["request"] == "GET /small.txt?q=1 HTTP/1.1"
    assert (first["client"], first["status"], first["bytes"]) == ("127.0.0.1", "200", "6")
    assert (first["referer"], first["agent"]) == ("http://example.org/", "tester/1.0")
    assert (second["status"], second["referer"], second["agent"]) == ("404", "-", "-")
    assert (third["request"], third["status"], third["bytes"]) == ("HEAD /small.txt HTTP/1.1", "200", "0")
    assert (fourth["request"], fourth["status"]) == ("nonsense", "400")


def test_what_a_client_sends_can_neither_end_a_line_nor_drive_a_terminal(serve: Serve, tmp_path: Path) -> None:
    """T-42, nginx CVE-2009-4487."""
    log = tmp_path / "access.log"
    server = serve(access_log=log)
    with server.client() as client:
        client.send(
            b'GET /"quoted"\\ HTTP/1.1\r\nHost: a\r\nUser-Agent: "x\\" \xff\xe2\x80\xae\ttab\r\nReferer: \x80\r\n\r\n'
        )
        client.answer()
    with server.client() as client:
        client.send(b"GET /\x1b[2J HTTP/1.1\r\nHost: a\r\nUser-Agent: \x1b]0;owned\x07\r\n\r\n")
        client.answer()
    wait_until(lambda: len(lines(log)) == 2)
    text = log.read_bytes()
    assert not re.search(rb"[^\x20-\x7e\n]", text)
    assert b"\\x1B" in text
    assert b"\\x22" in text


def test_moved_away_and_opened_anew_under_load(serve: Serve, site: Path, tmp_path: Path) -> None:
    """What logrotate does, five times: every answer has its line, in one of the files."""
    log = tmp_path / "access.log"
    server = serve(access_log=log, dev=False)
    target = {"/small.txt": hashlib.sha256((site / "small.txt").read_bytes()).hexdigest()}
    with Load(server.address, target, one_shot=2, keep_alive=2) as load:
        for turn in range(5):
            wait_until(log.exists)
            wait_until(lambda: log.stat().st_size > 1000)
            log.rename(tmp_path / f"access.log.{turn}")
            with server.logs("SIGUSR1: workers open their log files again"):
                server.send_signal(signal.SIGUSR1)
    assert not load.failures
    wait_until(log.exists)
    assert server.stop() == 0
    seen = [line for path in sorted(tmp_path.glob("access.log*")) for line in lines(path)]
    assert len(seen) == load.answered["one-shot"] + load.answered["keep-alive"]
    assert {line["status"] for line in seen} == {"200"}


def test_moved_file_is_not_written_any_more(serve: Serve, tmp_path: Path) -> None:
    log, moved = tmp_path / "access.log", tmp_path / "moved"
    server = serve(access_log=log)
    server.ask()
    wait_until(lambda: len(lines(log)) == 1)
    log.rename(moved)
    server.send_signal(signal.SIGUSR1)
    wait_until(log.exists)
    time.sleep(0.3)  # the other worker has opened it too
    for _ in range(4):
        server.ask()
    wait_until(lambda: len(lines(log)) == 4)
    assert len(lines(moved)) == 1


def test_folder_that_is_gone_keeps_the_old_file(serve: Serve, tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    server = serve(access_log=folder / "access.log")
    moved = folder.rename(tmp_path / "moved")
    with server.logs("cannot open .*access.log again: No such file or directory, writing on to the old file", times=2):
        server.send_signal(signal.SIGUSR1)
    server.ask()
    wait_until(lambda: len(lines(moved / "access.log")) == 1)


def test_everything_is_written_before_the_end(serve: Serve, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    server = serve(access_log=log)
    for _ in range(20):
        server.ask()
    assert server.stop() == 0
    assert len(lines(log)) == 20


def test_interrupt_writes_everything_too(serve: Serve, tmp_path: Path) -> None:
    """Ctrl-C is how a person at a terminal ends it, and wants to see what was asked."""
    log = tmp_path / "access.log"
    server = serve(access_log=log)
    for _ in range(20):
        server.ask()
    assert server.stop(signal.SIGINT) == 0
    assert len(lines(log)) == 20


def test_answer_that_is_cut_short_tells_what_was_sent(serve: Serve, site: Path, tmp_path: Path, large: bytes) -> None:
    (site / "large.bin").write_bytes(large)
    log = tmp_path / "access.log"
    server = serve(access_log=log)
    with server.client(receive_buffer=32768) as client:
        client.send(request("/large.bin"))
        client.receive(1000)
    wait_until(lambda: len(lines(log)) == 1)
    (line,) = lines(log)
    assert line["status"] == "200"
    assert 0 < int(line["bytes"]) < len(large)


def test_disk_that_takes_nothing_costs_lines_and_nothing_else(serve: Serve) -> None:
    """/dev/full answers every write with ENOSPC."""
    server = serve(access_log=Path("/dev/full"))
    told = "cannot write /dev/full: No space left on device, dropping its lines until it can be written"
    with server.logs(told), server.client() as client:
        assert [client.ask().status for _ in range(10)] == [200] * 10
        wait_until(lambda: server.counters()["log_lines_dropped"] == 10)


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A FIFO with room for a few lines, and the end that reads it, or does not."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    readable = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(readable, fcntl.F_SETPIPE_SZ, 4096)
    yield path, readable
    os.close(readable)


def ask_much(server: Server, count: int, agent: str) -> None:
    for _ in range(count):
        assert server.ask("/small.txt", f"User-Agent: {agent}").status == 200


def test_reader_that_stalls_holds_nobody_up(serve: Serve, pipe: tuple[Path, int]) -> None:
    """Not when the log is opened anew, and not at the end."""
    settings = {"server.hung_after": 2, "server.drain": 1}
    server = serve(access_log=pipe[0], settings=settings)
    ask_much(server, 30, "x" * 1000)
    time.sleep(0.5)  # each has a batch under way
    ask_much(server, 10, "x" * 1000)
    server.send_signal(signal.SIGUSR1)
    end = time.monotonic() + 4  # longer than a worker may be silent
    while time.monotonic() < end:
        ask_much(server, 1, "x")
        time.sleep(0.02)
    assert server.generations() == {0: 1, 1: 1}
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < 8  # and not for ever
    assert len(server.logged("drain deadline passed, not waiting for 1 jobs")) == 2
    assert len(server.logged(r"worker . \(generation 1\) drained and exited with status 0")) == 2


def test_lines_that_a_stalled_reader_costs_are_told_and_counted(serve: Serve, pipe: tuple[Path, int]) -> None:
    server = serve(workers=1, access_log=pipe[0], settings={"server.drain": 1})
    with server.logs("pipe takes no more, dropping its lines until it can be written"):
        ask_much(server, 80, '"' * 20_000)  # each is written as four bytes
    wait_until(lambda: server.counters()["log_lines_dropped"] > 10)


def test_lines_of_many_workers_come_whole_out_of_a_pipe(serve: Serve, pipe: tuple[Path, int]) -> None:
    server = serve(workers=4, access_log=pipe[0])
    seen, over = bytearray(), threading.Event()

    def read() -> None:
        while not over.is_set() or select.select([pipe[1]], [], [], 0)[0]:
            time.sleep(0.002)
            with contextlib.suppress(BlockingIOError):
                data = os.read(pipe[1], 1000)
                seen.extend(data)
                if not data and over.is_set():
                    return

    reader = threading.Thread(target=read)
    reader.start()
    try:
        with server.clients(8) as clients:
            for _ in range(60):
                for number, client in enumerate(clients):
                    client.send(request("/small.txt", f"User-Agent: {str(number) * 300}"))
                for client in clients:
                    assert client.answer().status == 200
        assert server.stop(within=20) == 0
    finally:
        over.set()
        reader.join()
    found = [COMBINED.fullmatch(line) for line in seen.decode("ascii").splitlines()]
    assert len(found) == 480
    agents = {match["agent"] for match in found if match is not None}
    assert agents == {str(number) * 300 for number in range(8)}
    assert None not in found


def test_unix_clients_have_a_name_in_the_log(serve: Serve, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    with TemporaryDirectory(prefix="pyserver-") as short:  # a socket's address holds 108 bytes
        server = serve(access_log=log, bind=[f"unix:{short}/s"])
        server.ask()
        wait_until(lambda: len(lines(log)) == 1)
        assert server.stop() == 0
    assert lines(log)[0]["client"] == "unix:"
