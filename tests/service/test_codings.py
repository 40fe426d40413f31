"""Content codings, end to end: what clients that people use make of the answers."""

import concurrent.futures
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest
from tests.service.conftest import Serve
from tests.service.harness import run, wait_until

TEXT = "".join(f"<li>line {number} of a page that shrinks</li>\n" for number in range(3000))


@pytest.fixture
def page(site: Path) -> Path:
    path = site / "page.html"
    path.write_text(TEXT)
    return path


def test_httpx_decodes_what_was_made(serve: Serve, page: Path) -> None:
    server = serve()
    with httpx.Client() as client:
        url = f"{server.urls[0]}/{page.name}"

        def coded() -> bool:
            answer = client.get(url)
            assert answer.text == TEXT
            assert answer.headers["Vary"] == "Accept-Encoding"
            return "Content-Encoding" in answer.headers

        wait_until(coded)
        answer = client.get(url)
        assert int(answer.headers["Content-Length"]) < len(TEXT) / 4
        again = client.get(url, headers={"If-None-Match": answer.headers["ETag"]})
        assert again.status_code == 304
        assert client.get(url, headers={"Accept-Encoding": "identity"}).headers.get("Content-Encoding") is None


def test_64_at_once(serve: Serve, page: Path) -> None:
    server = serve(workers=1)
    url = f"{server.urls[0]}/{page.name}"

    def ask(_: int) -> str:
        return httpx.get(url, headers={"Accept-Encoding": "gzip"}).text

    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        assert set(pool.map(ask, range(64))) == {TEXT}


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_decodes_what_compress_wrote(serve: Serve, page: Path) -> None:
    assert run("compress", str(page.parent), "--formats", "gz").returncode == 0
    assert page.with_name("page.html.gz").exists()
    server = serve()
    command = ["curl", "-s", "-f", "--compressed", "-H", "Accept-Encoding: gzip", "-D", "-", "-o", "-"]
    told = subprocess.run(
        [*command, f"{server.urls[0]}/page.html"], capture_output=True, text=True, timeout=20, check=True
    ).stdout
    head, _, content = told.replace("\r\n", "\n").partition("\n\n")
    assert "\nContent-Encoding: gzip\n" in head + "\n"
    assert content == TEXT
    size = page.with_name("page.html.gz").stat().st_size
    assert f"\nContent-Length: {size}\n" in head + "\n"


def test_a_single_thread_makes_none(serve: Serve, page: Path) -> None:
    """There would be nobody but the leader to do it."""
    server = serve(threads=1)
    for _ in range(3):
        answer = httpx.get(f"{server.urls[0]}/{page.name}")
        assert (answer.text, "Vary" in answer.headers) == (TEXT, False)
