"""The page for administrators: it needs nothing from elsewhere, and its policy fits it."""

import base64
import hashlib
import re
import shutil
import subprocess

import pytest
from tests.unit.colours import contrast

from pyserver.handlers.dashboard import PAGE, POLICY
from pyserver.ipc.activity import CurrentRequest
from pyserver.ipc.notes import KINDS
from pyserver.ipc.observe import Snapshot, Worker
from pyserver.ipc.stats import COUNTERS, HISTOGRAMS, SERVER

TEXT = PAGE.decode()
SCRIPT = TEXT.partition("<script>")[2].partition("</script>")[0]


@pytest.mark.parametrize("element", ["script", "style"])
def test_its_policy_knows_what_is_in_it_by_its_hash_and_nothing_else(element: str) -> None:
    (content,) = re.findall(rf"<{element}>(.*?)</{element}>", TEXT, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    (sources,) = re.findall(rf"{element}-src ([^;]*);", POLICY.decode())
    assert sources == f"'sha256-{digest}'"
    assert POLICY.startswith(b"default-src 'none';")
    assert b"unsafe" not in bytes(POLICY)


def test_it_loads_nothing_from_elsewhere() -> None:
    assert re.findall(r"https?:|//[a-z]|@import|url\(", TEXT) == []
    assert re.findall(r'(?:src|href)="([^"]*)"', TEXT) == ["data:,", "status.json"]
    assert re.findall(r" on[a-z]+=| style=", TEXT) == []


def test_what_it_shows_is_text() -> None:
    assert "innerHTML" not in SCRIPT
    assert "document.write" not in SCRIPT


def test_every_element_that_the_script_wants_is_there() -> None:
    wanted = set(re.findall(r'\b(?:at|say|chart)\("([a-z]+)"', SCRIPT))
    wanted |= {f"{name}{more}" for name in ("requests", "took", "waited", "connections") for more in ("", "-scale")}
    assert len(wanted) > 25
    ids = re.findall(r'id="([a-z0-9_-]+)"', TEXT)
    assert wanted <= set(ids)
    assert len(ids) == len(set(ids))


def test_every_number_that_it_shows_is_in_the_document() -> None:
    counters = {counter.name for counter in COUNTERS}
    assert set(re.findall(r"\bt\.([a-z_]+)", SCRIPT)) | set(re.findall(r"counters\.([a-z_]+)", SCRIPT)) <= counters
    assert set(re.findall(r"\bnow\.([a-z_]+)", SCRIPT)) - {"times", "ready", "map"} <= set(Snapshot._fields)
    assert set(re.findall(r"\bw\.([a-z_]+)", SCRIPT)) <= set(Worker._fields)
    assert set(re.findall(r"\br\.([a-z_]+)", SCRIPT)) <= set(CurrentRequest._fields)
    ill = set(re.findall(r'"([a-z ]+)"(?=.*includes\(e\.kind)', SCRIPT))
    assert ill == {"died", "hung", "reload failed"} <= set(KINDS)


def test_every_counter_has_its_row() -> None:
    """From the one table, with its own words; times are told by their percentiles."""
    rows = dict(re.findall(r'<tr><th scope="row">(.*?)</th><td id="all-([a-z0-9_]+)">', TEXT))
    timed = {histogram.name for histogram in HISTOGRAMS}
    counters = [counter for counter in COUNTERS if counter.name not in timed]
    assert {counter.text: counter.name for counter in counters}.items() <= rows.items()
    grow = {counter.text: counter.name for counter in SERVER if not counter.gauge}
    assert grow.items() <= rows.items()
    assert len(rows) == len(counters) + len(grow)
    assert all(f"{name}: now.{name}" in SCRIPT for name in grow.values())


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_what_is_to_be_read_stands_out(theme: str) -> None:
    """As WCAG 2.2 asks: 4.5 to 1 for text (1.4.3), 3 to 1 for lines (1.4.11), in both themes."""
    first, second = re.findall(r":root \{(.*?)\}", TEXT, re.DOTALL)[:2]
    colours = dict(re.findall(r"--([a-z]+): (#[0-9a-f]+)", first))
    if theme == "dark":
        assert set(colours) == set(dict(re.findall(r"--([a-z]+): (#[0-9a-f]+)", second)))
        colours = dict(re.findall(r"--([a-z]+): (#[0-9a-f]+)", second))
    assert contrast("#fff", "#000000") == pytest.approx(21)
    for behind in ("back", "card"):
        for name, least in {"ink": 7, "dim": 4.5, "good": 4.5, "bad": 4.5, "one": 3, "two": 3, "three": 3}.items():
            assert contrast(colours[name], colours[behind]) >= least, (name, behind)


def test_a_reader_of_the_screen_has_a_name_for_everything() -> None:
    """Charts say in words what they show; tables are regions with a title; what changes by itself is no live region."""
    charts = re.findall(r'<svg id="[a-z]+" role="img" data-title="([^"]+)"', TEXT)
    assert len(charts) == 4
    assert 'setAttribute("aria-label"' in SCRIPT
    assert TEXT.count('role="region"') == TEXT.count("<table>") == TEXT.count('tabindex="0"')
    assert re.findall(r'id="([a-z]+)" role="status"', TEXT) == ["state", "news"]
    assert '<button id="pause" type="button" aria-pressed="false">' in TEXT


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_script_is_one() -> None:
    done = subprocess.run(["node", "--check", "-"], input=SCRIPT.encode(), capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
