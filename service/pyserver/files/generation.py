"""The folder that a path names, from one release of a site to the next.

Owns:    the root of the current generation. Whoever looks at the disk, and a file that is being sent, keep what they
         need of an older one open, and nothing else does.
Never:   lets one answer use two generations, goes back to an older one, or goes without one: what disappears for a
         moment, as in every switch that is not atomic, is served on as it was.
Fails:   WouldBlock (View.look with cached_only).
Used by: handlers.static, handlers.trees.

A release is switched by renaming a symbolic link, or a folder, to the path. Who opens files by the path can get the
index of one release and its variant of the next within one request; by the descriptor of the folder nobody can.
"""

import logging

from pyserver.files.resolve import Root, RootError

log = logging.getLogger("pyserver")


class View:
    """The one generation that an answer is made from; look() may be called by any thread, one at a time."""

    __slots__ = ("_wanting", "root", "second", "seen")

    def __init__(self, root: Root, second: int, *, wanting: bool) -> None:
        self.root = root
        self.second = second  # when it began, so that what it sees is good for no longer
        self.seen: Root | RootError | None = None  # where the path leads, if it was looked at
        self._wanting = wanting

    def look(self, *, cached_only: bool) -> Root:
        """Return the root to work with: where the path leads now, unless somebody looked in this very second."""
        if self._wanting:
            try:
                self.seen = self.root = self.root.again(cached_only=cached_only)
            except RootError as error:
                # Without its traceback and its cause's: in those are this view and the root, which it would keep open.
                self.seen = RootError(*error.args)
            self._wanting = False
        return self.root

    def has_moved_on(self, *, cached_only: bool) -> bool:
        """Look again, because something is not there; tell whether the path leads to another folder by now."""
        before, self._wanting = self.root, True
        return self.look(cached_only=cached_only).identity != before.identity


class Generations:
    """One path, and the root that it led to when it was last looked at. By the leader."""

    __slots__ = ("_errand", "_looked_at", "_missed", "_root")

    def __init__(self, root: Root) -> None:
        self._root = root
        self._looked_at = 0  # clock.second when the look began that found it
        self._missed = False  # the last look found nothing, and this was logged
        self._errand: View | None = None

    @property
    def root(self) -> Root:
        """The folder of the current generation."""
        return self._root

    def was_looked_at(self, second: int) -> bool:
        """Tell whether the path was looked at in this second, and leads to the current generation."""
        return self._looked_at == second and not self._missed

    def view(self, second: int) -> View:
        """Return what an answer that is begun at `second` is made from."""
        if second < self._looked_at:  # the clock was stepped back: what comes now is later all the same
            self._looked_at = 0
        return View(self._root, second, wanting=self._looked_at != second)

    @property
    def misses(self) -> bool:
        """Whether the last look found nothing: a switch is under way, perhaps, and over in a moment."""
        return self._missed

    def errand(self, second: int) -> View | None:
        """Return a look that is worth taking though nothing was asked for: a release that was replaced is let go of.

        One in a second, and more while nothing is found. It is to be taken and handed to take(); until then there is no
        other, for the disk may be slow.
        """
        if self._errand is None and (self._missed or self._looked_at != second):
            self._errand = View(self._root, second, wanting=True)
            return self._errand
        return None

    def take(self, view: View) -> bool:
        """Take what a view has seen; return whether it is another generation."""
        is_again = view is self._errand and self._missed
        if view is self._errand:
            self._errand = None
        seen = view.seen
        if seen is None or view.second < self._looked_at + (not is_again):  # somebody has looked later, or as soon
            return False
        self._looked_at = view.second
        if isinstance(seen, RootError):
            if not self._missed:
                log.warning("%s, serving on from the folder that was there", seen)
            self._missed = True
            return False
        switched = not self.is_current(view)
        if switched or self._missed:
            log.info("root %s is %s", seen.path, "another folder now, serving that" if switched else "back")
        self._missed = False
        self._root = seen
        return switched

    def is_current(self, view: View) -> bool:
        """Tell whether no switch was seen since."""
        return view.root.identity == self._root.identity
