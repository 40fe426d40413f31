# ruff: noqa: E501  a row is one line
"""`pyserver explain` says what the server answers: the same status and the same head, for rows of requests."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.service.harness import Server

from pyserver.config import Config, load
from pyserver.handlers.explain import explain

CONFIG = """
[[site]]
root = "www"

[[site]]
root = "other"
hosts = ["other.example", "*.other.example"]
symlinks = "none"
dot_files = "allow"
security = "strict"
cors = ["https://a.example"]
listing = true

[[site]]
root = "rules"
hosts = ["rules.example"]
clean_urls = true
fallback = "/app.html"
immutable = true
cors = "*"

[site.errors]
404 = "/errors/404.html"
405 = "/errors/missing.html"

[[site.alias]]
path = "/static/"
root = "static"

[[site.redirect]]
from = "/old/*"
to = "/new/*"
status = 308

[[site.redirect]]
from = "/away"
to = "https://example.org/"

[[site.fields]]
match = "/static/**"
set = { "Cache-Control" = "no-cache" }

[[site.fields]]
match = "*.txt"
set = { "X-Text" = "yes", "X-Content-Type-Options" = "" }
"""

OLD = 1_000_000_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("explain")
    for name in ("www/folder", "www/empty", "www/.git", "other/.config", "other/folder", "rules/errors", "static"):
        (path / name).mkdir(parents=True)
    files = {
        "www/index.html": b"<title>here</title>",
        "www/folder/index.html": b"folder",
        "www/page.html": b"0123456789" * 100,
        "www/large.bin": bytes(300 * 1024),
        "www/a b.txt": b"space",
        "www/page.bak": b"backup",
        "www/.git/config": b"[core]",
        "other/index.html": b"other",
        "other/.config/x.txt": b"dot",
        "rules/app.html": b"app",
        "rules/page.html": b"page",
        "rules/a-0123abcd.css": b"css",
        "rules/errors/404.html": b"nothing there",
        "static/a.txt": b"text",
        "www/coded.css": b"a { color: red }\n" * 100,
        "www/coded.css.br": b"brotli, as far as anybody looks",
        "www/coded.css.gz": b"gzip, as far as anybody looks here",
        "www/text.css": b"a { color: blue }\n" * 100,
        "secret": b"secret",
    }
    for name, content in files.items():
        (path / name).write_bytes(content)
        os.utime(path / name, (OLD, OLD))
    os.mkfifo(path / "www/fifo")
    (path / "www/link").symlink_to("page.html")
    (path / "www/out").symlink_to("../secret")
    (path / "other/link").symlink_to("index.html")
    (path / "pyserver.toml").write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    started = Server(folder, config=folder / "pyserver.toml", workers=1).ready()
    yield started
    started.finish()


@pytest.fixture(scope="module")
def config(folder: Path) -> Config:
    return load(str(folder / "pyserver.toml"))


ROWS = [
    # request line, fields, and what the last decision was about
    ("GET / HTTP/1.1", [], "fields"),
    ("GET /index.html?query HTTP/1.1", [], "fields"),
    ("HEAD /page.html HTTP/1.1", [], "fields"),
    ("GET /large.bin HTTP/1.1", [], "fields"),
    ("GET //folder/../%70age.html HTTP/1.1", [], "fields"),
    ("GET /a%20b.txt HTTP/1.1", [], "fields"),
    ("GET /page.html HTTP/1.0", [], "fields"),
    ("GET /page.html HTTP/1.1", ["Connection: close"], "fields"),
    ("GET /link HTTP/1.1", [], "fields"),
    ("GET http://www.other.example/ HTTP/1.1", [], "fields"),
    ("GET /.config/x.txt HTTP/1.1", ["Host: OTHER.example.:80"], "fields"),
    ("GET /folder?a=b HTTP/1.1", [], "file"),
    # what is not there, or nobody's business
    ("GET /missing HTTP/1.1", [], "file"),
    ("HEAD /missing HTTP/1.1", [], "file"),
    ("GET /page.html/ HTTP/1.1", [], "file"),
    ("GET /empty/ HTTP/1.1", [], "file"),
    ("GET /fifo HTTP/1.1", [], "file"),
    ("GET /out HTTP/1.1", [], "file"),
    ("GET /link HTTP/1.1", ["Host: other.example"], "file"),
    ("GET /.git/config HTTP/1.1", [], "hidden"),
    ("GET /page.bak HTTP/1.1", [], "hidden"),
    # preconditions and ranges
    ("GET /page.html HTTP/1.1", ["If-Modified-Since: Sun, 09 Sep 2001 01:46:40 GMT"], "preconditions"),
    ("GET /page.html HTTP/1.1", ["If-Unmodified-Since: Sun, 09 Sep 2001 01:46:39 GMT"], "preconditions"),
    ("GET /page.html HTTP/1.1", ["If-None-Match: *"], "preconditions"),
    ("GET /page.html HTTP/1.1", ['If-Match: "other"'], "preconditions"),
    ("GET /page.html HTTP/1.1", ['If-None-Match: "other"', "Range: bytes=0-0"], "range"),
    ("GET /page.html HTTP/1.1", ["Range: bytes=-5"], "range"),
    ("GET /page.html HTTP/1.1", ["Range: bytes=1000-"], "range"),
    ("GET /page.html HTTP/1.1", ["Range: lines=1-2"], "range"),
    ("GET /page.html HTTP/1.1", ["Range: bytes=1-2", 'If-Range: "other"'], "range"),
    ("GET /large.bin HTTP/1.1", ["Range: bytes=0-9,100000-100009"], "range"),
    ("HEAD /page.html HTTP/1.1", ["Range: bytes=0-0"], "range"),
    # variants
    ("GET /coded.css HTTP/1.1", ["Accept-Encoding: br, gzip"], "variant"),
    ("GET /coded.css HTTP/1.1", ["Accept-Encoding: gzip;q=1, br;q=0.5"], "variant"),
    ("GET /coded.css HTTP/1.1", ["Accept-Encoding: br;q=0"], "variant"),
    ("GET /coded.css HTTP/1.1", [], "variant"),
    ("HEAD /coded.css HTTP/1.1", ["Accept-Encoding: *;q=0"], "variant"),
    ("GET /coded.css HTTP/1.1", ["Accept-Encoding: br", "Range: bytes=0-3"], "range"),
    ("GET /coded.css HTTP/1.1", ["Accept-Encoding: br", "If-None-Match: *"], "preconditions"),
    ("GET /text.css HTTP/1.1", [], "variant"),
    # rules of sites
    ("GET /index.html HTTP/1.1", ["Host: other.example", "Origin: https://a.example"], "fields"),
    ("GET /static/a.txt HTTP/1.1", ["Host: rules.example"], "fields"),
    ("GET /static/a.txt HTTP/1.1", ["Host: rules.example", "If-None-Match: *"], "preconditions"),
    ("GET /a-0123abcd.css HTTP/1.1", ["Host: rules.example"], "fields"),
    ("GET /page HTTP/1.1", ["Host: rules.example"], "fields"),
    ("GET /page.html?a HTTP/1.1", ["Host: rules.example"], "file"),
    ("GET /route/of/the/app HTTP/1.1", ["Host: rules.example"], "fields"),
    ("GET /missing.png HTTP/1.1", ["Host: rules.example"], "error page"),
    ("HEAD /static/missing.png HTTP/1.1", ["Host: rules.example"], "error page"),
    ("POST /page HTTP/1.1", ["Host: rules.example"], "file"),
    ("POST /old/page HTTP/1.1", ["Host: rules.example"], "redirect"),
    ("GET /old/a%20b?c=d HTTP/1.1", ["Host: rules.example"], "redirect"),
    ("GET /away HTTP/1.1", ["Host: rules.example"], "redirect"),
    ("OPTIONS /x HTTP/1.1", ["Host: other.example", "Origin: https://a.example", "Access-Control-Request-Method: GET"], "method"),
    # listings
    ("GET /folder/ HTTP/1.1", ["Host: other.example"], "file"),
    ("GET /folder/ HTTP/1.1", ["Host: other.example", "Accept: application/json"], "file"),
    ("GET /folder HTTP/1.1", ["Host: other.example"], "file"),
    # other methods
    ("OPTIONS * HTTP/1.1", [], "method"),
    ("OPTIONS / HTTP/1.1", [], "method"),
    ("POST /page.html HTTP/1.1", [], "method"),
    ("TRACE / HTTP/1.1", [], "method"),
    ("BREW /pot HTTP/1.1", [], "method"),
    # no requests
    ("GET /a b HTTP/1.1", [], "request"),
    ("GET / HTTP/2.0", [], "request"),
    ("GET / HTTP/1.1", ["Host: a", "Host: b"], "request"),
    ("GET / HTTP/1.1", ["Space : before the colon"], "request"),
    ("GET /%zz HTTP/1.1", [], "path"),
    ("GET /../secret HTTP/1.1", [], "path"),
    ("GET /a%00b HTTP/1.1", [], "path"),
    (f"GET /{'a' * 9000} HTTP/1.1", [], "request"),
]  # fmt: skip


def head_from(server: Server, request: bytes) -> bytes:
    with server.client() as client:
        client.socket.sendall(request)
        received = b""
        while b"\r\n\r\n" not in received:
            more = client.socket.recv(65536)
            assert more, received
            received += more
    return received[: received.index(b"\r\n\r\n") + 4]


def comparable(head: bytes) -> bytes:
    """Without what no two answers have in common: the second, and the boundary of parts."""
    return re.sub(rb"(\nDate: |boundary=)[^\r]+", rb"\1...", head)


@pytest.mark.parametrize(("line", "fields", "about"), ROWS)
def test_explained_as_it_is_answered(server: Server, config: Config, line: str, fields: list[str], about: str) -> None:
    if not any(field.startswith("Host:") for field in fields):
        fields = ["Host: localhost", *fields]
    request = "\r\n".join((line, *fields, "", "")).encode()
    explained, answered = explain(config, request), head_from(server, request)
    assert comparable(explained.head) == comparable(answered)
    assert explained.response.status == int(answered.split()[1])
    assert explained.steps[-1].about == about


def test_a_tag_that_was_given_is_known_again(server: Server, config: Config) -> None:
    request = b"GET /page.html HTTP/1.1\r\nHost: a\r\n"
    found = re.search(rb"\nETag: ([^\r]+)", head_from(server, request + b"\r\n"))
    assert found
    again = explain(config, request + b"If-None-Match: " + found[1] + b"\r\n\r\n")
    assert again.response.status == 304
    assert again.steps[-1].what == f"if-none-match: {found[1].decode()}: the client has it"
