"""The page for administrators: it needs nothing from elsewhere, and its policy fits it."""

import base64
import hashlib
import re
import shutil
import subprocess

import pytest

from pyserver.handlers.dashboard import PAGE, POLICY
from pyserver.ipc.observe import Snapshot, Worker
from pyserver.ipc.stats import COUNTERS

TEXT = PAGE.decode()
SCRIPT = TEXT.partition("<script>")[2].partition("</script>")[0]


@pytest.mark.parametrize("element", ["script", "style"])
def test_its_policy_knows_what_is_in_it_by_its_hash_and_nothing_else(element: str) -> None:
    (content,) = re.findall(rf"<{element}>(.*?)</{element}>", TEXT, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    (sources,) = re.findall(rf"{element}-src ([^;]*);", POLICY.decode())
    assert sources == f"'sha256-{digest}'"
    assert POLICY.startswith(b"default-src 'none';")
    assert b"unsafe" not in POLICY


def test_it_loads_nothing_from_elsewhere() -> None:
    assert re.findall(r"https?:|//[a-z]|@import|url\(", TEXT) == []
    assert re.findall(r'(?:src|href)="([^"]*)"', TEXT) == ["data:,", "status.json"]
    assert re.findall(r" on[a-z]+=| style=", TEXT) == []


def test_what_it_shows_is_text() -> None:
    assert "innerHTML" not in SCRIPT
    assert "document.write" not in SCRIPT


def test_every_element_that_the_script_wants_is_there() -> None:
    wanted = set(re.findall(r'(?:\bat|draw)\("([a-z]+)"', SCRIPT))
    assert len(wanted) > 8
    ids = re.findall(r'id="([a-z-]+)"', TEXT)
    assert wanted <= set(ids)
    assert len(ids) == len(set(ids))


def test_every_number_that_it_shows_is_in_the_document() -> None:
    counters = {counter.name for counter in COUNTERS}
    assert set(re.findall(r"\bt\.([a-z_]+)", SCRIPT)) | set(re.findall(r"counters\.([a-z_]+)", SCRIPT)) <= counters
    assert set(re.findall(r"\bnow\.([a-z_]+)", SCRIPT)) - {"times", "ready"} <= set(Snapshot._fields)
    assert set(re.findall(r"\bw\.([a-z_]+)", SCRIPT)) <= set(Worker._fields)


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_script_is_one() -> None:
    done = subprocess.run(["node", "--check", "-"], input=SCRIPT.encode(), capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
