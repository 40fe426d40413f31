"""h11 as an oracle: what we accept, h11 accepts too, as the same request that ends at the same byte.

Where it does less than RFC 9112 asks or lets us do stands in NOT_KNOWN_TO_H11. The other direction is no question: h11
accepts much that we refuse on purpose.
"""

import re
from collections.abc import Iterator

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.corpus.replay import Exchange, replay
from tests.corpus.sources import Entry, requests

NEXT = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"

NOT_KNOWN_TO_H11 = {
    "RFC 9112 7.1.1: whitespace before a chunk extension": re.compile(rb"\r\n[0-9A-Fa-f]+[ \t]+;"),
    "RFC 9110 8.6: leading zeros in Content-Length, beyond twenty digits": re.compile(
        rb"(?i:\ncontent-length):[ \t]*0{16}"
    ),
}

ENTRIES = requests()


def accepted(data: bytes) -> Iterator[tuple[Exchange, bytes]]:
    """Each request that we accept, with its bytes."""
    start = 0
    for exchange in replay([data]).exchanges:
        if exchange.end is None:
            return
        yield exchange, data[start : exchange.end]
        start = exchange.end


def check(exchange: Exchange, message: bytes) -> None:
    # RFC 9112 2.2: empty lines before a request. h11 has no room for them.
    message = message.lstrip(b"\r\n")
    if any(pattern.search(message) for pattern in NOT_KNOWN_TO_H11.values()):
        return
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(message + NEXT)
    request = connection.next_event()
    assert isinstance(request, h11.Request)
    assert request.method == exchange.method
    assert request.target == exchange.target
    assert min(int(request.http_version[2:]), 1) == exchange.minor
    size = 0
    while isinstance(event := connection.next_event(), h11.Data):
        size += len(event.data)
    assert isinstance(event, h11.EndOfMessage)
    assert connection.trailing_data == (NEXT, False)
    assert exchange.chunked or size == exchange.length
    assert exchange.chunked == (b"transfer-encoding" in {name for name, _ in request.headers})
    if exchange.minor == 1:  # h11 ends every HTTP/1.0 connection
        assert (connection.their_state is not h11.MUST_CLOSE) == exchange.keep_alive


@pytest.mark.parametrize("entry", ENTRIES, ids=repr)
def test_h11_agrees_on_the_corpora(entry: Entry) -> None:
    for exchange, message in accepted(entry.raw):
        check(exchange, message)


METHODS = st.sampled_from([b"GET", b"HEAD", b"POST", b"OPTIONS", b"get", b"M-X"])
TARGETS = st.one_of(
    st.sampled_from([b"/", b"/a?b", b"http://b", b"http://b:1/x?", b"//b", b"/%2e%2e", b'/"|^', b"/#", b"*"]),
    st.binary(max_size=3).map(lambda tail: b"/" + tail),
)
VERSIONS = st.sampled_from([b"HTTP/1.1"] * 5 + [b"HTTP/1.0", b"HTTP/1.9", b"HTTP/2.0"])
NAMES = st.sampled_from(
    [b"X", b"Host", b"Content-Length", b"Transfer-Encoding", b"Connection", b"Expect", b"Content_Length"]
)
VALUES = st.one_of(
    st.sampled_from([b"a", b"", b"0", b"5", b"5, 5", b"+5", b"chunked", b"gzip", b"close", b"keep-alive", b"x,close"]),
    st.binary(max_size=3),
)
WHITESPACE = st.sampled_from([b"", b" ", b"\t", b" \t "])
# Any line at all, which is mostly wrong, or one that is harmless.
FIELD_LINES = st.one_of(
    st.builds(lambda *parts: b"%b:%b%b%b\r\n" % parts, NAMES, WHITESPACE, VALUES, WHITESPACE),
    st.builds(lambda *parts: b"Connection:%b%b%b\r\n" % parts, WHITESPACE, VALUES, WHITESPACE),
    st.just(b"X: y\r\n"),
)

CHUNKED = b"transfer-encoding:CHUNKED\r\n"
CONTENTS = st.sampled_from(
    [
        (b"", b""),
        (b"Content-Length: 0\r\n", b""),
        (b"content-length:\t05 \r\n", b"hello"),
        (b"Content-Length: %d\r\n" % len(NEXT), NEXT),
        (CHUNKED, b"0\r\n\r\n"),
        (CHUNKED, b"5\r\nhello\r\n0\r\n\r\n"),
        (CHUNKED, b"5;a=b\r\nhello\r\n000\r\nX: y\r\n\r\n"),
        (CHUNKED, b"%x\r\n%b\r\n0\r\n\r\n" % (len(NEXT), NEXT)),
        (CHUNKED, b"5 \r\nhello\r\n0\r\n\r\n"),
        (CHUNKED, b"5\r\nhello0\r\n\r\n"),
        (CHUNKED + b"Content-Length: 5\r\n", b"0\r\n\r\n"),
    ]
)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    framing, content = draw(CONTENTS)
    lines = [b"Host: a\r\n", framing, *draw(st.lists(FIELD_LINES, max_size=2))]
    head = b"%b %b %b\r\n%b\r\n" % (draw(METHODS), draw(TARGETS), draw(VERSIONS), b"".join(lines))
    return head + content


@given(st.lists(messages(), min_size=1, max_size=3).map(b"".join))
def test_h11_agrees_on_what_is_made_up(data: bytes) -> None:
    for exchange, message in accepted(data):
        check(exchange, message)
