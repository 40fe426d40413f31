import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.corpus.replay import replay

from pyserver import limits
from pyserver.http.errors import ProtocolError
from pyserver.http.reader import RequestReader

GET = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"


def test_a_request_in_one_piece() -> None:
    reader = RequestReader()
    assert reader.next() is None
    assert not reader.started
    reader.feed(GET % 1)
    request = reader.next()
    assert request is not None
    assert request.target == b"/1"
    assert reader.discard_body()
    assert not reader.started
    assert reader.pending == b""
    assert reader.next() is None


def test_a_request_in_two_pieces() -> None:
    reader = RequestReader()
    reader.feed((GET % 1)[:7])
    assert reader.next() is None
    assert reader.started
    assert reader.pending == (GET % 1)[:7]
    reader.feed((GET % 1)[7:])
    request = reader.next()
    assert request is not None
    assert isinstance(request.head, bytes)
    assert not reader.started


def test_pipelined_requests_come_in_their_order() -> None:
    reader = RequestReader()
    reader.feed(GET % 1 + GET % 2 + GET % 3 + b"GET")
    requests = [reader.next() for _ in range(4)]
    assert [request and request.target for request in requests] == [b"/1", b"/2", b"/3", None]
    assert reader.pending == b"GET"
    reader.feed((GET % 4)[3:] + GET % 5)
    requests = [reader.next() for _ in range(3)]
    assert [request and request.target for request in requests] == [b"/4", b"/5", None]


def test_content_is_discarded_and_never_taken_for_a_request() -> None:
    reader = RequestReader()
    reader.feed(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(GET % 1) + (GET % 1)[:5])
    request = reader.next()
    assert request is not None
    assert request.has_body
    assert reader.started
    assert not reader.discard_body()
    assert reader.started
    reader.feed((GET % 1)[5:] + GET % 2)
    assert reader.discard_body()
    assert reader.discard_body()
    request = reader.next()
    assert request is not None
    assert request.target == b"/2"


def test_to_ask_for_a_request_amid_content_is_a_mistake_of_ours() -> None:
    reader = RequestReader()
    reader.feed(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab")
    reader.next()
    with pytest.raises(AssertionError):
        reader.next()
    reader.discard_body()
    with pytest.raises(AssertionError):
        reader.next()


def test_content_that_is_too_long_is_refused_at_once() -> None:
    reader = RequestReader()
    reader.feed(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (limits.BODY_DISCARD_MAX_BYTES + 1))
    assert reader.next() is not None  # it can still be answered as what it is
    with pytest.raises(ProtocolError) as caught:
        reader.discard_body()
    assert caught.value.status == 413


def test_empty_lines_do_not_start_a_request() -> None:
    reader = RequestReader()
    for _ in range(2):
        reader.feed(b"\r\n")
        assert reader.next() is None
        assert not reader.started
    reader.feed(b"\r")
    assert reader.next() is None
    assert reader.started
    reader.feed(b"\n" + GET % 1)
    request = reader.next()
    assert request is not None
    assert request.head == GET % 1


def test_a_wrong_head_is_refused_before_it_is_complete() -> None:
    reader = RequestReader()
    reader.feed(b"GET / HTTP/1.1\r\nHost : ")
    with pytest.raises(ProtocolError) as caught:
        reader.next()
    assert caught.value.status == 400


def test_an_endless_head_is_refused_without_keeping_it() -> None:
    reader = RequestReader()
    reader.feed(b"GET / HTTP/1.1\r\nX: ")
    for _ in range(31):
        reader.feed(b"y" * 1024)
        assert reader.next() is None
    reader.feed(b"y" * 1024)
    with pytest.raises(ProtocolError) as caught:
        reader.next()
    assert caught.value.status == 431
    assert len(reader.pending) < limits.HEAD_MAX_BYTES + 2048


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nCookie: " + b"x" * 32_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 8_000 + b" HTTP/1.1\r\nHost: a\r\n" + b"Abcdefgh: " + b"x" * 20_000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1;a=b\r\nx\r\n" * 1000 + b"0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 32000\r\n\r\n" + b"x" * 32_000,
    ],
)
def test_a_drip_of_single_bytes_costs_no_more_for_a_byte_at_the_end(data: bytes) -> None:
    before = time.thread_time()
    outcome = replay(data[i : i + 1] for i in range(len(data)))
    # About 1 us a byte; what looks at a head again for each byte of it takes 30 us and more.
    assert (time.thread_time() - before) / len(data) < 15e-6
    assert len(outcome.exchanges) == 1
    assert not outcome.started


MESSAGES = st.sampled_from(
    [
        GET % 1,
        b"\r\n" + GET % 2,
        b"HEAD http://B/x?y HTTP/1.1\r\nHost: a\r\nRange: bytes=0-\r\nRange: bytes=1-\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 30\r\n\r\n" + GET % 3 + b"!",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nX: y\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n",
        b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET /\x00",
        b"G",
        b"\r",
        b"\n",
    ]
)


@given(st.lists(st.one_of(MESSAGES, st.binary(max_size=3)), max_size=6).map(b"".join), st.data())
def test_what_is_read_does_not_depend_on_how_it_was_cut(data: bytes, draw: st.DataObject) -> None:
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(data)), max_size=8)))
    parts = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    assert replay(parts) == replay([data])
