"""RFC 9110 14.6, read again by Python's own reader of MIME."""

import email
import email.policy
from email.message import EmailMessage

from hypothesis import given
from hypothesis import strategies as st

from pyserver.http import multipart, ranges
from pyserver.http.fields import field_value
from pyserver.http.ranges import Span

BOUNDARY = field_value(b"0123456789abcdef01234567")


def assembled(content: bytes, spans: list[Span], media_type: bytes) -> bytes:
    parts = multipart.parts(spans, len(content), field_value(media_type), BOUNDARY)
    return b"".join(part if isinstance(part, bytes) else content[part[0] : sum(part)] for part in parts)


def test_byte_by_byte() -> None:
    assert len(BOUNDARY) == multipart.BOUNDARY_BYTES
    assert assembled(b"0123456789", [(8, 10), (0, 1)], b"text/plain") == (
        b"--0123456789abcdef01234567\r\n"
        b"Content-Type: text/plain\r\n"
        b"Content-Range: bytes 8-9/10\r\n"
        b"\r\n"
        b"89\r\n"
        b"--0123456789abcdef01234567\r\n"
        b"Content-Type: text/plain\r\n"
        b"Content-Range: bytes 0-0/10\r\n"
        b"\r\n"
        b"0\r\n"
        b"--0123456789abcdef01234567--\r\n"
    )
    assert multipart.content_type(BOUNDARY) == b"multipart/byteranges; boundary=0123456789abcdef01234567"


CONTENTS = st.one_of(st.binary(min_size=1, max_size=400), st.text("\r\n-a", min_size=1, max_size=400).map(str.encode))


@given(CONTENTS, st.data())
def test_others_read_what_we_wrote(content: bytes, data: st.DataObject) -> None:
    starts = st.integers(0, len(content) - 1)
    spans = data.draw(
        st.lists(
            starts.flatmap(lambda first: st.tuples(st.just(first), st.integers(first + 1, len(content)))),
            min_size=1,
            max_size=5,
        )
    )
    head = b"Content-Type: %b\r\nContent-Transfer-Encoding: binary\r\n\r\n" % multipart.content_type(BOUNDARY)
    sent = assembled(content, spans, b"application/octet-stream")
    message = email.message_from_bytes(head + sent, policy=email.policy.HTTP)
    assert not message.defects
    assert not message.preamble
    assert not message.epilogue
    assert isinstance(message, EmailMessage)
    assert [part["Content-Range"] for part in message.iter_parts()] == [
        f"bytes {a}-{b - 1}/{len(content)}" for a, b in spans
    ]
    # The module reads lines, and takes lone CRs and LFs for their ends; so the bytes are compared without it.
    for (first, end), raw in zip(spans, sent.split(b"--" + BOUNDARY)[1:], strict=False):
        assert raw.partition(b"\r\n\r\n")[2] == content[first:end] + b"\r\n"


@given(st.integers(2, 10**12), st.data())
def test_what_a_part_costs_at_most(size: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, size - 1))
    end = data.draw(st.integers(first + 1, size))
    media_type = field_value(b"text/html; charset=utf-8")
    at_most = multipart.part_bytes(size, media_type)
    *heads, last = [
        part for part in multipart.parts([(first, end)] * 2, size, media_type, BOUNDARY) if isinstance(part, bytes)
    ]
    assert all(len(head) <= at_most for head in heads)
    assert len(last) <= at_most


@given(st.integers(0, 3000), st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 300)), min_size=1, max_size=20))
def test_no_answer_in_parts_is_longer_than_the_whole(size: int, asked: list[tuple[int, int]]) -> None:
    # T-28, nginx 1.29.5: multipart larger than its source
    value = b"bytes=" + b",".join(b"%d-%d" % (first, first + length) for first, length in asked)
    spans = ranges.resolve(value, size, multipart.part_bytes(size, field_value(b"text/css")))
    if isinstance(spans, tuple) and len(spans) > 1:
        assert len(assembled(bytes(size), list(spans), b"text/css")) <= size
