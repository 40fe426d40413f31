import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pyserver import limits
from pyserver.http.errors import ProtocolError
from pyserver.http.reader import RequestReader
from pyserver.http.request import Request, host_name, only_head, parse_head
from pyserver.http.scanner import Bounds

BROWSER = (
    b"GET /a%20b/c.css?v=1 HTTP/1.1\r\n"
    b"Host: Example.org:8080\r\n"
    b"User-Agent: x\r\n"
    b"Accept-Encoding: gzip, br\r\n"
    b"Range: bytes=0-1\r\n"
    b'If-None-Match: "a"\r\n'
    b'if-none-match:   W/"b"  \r\n'
    b"Cookie: Range: no\r\n"
    b"\r\n"
)


def refusal(head: bytes) -> int:
    with pytest.raises(ProtocolError) as caught:
        parse_head(head)
    assert caught.value.close
    return caught.value.status


def test_a_request_has_what_the_server_decides_by_and_nothing_else() -> None:
    request = parse_head(b"..." + BROWSER + b"GET / HT", 3)
    assert request.method == b"GET"
    assert request.target == b"/a%20b/c.css?v=1"
    assert request.path == b"/a%20b/c.css"
    assert request.query == b"v=1"
    assert request.minor == 1
    assert request.host == b"example.org"
    assert request.fields == {
        b"accept-encoding": b"gzip, br",
        b"range": b"bytes=0-1",
        b"if-none-match": b'"a", W/"b"',
    }
    assert request.keep_alive
    assert (request.length, request.chunked, request.has_body, request.expects_continue) == (0, False, False, False)
    assert request.head == BROWSER
    assert repr(request) == "<Request b'GET' b'/a%20b/c.css?v=1' HTTP/1.1>"


def test_a_query_may_be_empty_or_not_there() -> None:
    assert parse_head(b"GET /? HTTP/1.0\r\n\r\n").query == b""
    assert parse_head(b"GET / HTTP/1.0\r\n\r\n").query is None


def test_empty_lines_before_the_request_are_no_part_of_it() -> None:
    assert parse_head(b"\r\n\r\nGET / HTTP/1.0\r\n\r\n").head == b"GET / HTTP/1.0\r\n\r\n"


def test_an_incomplete_head_is_refused_by_who_must_have_it_whole() -> None:
    assert refusal(b"GET / HTTP/1.1\r\nHost: a\r\n") == 400
    assert refusal(b"") == 400


def test_limits_are_options() -> None:
    bounds = Bounds(head_bytes=1024, target_bytes=300, fields=10)
    good = b"GET /%b HTTP/1.1\r\nHost: a\r\n%b\r\n"
    for target, lines, status in (
        (b"a" * 299, b"X: y\r\n" * 9, 0),
        (b"a" * 300, b"", 414),
        (b"", b"X: y\r\n" * 10, 431),
        (b"", b"X: %b\r\n" % (b"y" * 1000), 431),
    ):
        head = good % (target, lines)
        assert parse_head(head).path == b"/" + target
        reader = RequestReader(bounds)
        reader.feed(head)
        if not status:
            assert parse_head(head, bounds=bounds).path == b"/" + target
            assert only_head(head, bounds) is not None
            assert reader.next() is not None
            continue
        with pytest.raises(ProtocolError) as caught:
            parse_head(head, bounds=bounds)
        assert caught.value.status == status
        assert only_head(head, bounds) is None
        with pytest.raises(ProtocolError) as caught:
            reader.next()
        assert caught.value.status == status


