"""Where bytes that are no constants enter the head of an answer: by field_line(), which refuses what is not one line.

All else is in the table below, each with the reason why it is ours. A new place is a failure until somebody has looked
at it (T-42, RFC 9112 11.1: response splitting).
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from docs.generate import PROJECT

SERVICE = PROJECT / "service/pyserver"

TYPE = "a media type of the table"
BOUNDARY = "a boundary of hexadecimal digits, and " + TYPE
PLACES = {
    ("http/response.py", b"%b: %b\r\n"): "field_line() itself, behind its check",
    ("http/response.py", b"%b%bDate: %b\r\n%b%b\r\n"): "head(): lines of these places, and a date of http.dates",
    ("http/response.py", b"HTTP/1.1 %d %b\r\n"): "a phrase of the table of RFC 9110",
    ("http/multipart.py", b"\r\n--%b\r\nContent-Type: %b\r\n%b\r\n"): BOUNDARY,
    ("http/multipart.py", b"\r\n--%b--\r\n"): BOUNDARY,
    ("handlers/entries.py", b"Last-Modified: %b\r\nETag: %b\r\n"): "a date of http.dates, a tag of hexadecimal digits",
    ("handlers/entries.py", b"Content-Type: %b\r\nAccept-Ranges: bytes\r\n%b%b"): TYPE
    + ", and lines of handlers.rules",
    ("handlers/entries.py", b"Content-Encoding: %b\r\n"): "the name of a coding of files.codings",
    ("handlers/status.py", b"Content-Security-Policy: %b\r\nReferrer-Policy: no-referrer\r\n"): "a constant of its own",
    ("worker/tracing.py", b"X-Request-ID: %b\r\n"): "a name of hexadecimal digits, or a word that a trusted proxy gave",
    ("worker/tracing.py", b"Server-Timing: %b\r\n"): "constants and numbers of its own",
    ("handlers/static.py", b"Content-Type: %b\r\nX-Content-Type-Options: nosniff\r\nContent-Length: %d\r\n"): TYPE,
}


def places(service: Path) -> Iterator[tuple[str, bytes]]:
    """Every template for lines that takes bytes, and every beginning of a line that bytes could be appended to."""
    for path in sorted(service.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant):
                text = node.value.encode() if isinstance(node.value, str) else node.value
                if isinstance(text, bytes) and (
                    (b"%b" in text and b"\r\n" in text)
                    or re.fullmatch(rb"(?:.*\n)?[A-Z][A-Za-z]*-[A-Za-z-]+: ", text, re.DOTALL)
                    or re.search(rb"[A-Za-z]: [^\n]*(?:\{.*\}|%s)\r\n", text)
                ):
                    yield str(path.relative_to(service)), text


def test_bytes_enter_a_head_only_where_somebody_has_looked() -> None:
    assert set(places(SERVICE)) == set(PLACES)


@pytest.mark.parametrize(
    "code",
    ['b"X-Name: %b\\r\\n" % value', 'b"X-Name: " + value', '"X-Name: {}\\r\\n".format(value)', '"X: %s\\r\\n" % value'],
)
def test_a_new_place_is_found(tmp_path: Path, code: str) -> None:
    (tmp_path / "module.py").write_text(f"line = {code}\n")
    assert len(list(places(tmp_path))) == 1
