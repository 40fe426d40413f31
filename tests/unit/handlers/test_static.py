import email
import email.policy
import gc
import itertools
import os
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path

import pytest
from tests.unit.files.process import as_nobody, open_descriptors

from pyserver import limits
from pyserver.clock import Clock
from pyserver.config import Site
from pyserver.files.resolve import Root
from pyserver.handlers.cache import FileCache
from pyserver.handlers.static import Pending, StaticSite
from pyserver.http.dates import imf_fixdate
from pyserver.http.errors import ProtocolError
from pyserver.http.request import Request, parse_head
from pyserver.http.response import Response
from pyserver.http.validators import SETTLED_AFTER_S

CORPORA = Path(__file__).parents[4] / "shared" / "corpora"

SECRET = b"root:x:0:0: nobody may see this"
LARGE = limits.FILE_IN_MEMORY_MAX_BYTES + 12_345

# 2001-09-09 01:46:40, and some nanoseconds that belong into the tag
MODIFIED_NS = 1_000_000_000_123_456_789
LAST_MODIFIED = b"Sun, 09 Sep 2001 01:46:40 GMT"


def tag(size: int) -> bytes:
    return b'"%x-%x"' % (MODIFIED_NS, size)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A site, with a secret beside it."""
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "www-private").mkdir()
    (tmp_path / "www-private" / "secret").write_bytes(SECRET)
    www = tmp_path / "www"
    files = {
        "index.html": b"<title>home</title>",
        "page.html": b"<title>page</title>",
        "digits": b"0123456789",
        "empty.txt": b"",
        "style.css": b"body {}",
        "large.bin": bytes(range(256)) * (LARGE // 256) + bytes(LARGE % 256),
        "dir/index.html": b"<title>dir</title>",
        "d r\u00e9?#/index.html": b"odd",
        "empty-dir/page.html": b"in a folder without an index",
        "a b%c.html": b"space and percent",
        "%61.html": b"percent six one",
        "a.html": b"a",
        "unknown.xyzzy": b"?",
        ".git/config": SECRET,
        ".well-known/security.txt": b"Contact: us",
        "page.html~": SECRET,
        "page.html.bak": SECRET,
    }
    for name, content in files.items():
        (www / name).parent.mkdir(parents=True, exist_ok=True)
        (www / name).write_bytes(content)
        os.utime(www / name, ns=(MODIFIED_NS, MODIFIED_NS))
    (www / "out").symlink_to("../secret")
    (www / "out-full").symlink_to(tmp_path / "secret")
    (www / "out-dir").symlink_to("../www-private")
    os.mkfifo(www / "fifo")
    www.chmod(0o755)
    return www


@dataclass(slots=True)
class Answer:
    """A response as a client sees it."""

    status: int
    fields: dict[bytes, bytes]
    content: bytes
    close: bool

    def __init__(self, response: Response | Pending) -> None:
        assert isinstance(response, Response)
        start, _, content = response.wire.partition(b"\r\n\r\n")
        status_line, *lines = start.split(b"\r\n")
        found = re.fullmatch(rb"HTTP/1\.1 ([0-9]{3}) [A-Za-z ]+", status_line)
        assert found is not None
        pairs = [re.fullmatch(rb"([A-Za-z-]+): ([\x20-\x7e]*)", line) for line in lines]
        assert all(pairs), lines
        self.fields = {pair[1]: pair[2] for pair in pairs if pair is not None}
        assert len(self.fields) == len(lines), "a field twice"
        self.status = int(found[1])
        if response.source is not None:
            assert content == b""
            for part in ((response.offset, response.count), *response.more):
                content += part if isinstance(part, bytes) else read(response.source.fd, *part)
        self.content = content
        self.close = response.close
        assert response.status == self.status
        assert response.content_bytes == len(content)
        assert response.close == (self.fields.get(b"Connection") == b"close")


def read(fd: int, offset: int, count: int) -> bytes:
    got = os.pread(fd, count, offset)
    assert len(got) == count
    return got


class Visitor:
    """Asks a site, and does what the worker does with a Pending.

    Its clock is ahead by as much as the files of the test need to have settled.
    """

    def __init__(
        self,
        folder: Path,
        max_bytes: int = 1 << 24,
        index: tuple[str, ...] = ("index.html",),
        settings: Site | None = None,
    ) -> None:
        self.clock = Clock()
        self.clock.second += SETTLED_AFTER_S
        self.cache = FileCache(max_bytes, max_entries=100)
        self.root = Root(folder)
        settings = settings or Site(str(folder), index)
        aliases = [(alias.path, Root(alias.root)) for alias in settings.aliases]
        self.site = StaticSite(settings, self.root, self.clock, self.cache, aliases)
        self.waited = 0

    def ask(self, request: Request, keep: bool = True) -> Response:
        answer = self.site.respond(request, keep)
        while isinstance(answer, Pending):
            self.waited += 1
            runner = threading.Thread(target=answer.run)
            runner.start()
            runner.join()
            answer = answer.finish()
        return answer

    def get(self, path: bytes, *lines: bytes, method: bytes = b"GET", minor: int = 1, keep: bool = True) -> Answer:
        return Answer(self.ask(request(path, *lines, method=method, minor=minor), keep))

    def later(self, seconds: int = 1) -> "Visitor":
        self.clock.second += seconds
        return self


def request(path: bytes, *lines: bytes, method: bytes = b"GET", minor: int = 1) -> Request:
    fields = b"".join(line + b"\r\n" for line in (b"Host: example.org", *lines))
    return parse_head(b"%b %b HTTP/1.%d\r\n%b\r\n" % (method, path, minor, fields))


@pytest.fixture
def visitor(folder: Path) -> Iterator[Visitor]:
    made = Visitor(folder)
    yield made
    made.root.close()


# -- 200 ------------------------------------------------------------------------------------------


def test_the_fields_of_a_file(visitor: Visitor) -> None:
    answer = visitor.get(b"/page.html")
    assert answer.status == 200
    assert answer.content == b"<title>page</title>"
    assert answer.fields == {
        b"Server": b"pyserver",
        b"Date": imf_fixdate(visitor.clock.second),
        b"Content-Type": b"text/html; charset=utf-8",
        b"X-Content-Type-Options": b"nosniff",
        b"Content-Length": b"19",
        b"Last-Modified": LAST_MODIFIED,
        b"ETag": tag(19),
        b"Accept-Ranges": b"bytes",
    }


@pytest.mark.parametrize(
    ("path", "content", "media_type"),
    [
        (b"/", b"<title>home</title>", b"text/html; charset=utf-8"),
        (b"/index.html", b"<title>home</title>", b"text/html; charset=utf-8"),
        (b"/dir/", b"<title>dir</title>", b"text/html; charset=utf-8"),
        (b"/style.css", b"body {}", b"text/css; charset=utf-8"),
        (b"/empty.txt", b"", b"text/plain; charset=utf-8"),
        (b"/digits", b"0123456789", b"application/octet-stream"),
        (b"/unknown.xyzzy", b"?", b"application/octet-stream"),  # T-46
        (b"/.well-known/security.txt", b"Contact: us", b"text/plain; charset=utf-8"),  # RFC 8615
        (b"/page.html?a=b", b"<title>page</title>", b"text/html; charset=utf-8"),
        (b"//page.html", b"<title>page</title>", b"text/html; charset=utf-8"),  # T-9
        (b"/dir/../page.html", b"<title>page</title>", b"text/html; charset=utf-8"),
        (b"/./dir/./index.html", b"<title>dir</title>", b"text/html; charset=utf-8"),
        (b"/%70age.html", b"<title>page</title>", b"text/html; charset=utf-8"),
        (b"/dir%2findex.html", b"<title>dir</title>", b"text/html; charset=utf-8"),  # T-1: decode, then split
        (b"/a%20b%25c.html", b"space and percent", b"text/html; charset=utf-8"),
        (b"/d%20r%C3%A9%3F%23/", b"odd", b"text/html; charset=utf-8"),
        (b"http://other.example/page.html", b"<title>page</title>", b"text/html; charset=utf-8"),
    ],
)
def test_a_path_and_its_file(visitor: Visitor, path: bytes, content: bytes, media_type: bytes) -> None:
    for _ in range(3):  # from the disk, prepared, and looked at again
        answer = visitor.get(path)
        assert (answer.status, answer.content, answer.fields[b"Content-Type"]) == (200, content, media_type)
        visitor.later()


def test_a_large_file_is_sent_from_its_descriptor(visitor: Visitor, folder: Path) -> None:
    response = visitor.ask(request(b"/large.bin"))
    assert response.source is not None
    assert (response.offset, response.count, response.content_bytes) == (0, LARGE, LARGE)
    assert response.wire.endswith(b"\r\n\r\n")
    assert Answer(response).content == (folder / "large.bin").read_bytes()


@pytest.mark.parametrize("path", [b"/page.html", b"/large.bin", b"/empty.txt", b"/", b"/nothing", b"/dir", b"/%00"])
def test_head_is_get_without_content(visitor: Visitor, path: bytes) -> None:
    # RFC 9110 9.3.2, T-43
    get, head = visitor.get(path), visitor.get(path, method=b"HEAD")
    assert head.content == b""
    assert (head.status, head.fields) == (get.status, get.fields)
    assert head.fields[b"Content-Length"] == b"%d" % len(get.content)


@pytest.mark.parametrize(
    ("minor", "keep", "connection"),
    [(1, True, None), (1, False, b"close"), (0, True, b"keep-alive"), (0, False, b"close")],
)
@pytest.mark.parametrize("path", [b"/page.html", b"/large.bin", b"/nothing", b"/dir", b"/%00"])
def test_the_connection_field(visitor: Visitor, path: bytes, minor: int, keep: bool, connection: bytes | None) -> None:
    # RFC 9112 9.3
    for _ in range(2):
        answer = visitor.get(path, minor=minor, keep=keep)
        assert answer.fields.get(b"Connection") == connection
        assert answer.close == (not keep)


@pytest.mark.parametrize("seconds", [0, 1, -1])
def test_a_file_without_a_credible_time_has_no_validators(visitor: Visitor, folder: Path, seconds: int) -> None:
    # T-18: what archives and images put where they have none
    os.utime(folder / "page.html", (seconds, seconds))
    answer = visitor.get(b"/page.html")
    assert answer.status == 200
    assert not answer.fields.keys() & {b"Last-Modified", b"ETag"}
    for line in (b"If-None-Match: " + tag(19), b"If-Modified-Since: " + imf_fixdate(visitor.clock.second)):
        assert visitor.get(b"/page.html", line).status == 200


def test_a_file_of_the_future_was_modified_now(visitor: Visitor, folder: Path) -> None:
    # RFC 9110 8.8.2.1: Last-Modified is never later than Date
    second = visitor.clock.second + 2
    os.utime(folder / "page.html", (second, second))
    for wait, modified in enumerate((second - 2, second - 1, second, second, second)):
        answer = visitor.get(b"/page.html")
        assert answer.fields[b"Last-Modified"] == imf_fixdate(modified)
        assert answer.fields[b"Date"] == imf_fixdate(second - 2 + wait)
        visitor.later()


# -- other methods ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"DELETE", b"PATCH", b"TRACE"])
@pytest.mark.parametrize("path", [b"/page.html", b"/nothing", b"/.git/config"])
def test_a_known_method_is_not_allowed(visitor: Visitor, method: bytes, path: bytes) -> None:
    # RFC 9110 15.5.6, T-45
    answer = visitor.get(path, method=method)
    assert (answer.status, answer.fields[b"Allow"]) == (405, b"GET, HEAD, OPTIONS")
    assert not answer.close


def test_connect_is_not_allowed(visitor: Visitor) -> None:
    assert visitor.get(b"example.org:443", method=b"CONNECT").status == 405


@pytest.mark.parametrize("method", [b"BREW", b"get", b"PROPFIND", b"GETX"])
def test_an_unknown_method_is_not_implemented(visitor: Visitor, method: bytes) -> None:
    # RFC 9110 9.1, 15.6.2: methods are case-sensitive
    assert visitor.get(b"/page.html", method=method).status == 501


@pytest.mark.parametrize("path", [b"*", b"/", b"/page.html", b"/nothing"])
def test_options(visitor: Visitor, path: bytes) -> None:
    # RFC 9110 9.3.7; 8.6: no Content-Length in a 204
    answer = visitor.get(path, method=b"OPTIONS")
    assert (answer.status, answer.fields[b"Allow"], answer.content) == (204, b"GET, HEAD, OPTIONS", b"")
    assert b"Content-Length" not in answer.fields


# -- 400, 403, 404 -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (b"/nothing", 404),
        (b"/page.html/", 404),  # T-11
        (b"/page.html/index.html", 404),
        (b"/empty-dir", 404),  # T-10: no redirect to a 404
        (b"/empty-dir/", 404),
        (b"/fifo", 404),  # T-6
        (b"/out", 404),  # T-4
        (b"/out-full", 404),
        (b"/out-dir/secret", 404),
        (b"/out-dir", 404),
        (b"/.git/config", 404),  # T-12
        (b"/.git", 404),
        (b"/%2egit/config", 404),  # T-1: the rule sees what is opened
        (b"/.%67it/config", 404),
        (b"/dir/..%2f.git/config", 404),  # Caddy #7941
        (b"/dir/%2e%2e/.git/config", 404),
        (b"/page.html~", 404),
        (b"/page.html%7e", 404),
        (b"/page.html.bak", 404),
        (b"/x/.well-known/security.txt", 404),
        (b"/%252e%252e/secret", 404),  # T-1: once
        (b"/%c0%ae%c0%ae/secret", 404),  # T-8: an overlong ".."
        (b"/%ed%a0%80", 404),  # T-8: a lone surrogate
        (b"/%ff", 404),
        (b"/" + b"a" * 300, 404),  # T-14: ENAMETOOLONG
        (b"/" + b"a/" * 3000, 404),
        (b"/../secret", 400),
        (b"/%2e%2e/secret", 400),
        (b"/dir/..%2f..%2fsecret", 400),
        (b"/../www/page.html", 400),
        (b"/page.html%00", 400),  # T-7
        (b"/%00", 400),
        (b"/page.html%00.png", 400),
        (b"/page%0a.html", 400),  # T-8
        (b"/page%7f", 400),
        (b"/dir%5c..%5cpage.html", 400),
        (b"/%", 400),
        (b"/%zz", 400),
    ],
)
def test_no_such_file(visitor: Visitor, path: bytes, status: int) -> None:
    answer = visitor.get(path)
    assert answer.status == status
    assert SECRET not in answer.content
    assert not answer.close  # the next request is where it should be
    assert answer.fields[b"Content-Type"] == b"text/html; charset=utf-8"
    assert not answer.fields.keys() & {b"ETag", b"Last-Modified", b"Location", b"Accept-Ranges"}
    assert len(visitor.cache) == 0


def test_unreadable_is_403(visitor: Visitor, folder: Path) -> None:
    # T-14
    (folder / "page.html").chmod(0)
    (folder / "dir").chmod(0)

    def body() -> None:
        for path in (b"/page.html", b"/dir/", b"/dir", b"/dir/index.html", b"/dir/nothing"):
            assert visitor.get(path).status == 403

    as_nobody(body)


def test_many_different_404s_leave_nothing_behind(visitor: Visitor) -> None:
    for number in range(500):
        assert visitor.get(b"/nothing-%d" % number).status == 404
    assert (len(visitor.cache), visitor.cache.weight) == (0, 0)


@pytest.mark.skipif(not CORPORA.is_dir(), reason="the shared corpora are not here")
@pytest.mark.parametrize("name", ["traversal.txt", "redirect.txt", "crlf.txt"])
def test_the_corpora_of_attacks(visitor: Visitor, folder: Path, name: str) -> None:
    """No line gets anything from outside the site, a 500, or a redirect to elsewhere."""
    asked = 0
    for line in (CORPORA / name).read_bytes().splitlines():
        for goal in (b"secret", b"www-private/secret", str(folder.parent / "secret").encode().lstrip(b"/")):
            attack = line.replace(b"{FILE}", goal).replace(b"{target}", b"dir")
            for path in (attack, b"/" + attack, b"/dir/" + attack):
                try:
                    asked_for = request(path.replace(b" ", b"%20"))
                except ProtocolError:
                    continue
                answer = Answer(visitor.ask(asked_for))
                asked += 1
                assert SECRET not in answer.content, path
                assert answer.status in {200, 301, 400, 404}, path
                assert re.match(rb"/(?![/\\])", answer.fields.get(b"Location", b"/")), path
    assert asked > 10


# -- 301 ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "location"),
    [
        (b"/dir", b"/dir/"),
        (b"//dir", b"/dir/"),  # T-9, CVE-2021-28861: never a network-path reference
        (b"///dir", b"/dir/"),
        (b"//dir//..//dir", b"/dir/"),
        (b"/dir?a=b&c=%20", b"/dir/?a=b&c=%20"),  # T-10
        (b'/dir?a="<b>|', b"/dir/?a=%22%3Cb%3E%7C"),  # RFC 9110 10.2.2: grammatical
        (b"/dir?", b"/dir/?"),
        (b"/d%20r%c3%a9%3f%23", b"/d%20r%C3%A9%3F%23/"),  # T-10: encoded again
        (b"http://other.example/dir", b"/dir/"),  # nothing of the host
    ],
)
def test_a_folder_wants_its_slash(visitor: Visitor, path: bytes, location: bytes) -> None:
    for method in (b"GET", b"HEAD"):
        answer = visitor.get(path, method=method)
        assert (answer.status, answer.fields[b"Location"]) == (301, location)
        assert visitor.get(location).status == 200


# -- preconditions (the whole matrix is http's) -----------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"If-None-Match: " + tag(19), 304),
        (b"If-None-Match: W/" + tag(19), 304),
        (b'If-None-Match: "x", ' + tag(19), 304),
        (b"If-None-Match: *", 304),
        (b'If-None-Match: "x"', 200),
        (b"If-Modified-Since: " + LAST_MODIFIED, 304),
        (b"If-Modified-Since: Sunday, 09-Sep-01 01:46:40 GMT", 304),
        (b"If-Modified-Since: Sun, 09 Sep 2001 01:46:39 GMT", 200),
        (b"If-Modified-Since: yesterday", 200),
        (b"If-Match: " + tag(19), 200),
        (b'If-Match: "x"', 412),
        (b"If-Match: W/" + tag(19), 412),
        (b"If-Unmodified-Since: " + LAST_MODIFIED, 200),
        (b"If-Unmodified-Since: Sun, 09 Sep 2001 01:46:39 GMT", 412),
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_preconditions(visitor: Visitor, method: bytes, line: bytes, status: int) -> None:
    for _ in range(2):
        assert visitor.get(b"/page.html", line, method=method).status == status


def test_the_fields_of_a_304(visitor: Visitor) -> None:
    # RFC 9110 15.4.5, T-21
    answer = visitor.get(b"/page.html", b"If-None-Match: *")
    assert answer.content == b""
    assert answer.fields == {
        b"Server": b"pyserver",
        b"Date": imf_fixdate(visitor.clock.second),
        b"Last-Modified": LAST_MODIFIED,
        b"ETag": tag(19),
    }


@pytest.mark.parametrize(("path", "status"), [(b"/nothing", 404), (b"/dir", 301), (b"/.git", 404), (b"/%00", 400)])
@pytest.mark.parametrize("line", [b"If-Match: *", b'If-Match: "x"', b"If-None-Match: *", b"Range: bytes=0-0"])
def test_preconditions_are_for_what_would_be_200(visitor: Visitor, path: bytes, status: int, line: bytes) -> None:
    # RFC 9110 13.2.1, T-23
    assert visitor.get(path, line).status == status


# -- ranges (the whole matrix is http's) --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "status", "content_range", "content"),
    [
        (b"bytes=0-0", 206, b"bytes 0-0/10", b"0"),  # T-24
        (b"bytes=9-9", 206, b"bytes 9-9/10", b"9"),
        (b"bytes=-1", 206, b"bytes 9-9/10", b"9"),
        (b"bytes=3-5", 206, b"bytes 3-5/10", b"345"),
        (b"bytes=8-", 206, b"bytes 8-9/10", b"89"),
        (b"bytes=8-99", 206, b"bytes 8-9/10", b"89"),
        (b"bytes=-99", 206, b"bytes 0-9/10", b"0123456789"),  # T-26
        (b"bytes=10-", 416, b"bytes */10", None),  # T-25
        (b"bytes=-0", 416, b"bytes */10", None),
        (b"bytes=x", 200, None, b"0123456789"),  # T-27
        (b"lines=0-0", 200, None, b"0123456789"),
        (b"bytes=0-0,2-2", 206, b"bytes 0-2/10", b"012"),  # 15.3.7.2: a gap that costs less than a part
        (b"bytes=8-,-9,10-", 206, b"bytes 1-9/10", b"123456789"),  # overlapping; one beyond the end
        (b"bytes=10-,-0", 416, b"bytes */10", None),
    ],
)
def test_ranges(
    visitor: Visitor, value: bytes, status: int, content_range: bytes | None, content: bytes | None
) -> None:
    for prepared in (False, True):
        answer = visitor.get(b"/digits", b"Range: " + value)
        assert (answer.status, answer.fields.get(b"Content-Range")) == (status, content_range)
        assert answer.fields[b"Content-Length"] == b"%d" % len(answer.content)
        if content is not None:
            assert answer.content == content
            assert answer.fields[b"ETag"] == tag(10)  # RFC 9110 15.3.7
        if not prepared:
            visitor.get(b"/digits")


@pytest.mark.parametrize("name", ["middling.bin", "large.bin"])
@pytest.mark.parametrize(
    ("value", "spans"),
    [
        (b"0-0,-1", [(0, 1), (-1, None)]),  # the example of RFC 9110 14.1.2
        (b"5000-5999,0-99", [(5000, 6000), (0, 100)]),  # as asked (15.3.7.2)
        (b"7000-7001,0-499,500-999,7000-7099", [(7000, 7100), (0, 1000)]),
        (
            b"%b" % b",".join(b"%d-%d" % (n * 300, n * 300 + 9) for n in range(40)),
            [(n, n + 10) for n in range(0, 12000, 300)],
        ),
    ],
    ids=["ends", "descending", "coalesced", "forty"],
)
def test_several_ranges(
    visitor: Visitor, folder: Path, name: str, value: bytes, spans: list[tuple[int, int | None]]
) -> None:
    # RFC 9110 14.6, 15.3.7.2, T-32
    whole = bytes(range(251)) * 80 if name == "middling.bin" else (folder / name).read_bytes()
    (folder / name).write_bytes(whole)
    visitor.later(SETTLED_AFTER_S)
    boundaries = set()
    for prepared in (False, True):
        answer = visitor.get(b"/" + name.encode(), b"Range: bytes=" + value)
        assert answer.status == 206
        assert b"Content-Range" not in answer.fields
        assert answer.fields[b"Content-Length"] == b"%d" % len(answer.content)
        assert answer.fields[b"ETag"] == visitor.get(b"/" + name.encode()).fields[b"ETag"]
        assert len(answer.content) <= len(whole)
        parts = split(answer.fields[b"Content-Type"], answer.content)
        assert [content for _, content in parts] == [whole[slice(*span)] for span in spans]
        for fields, content in parts:
            assert fields.keys() == {"Content-Type", "Content-Range"}
            assert fields["Content-Type"] == "application/octet-stream"
            first, last, size = map(int, re.findall("[0-9]+", fields["Content-Range"]))
            assert (whole[first : last + 1], size) == (content, len(whole))
        boundaries.add(answer.fields[b"Content-Type"])
        if not prepared:
            visitor.get(b"/" + name.encode())
    assert len(boundaries) == 2, "the boundary is another one for each answer"


def split(content_type: bytes, content: bytes) -> list[tuple[dict[str, str], bytes]]:
    """Read a multipart as other people's software does."""
    message = email.message_from_bytes(
        b"Content-Type: %b\r\n\r\n%b" % (content_type, content), policy=email.policy.HTTP
    )
    assert isinstance(message, EmailMessage)
    assert message.get_content_type() == "multipart/byteranges"
    assert not message.defects
    assert not message.preamble
    assert not message.epilogue
    return [(dict(part.items()), bytes(part.get_content())) for part in message.iter_parts()]


