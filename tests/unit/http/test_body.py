import pytest

from pyserver import limits
from pyserver.http.body import ChunkedBody, LengthBody
from pyserver.http.errors import ProtocolError


def refusal(data: bytes) -> int:
    with pytest.raises(ProtocolError) as caught:
        ChunkedBody().consume(data, 0)
    assert caught.value.close
    return caught.value.status


def test_content_of_a_length_ends_after_it() -> None:
    body = LengthBody(5)
    assert body.consume(b"..hel", 2) == (5, False)
    assert body.consume(b"", 0) == (0, False)
    assert body.consume(b"loGET", 0) == (2, True)


def test_content_that_is_too_long_is_refused_before_it_comes() -> None:
    LengthBody(limits.BODY_DISCARD_MAX_BYTES)
    with pytest.raises(ProtocolError) as caught:
        LengthBody(limits.BODY_DISCARD_MAX_BYTES + 1)
    assert caught.value.status == 413  # RFC 9110 15.5.14


CHUNKED = b'5\r\nhello\r\n06;a="\\"\r"\r\n world\r\n000;x\r\nX: y\r\n\r\n'.replace(b'\r"', b'"')


def test_chunked_content_ends_after_its_trailer_section() -> None:
    assert ChunkedBody().consume(b"." + CHUNKED + b"GET", 1) == (len(CHUNKED) + 1, True)


def test_chunked_content_may_come_byte_by_byte() -> None:
    body = ChunkedBody()
    kept = b""
    for at in range(len(CHUNKED)):
        kept += CHUNKED[at : at + 1]
        start, done = body.consume(kept, 0)
        kept = kept[start:]
        assert done == (at == len(CHUNKED) - 1)
    assert kept == b""


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\r\n", 400),
        (b"g\r\n", 400),
        (b" 5\r\n", 400),
        (b"5\nhello", 400),
        (b"5\r\nhellox", 400),
        (b"5\r\nhello\n", 400),
        (b"5\r\nhello\rx", 400),
        (b"0\r\nX y\r\n", 400),
        (b"0\r\n X: y\r\n", 400),
        (b"0\r\n\n", 400),
        (b"0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"0" * 17 + b"\r\n", 400),
        (b"5;" + b"a" * limits.CHUNK_LINE_MAX_BYTES, 400),
        (b"0\r\nX: " + b"y" * limits.TRAILER_MAX_BYTES, 400),
        (b"0\r\n" + b"X: y\r\n" * limits.TRAILER_MAX_BYTES, 400),
        (b"%x\r\n" % (limits.BODY_DISCARD_MAX_BYTES + 1), 413),
        (b"1;%b\r\nx\r\n" % (b"a" * 250) * 20, 413),
    ],
)
def test_what_cannot_be_followed_is_refused(data: bytes, status: int) -> None:
    assert refusal(data) == status


def test_as_much_as_is_discarded_may_come_in_chunks() -> None:
    size = limits.BODY_DISCARD_MAX_BYTES // 2
    data = (b"%x\r\n" % size + b"x" * size + b"\r\n") * 2 + b"0\r\n\r\n"
    assert ChunkedBody().consume(data, 0) == (len(data), True)
    assert refusal(data[:-5] + b"1\r\n") == 413
