from pathlib import Path

import pytest
from benchmarks.servers import SERVERS, Setting
from benchmarks.workloads import BROWSERS, WORKLOADS, Place, browser_head, make_site

from pyserver.config import load
from pyserver.http.reader import RequestReader


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    site = tmp_path_factory.mktemp("site")
    make_site(site)
    return Place(8080, site)


def test_the_site_is_the_same_every_time(place: Place, tmp_path: Path) -> None:
    make_site(tmp_path)
    for name in ("1k.html", "files/0000.html", "files/1999.css"):
        assert (tmp_path / name).read_bytes() == (place.site / name).read_bytes()
    assert len(list((place.site / "files").iterdir())) == 2000


@pytest.mark.parametrize("browser", BROWSERS)
def test_heads_of_browsers_are_requests(browser: str) -> None:
    for name in ("files/0000.html", "files/0001.css"):
        reader = RequestReader()
        reader.feed(browser_head(browser, 8080, name))
        request = reader.next()
        assert request is not None
        assert request.target == b"/" + name.encode()
        assert not reader.pending


def test_the_checks_of_a_workload_are_its_requests(place: Place) -> None:
    for name, workload in WORKLOADS.items():
        if name == "not-modified":  # asks the server for its tag
            continue
        traffic = workload.traffic(place)
        assert traffic.checks, name
        if traffic.requests and name != "new-heads":
            assert {check.request for check in traffic.checks} <= set(traffic.requests), name


def test_the_files_of_the_browsers_are_told_right(place: Place) -> None:
    traffic = WORKLOADS["browsers-2000"].traffic(place)
    assert len(traffic.requests) == 12 * 2000
    assert len({check.request for check in traffic.checks}) == len(traffic.checks) == 24
    for check in traffic.checks:
        name = check.request.split()[1].decode()
        assert check.content == (place.site / name[1:]).read_bytes()


def test_the_page_tells_every_workload_and_its_aim() -> None:
    text = (Path(__file__).parents[2] / "docs/performance.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")] for line in text.splitlines() if line.startswith("| `")]
    told = {row[1].strip("`"): row[3] for row in rows}
    assert told == {name: f"{workload.target:.2f}" for name, workload in WORKLOADS.items()}


@pytest.mark.parametrize("name", SERVERS)
@pytest.mark.parametrize("log", [True, False])
def test_every_server_is_told_the_port_the_files_and_the_log(name: str, log: bool, tmp_path: Path) -> None:
    server = SERVERS[name]
    setting = Setting(4711, tmp_path / "site", tmp_path / "own", tmp_path / "access.log" if log else None)
    plan = server.plan(setting)
    text = " ".join([*plan.argv, *plan.files.values()])
    assert "4711" in text
    assert str(tmp_path / "site") in text or name == "floor"
    if log and server.log:
        assert str(tmp_path / "access.log") in text
    elif not log:
        assert "access.log" not in text


def test_our_configuration_is_valid(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    setting = Setting(4711, tmp_path / "site", tmp_path, None)
    (tmp_path / "pyserver.toml").write_text(SERVERS["ours"].plan(setting).files["pyserver.toml"])
    config = load(str(tmp_path / "pyserver.toml"))
    assert config.worker_count() == 1
