"""A known hole in what is pinned fails .ci/run; that nobody can be asked for one is told, and fails nothing.

The question is the real one (`./dev audit`), and so is what becomes of it in .ci/run. The database is a server here
that answers in the form of OSV's; of `./dev test` only what it was told is looked at.
"""

import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest
from docs.generate import PROJECT

AUDITOR = PROJECT / ".cache/audit/venv/bin/pip-audit"
NOBODY = "http://127.0.0.1:1/"  # of the ports that only root may use the lowest: nobody listens there
HOLE = {
    "id": "PYSEC-2099-1",
    "summary": "a hole",
    "modified": "2099-01-01T00:00:00Z",
    "published": "2099-01-01T00:00:00Z",
    "affected": [
        {
            "package": {"name": "h11", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99"}]}],
        }
    ],
}


class Database(ThreadingHTTPServer):
    """Answers each question for holes as it is told to: none, one in h11, an error, or never."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.answer = "none"
        self.asked: list[str] = []
        self.over = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1/query"


class Answer(BaseHTTPRequestHandler):
    server: Database

    def do_POST(self) -> None:
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = question["package"]["name"]
        self.server.asked.append(name)
        if self.server.answer == "never":
            self.server.over.wait()
        content = json.dumps({"vulns": [HOLE]} if self.server.answer == "one" and name == "h11" else {}).encode()
        self.send_response(503 if self.server.answer == "error" else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def database() -> Iterator[Database]:
    with Database() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module", autouse=True)
def _auditor() -> None:
    """Have pip-audit installed, if it can be had: where .ci/run was before, it is there or is not to be had."""
    if not AUDITOR.exists():
        nobody = {**os.environ, "PYSERVER_OSV_URL": NOBODY}
        subprocess.run(["timeout", "60", PROJECT / "dev", "audit"], env=nobody, capture_output=True, check=False)
    if not AUDITOR.exists():
        pytest.skip("pip-audit is not to be had")


class Run(NamedTuple):
    status: int
    told: str  # to `./dev test`
    said: str


def run(tmp_path: Path, url: str, seconds: int = 100) -> Run:
    """Run .ci/run as it is, with a `dev` beside it that asks for real and tests nothing."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(PROJECT / ".ci/run", tmp_path / ".ci/run")
    dev = tmp_path / "dev"
    dev.write_text(f"""#!/bin/sh
case $1 in
audit) exec {PROJECT}/dev audit ;;
test) echo "CI=$CI failed=${{PYSERVER_FAILED_PARTS-nothing}}" ;;
esac
""")
    dev.chmod(0o755)
    environment = {**os.environ, "PYSERVER_OSV_URL": url, "PYSERVER_AUDIT_S": str(seconds), "no_proxy": "127.0.0.1"}
    environment.pop("PYSERVER_FAILED_PARTS", None)
    done = subprocess.run(
        [tmp_path / ".ci/run"], env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    return Run(done.returncode, done.stdout.splitlines()[-1], done.stderr)


def test_nothing_known_is_no_failure(database: Database, tmp_path: Path) -> None:
    done = run(tmp_path, database.url)
    assert (done.status, done.told) == (0, "CI=true failed=nothing"), done.said
    pinned = re.findall(r"^([\w-]+)==", (PROJECT / "tests/requirements.txt").read_text(), re.MULTILINE)
    assert {name.lower().replace("_", "-") for name in pinned} <= set(database.asked)
    assert "No known vulnerabilities found" in done.said


def test_a_hole_fails_the_run(database: Database, tmp_path: Path) -> None:
    database.answer = "one"
    done = run(tmp_path, database.url)
    assert done.told == "CI=true failed=audit", done.said
    assert "Found 1 known vulnerability" in done.said


@pytest.mark.parametrize("answer", ["error", "nobody"])
def test_that_nobody_can_be_asked_is_told_and_fails_nothing(database: Database, tmp_path: Path, answer: str) -> None:
    database.answer = answer
    done = run(tmp_path, database.url if answer == "error" else NOBODY)
    assert (done.status, done.told) == (0, "CI=true failed=nothing"), done.said
    assert "whether there are known holes could not be asked" in done.said


def test_so_is_that_it_takes_too_long(database: Database, tmp_path: Path) -> None:
    database.answer = "never"
    done = run(tmp_path, database.url, seconds=2)
    assert (done.status, done.told) == (0, "CI=true failed=nothing"), done.said
    assert "could not be asked within 2 s" in done.said
