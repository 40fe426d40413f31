"""The page for administrators in a real browser: it renders, moves, and shows a death and what follows."""

import hashlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.service.browser import PROGRAM, Browser, Stuck
from tests.service.conftest import Serve
from tests.service.harness import Load, Server, parse_url, wait_until

pytestmark = pytest.mark.skipif(not PROGRAM, reason="chromium is not installed")


@pytest.fixture
def server(serve: Serve, admin: socket.socket) -> Server:
    started: Server = serve(listeners=[("admin", admin)], settings={"limits.send_stall": 120})
    return started


@pytest.fixture
def browser(server: Server, admin: socket.socket, tmp_path: Path) -> Iterator[Browser]:
    host, port = admin.getsockname()
    for attempt in range(3):
        try:
            started = Browser(tmp_path / f"profile{attempt}", f"http://{host}:{port}/")
            break
        except Stuck:
            continue
    else:
        pytest.skip("chromium does not come up here")
    with started:
        yield started


def seen(browser: Browser, expression: str) -> Any:  # noqa: ANN401  whatever it is there
    return wait_until(lambda: browser.evaluate(expression), within=40, why=expression)


def has(browser: Browser, selector: str, text: str) -> None:
    seen(browser, f"document.querySelector({json.dumps(selector)}).innerText.includes({json.dumps(text)})")


LINE = "document.querySelector('#requests .l0').getAttribute('d')"


def test_it_lives_and_shows_a_killed_worker_and_its_successor(
    server: Server, browser: Browser, site: Path, large: bytes
) -> None:
    (site / "large.bin").write_bytes(large)
    public = next(parse_url(url) for url in server.urls if url.startswith("http://"))
    assert isinstance(public, tuple)
    digest = hashlib.sha256((site / "small.txt").read_bytes()).hexdigest()
    with socket.create_connection(public) as stuck, Load(public, {"/small.txt": digest}, one_shot=1, keep_alive=1):
        stuck.sendall(b"GET /large.bin HTTP/1.1\r\nHost: localhost\r\n\r\n")
        # It renders.
        has(browser, "#state", "serving, 2 of 2 workers ready")
        for pid in server.workers().values():
            has(browser, "#workers", str(pid))
            has(browser, "#lanes", f"pid {pid}, ready")
        # It moves.
        seen(browser, "parseFloat(document.getElementById('rate').innerText) > 0")
        seen(browser, "/^[0-9.]+ (µs|ms|s)$/.test(document.getElementById('slow').innerText)")
        seen(browser, "document.getElementById('took').getAttribute('aria-label').includes('; now 50 % ')")
        drawn = seen(browser, LINE)
        seen(browser, f"{LINE} !== {json.dumps(drawn)}")
        has(browser, "#current", "GET /large.bin")
        # It shows a death, and what follows it.
        killed = server.kill_worker(0)
        server.replaced(0, 1)
        has(browser, "#events", f"pid {killed}) killed by SIGKILL")
        has(browser, "#events", "replaced: worker 0 (generation 2) ready")
        has(browser, "#workers", str(server.workers()[0]))
        has(browser, "#counts", "1 workers replaced")
        assert int(seen(browser, "document.getElementById('all-requests').textContent").replace(",", "")) > 0
        assert seen(browser, "document.getElementById('all-restarts').textContent") == "1"
        seen(browser, "document.querySelector('#lanes .died').getAttribute('d').startsWith('M')")
        assert seen(browser, "document.getElementById('news').textContent").startswith(("died: ", "replaced: "))
        # By keyboard: the first stop is the button, which holds it.
        browser.press("Tab")
        assert browser.evaluate("document.activeElement.id") == "pause"
        browser.press("Enter")
        assert browser.evaluate("document.getElementById('pause').getAttribute('aria-pressed')") == "true"
        browser.press("Tab")
        assert browser.evaluate("document.activeElement.getAttribute('aria-labelledby')") == "current-title"
        # In both themes, and on a phone, where nothing sticks out.
        colours = set()
        for dark in (False, True):
            browser.show(width=400, height=800, dark=dark)
            colours.add(browser.evaluate("getComputedStyle(document.body).backgroundColor"))
            assert browser.evaluate("document.documentElement.scrollWidth") == 400
            assert browser.screenshot().startswith(b"\x89PNG")
        assert len(colours) == 2
    assert browser.complaints == [], "its script failed, or its policy forbade what it does"


def test_a_server_that_is_gone_is_said_to_be(server: Server, browser: Browser, admin: socket.socket) -> None:
    has(browser, "#state", "serving, 2 of 2 workers ready")
    admin.close()
    server.stop()
    has(browser, "#state", "no answer, trying again")
