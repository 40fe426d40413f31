"""Whether a connection goes on after an answer, and how the answer says so (RFC 9112 9.3, 9.6).

Owns:    the decision and the three forms of the Connection field.
Used by: worker (decides, and answers errors), handlers (write the field), http.response.
"""

from typing import Final

from pyserver.http.fields import NO_LINES, Lines, written
from pyserver.http.request import Request

CLOSE: Final = written(b"Connection: close\r\n")
KEEP: Final = written(b"Connection: keep-alive\r\n")


def persistence(request: Request, draining: bool) -> bool:  # noqa: FBT001  # as connection_field
    """Tell whether the connection goes on after the answer to `request`."""
    return request.keep_alive and not draining


def connection_field(minor: int, keep: bool) -> Lines:  # noqa: FBT001  # called per request; a keyword costs
    """Return the Connection field line of an answer, or nothing where the version's default says it."""
    if not keep:
        return CLOSE
    return NO_LINES if minor else KEEP
