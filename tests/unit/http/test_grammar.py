"""The patterns alone: what each matches, and that hostile input costs no more than its length."""

import re
import time

import pytest

from pyserver.http import grammar

MATCHES = [
    (grammar.HOST, b"example.org", True),
    (grammar.HOST, b"example.org:80", True),
    (grammar.HOST, b"example.org:", True),
    (grammar.HOST, b"[::1]:8080", True),
    (grammar.HOST, b"xn--bcher-kva.example.", True),
    (grammar.HOST, b"a_b", True),
    (grammar.HOST, b"", False),
    (grammar.HOST, b".", False),
    (grammar.HOST, b"..", False),
    (grammar.HOST, b".a", False),
    (grammar.HOST, b"a..b", False),
    (grammar.HOST, b"a..", False),
    (grammar.HOST, b"a b", False),
    (grammar.HOST, b"a,b c", False),
    (grammar.HOST, b"a:b", False),
    (grammar.HOST, b"a:80:80", False),
    (grammar.HOST, b"%61", False),
    (grammar.HOST, b"[::1", False),
    (grammar.HOST, b"[fe80::1%25eth0]", False),
    (grammar.HOST, b"a" * 255, True),
    (grammar.HOST, b"a" * 256, False),
    (grammar.AUTHORITY_FORM, b"[::1]:443", True),
    (grammar.AUTHORITY_FORM, b"a", False),
    (grammar.AUTHORITY_FORM, b"u@a:443", False),
    (grammar.ABSOLUTE_FORM, b"HTTPS://a", True),
    (grammar.ABSOLUTE_FORM, b"http://a?b", True),
    (grammar.ABSOLUTE_FORM, b"http://", False),
    (grammar.ABSOLUTE_FORM, b"http://u@a/", False),
    (grammar.ABSOLUTE_FORM, b"ftp://a/", False),
    (grammar.CHUNK_LINE, b"5\r\n", True),
    (grammar.CHUNK_LINE, b"fFfF\r\n", True),
    (grammar.CHUNK_LINE, b'5 ; a = "b;\\"c" ;d\r\n', True),
    (grammar.CHUNK_LINE, b"5;\r\n", False),
    (grammar.CHUNK_LINE, b"5 \r\n", False),
    (grammar.CHUNK_LINE, b";a\r\n", False),
    (grammar.CHUNK_LINE, b"5;a=\r\n", False),
    (grammar.CHUNK_LINE, b'5;a="b\r\n', False),
    (grammar.CHUNK_LINE, b"5\n", False),
    (grammar.TRAILER_LINE, b"X: y\r\n", True),
    (grammar.TRAILER_LINE, b"Content-Lengths: 5\r\n", True),
    (grammar.TRAILER_LINE, b"content-length: 5\r\n", False),
    (grammar.TRAILER_LINE, b"Host: a\r\n", False),
    (grammar.CODINGS, b"gzip , chunked", True),
    (grammar.CODINGS, b"gzip,, chunked", False),
    (grammar.CODINGS, b"", False),
]


@pytest.mark.parametrize(("pattern", "value", "matches"), MATCHES)
def test_pattern(pattern: re.Pattern[bytes], value: bytes, matches: bool) -> None:
    assert (pattern.fullmatch(value) is not None) is matches


def test_head_takes_targets_as_browsers_send_them() -> None:
    found = grammar.HEAD.match(b'GET /a|b[1]"<>^`{}\\?q=%zz&r=? HTTP/1.1\r\nHost: a\r\n\r\nrest')
    assert found is not None
    assert found.groups() == (b"GET", b'/a|b[1]"<>^`{}\\?q=%zz&r=?', b'/a|b[1]"<>^`{}\\', b"q=%zz&r=?", b"1")


def test_decisive_fields_are_found_at_the_start_of_a_line_only() -> None:
    head = b"GET / HTTP/1.1\r\nX: Host: evil\r\nHOST:\t a\r\nRanges: x\r\nX-Range: y\r\nrange:bytes=0-\r\n\r\n"
    assert grammar.FIELDS.findall(head) == [(b"HOST", b"a"), (b"range", b"bytes=0-")]


HOSTILE = [
    (grammar.HEAD, b"GET / HTTP/1.1\r\n" + b"X: " + b" " * 32_000),
    (grammar.HEAD, b"GET / HTTP/1.1\r\n" + b"a" * 32_000),
    (grammar.HEAD, b"GET /" + b"?" * 32_000),
    (grammar.HEAD, b"GET / HTTP/1.1\r\n" + b"A:\r\n" * 8_000),
    (grammar.ABSOLUTE_FORM, b"http://" + b"a/?" * 10_000 + b"\x00"),
    (grammar.AUTHORITY_FORM, b":1" * 16_000 + b"x"),
    (grammar.HOST, b"." * 32_000),
    (grammar.HOST, b"a" * 32_000 + b".."),
    (grammar.CODINGS, b"a, " * 10_000),
    (grammar.CHUNK_LINE, b"5" + b";a" * 16_000),
    (grammar.CHUNK_LINE, b'5;a="' + b'\\"' * 16_000),
]


@pytest.mark.parametrize(("pattern", "value"), HOSTILE)
def test_hostile_input_is_refused_in_linear_time(pattern: re.Pattern[bytes], value: bytes) -> None:
    before = time.thread_time()
    assert pattern.fullmatch(value) is None
    # About 0.3 ms; what is quadratic needs seconds.
    assert time.thread_time() - before < 0.1
