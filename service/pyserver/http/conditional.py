"""Preconditions as one decision (RFC 9110 13), a function of plain values.

Owns:    the order of RFC 9110 13.2.2 (T-16) and the comparison of validators (8.8.2.2, 8.8.3.2).
Never:   looks at a file or a clock. It is asked only where the answer would otherwise be 2xx (13.2.1, T-23).
Fails:   never: a condition that cannot be read is one that nothing meets, or, for dates, one that is not there.
Used by: handlers.
"""

import re
from collections.abc import Mapping
from typing import Final

from pyserver.http.dates import parse_http_date
from pyserver.http.validators import is_weak, opaque_tag

# RFC 9110 8.8.3   entity-tag = [ weak ] opaque-tag ; weak = %s"W/" ; opaque-tag = DQUOTE *etagc DQUOTE
#                  etagc = %x21 / %x23-7E / obs-text
_ENTITY_TAG = rb'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*+"'
ENTITY_TAG: Final = re.compile(_ENTITY_TAG)

# RFC 9110 13.1.1  If-Match = "*" / #entity-tag ; 5.6.1.2: empty members are parsed and ignored
ENTITY_TAGS: Final = re.compile(
    rb"(?:[ \t]*+,)*[ \t]*+%b(?:[ \t]*+,(?:[ \t]*+%b)?)*[ \t]*+" % (_ENTITY_TAG, _ENTITY_TAG)
)


def evaluate(
    fields: Mapping[bytes, bytes],
    etag: bytes | None,
    modified: int | None,
    method: bytes,
    now: int,
) -> int:
    """Return what the preconditions make of a request for an existing representation: 200, 304 or 412.

    200 means: go on as if there were none, with Range and If-Range next (step 5 is `if_range_matches`).
    `etag` and `modified` (whole seconds) are its validators, None where it has none.
    """
    reading = method in (b"GET", b"HEAD")

    # Steps 1 and 2: is it still what the client thinks?
    if_match = fields.get(b"if-match")
    if if_match is not None:
        if not _any_matches(if_match, etag, weakly=False):
            return 412
    else:
        unmodified_since = _date(fields, b"if-unmodified-since", now)
        if unmodified_since is not None and modified is not None and modified > unmodified_since:
            return 412

    # Steps 3 and 4: does the client have it already? If-None-Match leaves If-Modified-Since without effect.
    if_none_match = fields.get(b"if-none-match")
    if if_none_match is not None:
        if _any_matches(if_none_match, etag, weakly=True):
            return 304 if reading else 412
    elif reading and modified is not None:
        modified_since = _date(fields, b"if-modified-since", now)
        # A date in the future says nothing about what the client has (T-18).
        if modified_since is not None and modified <= modified_since <= now:
            return 304
    return 200


def if_range_matches(value: bytes, etag: bytes | None, modified: int | None, now: int, *, settled: bool) -> bool:
    """Tell whether a Range that came with If-Range applies (RFC 9110 13.1.5); if not, it is ignored.

    Only strong validators will do: parts of two representations must never be put together (T-30). A tag shows what it
    is. A date is strong where we reliably know that the file did not change twice within its second (8.8.2.2): when it
    is `settled` (http.validators), which it cannot be before that second is over, and of what has no variants, which
    may have that date as well. What the client got within that second is for the client to know: its Date was the same.
    """
    if ENTITY_TAG.fullmatch(value) is not None:
        return etag is not None and value == etag and not is_weak(etag)
    # "If the HTTP-date validator provided exactly matches the Last-Modified": not merely earlier or later.
    return settled and modified is not None and parse_http_date(value, now) == modified


def _any_matches(value: bytes, etag: bytes | None, *, weakly: bool) -> bool:
    """Compare a list of entity tags, or `*`, with the current one (RFC 9110 8.8.3.2)."""
    if value == b"*":
        return True  # we are only asked about representations that exist
    if etag is None or ENTITY_TAGS.fullmatch(value) is None:
        return False  # an unquoted tag matches nothing (T-17)
    if weakly:
        current = opaque_tag(etag)
        return any(opaque_tag(tag) == current for tag in ENTITY_TAG.findall(value))
    return not is_weak(etag) and etag in ENTITY_TAG.findall(value)


def _date(fields: Mapping[bytes, bytes], name: bytes, now: int) -> int | None:
    value = fields.get(name)
    return None if value is None else parse_http_date(value, now)