@pytest.mark.parametrize(
    "value",
    [
        b",".join(b"%d-%d" % (n * 1000, n * 1000) for n in range(limits.RANGES_MAX + 1)),
        b"0-0," + b",".join(b"0-" for _ in range(1000)),  # CVE-2011-3192
        b"0-149999,150200-299999,0-1,x",
    ],
    ids=["many", "killer", "invalid"],
)
def test_too_many_ranges_are_ignored(visitor: Visitor, value: bytes) -> None:
    # RFC 9110 14.2, 17.15, T-28
    answer = visitor.get(b"/large.bin", b"Range: bytes=" + value)
    assert (answer.status, len(answer.content)) == (200, LARGE)


def test_parts_that_are_more_than_the_whole(visitor: Visitor, folder: Path) -> None:
    (folder / "page.html").write_bytes(b"x" * 400)
    answer = visitor.get(b"/page.html", b"Range: bytes=0-149,300-399")
    assert (answer.status, len(answer.content)) == (200, 400)


@pytest.mark.parametrize(
    ("value", "first", "end"),
    [(b"0-0", 0, 1), (b"300-299999", 300, LARGE), (b"300-400", 300, 401), (b"-10", LARGE - 10, LARGE)],
)
def test_ranges_of_a_large_file(visitor: Visitor, folder: Path, value: bytes, first: int, end: int) -> None:
    response = visitor.ask(request(b"/large.bin", b"Range: bytes=" + value))
    assert (response.status, response.content_bytes, response.more) == (206, end - first, ())
    if end - first > limits.PART_IN_MEMORY_MAX_BYTES:  # a small one is sent with its head, where it was in memory
        assert (response.offset, response.count) == (first, end - first)
    assert Answer(response).content == (folder / "large.bin").read_bytes()[first:end]


