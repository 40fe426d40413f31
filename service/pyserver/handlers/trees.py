"""In which folder on the disk a path of the site is looked up: the root, or that of an alias.

Owns:    the trees of a site, and which of them holds a path: by whole segments, and the longest (T-2).
Never:   looks at the disk, or at a path that was not decoded and cleaned (T-1).
Used by: handlers.static, handlers.taken.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pyserver.files.generation import Generations
from pyserver.files.resolve import Root


class Tree(NamedTuple):
    """One folder of files, and where it hangs in the site."""

    prefix: bytes  # of the paths in it, without the final slash: b"/static"; b"" for the root of the site
    generations: Generations

    def holds(self, path: bytes) -> bool:
        """Tell whether the site's `path` is the folder itself or lies in it."""
        return holds(self.prefix, path)


def holds(prefix: bytes, path: bytes) -> bool:
    """Tell whether the folder at `prefix` (without its final slash) is at `path`, or holds it: by whole segments."""
    return path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in (b"", b"/")


class Trees:
    """All folders of a site. What an alias hides of those it hangs in is not served."""

    __slots__ = ("_aliases", "_root")

    def __init__(self, root: Root, aliases: Sequence[tuple[str, Root]] = ()) -> None:
        self._root = Tree(b"", Generations(root))
        made = [Tree(path.encode().removesuffix(b"/"), Generations(folder)) for path, folder in aliases]
        self._aliases = sorted(made, key=lambda tree: len(tree.prefix), reverse=True)

    def __iter__(self) -> Iterator[Tree]:
        return iter((*self._aliases, self._root))

    def of(self, path: bytes) -> Tree:
        """Return the tree in which `path` lies."""
        for tree in self._aliases:
            if tree.holds(path):
                return tree
        return self._root
