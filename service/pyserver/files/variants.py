"""Look for the coded variants of a file that lie beside it: `a.css.zst`, `a.css.br`, `a.css.gz`.

Owns:    the descriptors it opens, until they are handed over or closed with their last reference.
Never:   takes a variant that is older than its source or not smaller, or by another way than the source was opened:
         below the same root, under its rules for links (T-4, T-36). A hidden name cannot arise: no rule hides a name
         for an ending in .zst, .br or .gz.
Fails:   WouldBlock (with cached_only), OSError where the machine is short of something (503). A variant that cannot
         be opened or read for any other reason is one that is not there.
Used by: files.look; files.survey and compress (what is fresh), handlers.entries (what is known).
"""

import errno
from collections.abc import Mapping
from typing import Final, NamedTuple

from pyserver.files.codings import CODINGS
from pyserver.files.content import Stamp, read_small
from pyserver.files.resolve import OpenFile, Root, status_for


class Sibling(NamedTuple):
    """One coded variant."""

    coding: bytes
    file: OpenFile
    content: bytes | None  # None: as known, or too large for memory


class KnownSiblings(NamedTuple):
    """What the one who asks has already."""

    folder: Stamp | None  # of the folder in which `absent` were not there
    absent: frozenset[bytes]  # codings
    stamps: Mapping[bytes, Stamp]  # by coding: content that need not be read again


class Siblings(NamedTuple):
    """What there is beside a file."""

    folder: OpenFile | None  # as it was before the look; None: it may be searched but not read
    absent: frozenset[bytes]  # codings without a file of that name in the folder
    found: tuple[Sibling, ...]


NOTHING_KNOWN: Final = KnownSiblings(None, frozenset(), {})


def look_beside(root: Root, name: bytes, source: OpenFile, known: KnownSiblings, *, cached_only: bool) -> Siblings:
    """Return the variants of `source`, which was opened as `name`.

    An unchanged folder has no new names in it, so one look at it spares those for what is absent. Besides, not every
    file system can tell from memory that a name is not there (tmpfs cannot, and none can the first time).
    """
    folder = _folder(root, name, cached_only=cached_only)
    unchanged = folder is not None and folder.stamp == known.folder
    absent, found = set(), []
    for coding in CODINGS:
        if unchanged and coding.name in known.absent:
            absent.add(coding.name)
            continue
        try:
            file = OpenFile(root.open(name + coding.extension, cached_only=cached_only))
            if is_fresh(file, source):
                content = read_small(name, file, known.stamps.get(coding.name), cached_only=cached_only)
                found.append(Sibling(coding.name, file, content))
        except FileNotFoundError:
            absent.add(coding.name)
        except OSError as error:
            _raise_if_short(error)
    return Siblings(folder, frozenset(absent), tuple(found))


def is_fresh(sibling: OpenFile, source: OpenFile) -> bool:
    """Tell whether a file is a variant to be used: regular, neither older nor larger than its source, and not empty."""
    return sibling.is_regular and sibling.modified_ns >= source.modified_ns and 0 < sibling.size < source.size


def _folder(root: Root, name: bytes, *, cached_only: bool) -> OpenFile | None:
    try:
        return OpenFile(root.open(name[: name.rindex(b"/")] or b"/", cached_only=cached_only))
    except OSError as error:
        _raise_if_short(error)
        return None


def _raise_if_short(error: OSError) -> None:
    """Let pass what is no property of this file. EBUSY is one: it changes faster than it can be read."""
    if status_for(error) == 503 and error.errno != errno.EBUSY:
        raise error