def test_a_small_part_of_a_file_that_changes_is_of_what_its_tag_names(visitor: Visitor, folder: Path) -> None:
    """T-30: a new look for the new content, also within the second."""
    first = visitor.get(b"/large.bin", b"Range: bytes=0-9")
    with (folder / "large.bin").open("r+b") as file:
        file.write(b"overwritten")
    second = visitor.get(b"/large.bin", b"Range: bytes=0-9")
    assert second.content == b"overwritte"
    assert second.fields[b"ETag"] != first.fields[b"ETag"]
    assert visitor.get(b"/large.bin", b"Range: bytes=0-9", b"If-Range: " + first.fields[b"ETag"]).status == 200


def test_a_range_of_nothing(visitor: Visitor) -> None:
    # T-33
    assert visitor.get(b"/empty.txt", b"Range: bytes=0-").status == 416
    assert visitor.get(b"/empty.txt", b"Range: bytes=-5").status == 200


def test_head_has_no_ranges(visitor: Visitor) -> None:
    # RFC 9110 14.2, T-29
    answer = visitor.get(b"/digits", b"Range: bytes=0-0", method=b"HEAD")
    assert (answer.status, answer.fields[b"Content-Length"]) == (200, b"10")


@pytest.mark.parametrize(
    ("validator", "status"),
    [
        (tag(10), 206),
        (b"W/" + tag(10), 200),
        (b'"x"', 200),
        (LAST_MODIFIED, 206),
        (b"Sun, 09 Sep 2001 01:46:41 GMT", 200),  # T-30: exactly that date, not a later one
        (b"nonsense", 200),
    ],
)
def test_if_range(visitor: Visitor, validator: bytes, status: int) -> None:
    answer = visitor.get(b"/digits", b"Range: bytes=0-0", b"If-Range: " + validator)
    assert answer.status == status
    assert answer.content == (b"0" if status == 206 else b"0123456789")


