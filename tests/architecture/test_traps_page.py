"""docs/traps.md has every trap that is named anywhere, each once and in order."""

import re
from pathlib import Path

from docs.generate import PROJECT

PAGE = PROJECT / "docs/traps.md"
FOLDERS = ("benchmarks", "docs", "packaging", "service", "systemd", "tests", "www")
NUMBER = re.compile(r"(?<![\w-])T-([0-9]+)\b")


def named(folder: Path) -> dict[int, Path]:
    """Return each number of a trap, with a file that names it."""
    kinds = (".md", ".py", ".toml", ".sh", ".service", ".socket")
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix in kinds and path != PAGE and "__pycache__" not in path.parts:
            found.update({int(number): path for number in NUMBER.findall(path.read_text("utf-8"))})
    return found


def rows() -> list[int]:
    return [int(number) for number in re.findall(r"^\| T-([0-9]+) \|", PAGE.read_text("utf-8"), re.MULTILINE)]


def test_rows_are_in_their_order_and_whole() -> None:
    assert rows() == list(range(1, len(rows()) + 1))
    cells = [line.count(" | ") for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| T-")]
    assert set(cells) == {2}


def test_what_is_named_is_on_the_page() -> None:
    found = {number: path for name in FOLDERS for number, path in named(PROJECT / name).items()}
    assert len(found) > 40
    assert {number: path for number, path in found.items() if number not in rows()} == {}


def test_one_that_is_not_there_is_found(tmp_path: Path) -> None:
    sign = "T-"  # or this file would name them
    (tmp_path / "module.py").write_text(f'# as "{sign}1000" says ({sign}1001), and nothing of U{sign}7 or {sign}7x\n')
    assert set(named(tmp_path)) == {1000, 1001}
