"""Files that change under the server's hands, and what in the root is no file: none stops it (T-6, T-50, T-65)."""

import os
import socket
from pathlib import Path

import pytest
from tests.service.client import Failure, Reset, Truncated, request
from tests.service.conftest import Serve
from tests.service.harness import CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, Server, wait_until


def test_file_that_shrinks_while_it_is_sent(serve: Serve, site: Path, large: bytes) -> None:
    """T-50: the announced length cannot be kept, so the connection must end; never padding, never another answer."""
    path = site / "large.bin"
    path.write_bytes(large)
    server = serve()
    with server.client(receive_buffer=65536) as client:
        client.send(request("/large.bin"))
        wait_until(lambda: server.counters()["responses_2xx"] == 1)
        with server.logs("/large.bin became shorter while it was sent, closing after"):
            os.truncate(path, 8 * 1024 * 1024)
            with pytest.raises((Truncated, Reset)):
                client.answer()
    answer = server.ask("/large.bin")
    assert answer.content == large[: 8 * 1024 * 1024]


def test_file_that_grows_while_it_is_sent(serve: Serve, site: Path, large: bytes) -> None:
    path = site / "large.bin"
    path.write_bytes(large)
    server = serve()
    with server.client(receive_buffer=65536) as client:
        client.send(request("/large.bin"))
        wait_until(lambda: server.counters()["responses_2xx"] == 1)
        with path.open("ab") as file:
            file.write(b"more" * 1000)
        assert client.answer().content == large
        assert client.ask("/small.txt").content == b"small\n"


def test_file_that_is_replaced_while_it_is_sent(serve: Serve, site: Path, large: bytes) -> None:
    """By rename, as every careful writer does it: who began with the old one gets the old one."""
    path = site / "large.bin"
    path.write_bytes(large)
    server = serve()
    with server.client(receive_buffer=65536) as client:
        client.send(request("/large.bin"))
        wait_until(lambda: server.counters()["responses_2xx"] == 1)
        (site / "new").write_bytes(b"new")
        (site / "new").rename(path)
        assert client.answer().content == large
    wait_until(lambda: server.ask("/large.bin").content == b"new")


def test_small_file_is_seen_again_soon(serve: Serve, site: Path) -> None:
    server = serve()
    assert server.ask("/small.txt").content == b"small\n"
    (site / "small.txt").write_text("changed\n")
    wait_until(lambda: server.ask("/small.txt").content == b"changed\n", within=20)
    (site / "small.txt").unlink()
    wait_until(lambda: server.ask("/small.txt").status == 404, within=20)


@pytest.fixture
def odd(site: Path) -> list[str]:
    """Everything that can have a name and is no file; a site whose maker was careless."""
    os.mkfifo(site / "fifo")
    os.mkfifo(site / "fifo.html")
    with socket.socket(socket.AF_UNIX) as made:
        before = Path.cwd()
        os.chdir(site)  # the path of a socket is short
        try:
            made.bind("socket")
        finally:
            os.chdir(before)
    (site / "loop").symlink_to("loop")
    (site / "outward").symlink_to("/etc/passwd")
    (site / "dangling").symlink_to("nowhere")
    (site / "folder").mkdir()
    os.mkfifo(site / "folder" / "index.html")
    names = ["fifo", "fifo.html", "socket", "loop", "outward", "dangling", "folder/", "folder/index.html"]
    try:
        os.mknod(site / "zero", 0o20666, os.makedev(1, 5))
        names.append("zero")
    except PermissionError:
        pass  # only root makes devices
    return names


def test_things_that_are_no_files(serve: Serve, odd: list[str]) -> None:
    server = serve(workers=1, threads=2)
    with server.client() as client:
        for name in odd * 3:
            assert client.ask(f"/{name}").status in (403, 404), name
        assert client.ask("/").status == 200
    assert server.generations() == {0: 1}
    assert server.counters()["responses_5xx"] == 0


def test_server_starts_in_spite_of_them(serve: Serve, odd: list[str], site: Path) -> None:
    (site / "index.html").unlink()
    os.mkfifo(site / "index.html")
    server = serve()
    assert server.ask("/").status in (403, 404)
    assert server.ask("/small.txt").status == 200


def test_unreadable_file(serve: Serve, site: Path) -> None:
    (site / "secret.txt").write_text("secret")
    (site / "secret.txt").chmod(0)
    (site / "closed").mkdir()
    (site / "closed" / "page.html").write_text("secret")
    (site / "closed").chmod(0)
    server = serve(without=(CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH))
    try:
        assert server.ask("/secret.txt").status == 403
        assert server.ask("/closed/page.html").status in (403, 404)
        assert server.ask("/").status == 200
    finally:
        (site / "closed").chmod(0o700)


def test_root_that_goes_away_and_comes_back(serve: Serve, site: Path) -> None:
    """A worker holds the folder that it was started with; nothing of what happens to its name may stop it."""
    server = serve()
    away = site.rename(site.parent / "away")
    assert server.ask("/small.txt").status == 200
    away.rename(site)
    assert server.ask("/small.txt").status == 200


def hammer(server: Server, targets: list[str]) -> int:
    """Ask for everything in turn and return how many answers there were."""
    answers = 0
    with server.client() as client:
        for target in targets:
            try:
                client.ask(target)
            except Failure:
                break
            answers += 1
    return answers


def test_files_beyond_the_cache(serve: Serve, site: Path) -> None:
    """More files than the cache holds, large and small, each asked for several times."""
    for number in range(300):
        (site / f"{number}.txt").write_text(f"{number}\n" * 200)
    server = serve(settings={"limits.cache_entries": 20, "limits.cache_bytes": "64KiB"})
    targets = [f"/{number}.txt" for number in range(300)] * 3
    assert hammer(server, targets) == 900
    assert server.ask("/299.txt").content == b"299\n" * 200
    wait_until(lambda: server.counters()["responses_2xx"] == 901)