def test_if_range_without_range_is_nothing(visitor: Visitor) -> None:
    assert visitor.get(b"/digits", b'If-Range: "x"').status == 200


def test_preconditions_come_before_ranges(visitor: Visitor) -> None:
    # RFC 9110 13.2.2
    assert visitor.get(b"/digits", b"Range: bytes=99-", b"If-None-Match: *").status == 304
    assert visitor.get(b"/digits", b"Range: bytes=0-0", b'If-Match: "x"').status == 412


# -- what is kept, and for how long (T-51) ----------------------------------------------------------------------


def test_in_the_same_second_no_look_is_taken(visitor: Visitor, folder: Path) -> None:
    first = visitor.ask(request(b"/page.html"))
    visitor.root.close()  # from here on, a look is a 500
    (folder / "page.html").unlink()
    assert visitor.ask(request(b"/page.html")) is first
    assert visitor.ask(request(b"/page.html?query", b"User-Agent: x", b"Accept-Encoding: gzip")) is first
    assert visitor.get(b"/page.html", method=b"HEAD").status == 200
    assert visitor.get(b"/page.html", b"Range: bytes=0-0").status == 206
    assert visitor.get(b"/page.html", keep=False).content == b"<title>page</title>"
    assert visitor.later().get(b"/page.html").status == 500


