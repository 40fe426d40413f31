"""A server for a test, and the site it serves."""

import hashlib
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import pytest
from tests.service.harness import TREE, Server

Serve: TypeAlias = Callable[..., Server]

LARGE_BYTES = 20 * 1024 * 1024


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with an index, a small, a middling and no large file."""
    root = tmp_path / "site"
    root.mkdir()
    (root / "index.html").write_text("<!doctype html><title>here</title>\n")
    (root / "small.txt").write_text("small\n")
    (root / "middling.bin").write_bytes(bytes(range(256)) * 400)
    return root


@pytest.fixture(scope="session")
def large() -> bytes:
    """Content that does not fit into any buffer, and in which every part differs."""
    block = b"".join(hashlib.sha256(str(number).encode()).digest() for number in range(32768))
    return b"".join(bytes([number]) + block[1:] for number in range(LARGE_BYTES // len(block)))


@pytest.fixture
def downloads(site: Path, large: bytes) -> Path:
    """The site with what no buffer holds in it."""
    (site / "large.bin").write_bytes(large)
    return site


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose name is short enough for a socket's."""
    with TemporaryDirectory(prefix="pyserver-") as name:
        yield Path(name)


@pytest.fixture
def launch(site: Path) -> Iterator[Serve]:
    """Start servers, of `site` unless told otherwise; at the end each is stopped, and must leave nothing behind."""
    servers: list[Server] = []

    def start(root: Path | None = None, **options: Any) -> Server:  # noqa: ANN401  those of Server
        server = Server(root or site, **options)
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.finish()


@pytest.fixture
def serve(launch: Serve) -> Serve:
    """Start servers and wait until each is ready."""

    def start(root: Path | None = None, **options: Any) -> Server:  # noqa: ANN401  those of Server
        return launch(root, **options).ready()

    return start


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A copy of the code, to be changed; what is compiled stays out of it, so that a change always counts."""
    code = tmp_path / "code"
    shutil.copytree(TREE / "service/pyserver", code / "pyserver", ignore=shutil.ignore_patterns("__pycache__"))
    return code


@pytest.fixture
def admin() -> Iterator[socket.socket]:
    """A listener for administrators, as systemd would hold it."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield listener
