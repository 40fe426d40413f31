"""The PROXY header: rows from the specification, and anything a fuzzer makes of them."""

import socket
import struct
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyserver.http.proxy import LINE_MAX_BYTES, SIGNATURE, UNIX, Header, Malformed, parse
from pyserver.limits import PROXY_HEADER_MAX_BYTES

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
V4 = socket.inet_aton("192.0.2.7") + socket.inet_aton("198.51.100.1") + struct.pack("!HH", 4711, 80)
V6 = IPv6Address("2001:db8::7").packed + IPv6Address("2001:db8::1").packed + struct.pack("!HH", 4711, 80)
PATHS = b"/run/client".ljust(108, b"\0") + b"/run/server".ljust(108, b"\0")
CRC = b"\x03\x00\x04\xde\xad\xbe\xef"  # a checksum that is wrong


def version_2(command: int, family: int, rest: bytes, length: int | None = None) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(rest) if length is None else length) + rest


GOOD = {
    b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 80\r\n": b"192.0.2.7",
    b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n": b"0.0.0.0",
    b"PROXY TCP6 2001:DB8:0::7 2001:db8::1 4711 443\r\n": b"2001:db8::7",
    b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:192.0.2.1 1 2\r\n": b"192.0.2.7",
    b"PROXY TCP6 ffff:f:f:f:f:f:f:ffff ffff:f:f:f:f:f:f:ffff 65535 65535\r\n": b"ffff:f:f:f:f:f:f:ffff",
    b"PROXY UNKNOWN\r\n": None,
    b"PROXY UNKNOWN ffff:f:f:f:f:f:f:ffff ffff:f:f:f:f:f:f:ffff 65535 65535\r\n": None,
    b"PROXY UNKNOWN \0\xff GET /\r\n": None,
    version_2(0x21, 0x11, V4): b"192.0.2.7",
    version_2(0x21, 0x12, V4): b"192.0.2.7",
    version_2(0x21, 0x11, V4 + CRC): b"192.0.2.7",
    version_2(0x21, 0x11, V4 + b"\x02\xff\xff no TLV"): b"192.0.2.7",
    version_2(0x21, 0x21, V6): b"2001:db8::7",
    version_2(0x21, 0x22, V6 + b"\x04\x00\x00"): b"2001:db8::7",
    version_2(0x21, 0x31, PATHS): UNIX,
    version_2(0x21, 0x32, PATHS): UNIX,
    version_2(0x21, 0x00, b""): None,
    version_2(0x21, 0x00, b"whatever it is"): None,
    version_2(0x20, 0x00, b""): None,
    version_2(0x20, 0x11, V4): None,  # LOCAL: what is told of addresses does not count
    version_2(0x20, 0x77, b"\1"): None,  # ... and neither does the family
    version_2(0x21, 0x11, V4.ljust(PROXY_HEADER_MAX_BYTES - 16, b"\0")): b"192.0.2.7",
}

WRONG = {
    "no header": GET,
    "no header, one byte": b"G",
    "other protocol": b"\x16\x03\x01\x02\x00",
    "lower case": b"proxy TCP4 192.0.2.7 198.51.100.1 4711 80\r\n",
    "no space": b"PROXYTCP4",
    "no CR": b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 80\n",
    "two spaces": b"PROXY TCP4  192.0.2.7 198.51.100.1 4711 80\r\n",
    "space at the end": b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 80 \r\n",
    "UDP": b"PROXY UDP4 192.0.2.7 198.51.100.1 4711 80\r\n",
    "no port": b"PROXY TCP4 192.0.2.7 198.51.100.1 4711\r\n",
    "zero before a port": b"PROXY TCP4 192.0.2.7 198.51.100.1 04711 80\r\n",
    "sign before a port": b"PROXY TCP4 192.0.2.7 198.51.100.1 +471 80\r\n",
    "port of 17 bits": b"PROXY TCP4 192.0.2.7 198.51.100.1 65536 80\r\n",
    "zero before an octet": b"PROXY TCP4 192.0.2.07 198.51.100.1 4711 80\r\n",
    "octet of 9 bits": b"PROXY TCP4 192.0.2.256 198.51.100.1 4711 80\r\n",
    "three octets": b"PROXY TCP4 192.0.2 198.51.100.1 4711 80\r\n",
    "name": b"PROXY TCP4 localhost 198.51.100.1 4711 80\r\n",
    "IPv6 as TCP4": b"PROXY TCP4 2001:db8::7 2001:db8::1 4711 80\r\n",
    "IPv4 as TCP6": b"PROXY TCP6 192.0.2.7 198.51.100.1 4711 80\r\n",
    "one of each": b"PROXY TCP6 2001:db8::7 198.51.100.1 4711 80\r\n",
    "brackets": b"PROXY TCP6 [2001:db8::7] [2001:db8::1] 4711 80\r\n",
    "zone": b"PROXY TCP6 fe80::1%eth0 fe80::2 4711 80\r\n",
    "two ::": b"PROXY TCP6 2001::db8::7 2001:db8::1 4711 80\r\n",
    "target is no address": b"PROXY TCP4 192.0.2.7 198.51.100.999 4711 80\r\n",
    "UNKNOWN and more": b"PROXY UNKNOWN4 192.0.2.7\r\n",
    "CR within": b"PROXY UNKNOWN a\rb\r\n",
    "line that does not end": b"PROXY UNKNOWN ".ljust(LINE_MAX_BYTES, b"x"),
    "line that ends too late": b"PROXY UNKNOWN ".ljust(LINE_MAX_BYTES - 1, b"x") + b"\r\n",
    "version 1 in version 2": version_2(0x11, 0x11, V4),
    "version 3": version_2(0x31, 0x11, V4),
    "command 2": version_2(0x22, 0x11, V4),
    "family 4": version_2(0x21, 0x41, V4),
    "transport 3": version_2(0x21, 0x13, V4),
    "no transport": version_2(0x21, 0x10, V4),
    "addresses too short": version_2(0x21, 0x11, V4[:-1]),
    "addresses of the other family": version_2(0x21, 0x21, V4),
    "path too short": version_2(0x21, 0x31, PATHS[:-1]),
    "too long": version_2(0x21, 0x11, V4, PROXY_HEADER_MAX_BYTES - 15),
    "longest": version_2(0x20, 0x00, b"", 65535),
}


