import errno

import pytest

from pyserver.handlers.trace import Trace
from pyserver.http.ranges import UNSATISFIABLE, Span, Unsatisfiable
from pyserver.http.request import parse_head


@pytest.mark.parametrize(
    ("number", "what"),
    [
        (errno.ENOENT, "none: no such file or directory"),
        (errno.EACCES, "none: permission denied"),
        (errno.EXDEV, "none: leads out of the root (symlinks = owner)"),
        (errno.ELOOP, "none: a ring of links, or a link that is not followed (symlinks = owner)"),
    ],
)
def test_why_nothing_was_opened(number: int, what: str) -> None:
    trace = Trace()
    trace.missing(number, "owner")
    assert trace.steps == [("file", what)]


@pytest.mark.parametrize(
    ("spans", "what"),
    [
        (None, "bytes=x: ignored, malformed or not worth it"),
        (UNSATISFIABLE, "bytes=x: nothing of 10 bytes"),
        (((0, 1),), "bytes=x: 0-0 of 10 bytes"),
        (((0, 2), (5, 10)), "bytes=x: 0-1, 5-9 of 10 bytes"),
    ],
)
def test_ranges(spans: tuple[Span, ...] | Unsatisfiable | None, what: str) -> None:
    trace = Trace()
    trace.spans(b"bytes=x", spans, 10)
    assert trace.steps == [("range", what)]


@pytest.mark.parametrize(
    ("method", "fields", "status", "said"),
    [
        ("GET", "", 200, []),
        ("GET", "If-Match: a\r\nIf-None-Match: *\r\n", 412, ["if-match: a, if-none-match: *: not what it wants"]),
        ("GET", "If-None-Match: *\r\n", 304, ["if-none-match: *: the client has it"]),
        ("HEAD", "Range: bytes=0-\r\n", 200, ["ignored, HEAD has none"]),
        ("GET", "Range: bytes=0-\r\n", 200, []),
    ],
)
def test_preconditions(method: str, fields: str, status: int, said: list[str]) -> None:
    trace = Trace()
    trace.conditions(parse_head(f"{method} / HTTP/1.1\r\nHost: a\r\n{fields}\r\n".encode()), status)
    assert [step.what for step in trace.steps] == said


def test_only_an_alias_is_told_and_the_policy_of_links_once() -> None:
    trace = Trace()
    trace.tree(b"", "/srv/www", "beneath")
    trace.tree(b"/static", "/srv/static", "beneath")
    assert trace.steps == [
        ("links", "beneath: all that stay in the folder are followed"),
        ("alias", "/static/ is /srv/static"),
    ]


def test_bytes_that_are_not_utf_8_are_kept() -> None:
    trace = Trace()
    trace.path(b"/\xff")
    assert trace.steps == [("path", "/\udcff")]
