"""docs/http.md claims nothing that no test shows."""

import re
from typing import NamedTuple

import pytest
from docs.generate import PROJECT

PAGE = (PROJECT / "docs/http.md").read_text("utf-8")


class Row(NamedTuple):
    sections: str
    what: str
    verdict: str
    why: str

    def __repr__(self) -> str:
        return f"{self.sections} {self.what}"

    @property
    def first_section(self) -> tuple[int, ...]:
        number = re.match(r"[0-9.]+", self.sections)
        assert number is not None
        return tuple(map(int, number[0].split(".")))


def tables() -> list[list[Row]]:
    found = []
    for part in PAGE.split("\n## ")[1:]:
        lines = [line for line in part.splitlines() if line.startswith("|")][2:]
        found.append([Row(*(cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])) for line in lines])
    return found


ROWS = [row for table in tables() for row in table]


@pytest.mark.parametrize("row", ROWS, ids=repr)
def test_a_row_shows_or_says_why_not(row: Row) -> None:
    named = re.findall(r"`(tests/[^`]+)`", row.why)
    assert row.verdict in ("yes", "no")
    assert bool(named) is (row.verdict == "yes")
    assert all((PROJECT / name).is_file() for name in named)
    assert row.verdict == "yes" or len(row.why.split()) >= 2


def test_sections_are_in_their_order() -> None:
    for table in tables():
        numbers = [row.first_section for row in table]
        assert len(numbers) >= 5
        assert numbers == sorted(numbers)