def test_in_the_next_second_only_the_date_is_new(visitor: Visitor) -> None:
    first = visitor.get(b"/page.html")
    second = visitor.later().get(b"/page.html")
    assert second.fields.pop(b"Date") != first.fields.pop(b"Date")
    assert (second.fields, second.content) == (first.fields, first.content)


@pytest.mark.parametrize("path", [b"/page.html", b"/large.bin"])
def test_a_change_is_seen_in_the_next_second(visitor: Visitor, folder: Path, path: bytes) -> None:
    name = folder / os.fsdecode(path[1:])
    old = visitor.get(path)
    name.write_bytes(old.content[::-1])  # in place, the same size
    new = visitor.later().get(path)
    assert new.content == old.content[::-1]
    assert new.fields[b"ETag"] != old.fields[b"ETag"]

    (folder / "other").write_bytes(b"moved there")  # replaced, as deployments do
    (folder / "other").rename(name)
    assert visitor.later().get(path).content == b"moved there"

    (folder / "other").write_bytes(b"old times!!")  # as tar and rsync do it: other content, the same size and mtime
    os.utime(folder / "other", ns=(MODIFIED_NS, MODIFIED_NS))
    os.utime(name, ns=(MODIFIED_NS, MODIFIED_NS))
    assert visitor.later().get(path).content == b"moved there"
    (folder / "other").rename(name)
    assert visitor.later().get(path).content == b"old times!!"

    name.unlink()
    assert visitor.later().get(path).status == 404
    assert visitor.cache.get(path) is None
    name.mkdir()
    (name / "index.html").write_bytes(b"now a folder")
    assert visitor.later().get(path).status == 301


