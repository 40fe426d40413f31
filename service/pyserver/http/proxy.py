r"""The PROXY header in front of a connection, versions 1 and 2 (HAProxy, proxy-protocol.txt).

Owns:    its grammar, and where it ends.
Never:   guesses: whoever calls this knows that a header has to come.
Fails:   Malformed, at the latest where a header would have had to end; never anything else.
Used by: worker.entrance; worker.proxies, worker.records (UNIX).

Sections are those of the specification. Addresses are read as strictly as it allows. What follows the addresses in
version 2 (TLVs, a checksum among them) is passed over as a whole: its length is in the header.
"""

import re
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

from pyserver.http.forwarded import address, of_ipv6
from pyserver.limits import PROXY_HEADER_MAX_BYTES

# 2.2: 12 bytes that no other protocol begins with.
SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED: Final = 16  # bytes of version 2 before the addresses

# 2.1: the longest line of version 1, with its end.
LINE_MAX_BYTES: Final = 107
_BEGINS: Final = b"PROXY "

# 2.1              "PROXY" SP "TCP4" / "TCP6" SP address SP address SP port SP port CRLF
#                  "PROXY" SP "UNKNOWN" and then anything up to CRLF, which has to be ignored
_PORT: Final = rb"(?:0|[1-9][0-9]{0,4})"
_LINE: Final = re.compile(
    rb"PROXY (?:TCP([46]) ([0-9A-Fa-f.:]{2,45}) ([0-9A-Fa-f.:]{2,45}) (%b) (%b)|UNKNOWN(?: [^\r\n]*)?)\r\n"
    % (_PORT, _PORT)
)
_PORT_MAX: Final = 65535

# What a client without an address is called: also by worker.records, where it has a socket of that kind.
UNIX: Final = b"unix:"

# 2.2: bytes that the addresses take, by family and transport; streams and datagrams are told alike.
_INET: Final = 12
_INET6: Final = 36
_ADDRESSES: Final = {0x00: 0, 0x11: _INET, 0x12: _INET, 0x21: _INET6, 0x22: _INET6, 0x31: 216, 0x32: 216}
_LOCAL: Final = 0x20  # version and command
_PROXY: Final = 0x21


class Malformed(Exception):
    """This is no PROXY header; the text says why."""


class Header(NamedTuple):
    """What a header says."""

    length: int  # of it, in bytes; what follows is the client's
    client: bytes | None  # address, or UNIX; None: whoever connected speaks for itself


def parse(data: bytes) -> Header | None:
    """Return the header that `data` begins with, None while bytes are missing."""
    if data.startswith(SIGNATURE):
        return _version_2(data)
    if data.startswith(_BEGINS):
        return _version_1(data)
    if SIGNATURE.startswith(data) or _BEGINS.startswith(data):
        return None
    raise Malformed(f"it begins with {data[:12]!r}")


def _version_1(data: bytes) -> Header | None:
    end = data.find(b"\n", 0, LINE_MAX_BYTES) + 1
    if not end:
        if len(data) >= LINE_MAX_BYTES:
            raise Malformed(f"its line is longer than {LINE_MAX_BYTES} bytes")
        return None
    found = _LINE.fullmatch(data, 0, end)
    if found is None:
        raise Malformed(f"its line is {data[:end]!r}")
    family, source, target, *ports = found.groups()
    if family is None:
        return Header(end, None)
    client = address(source)
    families_agree = all((b":" in each) is (family == b"6") for each in (source, target))
    if client is None or address(target) is None or not families_agree or any(int(port) > _PORT_MAX for port in ports):
        raise Malformed(f"its line is {data[:end]!r}")
    return Header(end, client)


def _version_2(data: bytes) -> Header | None:
    if len(data) < _FIXED:
        return None
    command, family = data[12], data[13]
    more = int.from_bytes(data[14:16], "big")
    length = _FIXED + more
    if command not in (_LOCAL, _PROXY):
        raise Malformed(f"its version and command are 0x{command:02x}")
    if length > PROXY_HEADER_MAX_BYTES:
        raise Malformed(f"it is {length} bytes long, of {PROXY_HEADER_MAX_BYTES} at most")
    # LOCAL: the family is to be ignored, as is all that follows.
    needed = _ADDRESSES.get(family) if command == _PROXY else 0
    if needed is None:
        raise Malformed(f"its family and transport are 0x{family:02x}")
    if more < needed:
        raise Malformed(f"it has {more} bytes for addresses that take {needed}")
    if len(data) < length:
        return None
    if not needed:
        return Header(length, None)
    if needed == _INET:
        return Header(length, str(IPv4Address(data[16:20])).encode())
    if needed == _INET6:
        return Header(length, of_ipv6(IPv6Address(data[16:32])))
    return Header(length, UNIX)
