"""From the path of a target to names on the disk, and back into a Location (RFC 3986 2.1, 5.2.4, 6.2.2).

Owns:    the one place where a path is decoded (T-1): rules and files are looked up by what `clean` returns.
Never:   decodes twice, asks the disk, or lets a path climb above its root.
Fails:   ProtocolError 400, after which the connection may go on: the framing of the request was good.
Used by: handlers.
"""

import re
from typing import Final

from pyserver.http.errors import ProtocolError

# Most paths mean themselves: no percent sign, no empty segment, no segment that begins with a dot, nothing rare.
_CLEAN: Final = re.compile(rb"(?:/(?!\.)[A-Za-z0-9._~!$&'()*+,;=:@-]++)*/?")

# RFC 3986 2.1     pct-encoded = "%" HEXDIG HEXDIG
_PERCENT: Final = re.compile(rb"%([0-9A-Fa-f]{2})?")

# No file that we serve has such a name: NUL ends names in C (T-7), control bytes have no business in a URL, and "\"
# is a slash to other systems and to browsers (T-8).
_FORBIDDEN: Final = re.compile(rb"[\x00-\x1f\x7f\\]")

# RFC 3986 3.3     pchar = unreserved / pct-encoded / sub-delims / ":" / "@". Everything else is encoded, "%" too.
_NOT_PCHAR: Final = re.compile(rb"[^A-Za-z0-9._~!$&'()*+,;=:@/-]")

# RFC 3986 3.4     query = *( pchar / "/" / "?" ). What is encoded stays so; a "%" that encodes nothing is encoded.
_NOT_QUERY: Final = re.compile(rb"[^A-Za-z0-9._~!$&'()*+,;=:@/?%-]|%(?![0-9A-Fa-f]{2})")

# Several slashes at the front of a Location would name a host (RFC 3986 4.2, network-path reference; T-9).
_SLASHES: Final = re.compile(rb"/{2,}")


def clean(raw_path: bytes) -> bytes:
    """Return an absolute path, decoded once, without empty and dot segments; a final slash stays.

    >>> clean(b"/a//b/../%63/./")
    b'/a/c/'
    """
    if _CLEAN.fullmatch(raw_path) is not None:
        return raw_path or b"/"
    path = _PERCENT.sub(_decoded, raw_path) if b"%" in raw_path else raw_path
    if _FORBIDDEN.search(path) is not None:
        raise ProtocolError(400, "control byte or backslash in the path", close=False)
    names: list[bytes] = []
    segment = b""
    for segment in path.split(b"/"):
        if segment == b"..":
            if not names:
                raise ProtocolError(400, "path leads above the root", close=False)
            names.pop()
        elif segment not in (b"", b"."):
            names.append(segment)
    # After the loop `segment` is the last one. What ends in "/", "/." or "/.." is a folder.
    folder = segment in (b"", b".", b"..")
    return b"/" + b"/".join(names) + (b"/" if folder and names else b"")


def can_name(path: bytes) -> bool:
    """Tell whether there is a target whose path cleans to `path`, which may have come from a disk."""
    return _FORBIDDEN.search(path) is None


def encode(path: bytes) -> bytes:
    """Return a decoded path as it may stand in a Location: percent-encoded, and one slash at its front."""
    return _SLASHES.sub(b"/", b"/" + _NOT_PCHAR.sub(_encoded, path))


def encode_query(query: bytes) -> bytes:
    """Return the query of a target as it may stand in a Location: only what no query may hold is percent-encoded.

    >>> encode_query(b'a="b"&c=%22&d=5%')
    b'a=%22b%22&c=%22&d=5%25'
    """
    return _NOT_QUERY.sub(_encoded, query)


def _decoded(found: re.Match[bytes]) -> bytes:
    if found[1] is None:
        raise ProtocolError(400, "percent sign without two hexadecimal digits", close=False)
    return bytes((int(found[1], 16),))


def _encoded(found: re.Match[bytes]) -> bytes:
    return b"%%%02X" % found[0][0]
