"""The kinds of value: how each is written, and what becomes of it.

Owns:    one reader per kind, from what TOML holds to what the server uses.
Never:   knows an option or a bound; config.options does.
Fails:   Refused.
Used by: config.options, config.sitekinds; config.reading (is_a).
"""

import ipaddress
import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

from pyserver.config.address import Address
from pyserver.config.errors import Refused, literal
from pyserver.limits import KIB, MIB


class Kind(NamedTuple):
    """A kind of value."""

    written: str  # as it stands in a message: "write ... from 1 to 512"
    read: Callable[[Any, str], object]  # (value, folder that relative paths start from); raises Refused
    example: str = ""  # in TOML, for options without a default


_NOUNS: Final = {
    bool: "a boolean",
    int: "a whole number",
    float: "a number with a fraction",
    str: "a string",
    list: "a list",
    dict: "a table",
}


def is_a(value: object) -> str:
    """Return the predicate for a value of the wrong type."""
    return "is " + _NOUNS.get(type(value), "a date or time")


# -- numbers: `type(...) is`, since True is an instance of int ------------------------------


def _count(value: object, _base: str) -> int:
    if type(value) is not int:
        raise Refused(is_a(value))
    return value


def _count_or_auto(value: object, base: str) -> int | str:
    return "auto" if value == "auto" else _count(value, base)


def _seconds(value: object, _base: str) -> float:
    if type(value) is int:
        return float(max(min(value, 1 << 40), -1 << 40))  # beyond any bound, and within a float
    if type(value) is not float:
        raise Refused(is_a(value))
    if math.isnan(value):
        raise Refused("is not a number")
    return value


UNITS: Final = {"GiB": 1024 * MIB, "MiB": MIB, "KiB": KIB}
_SIZE: Final = re.compile(r"([0-9]{1,12}) ?([KMG]iB)")
_NEARLY_A_SIZE: Final = re.compile(r"([0-9]{1,12}) ?([KMG])(?:i?B)?", re.IGNORECASE)


def _size(value: object, base: str) -> int:
    if not isinstance(value, str):
        return _count(value, base)
    if match := _SIZE.fullmatch(value):
        return int(match[1]) * UNITS[match[2]]
    if match := _NEARLY_A_SIZE.fullmatch(value):
        raise Refused("has no known unit", f'write "{match[1]}{match[2].upper()}iB"')
    raise Refused("is not a size")


# -- names on the disk -----------------------------------------------------------------------


def _path(value: object, base: str) -> str:
    if not isinstance(value, str):
        raise Refused(is_a(value))
    if not value or "\0" in value:
        raise Refused("is not a path")
    try:
        # Only "." and doubled slashes go: what ".." means is for the kernel, which knows the symbolic links.
        return str(Path(base, value).absolute())
    except FileNotFoundError:
        raise Refused("starts from a working folder that is gone", "write an absolute path") from None


# What other programs call it, and what would else become the name of a file.
_MEANT_FOR_LOG: Final = {
    "none": "off",
    "no": "off",
    "false": "off",
    "null": "off",
    "stdout": "-",
    "true": "-",
    "on": "-",
}


def _log_target(value: object, base: str) -> str:
    if value in ("off", "-"):
        return str(value)
    if isinstance(value, str) and (meant := _MEANT_FOR_LOG.get(value.lower())):
        raise Refused("is not a path", f'write "{meant}", or {literal(f"./{value}")} for a file of that name')
    return _path(value, base)


def _instance(value: object, _base: str) -> str:
    if not isinstance(value, str):
        raise Refused(is_a(value))
    if not re.fullmatch(r"[A-Za-z0-9._\\@-]{0,64}", value):
        raise Refused("is no name of an instance")
    return value


def _names(value: object, _base: str) -> tuple[str, ...]:
    if isinstance(value, str):
        raise Refused(is_a(value), f"write [{literal(value)}]")
    if not isinstance(value, list):
        raise Refused(is_a(value))
    for name in value:
        if not isinstance(name, str) or name in ("", ".", "..") or "/" in name or "\0" in name:
            raise Refused(f"has {literal(name)}, which is not the name of a file")
    return tuple(value)


# -- addresses --------------------------------------------------------------------------------


def _address(value: object, _base: str) -> Address:
    if not isinstance(value, str):
        raise Refused(is_a(value))
    return Address.parse(value)


def _networks(value: object, _base: str) -> tuple[str, ...]:
    if isinstance(value, str):
        raise Refused(is_a(value), f"write [{literal(value)}]")
    if not isinstance(value, list):
        raise Refused(is_a(value))
    _check_networks(value)
    return tuple(value)


def _check_networks(value: Iterable[object]) -> None:
    for network in value:
        try:
            ipaddress.ip_network(network if isinstance(network, str) else "")
        except ValueError:
            raise Refused(f"has {literal(network)}, which is not a network", _network_meant(network)) from None


# Clients come by listeners of this name; those for administrators and for orders have others.
_LISTENERS: Final = ("unix:http",)


def _peers(value: object, base: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        return _networks(value, base)
    for peer in value:
        if isinstance(peer, str) and peer.startswith("unix") and peer not in _LISTENERS:
            raise Refused(f"has {literal(peer)}, which is no listener for clients", 'write "unix:http"')
    _check_networks(peer for peer in value if peer not in _LISTENERS)
    return tuple(value)


def _network_meant(text: object) -> str | None:
    """Return what to write for a network that was written with bits of a host in it."""
    try:
        return f"write {literal(str(ipaddress.ip_network(text, strict=False)))}" if isinstance(text, str) else None
    except ValueError:
        return None


COUNT: Final = Kind("a whole number", _count)
COUNT_OR_AUTO: Final = Kind('"auto" or a whole number', _count_or_auto)
SECONDS: Final = Kind("seconds", _seconds)
SIZE: Final = Kind('bytes or a size like "32MiB",', _size)
LOG_TARGET: Final = Kind('a path, "-" for standard output, or "off"', _log_target)
INSTANCE: Final = Kind('a name like "blog", of letters, digits and . _ - @', _instance)
FOLDER: Final = Kind("the path of a folder", _path, '"/var/www/pyserver"')
OTHER_FOLDER: Final = FOLDER._replace(example='"/srv/static"')
NAMES: Final = Kind('a list of names without slash, like ["index.html"]', _names)
NETWORKS: Final = Kind('a list of addresses and networks, like ["192.0.2.7", "2001:db8::/32"]', _networks)
PEERS: Final = Kind('a list of addresses, networks and listeners, like ["192.0.2.0/24", "unix:http"]', _peers)
ADDRESS: Final = Kind('an address like "127.0.0.1:8080"', _address, '"127.0.0.1:8080"')
