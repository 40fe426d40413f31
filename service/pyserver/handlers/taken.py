"""Which paths of a site belong to an alias or a redirect, so that a file with such a path is never sent.

Owns:    the words that say who has a path.
Never:   looks at the disk, or has rules of its own: it asks those by which requests are answered.
Used by: cli, for `pyserver check`.
"""

from pyserver.config import Site
from pyserver.handlers.redirects import Redirects
from pyserver.handlers.trees import holds


class Taken:
    """What of the paths in one folder of a site - its root, or that of an alias - others have."""

    __slots__ = ("_aliases", "_prefix", "_redirects")

    def __init__(self, site: Site, alias: str = "/") -> None:
        """Judge the paths in the folder that hangs at `alias` in `site`."""
        self._prefix = alias.encode().removesuffix(b"/")
        self._redirects = [(Redirects((rule,)), f"the redirect from {rule.source}") for rule in site.redirects]
        prefixes = [(other.path.encode().removesuffix(b"/"), f"the alias {other.path}") for other in site.aliases]
        self._aliases = [
            (prefix, what) for prefix, what in prefixes if holds(self._prefix, prefix) and prefix != self._prefix
        ]

    def by(self, path: bytes) -> str | None:
        """Return who has `path` of the folder; None: the folder itself."""
        path = self._prefix + path
        for redirects, what in self._redirects:
            if redirects.find(path, None) is not None:
                return what
        return next((what for prefix, what in self._aliases if holds(prefix, path)), None)
