"""docs/threats.md names tests that there are, and links to pages that there are; its count of exceptions is true."""

import re

import pytest
from docs.generate import PROJECT

PAGE = (PROJECT / "docs/threats.md").read_text("utf-8")


@pytest.mark.parametrize("named", sorted(set(re.findall(r"`(tests/[^`]+)`", PAGE))))
def test_what_is_named_is_a_test(named: str) -> None:
    path, _, function = named.partition("::")
    text = (PROJECT / path).read_text("utf-8")
    assert not function or re.search(rf"^def {function}\(", text, re.MULTILINE)


@pytest.mark.parametrize("page", sorted(set(re.findall(r"\]\(([a-z-]+\.md)\)", PAGE))))
def test_what_is_linked_is_there(page: str) -> None:
    assert (PROJECT / "docs" / page).is_file()


def test_the_exceptions_from_the_rules_of_security_are_those_that_are_told() -> None:
    sources = sorted((PROJECT / "service").rglob("*.py"))
    excepted = [
        line for path in sources for line in path.read_text("utf-8").splitlines() if re.search(r"noqa: S\d", line)
    ]
    assert len(excepted) == 4
    assert all(re.search(r"noqa: S(\d+)  # nosec B\1  # \S", line) for line in excepted), "a reason beside each"
    assert "Four lines of the server are excepted" in PAGE
