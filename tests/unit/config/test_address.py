import socket

import pytest

from pyserver.config.address import UNIX_PATH_MAX_BYTES, Address
from pyserver.config.errors import Refused

V4, V6, UNIX = socket.AF_INET, socket.AF_INET6, socket.AF_UNIX


@pytest.mark.parametrize(
    ("text", "address", "shown"),
    [
        ("127.0.0.1:8080", Address(V4, "127.0.0.1", 8080), "127.0.0.1:8080"),
        ("0.0.0.0:0", Address(V4, "0.0.0.0", 0), "0.0.0.0:0"),
        ("localhost:65535", Address(V4, "127.0.0.1", 65535), "127.0.0.1:65535"),
        ("[::1]:8080", Address(V6, "::1", 8080), "[::1]:8080"),
        ("[::]:80", Address(V6, "::", 80), "[::]:80"),
        ("[0:0:0::1]:080", Address(V6, "::1", 80), "[::1]:80"),
        ("[fe80::1%eth0]:80", Address(V6, "fe80::1%eth0", 80), "[fe80::1%eth0]:80"),
        ("unix:/run/x.sock", Address(UNIX, path="/run/x.sock"), "unix:/run/x.sock"),
        ("unix:/run/a:80", Address(UNIX, path="/run/a:80"), "unix:/run/a:80"),
    ],
)
def test_what_is_an_address(text: str, address: Address, shown: str) -> None:
    assert Address.parse(text) == address
    assert address.text == shown
    assert Address.parse(shown) == address


ANY_KIND = 'write "127.0.0.1:8080", "[::1]:8080" or "unix:/run/pyserver/http.sock"'
WHICH = 'write "0.0.0.0:{0}" for every IPv4 address, "[::]:{0}" for every IPv6 address'
PORT = "write a port from 0 to 65535 after the last colon, 0 for any free one"
COLONS = 'write "[::1]:8080" for IPv6, "127.0.0.1:8080" for IPv4'
SOCKET = 'write "unix:/run/pyserver/http.sock"'


@pytest.mark.parametrize(
    ("text", "what", "instead"),
    [
        ("80", "has no host", 'write "127.0.0.1:80"'),
        ("*:8080", "leaves open which addresses", WHICH.format(8080)),
        (":80", "leaves open which addresses", WHICH.format(80)),
        ("", "has no port", 'write ":8080"'),
        ("127.0.0.1", "has no port", 'write "127.0.0.1:8080"'),
        ("[::1]", "has no port", 'write "[::1]:8080"'),
        ("127.0.0.1:", "has no valid port", PORT),
        ("127.0.0.1:http", "has no valid port", PORT),
        ("127.0.0.1:65536", "has no valid port", PORT),
        ("127.0.0.1:+80", "has no valid port", PORT),
        ("127.0.0.1: 80", "has no valid port", PORT),
        ("127.0.0.1:8_0", "has no valid port", PORT),
        ("127.0.0.1:٨٠", "has no valid port", PORT),
        (f"127.0.0.1:{'0' * 6}", "has no valid port", PORT),
        ("::1:8080", "has more than one colon", COLONS),
        ("::1", "has more than one colon", COLONS),
        ("http://127.0.0.1:80", "has more than one colon", COLONS),
        ("[::1]]:80", "has no numeric address, and names are not looked up", ANY_KIND),
        ("[127.0.0.1]:80", "has no numeric address, and names are not looked up", ANY_KIND),
        ("[::1:80", "has no numeric address, and names are not looked up", ANY_KIND),
        ("example.org:80", "has no numeric address, and names are not looked up", ANY_KIND),
        ("127.1:80", "has no numeric address, and names are not looked up", ANY_KIND),
        ("127.0.0.01:80", "has no numeric address, and names are not looked up", ANY_KIND),
        (" 127.0.0.1:80", "has no numeric address, and names are not looked up", ANY_KIND),
        ("unix:", "has no absolute path", SOCKET),
        ("unix:x.sock", "has no absolute path", SOCKET),
        ("unix:@abstract", "has no absolute path", SOCKET),
        ("unix:/a\0b", "has no absolute path", SOCKET),
        ("unix:/" + "é" * 60, "is too long for a socket", "write a path of at most 107 bytes"),
    ],
)
def test_what_is_none(text: str, what: str, instead: str) -> None:
    with pytest.raises(Refused) as caught:
        Address.parse(text)
    assert (caught.value.what, caught.value.instead) == (what, instead)


def test_the_bound_of_a_socket_path_is_the_systems() -> None:
    longest = "/" + "x" * (UNIX_PATH_MAX_BYTES - 1)
    with socket.socket(socket.AF_UNIX) as probe:
        with pytest.raises(FileNotFoundError):
            probe.connect(longest)
        with pytest.raises(OSError, match="too long"):
            probe.connect(longest + "xx")
