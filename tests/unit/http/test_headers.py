from pyserver.http.headers import field, joined

HEAD = (
    b"GET /Referer: HTTP/1.1\r\nHost: a\r\nX: Referer: no\r\nreferer: \thttp://b/ \r\nUser-Agent:\r\nReferer: c\r\n\r\n"
)


def test_the_first_line_of_the_name_counts_in_any_case() -> None:
    assert field(HEAD, b"Referer") == b"http://b/"
    assert field(HEAD, b"User-Agent") == b""
    assert field(HEAD, b"Cookie") is None
    assert field(HEAD, b"ferer") is None


def test_a_list_is_that_of_all_lines_of_the_name() -> None:
    assert joined(HEAD, b"Referer") == b"http://b/, c"
    assert joined(HEAD, b"User-Agent") == b""
    assert joined(HEAD, b"Cookie") is None


def test_a_name_is_no_pattern() -> None:
    assert field(HEAD, b".+") is None
