"""Slow attacks, two thousand connections of each kind by slowhttptest, and a good client meanwhile.

Owns:    one server and one slowhttptest at a time.
Fails:   Failed, when slowhttptest does not start.
Used by: benchmarks.main (--slow).
"""

import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.client import Failed
from benchmarks.instance import free_port, running
from benchmarks.openloop import quantile
from benchmarks.servers import Server, Setting

CONNECTIONS: Final = 2000
WORKERS, THREADS = 2, 8
_LARGE_BYTES: Final = 20_000_000
_PATIENCE_S: Final = 2.0
_NEW_EVERY: Final = 5  # requests of the good client, of which one is on a connection of its own
_PAUSE_S: Final = 0.002
_AT_ONCE_S: Final = 0.1

# What makes each of them slow: see slowhttptest(1).
ATTACKS: Final = {
    "slow heads (-H)": ("-H", "-i", "5", "-x", "24", "-p", "3"),
    "slow content (-B)": ("-B", "-i", "5", "-s", "8192", "-x", "10", "-p", "3"),
    "slow readers (-X)": ("-X", "-w", "10", "-y", "20", "-n", "5", "-z", "32", "-k", "1", "-p", "5"),
    "ranges (-R)": ("-R", "-a", "10", "-b", "3000", "-p", "5"),
}


class Outcome(NamedTuple):
    """What a good client saw."""

    asked: int
    took: list[float]  # seconds of each answer

    def row(self) -> list[str]:
        """Return it as text: answered, median, p99, longest."""
        if not self.took:
            return [f"0 of {self.asked}", "-", "-", "-"]
        share = len(self.took) / self.asked
        shown = [f"{len(self.took)} of {self.asked} ({share:.2%})"]
        return shown + [f"{(quantile(self.took, at) or 0.0) * 1000:.1f} ms" for at in (0.5, 0.99, 1.0)]


def table(servers: Sequence[Server], folder: Path, seconds: int) -> list[list[str]]:
    """Return rows of text, the first one the header."""
    site = folder / "slow"
    site.mkdir()
    (site / "1k.html").write_bytes(b"x" * 1024)
    with (site / "large.bin").open("wb") as file:
        file.truncate(_LARGE_BYTES)
    rows = [["server", "attack", "answered", "median", "p99", "longest"]]
    for server in servers:
        for number, (name, how) in enumerate(ATTACKS.items()):
            setting = Setting(
                free_port(), site, folder / f"slow-{server.name}-{number}", None, workers=WORKERS, threads=THREADS
            )
            with running(server, setting, "0-1"):
                rows.append([server.name, name, *_under(how, setting.port, seconds).row()])
                print(", ".join(rows[-1]), file=sys.stderr, flush=True)
    return rows


def _under(how: Sequence[str], port: int, seconds: int) -> Outcome:
    large = how[0] in ("-X", "-R")
    command = [
        "slowhttptest", "-c", str(CONNECTIONS), "-r", str(CONNECTIONS // 2), *how, "-l", str(seconds),
        "-u", f"http://127.0.0.1:{port}/{'large.bin' if large else '1k.html'}",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL) as attack:
        try:
            with suppress(subprocess.TimeoutExpired):
                attack.wait(_AT_ONCE_S)
            if attack.returncode is not None:
                raise Failed(f"slowhttptest ended at once, with {attack.returncode}")
            # Not only when all of them are there: that they come is the worst of some attacks.
            return _good(port, seconds - _AT_ONCE_S)
        finally:
            attack.kill()


def _good(port: int, seconds: float) -> Outcome:
    """Ask one request after the other."""
    outcome = Outcome(0, [])
    kept: socket.socket | None = None
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        asked = outcome.asked + 1
        outcome = outcome._replace(asked=asked)
        alone = asked % _NEW_EVERY == 0
        began = time.monotonic()
        connection = None if alone else kept
        try:
            if connection is None:
                connection = socket.create_connection(("127.0.0.1", port), _PATIENCE_S)
            _ask(connection)
            outcome.took.append(time.monotonic() - began)
        except (OSError, Failed):
            if connection is not None:
                connection.close()
            kept = kept if alone else None
        else:
            if alone:
                connection.close()
            else:
                kept = connection
        time.sleep(_PAUSE_S)
    if kept is not None:
        kept.close()
    return outcome


def _ask(connection: socket.socket) -> None:
    connection.settimeout(_PATIENCE_S)
    connection.sendall(b"GET /1k.html HTTP/1.1\r\nHost: localhost\r\n\r\n")
    got = b""
    while not got.endswith(b"x" * 1024):
        part = connection.recv(65536)
        if not part:
            raise Failed("it was closed")
        got += part
    if not got.startswith(b"HTTP/1.1 200 "):
        raise Failed("it is no right answer")
