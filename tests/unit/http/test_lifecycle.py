import pytest

from pyserver.http.lifecycle import connection_field, persistence
from pyserver.http.request import parse_head


@pytest.mark.parametrize(
    ("head", "keep"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", True),
        (b"GET / HTTP/1.0\r\n\r\n", False),
    ],
)
def test_the_client_decides_until_we_drain(head: bytes, keep: bool) -> None:
    # RFC 9112 9.3, 9.6
    assert persistence(parse_head(head), draining=False) is keep
    assert persistence(parse_head(head), draining=True) is False


def test_the_field_is_sent_where_the_version_does_not_say_it() -> None:
    assert connection_field(1, keep=True) == b""
    assert connection_field(1, keep=False) == b"Connection: close\r\n"
    assert connection_field(0, keep=True) == b"Connection: keep-alive\r\n"
    assert connection_field(0, keep=False) == b"Connection: close\r\n"
