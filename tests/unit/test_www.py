"""The default site stands alone: nothing from elsewhere, no script, every link leads somewhere, readable by all."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

import pytest
from tests.unit.colours import contrast

WWW = Path(__file__).parents[2] / "www"
PAGES = sorted(WWW.rglob("*.html"))

# Attributes that make a browser fetch or go somewhere (HTML Living Standard, index of attributes of type URL).
LINKS = {"href", "src", "srcset", "action", "formaction", "poster", "data", "cite", "background", "ping", "manifest"}

# Elements that have no end tag (HTML 13.1.2).
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


class Page(HTMLParser):
    """What of a page these tests look at; unbalanced tags are an error."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> repeats an attribute"
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open:
            self.words.setdefault(self._open[-1], []).append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def links(self) -> list[str]:
        return [value for _, attributes in self.elements for name, value in attributes.items() if name in LINKS]

    def ids(self) -> list[str]:
        return [attributes["id"] for _, attributes in self.elements if "id" in attributes]


@pytest.fixture(params=PAGES, ids=lambda path: str(path.relative_to(WWW)))
def page(request: pytest.FixtureRequest) -> Page:
    return Page(request.param)


def test_there_is_an_index() -> None:
    assert WWW / "index.html" in PAGES


def test_title_language_and_encoding(page: Page) -> None:
    assert page.source.lower().startswith("<!doctype html>")
    assert page.all("html")[0]["lang"]
    assert len("".join(page.words["title"]).strip()) > 5
    assert page.all("meta")[0] == {"charset": "utf-8"}, "within the first 1024 bytes"
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")


def test_nothing_comes_from_elsewhere(page: Page) -> None:
    for link in page.links():
        assert not urlsplit(link).scheme, link
        assert not urlsplit(link).netloc, link
        assert not link.startswith("/"), f"{link}: the page also works below another path"
    assert "url(" not in page.source
    assert "@import" not in page.source


def test_no_script(page: Page) -> None:
    assert not page.all("script")
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]


def test_every_link_leads_somewhere(page: Page) -> None:
    assert page.links()
    for link in page.links():
        parts = urlsplit(link)
        if parts.path:
            assert (WWW / parts.path).is_file(), link
        if parts.fragment:
            assert parts.fragment in page.ids(), link


def test_landmarks_and_headings(page: Page) -> None:
    for landmark in ("header", "main", "footer", "h1"):
        assert len(page.all(landmark)) == 1, landmark
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert all(deeper - level <= 1 for level, deeper in zip([0, *levels], levels, strict=False)), levels
    assert len(page.ids()) == len(set(page.ids()))
    for _, attributes in page.elements:
        assert attributes.get("aria-labelledby", page.ids()[0]) in page.ids()


@pytest.mark.parametrize("which", [0, 1], ids=["light", "dark"])
def test_contrast(which: int) -> None:
    """WCAG 2.2, 1.4.3: 4.5 to 1 for text, in either scheme, on either ground."""
    style = Page(WWW / "index.html").words["style"]
    palettes = re.findall(r":root \{(.*?)\}", "".join(style), re.DOTALL)
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", palettes[which]))
    for text in ("ink", "soft", "accent"):
        for ground in ("ground", "raised"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)


def test_the_stylesheet_knows_both_schemes_and_shows_the_focus() -> None:
    style = "".join(Page(WWW / "index.html").words["style"])
    assert "prefers-color-scheme: dark" in style
    assert ":focus-visible" in style


def test_only_commands_that_exist_are_recommended() -> None:
    ours = re.findall(r"<code>pyserver (\w+)", (WWW / "index.html").read_text(encoding="utf-8"))
    assert set(ours) <= {"serve", "check", "status"}


def test_pictures_are_well_formed() -> None:
    for picture in WWW.rglob("*.svg"):
        assert ET.parse(picture).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_it_is_light() -> None:
    assert sum(file.stat().st_size for file in WWW.rglob("*") if file.is_file()) < 32 * 1024


def test_what_it_says_to_type_is_what_the_readme_says() -> None:
    said = (WWW.parent / "README.md").read_text(encoding="utf-8")
    ours = re.findall(
        r"<code>((?:systemctl|journalctl|pyserver) [^<]+)", (WWW / "index.html").read_text(encoding="utf-8")
    )
    assert len(ours) > 5
    assert [command for command in ours if not re.search(rf"{re.escape(command)}(?![.\w-])", said)] == []