@pytest.mark.parametrize("path", [b"/page.html", b"/large.bin"])
def test_releases_of_one_time_and_size_have_other_tags(visitor: Visitor, folder: Path, path: bytes) -> None:
    # What SOURCE_DATE_EPOCH, git archives and images make: every file of every release has the same whole second.
    name = folder / os.fsdecode(path[1:])
    os.utime(name, (1_000_000_000, 1_000_000_000))
    old = visitor.later().get(path)
    (folder / "other").write_bytes(old.content[::-1])
    os.utime(folder / "other", (1_000_000_000, 1_000_000_000))
    (folder / "other").rename(name)
    new = visitor.later().get(path, b"If-None-Match: " + old.fields[b"ETag"])
    assert (new.status, new.content) == (200, old.content[::-1])
    assert visitor.get(path, b"If-None-Match: " + new.fields[b"ETag"]).status == 304


@pytest.mark.parametrize("path", [b"/page.html", b"/dir/", b"/dir", b"/new.html"])
def test_a_release_that_is_deleted_within_the_second_takes_no_page_along(tmp_path: Path, path: bytes) -> None:
    # As deployment scripts do it: switch the link, delete the release before. "/" was asked for in this very second.
    for release in ("1", "2"):
        (tmp_path / release / "dir").mkdir(parents=True)
        for name in ("index.html", "page.html", "dir/index.html"):
            (tmp_path / release / name).write_text(release)
    (tmp_path / "2" / "new.html").write_text("2")
    current = tmp_path / "current"
    current.symlink_to("1")
    visitor = Visitor(current)
    assert visitor.get(b"/").content == b"1"
    (tmp_path / "next").symlink_to("2")
    (tmp_path / "next").rename(current)
    shutil.rmtree(tmp_path / "1")
    answer = visitor.get(path)
    assert (answer.status, answer.content) == ((301, answer.content) if path == b"/dir" else (200, b"2"))
    assert visitor.get(b"/nope.html").status == 404
    assert visitor.later().get(path).status == answer.status


def test_the_tag_of_a_whole_second_is_that_of_the_content(visitor: Visitor, folder: Path) -> None:
    # Two hosts behind one name, or one file copied twice: the same content shall not be sent again.
    for name in ("one.txt", "two.txt"):
        (folder / name).write_bytes(b"the same")
        os.utime(folder / name, (1_000_000_000, 1_000_000_000))
    assert visitor.get(b"/one.txt").fields[b"ETag"] == visitor.get(b"/two.txt").fields[b"ETag"]


