import os
import re
import sys
from pathlib import Path

import pytest

from pyserver import units
from pyserver.cli import main

TREE = Path(__file__).parents[2]
COMMAND = "/srv/tools/bin/pyserver"


def test_everything_of_systemd_and_the_site_is_written_and_readable_for_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = os.umask(0o077)
    try:
        assert main(["units", "--install", str(tmp_path), "--command", COMMAND]) == 0
    finally:
        os.umask(before)
    written = {str(path.relative_to(tmp_path)): path for path in tmp_path.rglob("*") if path.is_file()}
    of_tree = [path.name for folder in ("systemd", "www") for path in (TREE / folder).rglob("*") if path.is_file()]
    assert len(written) == len(of_tree)
    assert {
        "etc/systemd/system/pyserver@.service",
        "etc/systemd/system/pyserver-control.socket",
        "etc/sysusers.d/pyserver.conf",
        "etc/logrotate.d/pyserver",
        "etc/pyserver/pyserver.toml",
        "usr/local/lib/systemd/catalog/pyserver.catalog",
        "usr/local/share/doc/pyserver/examples/root.conf",
        "var/www/pyserver/index.html",
    } <= set(written)
    assert {path.stat().st_mode & 0o777 for path in written.values()} == {0o644}
    assert {path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_dir()} == {0o755}
    assert "systemctl enable --now pyserver.socket" in capsys.readouterr().out


def test_the_command_is_named_and_shown_to_the_service(tmp_path: Path) -> None:
    assert main(["units", "--install", str(tmp_path), "--command", COMMAND]) == 0
    for name in ("pyserver.service", "pyserver@.service"):
        text = (tmp_path / "etc/systemd/system" / name).read_text()
        assert re.search(rf"^ExecStart={COMMAND} serve ", text, re.MULTILINE)
        assert re.search(rf"^ExecReload={COMMAND} reload", text, re.MULTILINE)
        assert re.search(rf"^BindReadOnlyPaths={COMMAND} /", text, re.MULTILINE)
        assert "/usr/bin/pyserver" not in text


def test_a_distributions_command_gives_the_units_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "base_prefix", "/usr")
    monkeypatch.setattr(sys, "prefix", "/usr")
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")
    found = {file.place: file.content for file in units.files("/usr/bin/pyserver")}
    for name in ("pyserver.service", "pyserver@.service", "pyserver.socket"):
        assert found[f"etc/systemd/system/{name}"] == (TREE / "systemd" / name).read_bytes()


def test_configuration_and_site_are_never_replaced_and_units_are(tmp_path: Path) -> None:
    mine = tmp_path / "etc/pyserver/pyserver.toml"
    site = tmp_path / "var/www/pyserver"
    unit = tmp_path / "etc/systemd/system/pyserver.service"
    for path in (mine, unit):
        path.parent.mkdir(parents=True)
        path.write_text("mine")
    site.mkdir(parents=True)
    assert main(["units", "--install", str(tmp_path), "--command", COMMAND]) == 0
    assert mine.read_text() == "mine"
    assert list(site.iterdir()) == []
    assert unit.read_text() != "mine"


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("/home/alice/.local/bin/pyserver", "is in /home, where the service sees nothing"),
        ("/root/.local/bin/pyserver", "is in /root, where the service sees nothing"),
        ("/opt/my tools/bin/pyserver", "has a character that means something else in a unit"),
        ("/opt/100%/bin/pyserver", "has a character that means something else in a unit"),
    ],
)
def test_a_command_that_the_service_could_not_run_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, why: str
) -> None:
    assert main(["units", "--install", str(tmp_path), "--command", command]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert why in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["nothing", "folder", "no program"])
def test_a_command_that_is_not_there_is_refused_on_this_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    monkeypatch.setattr(units, "_write", lambda _root, file: pytest.fail(f"{file.place} was written"))
    monkeypatch.setattr(units, "_HIDDEN", ())  # which is where tests are
    command = tmp_path / "pyserver"
    if kind == "folder":
        command.mkdir()
    elif kind == "no program":
        command.touch(0o644)
    (tmp_path / "link").symlink_to("/")
    for root in ("/", f"{tmp_path}/link"):
        assert main(["units", "--install", root, "--command", str(command)]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"pyserver: {command} is no program here; ")


def test_a_command_that_is_not_there_yet_is_warned_of_below_another_root(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["units", "--install", str(tmp_path), "--command", COMMAND]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"pyserver: {tmp_path}{COMMAND} is no program so far; ")
    there = Path(f"{tmp_path}{COMMAND}")
    there.parent.mkdir(parents=True)
    there.touch(0o755)
    assert main(["units", "--install", str(tmp_path), "--command", COMMAND]) == 0
    assert capsys.readouterr().err == ""


def test_a_place_that_cannot_be_written_is_one_line_and_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "etc").touch()
    assert main(["units", "--install", str(tmp_path), "--command", COMMAND]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "etc" in line


def test_a_package_of_the_distribution_has_its_units_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(units, "_DATA", tmp_path / "pyserver/data")
    monkeypatch.setattr(units, "_TREE", tmp_path)
    assert main(["units", "--print", "--command", "/usr/bin/pyserver"]) == 1
    assert capsys.readouterr().err == "pyserver: this pyserver came with its units: systemctl cat pyserver.service\n"
    assert units.data("www") is None
