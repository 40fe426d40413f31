"""Listings of folders by a running server: large ones hold nobody up."""

import contextlib
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import pytest
from tests.service.conftest import Serve
from tests.service.harness import Server, wait_until

from pyserver.limits import LISTING_ROWS_MAX, MIB

MANY = 100_000


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site with a folder of 100,000 files; each has only a name of its own."""
    root = tmp_path_factory.mktemp("crowded")
    (root / "small.txt").write_text("small\n")
    folder = root / "many"
    folder.mkdir()
    link = ""
    for number in range(MANY):
        name = f"{folder}/{number * 7919 % MANY:06d}.txt"
        if number % 10_000 == 0:  # a file has at most 65,000 names on ext4
            Path(name).write_text("x" * number)
            link = name
        else:
            os.link(link, name)
    return root


def configured(root: Path, home: Path) -> Path:
    """Return a configuration that lists the folders of `root`."""
    path = home / "pyserver.toml"
    path.write_text(f'[[site]]\nroot = "{root}"\nlisting = true\n')
    return path


def peak_bytes(server: Server) -> int:
    """Return the most memory that a worker ever had."""
    peaks = []
    for pid in server.workers().values():
        status = Path(f"/proc/{pid}/status").read_text()
        peaks.append(int(status.partition("VmHWM:")[2].split()[0]) * 1024)
    return max(peaks)


@pytest.mark.parametrize("query", ["", "?sort=name&order=desc", "?sort=size&order=desc", "?sort=time"])
def test_hundred_thousand_files(serve: Serve, crowded: Path, tmp_path: Path, query: str) -> None:
    server = serve(config=configured(crowded, tmp_path), workers=1, threads=4)
    assert server.ask("/small.txt").status == 200
    before = peak_bytes(server)
    with server.client(within=30) as visitor, server.client() as other:
        began = time.monotonic()
        visitor.send(f"GET /many/{query} HTTP/1.1\r\nHost: a\r\nAccept: application/json\r\n\r\n".encode())
        waits: list[float] = []
        asked = began
        while asked - began < 0.3 or len(waits) < 20:  # it is being made
            assert other.ask("/small.txt").content == b"small\n"
            now = time.monotonic()
            waits.append(now - asked)
            asked = now
        answer = visitor.answer()
    document = json.loads(answer.content)
    assert (document["total"], document["complete"]) == (MANY, False)
    assert len(document["items"]) == LISTING_ROWS_MAX
    if "size" in query:
        assert {item["size"] for item in document["items"]} == {90_000}
    # Of the many the most: a machine that has other things to do may stand still now and then.
    assert statistics.median(waits) < 0.25, "seconds that another client waited"
    assert peak_bytes(server) - before < 96 * MIB
    assert answer.persists


def test_many_at_once_leave_nothing_behind(serve: Serve, crowded: Path, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="pyserver-") as short:
        # Over a UNIX socket, of which the kernel takes 208 KiB at most for a client.
        many_at_once(serve(config=configured(crowded, tmp_path), bind=[f"unix:{short}/s"], workers=1, threads=4))


def many_at_once(server: Server) -> None:
    (pid,) = server.workers().values()

    def descriptors() -> int:
        return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())

    before, memory = descriptors(), peak_bytes(server)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.client(within=60)) for _ in range(60)]
        for client in clients:
            client.send(b"GET /many/ HTTP/1.1\r\nHost: a\r\n\r\n")
        assert server.ask("/small.txt", within=60).content == b"small\n"
        wait_until(lambda: server.counters()["requests"] == 61, within=60)  # all are being sent, and nobody reads
        (length,) = {len(client.answer().content) for client in clients}
        assert length > MIB
    grown = peak_bytes(server) - memory
    assert grown < 48 * length, "50 MB for two that are made at once; it would be 120 if each reader held one"
    wait_until(lambda: descriptors() <= before)
    assert server.counters()["responses_5xx"] == 0