@pytest.mark.parametrize("lines", [(), (b"Range: bytes=5-",), (b"Range: bytes=0-0,-1",)], ids=["all", "rest", "parts"])
def test_a_large_file_that_changes_within_the_second(visitor: Visitor, folder: Path, lines: tuple[bytes, ...]) -> None:
    """T-30: what goes out from its descriptor is what is there now, so the old tag must not go with it."""
    old = visitor.get(b"/large.bin")
    tag = old.fields[b"ETag"]
    if_range = (b"If-Range: " + tag,) if lines else ()
    for _ in range(2):
        assert visitor.get(b"/large.bin", *lines, *if_range).fields[b"ETag"] == tag
    with (folder / "large.bin").open("r+b") as file:
        file.write(b"changed in place")
    for _ in range(2):
        answer = visitor.get(b"/large.bin", *lines, *if_range)
        assert (answer.status, answer.content[:16]) == (200, b"changed in place")
        assert answer.fields[b"ETag"] != tag
    for name in (b"If-Match: ", b"If-Unmodified-Since: "):
        assert (
            visitor.get(b"/large.bin", name + old.fields[b"ETag" if b"Match" in name else b"Last-Modified"]).status
            == 412
        )


def test_a_file_that_grows_beyond_memory_and_back(visitor: Visitor, folder: Path) -> None:
    for size in (10, LARGE, 20, LARGE, 0):
        (folder / "page.html").write_bytes(b"x" * size)
        response = visitor.later().ask(request(b"/page.html"))
        assert (response.source is not None) == (size == LARGE)
        assert Answer(response).content == b"x" * size


def test_content_read_soon_after_a_change_is_read_again(visitor: Visitor, folder: Path) -> None:
    """T-19: a second change within the kernel's tick has the same times."""
    changed = int((folder / "page.html").stat().st_ctime)
    visitor.clock.second = changed
    read_at = []
    for _ in range(5):
        visitor.get(b"/page.html")
        entry = visitor.cache.get(b"/page.html")
        assert entry is not None
        read_at.append(entry.read_at - changed)
        visitor.later()
    assert read_at == [0, 1, 2, 2, 2]


@pytest.mark.parametrize("path", [b"/page.html", b"/large.bin"])
def test_a_tag_is_strong_when_the_file_has_settled(visitor: Visitor, folder: Path, path: bytes) -> None:
    """T-19. Only the `W/` goes, so who has the weak tag is still told that nothing changed."""
    name = folder / os.fsdecode(path[1:])
    changed = max(int(name.stat().st_ctime), int(name.stat().st_mtime))
    strong = tag(name.stat().st_size)
    visitor.clock.second = changed - 1  # a clock that is behind
    for age in range(-1, 5):
        settled = age >= 2
        assert visitor.get(path).fields[b"ETag"] == (strong if settled else b"W/" + strong)
        for line, status in (
            (b"If-None-Match: " + strong, 304),
            (b"If-None-Match: W/" + strong, 304),
            (b"If-Match: W/" + strong, 412),
            (b"If-Match: " + strong, 200 if settled else 412),
            (b"If-Match: *", 200),
        ):
            assert visitor.get(path, line).status == status, (age, line)
        for validator in (strong, LAST_MODIFIED):
            answer = visitor.get(path, b"Range: bytes=0-4", b"If-Range: " + validator)
            assert answer.status == (206 if settled else 200), (age, validator)
        assert visitor.get(path, b"Range: bytes=0-4", b"If-Range: W/" + strong).status == 200
        assert visitor.get(path, b"Range: bytes=0-4").status == 206
        visitor.later()


def test_a_tag_becomes_weak_again_with_the_next_change(visitor: Visitor, folder: Path) -> None:
    # Far ahead, so that what is set below is another second even after a long pause.
    assert visitor.later(1000).get(b"/page.html").fields[b"ETag"] == tag(19)
    (folder / "page.html").write_bytes(b"another")
    visitor.clock.second = int((folder / "page.html").stat().st_ctime) + 1
    weak = visitor.get(b"/page.html").fields[b"ETag"]
    assert weak.startswith(b'W/"')
    assert b"W/" + visitor.later().get(b"/page.html").fields[b"ETag"] == weak


def test_a_file_of_the_future_has_weak_validators(visitor: Visitor, folder: Path) -> None:
    second = visitor.clock.second + 100
    os.utime(folder / "page.html", (second, second))
    assert visitor.get(b"/page.html").fields[b"ETag"].startswith(b'W/"')
    assert not visitor.later(102).get(b"/page.html").fields[b"ETag"].startswith(b"W/")


def test_the_first_index_that_is_there(folder: Path) -> None:
    visitor = Visitor(folder, index=("index.htm", "index.html"))
    assert visitor.get(b"/").content == b"<title>home</title>"
    (folder / "index.htm").write_bytes(b"preferred")
    assert visitor.later().get(b"/").content == b"preferred"
    (folder / "index.htm").unlink()
    assert visitor.later().get(b"/").content == b"<title>home</title>"


def test_a_deleted_large_file_is_given_back(visitor: Visitor, folder: Path) -> None:
    visitor.get(b"/large.bin")
    (folder / "large.bin").unlink()
    visitor.later(limits.FILES_KEPT_OPEN_S).site.tidy()
    assert visitor.cache.get(b"/large.bin") is not None
    visitor.later().get(b"/page.html")  # a busy site tidies by itself
    assert visitor.cache.get(b"/large.bin") is None


def test_without_room_everything_is_answered_all_the_same(folder: Path) -> None:
    visitor = Visitor(folder, max_bytes=0)
    for _ in range(3):
        assert visitor.get(b"/page.html").content == b"<title>page</title>"
        assert visitor.get(b"/large.bin").content == (folder / "large.bin").read_bytes()
    assert len(visitor.cache) == 0


