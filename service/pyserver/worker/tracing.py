"""What tells one request from another, and how long it took: the options of [tracing], applied.

Owns:    the identity of each request, and what an answer says of it: X-Request-ID, Server-Timing.
Never:   takes an identity from who is not trusted, or one that is not a plain word.
Used by: worker.main (makes one if any of it is wanted), worker.connection (asks before each answer).

An answer that says such things is nobody else's. It is a copy of the one that the full way or the memo has, with these
lines in it; what is remembered and compared never has them.
"""

import os
import re
import time
from typing import Final

from pyserver.config import Tracing as Options
from pyserver.http.fields import (
    NO_LINES,
    NO_VALUE,
    FieldValue,
    Lines,
    field_line,
    field_name,
    field_value,
    joined_lines,
)
from pyserver.http.headers import joined
from pyserver.limits import REQUEST_ID_MAX_BYTES

# What others call a request by: UUIDs, base64, traces, what HAProxy makes by default. No byte that would need to be
# escaped in a log or in a shell's quotes; two fields in one head have a comma between them, and are none.
_WORD: Final = re.compile(rb"[0-9A-Za-z._:=+/@-]{1,%d}" % REQUEST_ID_MAX_BYTES)
_FIELD: Final = b"x-request-id"
_NAME: Final = field_name(b"X-Request-ID")
_TIMING: Final = field_name(b"Server-Timing")

# W3C Server Timing: metric names are tokens, durations are milliseconds.
_MS: Final = 1_000_000


class Tracing:
    """The identities that one worker gives, and the lines that it adds to answers."""

    def __init__(self, options: Options) -> None:
        self._request_id = options.request_id
        self._server_timing = options.server_timing
        # Nobody guesses it, and no two workers share it. Whoever has seen an identity can tell which are near to it:
        # it is a name, not a secret.
        self._prefix = os.urandom(8).hex().encode()
        self._count = 0

    def identity(self, head: bytes) -> FieldValue:
        """Return what a request is called: as the trusted proxy calls it whose head this is, else (b"") anew."""
        if not self._request_id:
            return NO_VALUE
        given = joined(head, _FIELD) if head else None
        if given is not None and _WORD.fullmatch(given):
            return field_value(given)
        self._count += 1
        return field_value(b"%b%08x" % (self._prefix, self._count))

    def lines(self, identity: FieldValue, began: float, waited_ns: int | None) -> Lines:
        """Return the field lines of an answer: to a request that `began` then, whose connection waited before."""
        lines = field_line(_NAME, identity) if identity else NO_LINES
        if self._server_timing:
            serve = max(0.0, (time.monotonic() - began) * 1000)
            if waited_ns is None:
                timing = FieldValue(b"serve;dur=%.3f" % serve)
            else:
                timing = FieldValue(b"queue;dur=%.3f, serve;dur=%.3f" % (waited_ns / _MS, serve))
            lines = joined_lines((lines, field_line(_TIMING, timing)))
        return lines
