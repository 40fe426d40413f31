"""docs/robustness.md claims nothing that no test shows, and its options are there with these defaults."""

import re

import pytest
from docs.generate import PROJECT

from pyserver.config import OPTIONS

PAGE = (PROJECT / "docs/robustness.md").read_text("utf-8")


@pytest.mark.parametrize("named", sorted(set(re.findall(r"`(tests/[^`]+)`", PAGE))))
def test_what_is_named_is_a_test(named: str) -> None:
    path, _, function = named.partition("::")
    text = (PROJECT / path).read_text("utf-8")
    assert not function or re.search(rf"^def {function}\(", text, re.MULTILINE)


def test_each_row_of_faults_names_its_test() -> None:
    rows = [line for line in PAGE.split("## When something breaks")[1].splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 15
    assert all(re.search(r"`tests/[^`]+::test_[^`]+` \|$", row) for row in rows)


def test_deadlines_have_the_defaults_of_the_table() -> None:
    found = re.findall(r"\| `((?:limits|server)\.[a-z_]+)` \| ([0-9]+) s \|", PAGE)
    assert len(found) == 6
    assert {name: float(value) for name, value in found} == {name: OPTIONS[name].default for name, _ in found}


def test_every_limit_is_in_the_example() -> None:
    example = PAGE.partition("```toml")[2].partition("```")[0]
    assert {name for name in OPTIONS if name.startswith("clients.")} == {
        f"clients.{key}" for key in re.findall(r"^([a-z_]+) =", example, re.MULTILINE)
    }
