"""The README leads to every page, and each link of it and of the pages leads to a file."""

import re
from pathlib import Path

import pytest
from docs.generate import PROJECT

PAGES = sorted((PROJECT / "docs").rglob("*.md"))
LINK = re.compile(r"\]\(([^)\s:#]+)(?:#[^)]*)?\)")  # of URLs nothing


def linked(page: Path) -> set[Path]:
    return {(page.parent / link).resolve() for link in LINK.findall(page.read_text("utf-8"))}


def test_it_links_every_page_of_docs() -> None:
    pages = {page for page in PAGES if page.parent.name == "docs"}
    assert len(pages) > 10
    assert {page.name for page in pages - linked(PROJECT / "README.md")} == set()


@pytest.mark.parametrize(
    "page", [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *PAGES], ids=lambda page: page.name
)
def test_a_link_leads_to_a_file(page: Path) -> None:
    assert {str(path) for path in linked(page) if not path.is_file()} == set()
