import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pyserver.http.fields import (
    NO_LINES,
    NO_VALUE,
    field_line,
    field_name,
    field_value,
    joined_lines,
    written,
)

# Bytes that end a line or a string somewhere, and others around them.
DANGEROUS = b"\r\n\0\x0b\x0c\x1b\x7f"
PIECES = st.lists(st.sampled_from([*(bytes([each]) for each in DANGEROUS), b"a", b" ", b"\t", b":", b"\xff", b"X: y"]))
BYTES = PIECES.map(b"".join) | st.binary(max_size=20)


@given(BYTES)
@example(b"a\r\nSet-Cookie: evil=1")
@example(b"a\n")
@example(b"\n")
@example(b"a\0b")
def test_a_value_is_whole_or_refused(value: bytes) -> None:
    # RFC 9110 5.5, T-42
    if any((each < 0x20 and each != 0x09) or each == 0x7F for each in value):
        with pytest.raises(ValueError, match="cannot be the value"):
            field_value(value)
    else:
        assert field_value(value) == value


@given(BYTES)
@example(b"")
@example(b"X\n")
@example(b"X:")
@example(b"X ")
@example(b"X\r\nY")
def test_a_name_is_a_token_or_refused(name: bytes) -> None:
    # RFC 9110 5.1, 5.6.2
    token = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    if name and all(each in token for each in name):
        assert field_name(name) == name
    else:
        with pytest.raises(ValueError, match="cannot be the name"):
            field_name(name)


@pytest.mark.parametrize(
    "lines",
    [
        b"",
        b"X: y",
        b"X: y\n",
        b"X: y\r\nZ",
        b"X: y\r\n\r\n",
        b"X: a\rb\r\n",
        b"X : y\r\n",
        b": y\r\n",
        b" X: y\r\n",
        b"X: \0\r\n",
    ],
)
def test_what_is_written_down_is_whole_lines(lines: bytes) -> None:
    with pytest.raises(ValueError, match="no field lines"):
        written(lines)


def test_lines() -> None:
    first = field_line(field_name(b"X-A"), field_value(b"b \xff\t"))
    assert first == b"X-A: b \xff\t\r\n"
    assert written(b"X: y\r\nZ: \r\n") == b"X: y\r\nZ: \r\n"
    assert joined_lines((first, NO_LINES, written(b"Y: z\r\n"))) == b"X-A: b \xff\t\r\nY: z\r\n"
    assert NO_VALUE == b""
