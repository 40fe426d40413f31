"""The workloads: which requests, on how many connections, and what a right answer to them is.

Owns:    the table WORKLOADS, and the files of the site that is served.
Never:   sends anything but the one request that a workload has to know an answer of (an entity tag).
Used by: benchmarks.main, benchmarks.measure.
"""

import os
import random
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.client import ask

KIB: Final = 1024
RANGE_BYTES: Final = 20_000
FILES: Final = 2000

# What browsers send.
_DATA: Final = tomllib.loads(Path(__file__).with_name("browsers.toml").read_text())
BROWSERS: Final[dict[str, dict[str, str]]] = _DATA["browser"]
_KINDS: Final[dict[str, dict[str, str]]] = _DATA["kind"]


class Check(NamedTuple):
    """One request, and the answer that is right."""

    request: bytes
    content: bytes | None  # None: any


class Traffic(NamedTuple):
    """What wrk is told, and what shows that the answers are right."""

    path: str
    checks: tuple[Check, ...]
    fields: tuple[str, ...] = ()
    mode: str = "plain"  # of wrk.lua
    requests: tuple[bytes, ...] = ()
    mean_content_bytes: int | None = None  # where the checks are but a part of the requests


class Place(NamedTuple):
    """Where a workload finds the server."""

    port: int
    site: Path


class Workload(NamedTuple):
    """A kind of load."""

    name: str
    title: str
    traffic: Callable[[Place], Traffic]
    target: float | None = None  # CPU per request of nginx divided by ours, at least
    connections: int = 32
    status: int = 200
    log: bool = False
    floor_bytes: int | None = None  # content of the floor's answer; None: it has no part in this


# -- the files ----------------------------------------------------------------------------------------------


