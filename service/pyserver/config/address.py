"""Where to listen: the text of an address, and its parts.

Owns:    the grammar of addresses.
Never:   looks up a name: what is listened on does not depend on the network's state at boot.
Fails:   Refused, with what to write instead.
Used by: config (for the master, which binds), config.kinds, config.options, config.reading.
"""

import ipaddress
import os
import socket
from typing import Final

from pyserver.config.errors import Refused, literal
from pyserver.config.record import Record

# unix(7): sun_path has 108 bytes, the last one is NUL.
UNIX_PATH_MAX_BYTES: Final = 107

_ANY_KIND: Final = 'write "127.0.0.1:8080", "[::1]:8080" or "unix:/run/pyserver/http.sock"'


class Address(Record):
    """Host and port, or the path of a UNIX socket."""

    family: socket.AddressFamily
    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def text(self) -> str:
        """The address as an administrator writes it."""
        if self.family == socket.AF_UNIX:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if self.family == socket.AF_INET6 else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read `127.0.0.1:8080`, `[::1]:8080`, `localhost:8080` or `unix:/run/x.sock`; raises Refused."""
        if text.startswith("unix:"):
            return cls._unix(text.removeprefix("unix:"))
        return cls._internet(*_host_and_port(text))

    @classmethod
    def _internet(cls, host: str, port: int) -> "Address":
        if host in ("", "*"):
            # "Every address" is one socket for both families in some servers, one of IPv4 or two in others.
            # Here the administrator says which.
            every = f'write "0.0.0.0:{port}" for every IPv4 address, "[::]:{port}" for every IPv6 address'
            raise Refused("leaves open which addresses", every)
        try:
            if host.startswith("[") and host.endswith("]"):
                return cls(socket.AF_INET6, str(ipaddress.IPv6Address(host[1:-1])), port)
            return cls(socket.AF_INET, str(ipaddress.IPv4Address("127.0.0.1" if host == "localhost" else host)), port)
        except ValueError:
            raise Refused("has no numeric address, and names are not looked up", _ANY_KIND) from None

    @classmethod
    def _unix(cls, path: str) -> "Address":
        if not path.startswith("/") or "\0" in path:
            raise Refused("has no absolute path", 'write "unix:/run/pyserver/http.sock"')
        if len(os.fsencode(path)) > UNIX_PATH_MAX_BYTES:
            raise Refused("is too long for a socket", f"write a path of at most {UNIX_PATH_MAX_BYTES} bytes")
        return cls(socket.AF_UNIX, path=path)


def _host_and_port(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if _is_number(text):
        raise Refused("has no host", f'write "127.0.0.1:{text}"')
    if ":" in host and not host.startswith("["):
        # "::1:8080" is itself an address, of port nothing: only brackets tell.
        raise Refused("has more than one colon", 'write "[::1]:8080" for IPv6, "127.0.0.1:8080" for IPv4')
    if not colon or text.endswith("]"):
        raise Refused("has no port", f"write {literal(f'{text}:8080')}")
    if not _is_number(port) or len(port) > 5 or int(port) > 65535:
        raise Refused("has no valid port", "write a port from 0 to 65535 after the last colon, 0 for any free one")
    return host, int(port)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()  # not int(): it takes "+1", "1_0" and " 1"
