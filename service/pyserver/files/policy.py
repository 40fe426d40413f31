"""Which names are nobody's business although they lie below the root.

Owns:    the list of hidden names.
Never:   touches the disk: it judges the cleaned path that is then opened, no other.
Used by: handlers.static (404: a hidden name is not there), files.look, files.survey, compress.
"""

import re
from typing import Final

# What editors, patch tools and package managers leave beside a file: its former or its next content.
_LEFTOVERS: Final = (
    *("bak", "backup", "old", "orig", "rej", "save"),
    *("swp", "swo", "swn", "swx"),  # vim; as dot files usually, but not always
    *("dpkg-bak", "dpkg-dist", "dpkg-new", "dpkg-old", "dpkg-tmp", "ucf-dist", "ucf-new", "ucf-old"),
    *("rpmnew", "rpmorig", "rpmsave"),
)

# A segment that is what emacs saves by itself, "#name#", or ends with "~" or like a leftover. Case does not matter, and
# neither do dots, spaces and a ":stream" after it: on a mounted CIFS, NTFS or vfat they may all open the same file
# (T-12, T-13).
_LEFTOVER: Final = rb"/#[^/]*#(?:/|\Z)|(?:~|\.(?:%b))[. ]*+(?::[^/]*+)?(?:/|\Z)" % b"|".join(
    name.encode() for name in _LEFTOVERS
)
_HIDDEN: Final = re.compile(rb"/\.|" + _LEFTOVER, re.IGNORECASE)
_HIDDEN_BUT_DOTS: Final = re.compile(_LEFTOVER, re.IGNORECASE)

# RFC 8615: for metadata of the whole origin, so it counts only as the first segment.
_WELL_KNOWN: Final = b"/.well-known"


def hidden(path: bytes, *, dot_files: bool = False) -> bool:
    """Tell whether a segment of the cleaned `path` is hidden; with `dot_files`, a dot alone does not hide it."""
    if dot_files:
        return _HIDDEN_BUT_DOTS.search(path) is not None
    start = len(_WELL_KNOWN) if path == _WELL_KNOWN or path.startswith(b"/.well-known/") else 0
    return _HIDDEN.search(path, start) is not None
