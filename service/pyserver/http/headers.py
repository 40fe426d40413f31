"""Single fields out of a raw head, for what is not worth keeping of every request (RFC 9110 5).

Owns:    the look-up.
Used by: worker (log lines, proxies, traces), handlers.static, handlers.listing.
"""

import re
from functools import lru_cache


def field(head: bytes, name: bytes) -> bytes | None:
    """Return the value of the first field line called `name`, in any case, or None."""
    found = _pattern(name).search(head)
    return None if found is None else found[1].rstrip(b" \t")


def joined(head: bytes, name: bytes) -> bytes | None:
    """Return the values of all field lines called `name` as one list (RFC 9110 5.3), or None."""
    found = _pattern(name).findall(head)
    return b", ".join(value.rstrip(b" \t") for value in found) if found else None


@lru_cache(maxsize=64)
def _pattern(name: bytes) -> re.Pattern[bytes]:
    # Behind the LF of the line before: a value cannot pretend to be a field.
    return re.compile(rb"\n(?i:%b):[ \t]*+([^\r\n]*+)" % re.escape(name))
