import base64
import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyserver import limits
from pyserver.clock import Clock
from pyserver.config import Site
from pyserver.files.listing import Folder, Item, Order
from pyserver.files.resolve import Root
from pyserver.handlers import listing
from pyserver.handlers.cache import FileCache
from pyserver.handlers.static import Pending, StaticSite
from pyserver.http import target
from pyserver.http.request import Request, parse_head
from pyserver.http.response import Response

MODIFIED_NS = 1_000_000_000_123_456_789  # 2001-09-09 01:46:40


class Page(HTMLParser):
    """The rows of a listing, as a browser reads them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[tuple[str, str]] = []  # href, text
        self.tags: set[str] = set()
        self.sorted: list[str] = []
        self._href: str | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.add(tag)
        if tag == "a":
            self._href = values["href"] or ""
            self.links.append((self._href, ""))
        self.sorted += [values["aria-sort"] or ""] if "aria-sort" in values else []

    def handle_endtag(self, tag: str) -> None:
        if tag == "a":
            self._href = None

    def handle_data(self, data: str) -> None:
        if self._href is not None:
            href, text = self.links[-1]
            self.links[-1] = href, text + data


def item(name: bytes, *, is_folder: bool = False, size: int = 0, modified_ns: int = MODIFIED_NS) -> Item:
    return Item(name, is_folder, size, modified_ns)


def folder(*items: Item, path: bytes = b"/a/", total: int | None = None, read_whole: bool = True) -> Folder:
    return Folder(path, list(items), len(items) if total is None else total, read_whole)


BY_NAME = Order()


def page(shown: Folder, order: Order = BY_NAME) -> str:
    return "".join(listing.as_html(shown, order))


def request(path: bytes = b"/", *lines: bytes, method: bytes = b"GET") -> Request:
    fields = b"".join(line + b"\r\n" for line in (b"Host: example.org", *lines))
    return parse_head(b"%b %b HTTP/1.1\r\n%b\r\n" % (method, path, fields))


# -- what is asked for ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "order"),
    [
        (b"", Order("name")),
        (b"?", Order("name")),
        (b"?sort=size", Order("size")),
        (b"?sort=time&order=desc", Order("time", descending=True)),
        (b"?order=desc", Order("name", descending=True)),
        (b"?order=asc&sort=size", Order("size")),
        (b"?sort=size&sort=time", Order("time")),
        (b"?sort=colour&order=upside-down", Order("name")),
        (b"?sort=%73ize", Order("size")),
        (b"?sort=%ff%00", Order("name")),
        (b"?" + b"&" * 5000, Order("name")),
    ],
)
def test_order_by_the_query(query: bytes, order: Order) -> None:
    assert listing.wish(request(b"/a/" + query)).order == order


@pytest.mark.parametrize(
    ("lines", "as_json"),
    [
        ((), False),
        ((b"Accept: application/json",), True),
        ((b"accept: application/json, text/html;q=0.9",), True),
        ((b"Accept: text/html;q=0.1", b"Accept: application/json"), True),  # RFC 9110 5.3: one list
        ((b"Accept: */*",), False),
    ],
)
def test_kind_by_accept(lines: tuple[bytes, ...], as_json: bool) -> None:
    assert listing.wish(request(b"/a/", *lines)).as_json is as_json


# -- the page --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "href", "text"),
    [
        (b"a.txt", "./a.txt", "a.txt"),
        (b"a:b", "./a:b", "a:b"),  # RFC 3986 4.2: no scheme
        (b"a b", "./a%20b", "a b"),
        (b"100%", "./100%25", "100%"),
        (b"a?b#c", "./a%3Fb%23c", "a?b#c"),
        (b'"><script>', "./%22%3E%3Cscript%3E", '"><script>'),
        (b"&amp;", "./&amp;", "&amp;"),
        (b"'", "./'", "'"),
        ("ü".encode(), "./%C3%BC", "ü"),
        (b"\xff", "./%FF", "\ufffd"),  # T-8
        (b"\xed\xa0\x80", "./%ED%A0%80", "\ufffd\ufffd\ufffd"),  # a lone surrogate
        ("\u202egnp.exe".encode(), "./%E2%80%AEgnp.exe", "\ufffdgnp.exe"),
        ("\x85".encode(), "./%C2%85", "\ufffd"),
    ],
)
def test_names(name: bytes, href: str, text: str) -> None:
    assert Page(page(folder(item(name)))).links[-1] == (href, text)
    assert Page(page(folder(item(name, is_folder=True)))).links[-1] == (href + "/", text + "/")


def can_be_a_name(name: bytes) -> bool:
    return target.can_name(name) and b"/" not in name and name not in (b".", b"..")


@given(st.binary(min_size=1, max_size=40).filter(can_be_a_name))
def test_every_name_leads_to_its_file_and_cannot_become_markup(name: bytes) -> None:
    text = page(folder(item(name)))
    shown = Page(text)
    assert unquote_to_bytes(shown.links[-1][0].removeprefix("./")) == name
    assert shown.tags == Page(page(folder(item(b"a")))).tags
    assert target.clean(b"/" + shown.links[-1][0].removeprefix("./").encode()) == b"/" + name
    text.encode("utf-8")


def test_the_title_and_the_way_are_escaped() -> None:
    text = page(folder(path=b"/<b>/\xff&/"))
    assert "<title>/&lt;b&gt;/\ufffd&amp;/</title>" in text
    links = Page(text).links
    assert links[:3] == [("../../", "/"), ("../", "<b>/"), ("./", "\ufffd&/")]


def test_the_way_up() -> None:
    assert ("../", "..") in Page(page(folder())).links
    assert "../" not in page(folder(path=b"/"))
    assert Page(page(folder(path=b"/"))).links[0] == ("./", "/")


def test_heads_sort_without_script() -> None:
    text = page(folder(), Order("size", descending=True))
    heads = [link for link in Page(text).links if link[1] in ("Name", "Size", "Modified")]
    assert heads == [
        ("?sort=name&order=asc", "Name"),
        ("?sort=size&order=asc", "Size"),  # the other way round
        ("?sort=time&order=desc", "Modified"),
    ]
    assert Page(text).sorted == ["descending"]
    assert "<script" not in text


def test_the_order_goes_along_into_folders() -> None:
    text = page(folder(item(b"b", is_folder=True), item(b"c")), Order("time", descending=True))
    assert Page(text).links[-2:] == [("./b/?sort=time&order=desc", "b/"), ("./c", "c")]
    assert ("../?sort=time&order=desc", "..") in Page(text).links


def test_nothing_is_loaded_from_anywhere() -> None:
    assert not re.search(r"src=|@import|url\(|<link|http", page(folder(item(b"a"))))


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KiB"),
        (1024, "1.0 KiB"),
        (10_240, "10.0 KiB"),
        (102_348, "99.9 KiB"),
        (102_400, "100 KiB"),
        (1_023_487, "999 KiB"),
        (1_023_500, "1.0 MiB"),
        (734_003_200, "700 MiB"),
        (5 * 2**30, "5.0 GiB"),
        (2**63 - 1, "8.0 EiB"),
    ],
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert listing.human(size) == text
    exact = "1 byte" if size == 1 else f"{size:,} bytes"
    assert f'<td title="{exact}">{text}<' in page(folder(item(b"a", size=size)))


@pytest.mark.parametrize(
    ("modified_ns", "text"),
    [
        (MODIFIED_NS, "2001-09-09T01:46:40Z"),
        (0, "1970-01-01T00:00:00Z"),
        (-1, "1969-12-31T23:59:59Z"),
        (2**63 - 1, "2262-04-11T23:47:16Z"),
        (2**62 * 1_000_000_000, "9999-12-31T00:00:00Z"),
        (-(2**62) * 1_000_000_000, "1000-01-01T00:00:00Z"),
    ],
)
def test_times(modified_ns: int, text: str) -> None:
    assert f"<time datetime={text}>" in page(folder(item(b"a", modified_ns=modified_ns)))


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (folder(), "This folder is empty."),
        (folder(item(b"a")), "0 folders, 1 file."),
        (folder(item(b"a", is_folder=True), item(b"b"), item(b"c")), "1 folder, 2 files."),
        (folder(item(b"a"), total=100_000), "1 of 100,000 are shown."),
        (folder(item(b"a"), total=100_000, read_whole=False), "1 of more than 100,000 are shown."),
    ],
)
def test_counts(shown: Folder, text: str) -> None:
    assert f"<footer>{text} " in page(shown)


# -- for programs ------------------------------------------------------------------------------------------


def test_json() -> None:
    shown = folder(item(b"d\xff", is_folder=True), item(b'"\\ \xc3\xbc', size=5), total=7)
    assert json.loads("".join(listing.as_json(shown))) == {
        "path": "/a/",
        "total": 7,
        "complete": False,
        "items": [
            {"name": "d\ufffd", "href": "./d%FF/", "type": "folder", "size": None, "modified": "2001-09-09T01:46:40Z"},
            {
                "name": '"\\ ü',
                "href": "./%22%5C%20%C3%BC",
                "type": "file",
                "size": 5,
                "modified": "2001-09-09T01:46:40Z",
            },
        ],
    }
    assert json.loads("".join(listing.as_json(folder())))["items"] == []


@pytest.mark.parametrize("name", [b"a" * 250, "\u00fc".encode() * 125, b"<" * 250])
@pytest.mark.parametrize("as_json", [True, False])
def test_its_bytes_are_bounded_and_it_says_so(monkeypatch: pytest.MonkeyPatch, name: bytes, as_json: bool) -> None:
    monkeypatch.setattr(limits, "LISTING_MAX_BYTES", 100_000)
    many = folder(*(item(b"%04d" % number + name) for number in range(2000)))
    content = listing.render(many, listing.Wish(BY_NAME, as_json)).content
    assert 90_000 < len(content) < 100_000 + 10_000  # and what is around the rows
    if as_json:
        document = json.loads(content)
        shown = len(document["items"])
        assert (document["total"], document["complete"]) == (2000, False)
    else:
        shown = content.count(b"<time ")
        assert f"<footer>{shown} of 2,000 are shown".encode() in content
    assert 0 < shown < 2000


# -- as an answer ---------------------------------------------------------------------------------------------


class Visitor:
    """Asks a site, and does what the worker does with a Pending."""

    def __init__(self, settings: Site, aliases: Sequence[tuple[str, Root]] = ()) -> None:
        self.clock = Clock()
        self.root = Root(settings.root, settings.symlinks)
        self.site = StaticSite(settings, self.root, self.clock, FileCache(1 << 20, 100), aliases)

    def ask(self, path: bytes, *lines: bytes, method: bytes = b"GET") -> tuple[Response, bytes, bytes]:
        """Return the answer, its head and its content."""
        answer = self.site.respond(request(path, *lines, method=method), True)
        while isinstance(answer, Pending):
            runner = threading.Thread(target=answer.run)
            runner.start()
            runner.join()
            answer = answer.finish()
        start, _, content = answer.wire.partition(b"\r\n\r\n")
        return answer, start, content


@pytest.fixture
def www(tmp_path: Path) -> Path:
    for name in ("www/listed/b", "www/page"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "www/page/index.html").write_text("index")
    (tmp_path / "www/listed/a.txt").write_text("content")
    (tmp_path / "www/listed/.git").write_text("secret")
    (tmp_path / "www/listed/new\nline").write_text("")
    (tmp_path / "www/listed/back\\slash").write_text("")
    return tmp_path / "www"


@pytest.fixture
def visitor(www: Path) -> Iterator[Visitor]:
    made = Visitor(Site(str(www), listing=True))
    yield made
    made.root.close()


def test_a_folder_without_an_index_is_listed(visitor: Visitor) -> None:
    answer, start, content = visitor.ask(b"/listed/")
    assert answer.status == 200
    assert b"\r\nContent-Type: text/html; charset=utf-8\r\n" in start
    assert b"\r\nVary: Accept\r\n" in start
    assert b"\r\nContent-Length: %d" % len(content) in start
    assert b"\r\nContent-Security-Policy: default-src 'none'; base-uri 'none'" in start
    assert [text for _, text in Page(content.decode()).links][-3:] == ["..", "b/", "a.txt"]


@pytest.mark.parametrize(
    ("security", "fields"), [("strict", b"Referrer-Policy: no-referrer"), ("off", b"Vary: Accept")]
)
def test_the_style_of_the_page_is_what_its_policy_lets_through(www: Path, security: str, fields: bytes) -> None:
    settings = Site(str(www), listing=True, security="strict" if security == "strict" else "off")
    visitor = Visitor(settings)
    _, start, content = visitor.ask(b"/listed/")
    style = content.partition(b"<style>")[2].partition(b"</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style).digest())
    assert start.count(b"Content-Security-Policy: ") == 1
    assert b"style-src 'sha256-%b'" % digest in start
    assert fields in start
    visitor.root.close()


def test_the_answer_varies_with_the_origin_too(www: Path) -> None:
    visitor = Visitor(Site(str(www), listing=True, cors=("https://example.org",)))
    _, start, _ = visitor.ask(b"/listed/", b"Origin: https://example.org")
    assert b"\r\nVary: Accept, Origin\r\n" in start
    assert b"\r\nAccess-Control-Allow-Origin: https://example.org" in start
    visitor.root.close()


def test_a_folder_of_an_alias(www: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    (tmp_path / "elsewhere" / "deep" / "a.txt").write_text("")
    visitor = Visitor(Site(str(www), listing=True), aliases=[("/alias/", Root(tmp_path / "elsewhere"))])
    assert visitor.ask(b"/alias")[0].status == 301
    links = Page(visitor.ask(b"/alias/")[2].decode()).links
    assert links[:2] == [("../", "/"), ("./", "alias/")]
    assert links[-1] == ("./deep/", "deep/")
    _, _, content = visitor.ask(b"/alias/deep/", b"Accept: application/json")
    assert json.loads(content)["path"] == "/alias/deep/"
    visitor.root.close()


def test_names_that_cannot_be_asked_for_are_not_listed(visitor: Visitor) -> None:
    """http.target refuses control bytes and backslashes with 400."""
    _, _, content = visitor.ask(b"/listed/", b"Accept: application/json")
    assert [each["name"] for each in json.loads(content)["items"]] == ["b", "a.txt"]


def test_everything_that_is_listed_is_there(visitor: Visitor, www: Path) -> None:
    for name in (b"\xff", b"a b", b"x?y", b"100%", b"a:b", b"..."):
        (www / "listed" / os.fsdecode(name)).write_text("x")
    _, _, content = visitor.ask(b"/listed/", b"Accept: application/json")
    items = json.loads(content)["items"]
    assert len(items) == 7  # "..." is hidden
    for each in items:
        assert visitor.ask(b"/listed/" + each["href"].encode())[0].status == 200


def test_json_by_accept(visitor: Visitor) -> None:
    _, start, content = visitor.ask(b"/listed/?sort=size", b"Accept: application/json, */*;q=0.5")
    assert b"\r\nContent-Type: application/json\r\n" in start
    assert b"\r\nVary: Accept\r\n" in start
    assert json.loads(content)["path"] == "/listed/"


def test_an_index_comes_first(visitor: Visitor) -> None:
    assert visitor.ask(b"/page/")[2] == b"index"


def test_the_root_is_listed(visitor: Visitor) -> None:
    _, _, content = visitor.ask(b"/")
    assert [text for _, text in Page(content.decode()).links][-2:] == ["listed/", "page/"]


@pytest.mark.parametrize("path", [b"/listed", b"/listed/b"])
def test_a_folder_wants_its_slash(visitor: Visitor, path: bytes) -> None:
    answer, start, _ = visitor.ask(path + b"?sort=size")
    assert answer.status == 301
    assert b"\r\nLocation: %b/?sort=size" % path in start


@pytest.mark.parametrize("path", [b"/listed/", b"/listed", b"/"])
def test_without_the_option_it_is_not_there(www: Path, path: bytes) -> None:
    other = Visitor(Site(str(www)))
    assert other.ask(path)[0].status == 404
    other.root.close()


@pytest.mark.parametrize("path", [b"/nothing/", b"/listed/a.txt/", b"/.git/"])
def test_what_is_no_folder_is_not_there(visitor: Visitor, path: bytes) -> None:
    assert visitor.ask(path)[0].status == 404


def test_head(visitor: Visitor) -> None:
    _, _, content = visitor.ask(b"/listed/")
    answer, start, none = visitor.ask(b"/listed/", method=b"HEAD")
    assert none == b""
    assert answer.content_bytes == 0
    assert b"\r\nContent-Length: %d" % len(content) in start


def test_a_large_one_is_held_once_for_all_its_readers(visitor: Visitor, www: Path) -> None:
    for number in range(500):
        (www / "listed" / f"{number}.txt").touch()
    answers = [visitor.ask(b"/listed/")[0] for _ in range(3)]
    (content,) = answers[0].more
    assert isinstance(content, bytes)
    assert len(content) > limits.LISTING_SHARED_MIN_BYTES
    assert all(answer.more[0] is content for answer in answers)
    assert {answer.content_bytes for answer in answers} == {len(content)}
    assert b"\r\nContent-Length: %d\r\n" % len(content) in answers[0].wire
    assert answers[0].wire.endswith(b"\r\n\r\n")
    assert visitor.ask(b"/listed/", method=b"HEAD")[0].more == ()
    (www / "listed" / "another.txt").touch()
    assert visitor.ask(b"/listed/")[0].more[0] != content


def test_without_room_for_it_is_503(visitor: Visitor, www: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LISTINGS_MAX_BYTES", limits.LISTING_SHARED_MIN_BYTES)
    assert visitor.ask(b"/listed/")[0].status == 200  # a small one goes out at once
    for number in range(500):
        (www / "listed" / f"{number}.txt").touch()
    assert visitor.ask(b"/listed/")[0].status == 503


def test_a_change_is_seen_at_once(visitor: Visitor, www: Path) -> None:
    # T-22: neither a time nor a tag that a child's change would not change, and nobody keeps it
    _, start, content = visitor.ask(b"/listed/")
    assert b"Last-Modified" not in start
    assert b"ETag" not in start
    assert b"\r\nCache-Control: no-store" in start
    before = (www / "listed").stat()
    (www / "listed" / "a.txt").write_text("longer content")
    assert (www / "listed").stat().st_mtime_ns == before.st_mtime_ns
    assert b"14 bytes" in visitor.ask(b"/listed/")[2]
    assert b"14 bytes" not in content


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"If-Modified-Since: Sun, 09 Sep 2001 01:46:40 GMT", 200),  # 13.1.3: no time to compare with
        (b'If-None-Match: "a"', 200),
        (b"If-None-Match: *", 304),  # 13.1.2: there is one
        (b"If-Match: *", 200),
        (b'If-Match: "a"', 412),  # 13.1.1: it has no tag
        (b"Range: bytes=0-0", 200),  # 14.2: may be ignored
    ],
)
def test_preconditions(visitor: Visitor, line: bytes, status: int) -> None:
    answer, start, _ = visitor.ask(b"/listed/", line)
    assert answer.status == status
    assert (b"\r\nVary: Accept" in start) == (status != 412)


def test_the_leader_never_reads_a_folder(visitor: Visitor) -> None:
    visitor.ask(b"/listed/")
    answer = visitor.site.respond(request(b"/listed/"), True)
    assert isinstance(answer, Pending)
    answer.run()
    assert isinstance(answer.finish(), Response)
