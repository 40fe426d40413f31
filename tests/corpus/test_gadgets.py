"""Lines that one server takes for Transfer-Encoding and another one does not, beside a Content-Length.

There must never be two readings: the request is refused, or the line is provably another field.
"""

import re

import pytest
from tests.corpus.replay import chunkings, replay
from tests.corpus.sources import gadgets

# Ends as chunked content after its fifth byte, and as content of Content-Length after its last.
CONTENT = b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"

# A line whose name is a whole token other than Transfer-Encoding, and whose value hides no line end.
ANOTHER_FIELD = re.compile(rb"(?!(?i:transfer-encoding|content-length):)[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*")

GADGETS = gadgets()


def smuggling(lines: bytes) -> bytes:
    return b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n%b\r\n\r\n%b" % (len(CONTENT), lines, CONTENT)


@pytest.mark.parametrize(("name", "gadget"), GADGETS, ids=[name for name, _ in GADGETS])
def test_gadget_has_one_reading(name: str, gadget: bytes) -> None:
    raw = smuggling(gadget)
    whole = replay([raw])
    if whole.status is None:
        (exchange,) = whole.exchanges
        assert all(ANOTHER_FIELD.fullmatch(line) for line in gadget.split(b"\r\n")), "accepted, and not another field"
        assert (exchange.length, exchange.chunked, exchange.end) == (len(CONTENT), False, len(raw))
    else:
        assert not whole.exchanges
    for cut, parts in chunkings(raw):
        assert replay(parts) == whole, cut


@pytest.mark.parametrize(("name", "gadget"), GADGETS, ids=[name for name, _ in GADGETS])
def test_gadget_alone_is_chunked_or_refused_or_no_field_of_ours(name: str, gadget: bytes) -> None:
    whole = replay([b"POST / HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n0\r\n\r\n" % gadget])
    if whole.exchanges and whole.exchanges[0].chunked:
        # Some gadgets are two lines, of which one is a plain Transfer-Encoding.
        plain = re.compile(rb"(?i:transfer-encoding):[ \t]*(?i:chunked)[ \t]*")
        assert any(plain.fullmatch(line) for line in gadget.split(b"\r\n"))
