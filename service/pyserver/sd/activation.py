"""Adopt the listeners that systemd holds for us (sd_listen_fds(3)), told apart by name and never by position.

Owns:    the descriptors from 3 on while it looks at them; a refusal closes them all.
Never:   binds, accepts, or looks at LISTEN_* when they were meant for another process.
Fails:   ActivationError, one line: which descriptor, what is wrong with it, what to write in its .socket unit.
Used by: master.listeners.
"""

import os
import socket
import stat
from collections.abc import MutableMapping
from typing import Final, NamedTuple

from pyserver.sd.fdstore import Stored, is_stored

# What FileDescriptorName= may say, and so what a listener is for.
KNOWN: Final = ("http", "control", "admin")

# sd_listen_fds_with_names(3) gives this to descriptors that came without LISTEN_FDNAMES.
UNNAMED: Final = "unknown"

# systemd.socket(5): without FileDescriptorName= the name of the socket unit is the name.
UNIT_SUFFIX: Final = ".socket"

VARIABLES: Final = ("LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES")

FAMILIES: Final = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)


class ActivationError(Exception):
    """We were handed something that we cannot serve; the text is one line for the administrator."""


class Adopted(NamedTuple):
    """A listener and what it is for; the holder of this owns the socket."""

    name: str
    listener: socket.socket


def adopt(environ: MutableMapping[str, str], stored: list[Stored] | None = None) -> list[Adopted]:
    """Return the listeners that were handed to this process, in the order they came, which means nothing.

    What an earlier start of the service has left in the descriptor store is put into `stored`, or closed.
    `environ` is os.environ: libsystemd reads the variables of the process itself. They are gone from it afterwards,
    so that no child takes itself to be activated.
    """
    ours = "LISTEN_FDS" in environ and environ.get("LISTEN_PID") == str(os.getpid())
    try:
        named = _descriptors() if ours else {}
    finally:
        for variable in VARIABLES:
            environ.pop(variable, None)
    kept = [Stored(name, descriptor) for descriptor, name in named.items() if is_stored(name)]
    for one in kept:
        del named[one.descriptor]
    if stored is None:
        for one in kept:
            os.close(one.descriptor)
    else:
        stored += kept
    return _adopt_all(named)


def _descriptors() -> dict[int, str]:
    """Return descriptor and name; libsystemd has unescaped the names and set close-on-exec."""
    # Imported here because most runs by hand have no use for libsystemd.
    from systemd.daemon import listen_fds_with_names  # noqa: PLC0415

    try:
        named: dict[int, str] = listen_fds_with_names(unset_environment=False)
    except OSError as error:
        told = " ".join(f"{variable}={os.environ.get(variable)!r}" for variable in VARIABLES if variable in os.environ)
        raise ActivationError(
            f"the descriptors that were announced are not there as announced ({error.strerror}): {told};"
            " LISTEN_FDS must count them, from 3 on, and LISTEN_FDNAMES name each"
        ) from error
    return named


def _adopt_all(named: dict[int, str]) -> list[Adopted]:
    adopted: list[Adopted] = []
    try:
        for descriptor, name in sorted(named.items()):
            adopted.append(Adopted(_purpose(descriptor, name), _listener(descriptor, name)))
    except ActivationError:
        for descriptor in named.keys() - {one.listener.fileno() for one in adopted}:
            os.close(descriptor)
        for one in adopted:
            one.listener.close()
        raise
    return adopted


def _purpose(descriptor: int, name: str) -> str:
    """Return which of the known names is meant."""
    if name in KNOWN:
        return name
    if name == UNNAMED or name.endswith(UNIT_SUFFIX):
        return "http"
    # With Accept=yes systemd accepts by itself and names what it passes on "connection".
    if name == "connection":
        raise ActivationError(
            f"descriptor {descriptor} is named 'connection', that is one client and not a listener;"
            " write Accept=no in its .socket unit"
        )
    raise ActivationError(
        f"descriptor {descriptor} is named {name!r}, known names are: {', '.join(KNOWN)};"
        " set FileDescriptorName=http in its .socket unit"
    )


def _listener(descriptor: int, name: str) -> socket.socket:
    """Return the descriptor as a listening stream socket: close-on-exec, non-blocking, owned by the caller."""
    found, instead = _unfit(descriptor)
    if found:
        raise ActivationError(
            f"descriptor {descriptor} ({name!r}) is {found}, must be a listening stream socket; {instead}"
            " in its .socket unit"
        )
    listener = socket.socket(fileno=descriptor)
    listener.set_inheritable(False)
    listener.setblocking(False)
    return listener


def _unfit(descriptor: int) -> tuple[str, str]:
    """Return what the descriptor is and what to write instead; two empty strings for what we can listen on."""
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        return "not a socket", "write ListenStream="
    # A second descriptor, because a socket object closes its own when it goes, and on refusal the caller closes all.
    with socket.socket(fileno=os.dup(descriptor)) as looked_at:
        if looked_at.family not in FAMILIES:
            return f"of address family {int(looked_at.family)}", "write ListenStream= with a port, address or path"
        if looked_at.type != socket.SOCK_STREAM:
            return f"a {_word(looked_at.type)} socket", "write ListenStream="
        if not looked_at.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return "a stream socket that does not listen", "write ListenStream= and Accept=no"
    return "", ""


def _word(kind: int) -> str:
    words = {socket.SOCK_DGRAM: "datagram", socket.SOCK_SEQPACKET: "sequential-packet", socket.SOCK_RAW: "raw"}
    return words.get(socket.SocketKind(kind), f"type {int(kind)}")
