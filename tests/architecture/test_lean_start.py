"""What a server that starts must not load: clients wait for it, at a start, a restart and a reload.

Seen in what the interpreter says that it imports (-X importtime), the master and its workers alike. How long each takes
is in docs/performance.md; here no time is measured.
"""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

import pyserver

SERVICE: Final = Path(pyserver.__file__).parent.parent

# Each with where it once came from, and what it cost.
WASTE: Final = {
    "dataclasses": "the configuration: with inspect, and code made for each class, 13 ms",
    "inspect": "dataclasses",
    "hashlib": "digests, of which pyserver.digest has the one that is needed: with OpenSSL 3 ms",
    "_hashlib": "hashlib",
    "secrets": "random numbers, which os.urandom has too: 1 ms",
    "json": "quotes, handover and JSON logs: 1 ms",
    "html": "listings: 1 ms",
    "difflib": "suggestions for what was misspelt: half a millisecond",
    "http": "HTTPStatus: half a millisecond",
    "importlib.abc": "keeping the code of workers: with tempfile and archives 4 to 8 ms",
    "tempfile": "importlib.abc",
    "shutil": "the width of the terminal, for argparse: with archives 2 ms",
    "importlib.metadata": "nothing: versions are constants",
    "subprocess": "nothing: a server starts no program",
    "asyncio": "nothing",
    "pyserver.handlers.listing": "sites that list no folder: 4 ms",
    "pyserver.worker.jsonlog": "logs that are not JSON",
    "pyserver.handlers.dashboard": "servers without a listener for administrators",
    "pyserver.compress": "another command",
    "pyserver.units": "another command",
    "pyserver.top.main": "another command",
}


def imported(said: str) -> list[str]:
    return re.findall(r"^import time:\s+\d+ \|\s+\d+ \|\s+(\S+)$", said, re.MULTILINE)


def interpreter(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-X", "importtime", *arguments]
    environ = {**os.environ, "PYTHONPATH": str(SERVICE)}
    return subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """What a server of two workers has loaded when it is ready, and by its end."""
    file = tmp_path_factory.mktemp("lean") / "pyserver.toml"
    file.with_name("www").mkdir()
    file.write_text(
        '[server]\nworkers = 2\n[log]\naccess = "access.log"\n[[listen]]\naddress = "127.0.0.1:0"\n'
        '[[site]]\nroot = "www"\n'
    )
    with interpreter("-c", "pass") as bare:  # and what is told of it here: a venv has more to load than a package
        assert bare.stderr is not None
        everywhere = {*imported(bare.stderr.read())}
    with interpreter("-m", "pyserver", "serve", "--config", str(file)) as server:
        assert server.stderr is not None
        said = ""
        try:
            for line in server.stderr:
                said += line
                if "ready, 2 workers" in line:
                    break
            server.send_signal(signal.SIGTERM)
            said += server.stderr.read()
        finally:
            server.kill()
    found = imported(said)
    assert found.count("pyserver.master.main") == 1, said
    assert found.count("pyserver.worker.main") == 2, "in each worker, and not before"
    return {*found} - everywhere


@pytest.mark.parametrize("module", WASTE)
def test_a_server_does_without(module: str, loaded: set[str]) -> None:
    assert module not in loaded, WASTE[module]
