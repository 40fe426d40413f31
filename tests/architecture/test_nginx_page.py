"""docs/nginx.md names options, units' settings and commands that there are, and its example is a configuration."""

import re
from pathlib import Path

import pytest
from docs.commands import commands
from docs.generate import PROJECT, header_of

from pyserver.config import LISTS, OPTIONS, load

PAGE = (PROJECT / "docs/nginx.md").read_text("utf-8")
TABLE = [
    [cell.strip() for cell in line.split("|")[1:-1]]
    for line in PAGE.partition("## Directives\n")[2].partition("\n## ")[0].splitlines()
    if line.startswith("| ")
][1:]
UNITS = "".join(path.read_text("utf-8") for path in (PROJECT / "systemd").rglob("*.*") if path.is_file())


def test_every_row_has_three_cells_and_says_something() -> None:
    assert len(TABLE) > 40
    assert [row for row in TABLE if len(row) != 3 or not row[0] or not (row[1] or row[2])] == []
    assert len({row[0] for row in TABLE}) == len(TABLE)


@pytest.mark.parametrize("named", sorted({name for row in TABLE for name in re.findall(r"`([^`]+)`", row[1])}))
def test_what_stands_for_a_directive_is_there(named: str) -> None:
    if named.endswith("="):
        assert re.search(rf"^{named}", UNITS, re.MULTILINE)
    else:
        assert named in {*OPTIONS, *map(header_of, LISTS), "conf.d/*.toml"}


def test_what_looks_like_an_option_elsewhere_on_the_page_is_one() -> None:
    tables = {name.partition(".")[0] for name in OPTIONS}
    named = {name for name in re.findall(r"`([a-z]+(?:\.[a-z_]+)+)`", PAGE) if name.partition(".")[0] in tables}
    assert len(named) > 30
    assert named <= set(OPTIONS)


def test_its_commands_are_there() -> None:
    named = set(re.findall(r"`pyserver ([a-z]+)", PAGE))
    assert len(named) > 3
    assert named <= {command.name for command in commands()}


def test_its_example_is_taken_and_means_what_it_says(tmp_path: Path) -> None:
    (example,) = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for name in ("example", "assets", "log"):
        (tmp_path / name).mkdir()
    example = example.replace("/srv", str(tmp_path)).replace("/var/log/pyserver", str(tmp_path / "log"))
    (tmp_path / "pyserver.toml").write_text(example)
    config = load(str(tmp_path / "pyserver.toml"))
    (site,) = config.sites
    assert site.hosts == ("example.org", "www.example.org")
    assert (site.listing, site.compress, site.precompressed) == (True, True, True)
    assert config.warnings == ()