def test_limits() -> None:
    host = b"Host: a\r\n"
    longest = b"/" + b"a" * (limits.TARGET_MAX_BYTES - 1)
    assert parse_head(b"GET %b HTTP/1.1\r\n%b\r\n" % (longest, host)).target == longest
    assert refusal(b"GET %ba HTTP/1.1\r\n%b\r\n" % (longest, host)) == 414  # RFC 9112 3
    lines = b"X: y\r\n" * (limits.FIELDS_MAX - 1)
    assert parse_head(b"GET / HTTP/1.1\r\n%b%b\r\n" % (host, lines)).host == b"a"
    assert refusal(b"GET / HTTP/1.1\r\n%b%bX: y\r\n\r\n" % (host, lines)) == 431  # RFC 6585 5
    start = b"GET / HTTP/1.1\r\n" + host + b"X: "
    value = b"y" * (limits.HEAD_MAX_BYTES - len(start) - 4)
    assert len(parse_head(start + value + b"\r\n\r\n").head) == limits.HEAD_MAX_BYTES
    assert refusal(start + value + b"y\r\n\r\n") == 431
    assert parse_head(b"M" * 64 + b" / HTTP/1.0\r\n\r\n").method == b"M" * 64
    assert refusal(b"M" * 65 + b" / HTTP/1.0\r\n\r\n") == 501  # RFC 9112 3


def post(*lines: bytes, minor: int = 1) -> Request:
    return parse_head(b"POST / HTTP/1.%d\r\nHost: a\r\n%b\r\n" % (minor, b"".join(line + b"\r\n" for line in lines)))


def test_expectation() -> None:
    # RFC 9110 10.1.1
    assert post(b"Expect: 100-Continue", b"Content-Length: 1").expects_continue
    assert post(b"Expect: 100-continue", b"Transfer-Encoding: chunked").expects_continue
    assert not post(b"Expect: 100-continue").expects_continue
    assert not post(b"Expect: 100-continue", b"Content-Length: 1", minor=0).expects_continue


def test_options_of_the_server_as_a_whole() -> None:
    # RFC 9112 3.2.4
    assert parse_head(b"OPTIONS http://b HTTP/1.1\r\nHost: a\r\n\r\n").path == b"*"
    assert parse_head(b"OPTIONS http://b/ HTTP/1.1\r\nHost: a\r\n\r\n").path == b"/"
    assert parse_head(b"GET http://b HTTP/1.1\r\nHost: a\r\n\r\n").path == b"/"


def test_host_name() -> None:
    assert host_name(b"WWW.Example.org.:80") == b"www.example.org"
    assert host_name(b"[2001:DB8::1]") == b"[2001:db8::1]"
    for bad in (b"", b"a:70000", b"[::1::]", b"[1.2.3.4]", b"a, a"):
        with pytest.raises(ProtocolError) as caught:
            host_name(bad)
        assert caught.value.status == 400


FRAGMENTS = st.sampled_from(
    [
        *(b"GET", b"POST", b"OPTIONS", b"CONNECT", b" ", b"/", b"*", b"http://a/", b"a:1", b"?", b"%", b"#"),
        *(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b" HTTP/2.0\r\n", b"\r\n", b"\r", b"\n", b"\x00", b"\xff", b"\t", b":"),
        *(b"Host: a\r\n", b"Host: [::1]:9\r\n", b"Host: [:\r\n", b"Content-Length: 5\r\n", b"Content-Length: \r\n"),
        *(
            b"Transfer-Encoding: chunked\r\n",
            b"Transfer-Encoding: gzip\r\n",
            b"Expect: 100-continue\r\n",
            b"Expect:\r\n",
        ),
        *(
            b"Connection: close\r\n",
            b"Range: bytes=0-\r\n",
            b" folded\r\n",
            b"Content-Length: " + b"9" * 5000 + b"\r\n",
        ),
    ]
)


@given(
    st.one_of(st.binary(max_size=200), st.lists(st.one_of(FRAGMENTS, st.binary(max_size=4)), max_size=12).map(b"".join))
)
@example(b"GET / HTTP/1.1\r\nHost: [::\xff]\r\n\r\n")
@example(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n")
def test_whatever_is_sent_there_is_a_request_or_a_protocol_error(data: bytes) -> None:
    try:
        request = parse_head(data)
    except ProtocolError as error:
        assert error.status in (400, 413, 414, 417, 431, 501, 505)  # noqa: PT017  # either way is fine
        assert error.close  # noqa: PT017
        return
    assert data.lstrip(b"\r\n").startswith(request.head)
    assert request.path.startswith(b"/") or request.method in (b"OPTIONS", b"CONNECT")
    assert not (request.chunked and request.length)
    assert request.host or not request.minor
