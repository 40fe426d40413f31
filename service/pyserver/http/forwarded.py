"""The client behind proxies, as fields say it: Forwarded (RFC 7239), X-Forwarded-For.

Owns:    the way back from hop to hop, and the grammar of what each of them says.
Never:   believes what no trusted hop vouches for; knows who is trusted: whoever asks says so.
Fails:   never. What cannot be read ends the way, at the last hop that could.
Used by: worker.proxies; http.proxy (addresses).

Each proxy adds to the right end of the list who it got the request from. So the list is read from there: the proxy that
connected to us is trusted, so is what it added; when that is the address of another trusted proxy, so is what that
one added, and so on. What stands to the left of the first address that is not trusted came from the client, which may
write there what it likes, an unbalanced quotation mark included: nothing here reads from the left.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from pyserver.http import grammar
from pyserver.limits import FORWARDED_MAX_BYTES

_IPV4: Final = re.compile(rb"[0-9.]{7,15}")
_IPV6: Final = re.compile(rb"[0-9A-Fa-f:.]{2,45}")

# RFC 7239 4       forwarded-pair = token "=" value ; value = token / quoted-string
# Names are compared without case. Wider than the RFC by the bytes of a bare address with its port or an IPv6 address,
# which many send without the quotation marks that it asks for.
_VALUE: Final = rb"(?:[!#$%%&'*+.^_`|~0-9A-Za-z:\[\]-]++|%b)" % grammar.QUOTED_STRING
_PAIR: Final = re.compile(rb"[ \t]*+(%b++)=(%b)[ \t]*+" % (grammar.TCHAR, _VALUE))
# RFC 7239 4       forwarded-element = [ forwarded-pair ] *( ";" [ forwarded-pair ] )
_ELEMENT: Final = re.compile(rb"[ \t;]*(?:%b++=%b[ \t]*+(?:;[ \t;]*|$))*" % (grammar.TCHAR, _VALUE))

# RFC 7239 6       node = nodename [ ":" node-port ]
#                  nodename = IPv4address / "[" IPv6address "]" / "unknown" / obfnode
#                  node-port = port / obfport ; obfport = "_" 1*(ALPHA / DIGIT / "." / "_" / "-")
_NODE: Final = re.compile(rb"(?:([0-9.]{7,15})|\[([0-9A-Fa-f:.]{2,45})\])(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?")


def address(text: bytes) -> bytes | None:
    """Return a numeric address in its one canonical form, IPv4 in IPv6 as IPv4; None if it is none."""
    try:
        if _IPV4.fullmatch(text):
            return str(IPv4Address(text.decode("ascii"))).encode()
        if _IPV6.fullmatch(text):
            return of_ipv6(IPv6Address(text.decode("ascii")))
    except ValueError:
        return None
    return None


def of_ipv6(found: IPv6Address) -> bytes:
    """Return the canonical form of an address that came as IPv6."""
    return str(found.ipv4_mapped or found).encode()


def client(hops: Iterable[bytes | None], peer: bytes, trusts: Callable[[bytes], bool]) -> bytes:
    """Return the client of a request that the trusted `peer` sent: the last hop that somebody trusted speaks for.

    `hops` begin with what the peer added. None is one that has no address: hidden, unknown or wrong.
    """
    found = peer
    for hop in hops:
        if hop is None:
            break
        found = hop
        if not trusts(hop):
            break
    return found


def hops_of_x_forwarded_for(value: bytes) -> Iterator[bytes | None]:
    """Yield the hops of all X-Forwarded-For lines joined, from the right."""
    for element in reversed(_end_of(value).split(b",")):
        text = element.strip(b" \t")
        if text:  # RFC 9110 5.6.1.2: empty elements of a list do not count
            yield address(text) or _node(text)


def hops_of_forwarded(value: bytes) -> Iterator[bytes | None]:
    """Yield the hops of all Forwarded lines joined, from the right."""
    rest = _end_of(value)
    end = len(rest)
    while end > 0:
        # A comma may stand within quotation marks, so the element begins behind the last one that leaves a good one.
        comma = rest.rfind(b",", 0, end)
        while _ELEMENT.fullmatch(rest, comma + 1, end) is None:
            if comma < 0:
                yield None
                return
            comma = rest.rfind(b",", 0, comma)
        if rest[comma + 1 : end].strip(b" \t;"):
            yield _for(rest, comma + 1, end)
        end = comma


def _end_of(value: bytes) -> bytes:
    """Return as much of a list as is looked at, from the first whole element on."""
    if len(value) <= FORWARDED_MAX_BYTES:
        return value
    return value[-FORWARDED_MAX_BYTES:].partition(b",")[2]


def _for(data: bytes, start: int, end: int) -> bytes | None:
    """Return the address in the `for` of an element; None without, or with more than one."""
    found = [text for name, text in _PAIR.findall(data[start:end]) if name.lower() == b"for"]
    if len(found) != 1:
        return None
    text: bytes = found[0]
    if text[:1] == b'"':
        text = re.sub(rb"\\(.)", rb"\1", text[1:-1])
    return address(text) or _node(text)


def _node(text: bytes) -> bytes | None:
    """Return the address of a node with a port, or in brackets."""
    found = _NODE.fullmatch(text)
    return None if found is None else address(found[1] or found[2])
