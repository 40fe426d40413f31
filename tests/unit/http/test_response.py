import base64
import hashlib
import re

import pytest

from pyserver.http import response
from pyserver.http.dates import imf_fixdate
from pyserver.http.fields import NO_LINES, written
from pyserver.http.lifecycle import CLOSE
from pyserver.http.response import PAGE_POLICY, Head, Response, error_page, error_response, head, reason

DATE = imf_fixdate(784111777)


def test_a_head_is_complete() -> None:
    assert head(200, [written(b"Content-Length: 5\r\n"), written(b"ETag: x\r\n")], DATE, NO_LINES) == (
        b"HTTP/1.1 200 OK\r\n"
        b"Server: pyserver\r\n"
        b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
        b"Content-Length: 5\r\n"
        b"ETag: x\r\n"
        b"\r\n"
    )
    assert head(204, (), DATE, CLOSE).endswith(b"\r\nConnection: close\r\n\r\n")


@pytest.mark.parametrize(
    ("status", "phrase"),
    [(200, b"OK"), (206, b"Partial Content"), (304, b"Not Modified"), (413, b"Content Too Large"), (799, b"")],
)
def test_reason(status: int, phrase: bytes) -> None:
    # RFC 9110 15; RFC 9112 4: the space stays where there is no phrase
    assert reason(status) == phrase
    assert response.status_line(status) == b"HTTP/1.1 %d %b\r\n" % (status, phrase)


@pytest.mark.parametrize("status", response.SENTENCES)
def test_an_error_page_is_whole_and_loads_nothing(status: int) -> None:
    page = error_page(status).decode()
    assert page.startswith("<!DOCTYPE html>")
    assert f"<title>{status} {reason(status).decode()}</title>" in page
    assert response.SENTENCES[status] in page
    assert '<meta name="color-scheme" content="light dark">' in page
    assert not re.search(r"src=|href=|url\(|@import|<script|\{\{|\}\}", page)


def test_an_error_response() -> None:
    answer = error_response(405, date=DATE, connection=NO_LINES, fields=[written(b"Allow: GET, HEAD\r\n")])
    sent, _, page = answer.wire.partition(b"\r\n\r\n")
    assert sent.startswith(b"HTTP/1.1 405 Method Not Allowed\r\n")
    assert b"\r\nAllow: GET, HEAD" in sent
    assert b"\r\nContent-Type: text/html; charset=utf-8\r\n" in sent
    assert b"\r\nContent-Length: %d" % len(page) in sent
    assert page == error_page(405)
    assert (answer.status, answer.content_bytes, answer.close, answer.source) == (405, len(page), False, None)


def test_an_error_response_to_head_has_the_length_and_no_page() -> None:
    # RFC 9110 9.3.2
    answer = error_response(404, date=DATE, connection=NO_LINES, head_only=True)
    assert answer.wire.endswith(b"\r\n\r\n")
    assert b"Content-Length: %d\r\n" % len(error_page(404)) in answer.wire
    assert answer.content_bytes == 0


def test_an_error_response_that_ends_the_connection_says_so() -> None:
    answer = error_response(400, date=DATE, connection=CLOSE)
    assert b"\r\nConnection: close\r\n" in answer.wire
    assert answer.close


def test_a_response_says_what_it_is() -> None:
    assert repr(Response(200, Head(b""), content_bytes=5, close=True)) == "<Response 200, 5 bytes, close>"


def test_the_policy_of_an_error_page_lets_its_own_style_through() -> None:
    (style,) = re.findall(rb"<style>(.*)</style>", error_page(404), re.DOTALL)
    assert PAGE_POLICY.endswith(b"style-src 'sha256-%b'" % base64.b64encode(hashlib.sha256(style).digest()))
