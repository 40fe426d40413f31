"""Read small files whole, so that the content and what describes it are of one moment (T-51).

Owns:    the rule which files are small.
Fails:   WouldBlock (with cached_only), OSError: EBUSY for a file that changes faster than it can be read.
Used by: files.look, files.variants; handlers (a Stamp).
"""

import errno
import os
from typing import Final

from pyserver import limits
from pyserver.files.resolve import OpenFile

# A file that changed between our looking at it and our having read it is read again, so often. Then it is 503: it
# changes faster than it can be read.
_READ_TRIES: Final = 3

Stamp = tuple[int, int, int, int, int]  # OpenFile.stamp


def read_small(name: bytes, file: OpenFile, known: Stamp | None, *, cached_only: bool) -> bytes | None:
    """Return the content of `file`, or None when it is not needed: too large for memory, or its stamp is `known`."""
    for _ in range(_READ_TRIES):
        if file.size > limits.FILE_IN_MEMORY_MAX_BYTES or file.stamp == known:
            return None
        content = file.read_all(cached_only=cached_only)
        # Content of one moment under the stamp of another would stay in the cache as long as the file does.
        if not file.refresh() and len(content) == file.size:
            return content
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), name)