@pytest.mark.parametrize(("header", "client"), GOOD.items(), ids=lambda value: repr(value)[:50])
@pytest.mark.parametrize("follows", [b"", GET, b"PROXY TCP4 6.6.6.6 6.6.6.6 6 6\r\n", SIGNATURE])
def test_good_headers(header: bytes, client: bytes | None, follows: bytes) -> None:
    assert parse(header + follows) == Header(len(header), client)


@pytest.mark.parametrize("header", GOOD, ids=lambda value: repr(value)[:50])
def test_a_part_of_a_good_header_is_incomplete(header: bytes) -> None:
    assert [parse(header[:cut]) for cut in range(len(header))] == [None] * len(header)


@pytest.mark.parametrize("header", WRONG.values(), ids=WRONG)
def test_wrong_headers(header: bytes) -> None:
    with pytest.raises(Malformed):
        parse(header)


PIECES = st.sampled_from(
    [*GOOD, *WRONG.values(), SIGNATURE, b"PROXY ", b"TCP4 ", b"TCP6 ", b"UNKNOWN", b"\r\n", b" ", b"::", b"\x21\x11"]
)


@st.composite
def mutilated(draw: st.DrawFn) -> bytes:
    """A header with some bytes changed, or several pieces behind each other."""
    data = bytearray(b"".join(draw(st.lists(st.one_of(PIECES, st.binary(max_size=20)), min_size=1, max_size=4))))
    for _ in range(draw(st.integers(0, 3))):
        if data:
            data[draw(st.integers(0, min(60, len(data) - 1)))] = draw(st.integers(0, 255))
    return bytes(data)


def outcome(data: bytes) -> Header | str | None:
    try:
        return parse(data)
    except Malformed:
        return "malformed"


@given(mutilated())
def test_anything_is_a_header_or_incomplete_or_malformed(data: bytes) -> None:
    found = parse_or_not(data)
    if found is None:
        return
    assert 15 <= found.length <= min(len(data), PROXY_HEADER_MAX_BYTES)
    if found.client is not None and found.client != UNIX:
        socket.inet_pton(socket.AF_INET6 if b":" in found.client else socket.AF_INET, found.client.decode("ascii"))
    # What follows has no say, and less of it is no header yet.
    assert parse(data[: found.length]) == found
    assert outcome(data[: found.length - 1]) is None


def parse_or_not(data: bytes) -> Header | None:
    try:
        return parse(data)
    except Malformed as error:
        assert str(error)  # noqa: PT017  # whatever it is, it can be said
        return None


@given(mutilated())
def test_it_does_not_matter_how_it_is_cut(data: bytes) -> None:
    """Who reads byte by byte stops at the same byte at the latest, with the same."""
    whole = outcome(data)
    seen = next((found for end in range(len(data) + 1) if (found := outcome(data[:end])) is not None), None)
    assert seen == whole


@given(st.ip_addresses(v=4), st.ip_addresses(v=6), st.integers(0, 65535), st.binary(max_size=300))
def test_what_a_proxy_writes_is_read(four: IPv4Address, six: IPv6Address, port: int, more: bytes) -> None:
    name = str(six.ipv4_mapped or six).encode()
    assert parse(f"PROXY TCP4 {four} {four} {port} {port}\r\n".encode()) == Header(
        len(f"PROXY TCP4 {four} {four} {port} {port}\r\n"), str(four).encode()
    )
    line = f"PROXY TCP6 {six} {six} {port} {port}\r\n".encode()
    assert parse(line) == Header(len(line), name)
    ports = struct.pack("!HH", port, port)
    packed = version_2(0x21, 0x11, four.packed * 2 + ports + more)
    assert parse(packed) == Header(len(packed), str(four).encode())
    packed = version_2(0x21, 0x21, six.packed * 2 + ports + more)
    assert parse(packed) == Header(len(packed), name)
