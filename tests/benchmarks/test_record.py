from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from benchmarks import main
from benchmarks.measure import Sample
from benchmarks.picture import draw
from benchmarks.record import Record, machine, merge, page, read, save, shown
from benchmarks.servers import SERVERS
from benchmarks.workloads import WORKLOADS

SVG = "{http://www.w3.org/2000/svg}"


def sample(cpu_us: float) -> Sample:
    return Sample(cpu_us, 12345.6, 300, 900, 0.97)


RECORD = Record(
    "2026-01-02",
    "some <processor>, 2 cores",
    "Rounds: 2.",
    {"ours": "v1", "nginx": "nginx version: nginx/1.22.1"},
    {
        "keepalive-1k": {"ours": [sample(4), sample(6)], "nginx": [sample(8), sample(12)]},
        "range-20k": {"ours": [sample(5)], "granian": "answers 200 where 206 is right\nand more"},
    },
)
CHOSEN = [WORKLOADS["keepalive-1k"], WORKLOADS["range-20k"]]


def test_what_is_saved_is_read(tmp_path: Path) -> None:
    save(RECORD, tmp_path / "record.json")
    assert read(tmp_path / "record.json") == RECORD


def test_of_a_workload_that_was_measured_twice_the_last_run_counts_whole() -> None:
    later = Record("2026-01-03", "m", "r", {"h2o": "2.2.5"}, {"keepalive-1k": {"ours": [sample(3)]}})
    merged = merge([RECORD, later])
    assert merged.date == "2026-01-03"
    assert merged.results["keepalive-1k"] == {"ours": [sample(3)]}  # nginx took no turns with this one
    assert merged.results["range-20k"] == RECORD.results["range-20k"]
    assert merged.versions == RECORD.versions | later.versions


def test_the_page_tells_figures_reasons_and_configurations() -> None:
    text = page(RECORD, CHOSEN, [SERVERS["ours"], SERVERS["nginx"], SERVERS["granian"]])
    assert "| keepalive-1k | 5.00 | 10.0 | - | 2.00 | 1.50 | met |" in text
    assert "| keepalive-1k | ours | 5.00 (4.00 to 6.00) | 12,346 | 0.30 | 0.90 | 97% |" in text
    assert "- granian under range-20k: answers 200 where 206 is right\n" in text
    assert "`nginx version: nginx/1.22.1`" in text
    assert "tcp_nopush on;" in text


@pytest.mark.parametrize("name", SERVERS)
def test_no_page_tells_where_the_checkout_lies(name: str) -> None:
    assert str(Path(__file__).parents[2]) not in shown(SERVERS[name])


def test_the_picture_has_a_mark_for_each_figure() -> None:
    drawn = draw(RECORD, CHOSEN, ["ours", "nginx", "granian"])
    root = ET.fromstring(drawn)
    # In the legend and in the rows; granian has no figure, and so no place in the legend.
    assert len(root.findall(f"{SVG}circle[@class='ours']")) == 1 + 2
    assert len(root.findall(f"{SVG}polygon[@class='nginx']")) == 1 + 1
    words = [element.text for element in root.iter(f"{SVG}text")]
    assert "2.00" in words
    assert "some <processor>, 2 cores" in words
    assert "granian" not in words
    assert "prefers-color-scheme: dark" in drawn
    assert "http" not in drawn.replace("http://www.w3.org/2000/svg", "")  # nothing from elsewhere


def test_less_cpu_is_further_left() -> None:
    root = ET.fromstring(draw(RECORD, CHOSEN[:1], ["ours", "nginx"]))
    ours = float(root.findall(f"{SVG}circle[@class='ours']")[-1].attrib["cx"])
    corners = root.findall(f"{SVG}polygon[@class='nginx']")[-1].attrib["points"]
    assert ours < min(float(corner.split(",")[0]) for corner in corners.split())


def test_this_machine_is_told() -> None:
    assert "cores" in machine()
    assert "Linux" in machine()


def test_the_command_shows_what_was_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(RECORD, tmp_path / "record.json")
    kept = str(tmp_path / "record.json")
    files = ["--markdown", str(tmp_path / "page.md"), "--svg", str(tmp_path / "picture.svg")]
    assert main.main(["--servers", "ours,nginx", "--load", kept, *files]) == 0
    assert "keepalive-1k  5.00   10.0          2.00    1.50  met" in capsys.readouterr().out
    assert (tmp_path / "page.md").read_text().startswith("# CPU time")
    ET.parse(tmp_path / "picture.svg")


def test_the_command_refuses_what_it_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--servers", "ours,ngnix", "--show-config", "ngnix"]) == 1
    assert "unknown: ngnix; there are ours, " in capsys.readouterr().err


def test_the_command_fails_when_ours_answered_wrongly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(RECORD._replace(results={"404": {"ours": "answers 200 where 404 is right"}}), tmp_path / "record.json")
    assert main.main(["--load", str(tmp_path / "record.json")]) == 1
    assert "ours under 404: answers 200" in capsys.readouterr().err
