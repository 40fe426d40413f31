import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyserver import limits
from pyserver.http import grammar
from pyserver.http.errors import ProtocolError
from pyserver.http.scanner import BLANK_LINES_MAX, RULES, USUAL, Bounds, HeadScanner, Part

GOOD = b"GET /a?b HTTP/1.1\r\nHost: a\r\nX:\r\nY: \xff \t\r\n\r\n"


def refusal(data: bytes) -> tuple[int, str]:
    with pytest.raises(ProtocolError) as caught:
        HeadScanner().advance(data)
    return caught.value.status, caught.value.why


def test_every_part_has_its_rule_and_can_be_left() -> None:
    assert RULES.keys() == set(Part) - {Part.END}
    assert {onward for rule in RULES.values() for onward in rule.onward.values()} == set(Part)


def test_a_good_head_is_walked_to_its_end_and_no_further() -> None:
    for size in range(len(GOOD)):
        assert not HeadScanner().advance(GOOD[:size])
    assert HeadScanner().advance(GOOD)
    assert HeadScanner().advance(GOOD + b"\x00")


def test_a_head_may_come_byte_by_byte() -> None:
    scanner = HeadScanner()
    assert [scanner.advance(GOOD[:size]) for size in range(len(GOOD) + 1)] == [False] * len(GOOD) + [True]


@pytest.mark.parametrize(
    ("data", "status", "why"),
    [
        (b"\x16", 400, "byte 0x16 in the method"),
        (b" ", 400, "byte 0x20 in the method"),
        (b"GET /\r", 400, "byte 0x0d in the request target"),
        (b"GET  ", 400, "byte 0x20 in the request target"),
        (b"GET / HTTP/1.1\n", 400, "byte 0x0a in the version"),
        (b"GET / HTTP/1.1 ", 400, "byte 0x20 in the version"),
        (b"GET / HTTP/x.1\r", 400, "no HTTP version"),
        (b"GET / HTTP/1\r", 400, "byte 0x0d in the version"),
        (b"GET / HTTP/1.1.", 400, "the version is longer than 8 bytes"),
        (b"GET / HTTP/0.9\r", 505, "HTTP/0.9 is not spoken here"),
        (b"GET / HTTP/3.0\r", 505, "HTTP/3.0 is not spoken here"),
        (b"GET / HTTP/1.1\rX", 400, "byte 0x58 in the end of the request line"),
        (b"GET / HTTP/1.1\r\n ", 400, "byte 0x20 in a field name"),
        (b"GET / HTTP/1.1\r\nX ", 400, "byte 0x20 in a field name"),
        (b"GET / HTTP/1.1\r\n:", 400, "byte 0x3a in a field name"),
        (b"GET / HTTP/1.1\r\nX: \n", 400, "byte 0x0a in a field value"),
        (b"GET / HTTP/1.1\r\nX: \x7f", 400, "byte 0x7f in a field value"),
        (b"GET / HTTP/1.1\r\nX: \r\r", 400, "byte 0x0d in the end of a field line"),
        (b"GET / HTTP/1.1\r\n\rX", 400, "byte 0x58 in the end of the head"),
        (b"\r\n" * (BLANK_LINES_MAX + 1), 400, "too many empty lines before the request"),
        (b"\rG", 400, "byte 0x47 in an empty line before the request"),
        (b"M" * 65, 501, "the method is longer than 64 bytes"),
        (b"GET /" + b"a" * limits.TARGET_MAX_BYTES, 414, "the request target is longer than 8192 bytes"),
        (b"GET / HTTP/1.1\r\n" + b"X:\r\n" * limits.FIELDS_MAX + b"Y", 431, "more than 100 field lines"),
        (
            (b"GET / HTTP/1.1\r\nX:" + b"y" * limits.HEAD_MAX_BYTES)[: limits.HEAD_MAX_BYTES + 1],
            431,
            "request head is longer than 32768 bytes",
        ),
    ],
)
def test_what_is_wrong_is_said_as_soon_as_it_is_sure(data: bytes, status: int, why: str) -> None:
    assert refusal(data) == (status, why)
    assert not HeadScanner().advance(data[:-1])  # not one byte earlier
    assert refusal(data + b"\x00 and more") == (status, why)  # nor does more change it


def test_bounds_are_those_that_are_given() -> None:
    bounds = Bounds(head_bytes=60, target_bytes=5, fields=2)
    head = b"GET /aaaa HTTP/1.1\r\nX:\r\nY:%b\r\n\r\n"
    for good in (head % b"", head % (b"y" * 30)):
        assert HeadScanner(bounds=bounds).advance(good)
        assert bounds.pattern.match(good)
    for bad, why in (
        (head % (b"y" * 31), "request head is longer than 60 bytes"),
        (head.replace(b"aaaa", b"aaaaa"), "the request target is longer than 5 bytes"),
        (head % b"\r\nZ:", "more than 2 field lines"),
    ):
        with pytest.raises(ProtocolError, match=f"^{why}$"):
            HeadScanner(bounds=bounds).advance(bad)
    many = Bounds(fields=500)
    head = b"GET / HTTP/1.1\r\n" + b"X:\r\n" * 500 + b"\r\n"
    assert HeadScanner(bounds=many).advance(head)
    assert many.pattern.match(head)
    assert not USUAL.pattern.match(head)


LINES = st.lists(
    st.sampled_from(
        [
            b"GET",
            b" ",
            b"/",
            b"HTTP/1.1",
            b"HTTP/1.0",
            b"HTTP/2.0",
            b"\r\n",
            b"\r",
            b"\n",
            b"X",
            b":",
            b"a",
            b"\xff",
            b"\t",
        ]
    ),
    max_size=24,
).map(b"".join)


@given(st.one_of(LINES, LINES.map(lambda data: b"GET / HTTP/1.1\r\n" + data), st.binary(max_size=60)))
def test_the_table_and_the_pattern_are_one_grammar(data: bytes) -> None:
    scanner = HeadScanner()
    try:
        complete = scanner.advance(data)
    except ProtocolError:
        complete = False
    matches = grammar.HEAD.match(data, scanner.start) is not None
    assert complete == matches