def test_a_raw_path_is_not_taken_for_a_cleaned_one(visitor: Visitor) -> None:
    """`/%61.html` is a.html, also while a file is cached whose name is `%61.html`."""
    for _ in range(2):
        assert visitor.get(b"/%2561.html").content == b"percent six one"
        assert visitor.get(b"/%61.html").content == b"a"
        assert visitor.get(b"/a.html").content == b"a"


def test_the_short_cut_answers_as_the_full_way(folder: Path) -> None:
    """Whatever was asked before, a request gets what a site that has seen nothing yet would answer."""
    warm = Visitor(folder)
    fields = (
        (),
        (b"Accept-Encoding: gzip",),
        (b"If-None-Match: *",),
        (b"If-Match: " + tag(19),),
        (b"If-Modified-Since: " + LAST_MODIFIED,),
        (b"Range: bytes=1-3",),
        (b"Range: bytes=1-3", b'If-Range: "x"'),
    )
    paths = (b"/", b"/page.html", b"/page.html?q", b"/%70age.html", b"//page.html", b"/dir", b"/no", b"/large.bin")
    every = list(itertools.product((b"GET", b"HEAD", b"POST"), paths, fields, (0, 1), (True, False)))
    for _ in range(2):
        for method, path, lines, minor, keep in every:
            cold = Visitor(folder)
            cold.clock.second = warm.clock.second
            asked = request(path, *lines, method=method, minor=minor)
            mine, theirs = warm.ask(asked, keep), cold.ask(asked, keep)
            assert mine.wire == theirs.wire, asked
            assert Answer(mine) == Answer(theirs)
        warm.later()


def test_descriptors_do_not_stay(visitor: Visitor) -> None:
    for path in (b"/page.html", b"/large.bin", b"/dir", b"/fifo", b"/nothing"):
        visitor.get(path)
    before = open_descriptors()
    for _ in range(5):
        visitor.later()
        for path in (b"/page.html", b"/large.bin", b"/dir", b"/fifo", b"/nothing"):
            visitor.get(path)
    assert open_descriptors() == before


def test_no_answer_leaves_work_for_the_garbage_collector(visitor: Visitor) -> None:
    paths = (b"/page.html", b"/large.bin", b"/dir", b"/nothing", b"/.git", b"/%00", b"/out", b"/page.html/")
    gc.collect()
    gc.disable()
    try:
        for path, line in itertools.product(paths, (b"Accept: */*", b"If-None-Match: *", b"Range: bytes=0-0")):
            visitor.later().ask(request(path, line))
        assert gc.collect() == 0
    finally:
        gc.enable()


# -- the disk is needed -------------------------------------------------------------------------------------------


@pytest.fixture
def slow(visitor: Visitor) -> Visitor:
    """A visitor of a site on a kernel that never knows what is in memory."""
    visitor.root._cached = False
    return visitor


@pytest.mark.parametrize(
    ("path", "status"), [(b"/page.html", 200), (b"/", 200), (b"/large.bin", 200), (b"/dir", 301), (b"/nothing", 404)]
)
def test_what_needs_the_disk_is_pending(slow: Visitor, path: bytes, status: int) -> None:
    assert slow.get(path).status == status
    assert slow.waited == 1
    assert slow.get(path).status == status
    assert slow.waited == (1 if status == 200 else 2)
    assert slow.later().get(path).status == status


def test_what_is_decided_without_the_disk_is_not_pending(slow: Visitor) -> None:
    for path, method in ((b"/.git/config", b"GET"), (b"/%00", b"GET"), (b"/page.html", b"PUT"), (b"*", b"OPTIONS")):
        assert isinstance(slow.site.respond(request(path, method=method), True), Response)


def test_run_does_not_touch_the_cache(slow: Visitor) -> None:
    pending = slow.site.respond(request(b"/page.html"), True)
    assert isinstance(pending, Pending)
    pending.run()
    assert len(slow.cache) == 0
    assert Answer(pending.finish()).content == b"<title>page</title>"
    assert len(slow.cache) == 1


def test_a_look_that_took_long_is_not_good_for_longer(slow: Visitor, folder: Path) -> None:
    pending = slow.site.respond(request(b"/page.html"), True)
    assert isinstance(pending, Pending)
    pending.run()
    slow.later(5)
    (folder / "page.html").write_bytes(b"changed meanwhile")
    late = Answer(pending.finish())
    assert late.content == b"<title>page</title>"
    assert late.fields[b"Date"] == imf_fixdate(slow.clock.second)
    assert slow.get(b"/page.html").content == b"changed meanwhile"


def test_pending_of_the_same_file_in_any_order(slow: Visitor, folder: Path) -> None:
    first = slow.site.respond(request(b"/page.html"), True)
    second = slow.site.respond(request(b"/page.html"), False)
    assert isinstance(first, Pending)
    assert isinstance(second, Pending)
    first.run()
    (folder / "page.html").write_bytes(b"changed meanwhile")
    second.run()
    assert Answer(second.finish()).content == b"changed meanwhile"
    assert Answer(first.finish()).content == b"<title>page</title>"
    assert slow.later().get(b"/page.html").content == b"changed meanwhile"


def test_an_error_of_the_disk_is_an_answer_and_a_bug_is_raised_by_finish(slow: Visitor) -> None:
    pending = slow.site.respond(request(b"/page.html"), True)
    assert isinstance(pending, Pending)
    slow.root.close()
    pending.run()
    assert Answer(pending.finish()).status == 500

    pending = slow.site.respond(request(b"/page.html"), True)
    assert isinstance(pending, Pending)
    del pending._index
    pending.run()  # never raises: the thread has more to do
    with pytest.raises(AttributeError):
        pending.finish()
