"""What a file gives its representations to be recognised by, and how far that goes (RFC 9110 8.8).

Owns:    the form of our entity tags, and the rule by which a validator is strong.
Never:   looks at a file or a clock: what it is told is what was found at one look.
Fails:   never.
Used by: handlers (describe), http.conditional (compares).
"""

from typing import Final

from pyserver.http.fields import FieldValue, field_value
from pyserver.limits import NS_PER_S

# A file may change again within one step of its clock, and no time of its tells that. So content and validators that
# were taken sooner after a change than this are provisional: the tag is weak (T-19), and so is the date. Whole seconds;
# no step is longer: the kernel's tick is 10 ms at most, FAT counts the time in steps of 2 s. Apache waits 1 s.
SETTLED_AFTER_S: Final = 2

_WEAK: Final = b"W/"


def settled(modified_at: int, changed_at: int, looked_at: int) -> bool:
    """Tell whether a file that was found with these times (mtime, ctime; seconds) will show any further change by them.

    Not while one of them is of the future: somebody's clock is wrong, and it might be ours.
    """
    return looked_at - max(modified_at, changed_at) >= SETTLED_AFTER_S


def is_precise(modified_ns: int) -> bool:
    """Tell whether a time was taken from a clock, and not set by an archive, git or a build to a whole second.

    Two releases of a site often have such times in common (SOURCE_DATE_EPOCH), and now and then the size too.
    """
    return modified_ns % NS_PER_S != 0


def entity_tag(modified_ns: int, size: int, coding: bytes = b"", *, told: int = 0, strong: bool) -> FieldValue:
    """Return the tag of a file in a content coding, b"" for identity.

    `told` is what tells the content from another of the same time and size, where the time is not precise: 0 if it is.
    Each coding has another one, as the bytes are others (RFC 9110 8.8.3.3, T-20). When a tag becomes strong nothing
    but the `W/` goes, so who has the weak one is still answered 304 (8.8.3.2).

    >>> entity_tag(1_000_000_000, 10, b"gz", strong=True)
    b'"3b9aca00-a-gz"'
    """
    opaque = b'"%x-%x%b%b"' % (modified_ns, size, b".%x" % told if told else b"", b"-" + coding if coding else b"")
    return field_value(opaque if strong else _WEAK + opaque)


def is_weak(etag: bytes) -> bool:
    """Tell whether a tag is a weak one (RFC 9110 8.8.1)."""
    return etag.startswith(_WEAK)


def opaque_tag(etag: bytes) -> bytes:
    """Return what weak comparison looks at: the opaque part (RFC 9110 8.8.3.2)."""
    return etag.removeprefix(_WEAK)
