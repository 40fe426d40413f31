"""Fuzz the way from a request's path to an open file, in a site with secrets beside it. See README.md."""

import os
import posixpath
import tempfile
from pathlib import Path
from urllib.parse import unquote_to_bytes

from tests.fuzz import target as fuzzing

with fuzzing.instrumented():
    from tests.corpus.sources import lines

    from pyserver.clock import Clock
    from pyserver.config import Site
    from pyserver.files.policy import hidden
    from pyserver.files.resolve import STATUS_FOR_ERRNO, Root, status_for
    from pyserver.handlers.cache import FileCache
    from pyserver.handlers.static import Pending, StaticSite
    from pyserver.http import target
    from pyserver.http.errors import ProtocolError
    from pyserver.http.request import parse_head

SECRET = b"nobody may see this"


def site(parent: Path) -> Path:
    (parent / "secret").write_bytes(SECRET)
    (parent / "www-private").mkdir()
    (parent / "www-private/index.html").write_bytes(SECRET)
    www = parent / "www"
    for name in (".git/config", "a~", "dir/.env", "dir/page.bak"):
        (www / name).parent.mkdir(parents=True, exist_ok=True)
        (www / name).write_bytes(SECRET)
    for name in ("index.html", "a", "dir/index.html", "dir/page", "%41", "a b", ".well-known/x", "empty/none"):
        (www / name).parent.mkdir(parents=True, exist_ok=True)
        (www / name).write_bytes(b"public")
    for name, goal in (
        ("out", "../secret"),
        ("up", ".."),
        ("full", str(parent / "secret")),
        ("in", "dir"),
        ("loop", "loop"),
    ):
        (www / name).symlink_to(goal)
    os.mkfifo(www / "fifo")
    return www


PARENT = tempfile.TemporaryDirectory()
WWW = site(Path(PARENT.name))
ROOT = Root(WWW)
SITE = StaticSite(Site(str(WWW)), ROOT, Clock(), FileCache(1 << 20, max_entries=50))
STATUSES = {200, 301, 400, *STATUS_FOR_ERRNO.values()} - {500}


def expected(raw: bytes) -> bytes | None:
    """What the path means, by the standard library; None for what is refused."""
    if any(not set(rest[:2]) <= set(b"0123456789abcdefABCDEF") or len(rest) < 2 for rest in raw.split(b"%")[1:]):
        return None
    path = unquote_to_bytes(raw)
    if any(byte < 0x20 or byte in b"\x7f\\" for byte in path):
        return None
    depth = 0
    for segment in path.split(b"/"):
        depth += {b"": 0, b".": 0, b"..": -1}.get(segment, 1)
        if depth < 0:
            return None
    cleaned = b"/" + posixpath.normpath(path).lstrip(b"/")
    return cleaned + b"/" if path.rpartition(b"/")[2] in (b"", b".", b"..") and cleaned != b"/" else cleaned


def one_input(data: bytes) -> None:
    raw = b"/" + data
    try:
        path = target.clean(raw)
    except ProtocolError as error:
        path = None
        if error.status != 400 or error.close:
            raise
    assert path == expected(raw)
    if path is not None:
        assert target.clean(target.encode(path)) == path
        opened(path)
    served(raw)


def opened(path: bytes) -> None:
    try:
        fd = ROOT.open(path, cached_only=False)
    except OSError as error:
        if status_for(error) not in STATUSES:
            raise
        return
    real = Path(f"/proc/self/fd/{fd}").readlink()
    os.close(fd)
    assert real.is_relative_to(WWW), real


def served(raw: bytes) -> None:
    try:
        request = parse_head(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % raw)
    except ProtocolError:
        return
    answer = SITE.respond(request, True)
    while isinstance(answer, Pending):
        answer.run()
        answer = answer.finish()
    assert answer.status in STATUSES, answer.status
    assert SECRET not in answer.wire
    if answer.status == 200:
        assert not hidden(target.clean(request.path))
    head = answer.wire.partition(b"\r\n\r\n")[0]
    assert not any(
        line.partition(b":")[0] == b"Location" and line[10:12] in (b"//", b"/\\") for line in head.split(b"\r\n")
    )


SEEDS = (
    *(b"dir/../%61", b"in/page", b"up/www/a", b"%2e%2e%2fsecret", b".git/config", b"dir//./index.html", b"a%20b"),
    *(
        line.replace(b"{FILE}", b"secret").replace(b"{target}", b"dir")
        for name in ("traversal.txt", "redirect.txt", "crlf.txt")
        for line in lines(name)
    ),
)


if __name__ == "__main__":
    fuzzing.main(one_input, SEEDS)