def make_site(site: Path) -> None:
    """Make the files, the same ones every time, a day old so that validators by time are strong."""
    chance = random.Random(1)  # noqa: S311 - the same files each time
    sizes = {"1k.html": KIB, "10k.html": 10 * KIB, "100k.html": 100 * KIB, "1m.bin": KIB * KIB}
    sizes |= dict(zip(_names(), (int(500 * 80 ** chance.random()) for _ in range(FILES)), strict=True))
    yesterday = time.time() - 86400
    for name, size in sizes.items():
        file = site / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes((chance.randbytes(size // 2 + 1).hex().encode())[:size])
        os.utime(file, (yesterday, yesterday))


def _names() -> list[str]:
    extensions = list(_KINDS)
    return [f"files/{number:04}{extensions[number % len(extensions)]}" for number in range(FILES)]


# -- the requests ---------------------------------------------------------------------------------------------


def _request(port: int, path: str, *fields: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", *fields, "", ""]
    return "\r\n".join(lines).encode()


def _one(path: str, *fields: str) -> Callable[[Place], Traffic]:
    """Return the traffic of one request again and again."""

    def traffic(place: Place) -> Traffic:
        content = (place.site / path[1:]).read_bytes()
        return Traffic(path, (Check(_request(place.port, path, *fields), content),), fields)

    return traffic


def _absent(place: Place) -> Traffic:
    path = "/absent.html"
    return Traffic(path, (Check(_request(place.port, path), None),))


def _not_modified(place: Place) -> Traffic:
    path = "/1k.html"
    tag = ask(place.port, _request(place.port, path)).fields.get("etag", '"none"')
    field = f"If-None-Match: {tag}"
    return Traffic(path, (Check(_request(place.port, path, field), b""),), (field,))


def _new_heads(place: Place) -> Traffic:
    """@ is another number in each request (wrk.lua)."""
    path = "/1k.html"
    request = _request(
        place.port,
        f"{path}?id=@",
        f"User-Agent: {BROWSERS['Firefox on Linux']['agent']}",
        "Accept: */*",
        f"Referer: http://127.0.0.1:{place.port}/page-@.html",
        "Cookie: session=@; theme=dark",
    )
    checks = (Check(request.replace(b"@", b"1"), (place.site / path[1:]).read_bytes()),)
    return Traffic(path, checks, mode="new", requests=(request,))


def _browsers(place: Place) -> Traffic:
    names = _names()
    requests = [browser_head(browser, place.port, name) for browser in BROWSERS for name in names]
    contents = [(place.site / name).read_bytes() for name in names]
    # Every browser once, and every kind of file.
    checks = tuple(Check(requests[at], contents[at % FILES]) for at in range(0, len(requests), FILES // 2 + 1))
    return Traffic("/", checks, (), "random", tuple(requests), sum(map(len, contents)) // FILES)


def browser_head(browser: str, port: int, name: str) -> bytes:
    """Return what a browser sends to get a file."""
    own, kind = BROWSERS[browser], _KINDS[Path(name).suffix]
    agent, accept, languages = own["agent"], kind["accept"], own["languages"]
    page = kind["destination"] == "document"
    site = "none" if page else "same-origin"
    referer = [] if page else [f"Referer: http://127.0.0.1:{port}/"]
    fetch = [f"Sec-Fetch-Dest: {kind['destination']}", f"Sec-Fetch-Mode: {kind['mode']}", f"Sec-Fetch-Site: {site}"]
    if own["family"] == "chromium":
        mobile = "?1" if "Mobile" in agent else "?0"
        fields = [
            "Connection: keep-alive", f"sec-ch-ua: {own['brands']}", f"sec-ch-ua-mobile: {mobile}",
            f"sec-ch-ua-platform: {own['platform']}", *(["Upgrade-Insecure-Requests: 1"] if page else []),
            f"User-Agent: {agent}", f"Accept: {accept}", *reversed(fetch), *referer,
            "Accept-Encoding: gzip, deflate, br, zstd", f"Accept-Language: {languages}",
        ]  # fmt: skip
    elif own["family"] == "firefox":
        fields = [
            f"User-Agent: {agent}", f"Accept: {accept}", f"Accept-Language: {languages}",
            "Accept-Encoding: gzip, deflate, br, zstd", "Connection: keep-alive", *referer, *fetch, "Priority: u=2",
        ]  # fmt: skip
    else:
        fields = [
            *reversed(fetch), "Connection: keep-alive", f"Accept: {accept}", f"User-Agent: {agent}", *referer,
            f"Accept-Language: {languages}", "Priority: u=3, i", "Accept-Encoding: gzip, deflate",
        ]  # fmt: skip
    return _request(port, f"/{name}", *fields)


def _ranges(place: Place) -> Traffic:
    path = "/1m.bin"
    content = (place.site / path[1:]).read_bytes()
    checks = []
    for first in range(0, len(content) - RANGE_BYTES, RANGE_BYTES):
        request = _request(place.port, path, f"Range: bytes={first}-{first + RANGE_BYTES - 1}")
        checks.append(Check(request, content[first : first + RANGE_BYTES]))
    return Traffic(path, tuple(checks), mode="turns", requests=tuple(check.request for check in checks))


WORKLOADS: Final = {
    workload.name: workload
    for workload in (
        Workload("keepalive-1k", "keep-alive, 1 KiB", _one("/1k.html"), 1.5, floor_bytes=KIB),
        Workload("keepalive-10k", "keep-alive, 10 KiB", _one("/10k.html"), 1.25, floor_bytes=10 * KIB),
        Workload("keepalive-100k", "keep-alive, 100 KiB", _one("/100k.html"), 1.5, floor_bytes=100 * KIB),
        Workload("keepalive-1m", "keep-alive, 1 MiB", _one("/1m.bin"), 0.95, 16),
        Workload("close-1k", "a connection per request", _one("/1k.html", "Connection: close"), 1.0, floor_bytes=KIB),
        Workload("busy-1024", "1,024 busy connections", _one("/1k.html"), 1.3, 1024, floor_bytes=KIB),
        Workload("not-modified", "304 to If-None-Match", _not_modified, 1.2, status=304),
        Workload("new-heads", "every head new", _new_heads, 1.0),
        Workload("browsers-2000", "12 browsers, 2,000 files", _browsers, 1.0),
        Workload("range-20k", "20 kB ranges of 1 MiB", _ranges, 1.0, status=206),
        Workload("404", "404", _absent, 1.3, status=404),
        Workload("log-1k", "keep-alive, 1 KiB, access log", _one("/1k.html"), 1.2, log=True),
    )
}  # fmt: skip
