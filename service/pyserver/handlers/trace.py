"""What was decided about one request, in words, for `pyserver explain`.

Owns:    the words: one method for each decision that handlers take.
Never:   decides, or looks at anything but what it is told. In service there is none: StaticSite.trace is None.
Used by: handlers.router, handlers.static (tell), handlers.explain (reads).
"""

import errno
import os
from collections.abc import Sequence
from typing import Final, NamedTuple

from pyserver.config import Site
from pyserver.handlers.cache import Entry
from pyserver.http.dates import imf_fixdate
from pyserver.http.ranges import Span, Unsatisfiable
from pyserver.http.request import Request


class Step(NamedTuple):
    """One decision."""

    about: str
    what: str


# In the order of RFC 9110 13.2.2.
_PRECONDITIONS: Final = (b"if-match", b"if-unmodified-since", b"if-none-match", b"if-modified-since")

_FOLLOWED: Final = {
    "beneath": "all that stay in the folder are followed",
    "owner": "those that belong to the owner of their target are followed",
    "none": "no link is followed",
}

_WHY: Final = {
    errno.EXDEV: "leads out of the root",
    errno.ELOOP: "a ring of links, or a link that is not followed",
}


class Trace:
    """The decisions about one request, in their order."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def _note(self, about: str, what: str) -> None:
        self.steps.append(Step(about, what))

    # -- which file

    def refused(self, why: Exception) -> None:
        """These bytes are no request."""
        self._note("request", f"refused: {why}")

    def site(self, site: Site, request: Request) -> None:
        """This site was asked."""
        host = _shown(request.host)
        what = f"root {site.root}, for {', '.join(site.hosts) or 'all other hosts'}"
        if site.hosts and not any(_names(pattern, host) for pattern in site.hosts):
            what = f"no site is for it, so the first answers: {what}"
        self._note("site", f"{host or 'no host'}: {what}")

    def method(self, method: bytes) -> None:
        """No file answers this method."""
        self._note("method", f"{_shown(method)} is not for files")

    def path(self, path: bytes) -> None:
        """This is the path, decoded and cleaned: rules and files are looked up by it."""
        self._note("path", _shown(path))

    def no_path(self, why: Exception) -> None:
        """The path cannot be decoded, or may not be."""
        self._note("path", f"refused: {why}")

    def tree(self, prefix: bytes, folder: str, links: str) -> None:
        """The path was looked up in this folder, that of an alias or the root, and these links in it were followed."""
        if prefix:
            self._note("alias", f"{_shown(prefix)}/ is {folder}")
        policy = Step("links", f"{links}: {_FOLLOWED[links]}")
        if policy not in self.steps:  # it is looked up again for a page that stands in
            self.steps.append(policy)

    def hidden(self) -> None:
        """The path is nobody's business."""
        self._note("hidden", "yes: begins with a dot, or looks like a backup")

    def missing(self, number: int, links: str) -> None:
        """Nothing could be opened, for this errno."""
        why = _WHY.get(number, os.strerror(number).lower())
        self._note("file", f"none: {why} (symlinks = {links})" if number in _WHY else f"none: {why}")

    def moved(self, status: int, location: bytes) -> None:
        """A redirect of the site is for this path."""
        self._note("redirect", f"{status} to {_shown(location)}")

    def elsewhere(self, path: bytes) -> None:
        """It should be asked for by this path: a folder by its slash, a page by its clean URL."""
        self._note("file", f"has another path, {_shown(path)}")

    def stands_in(self, path: bytes, status: int) -> None:
        """The site has a page for this case."""
        self._note("fallback" if status == 200 else "error page", f"{_shown(path)}, with status {status}")

    def listing(self, media_type: bytes) -> None:
        """The path names a folder without an index, and folders are listed."""
        self._note("file", f"none: a listing of the folder, {_shown(media_type)} by accept")

    def file(self, entry: Entry, patterns: Sequence[str]) -> None:
        """This file was opened, has these validators, and these patterns of [[site.fields]] match."""
        self._note("file", f"{_shown(entry.name)}, {entry.size} bytes, {_shown(entry.media_type)}")
        tag = "no tag" if entry.etag is None else f"tag {_shown(entry.etag)}"
        date = "no date" if entry.modified is None else f"modified {_shown(imf_fixdate(entry.modified))}"
        self._note("validators", f"{tag}, {date}")
        added = _shown(entry.added).removesuffix("\r\n").replace("\r\n", "; ")
        self._note("fields", f"{added} (by {', '.join(patterns)})" if patterns else added)

    def variant(self, request: Request, entry: Entry, chosen: Entry) -> None:
        """Of the variants of this file, this one was chosen."""
        if not entry.negotiated:
            return
        asked = request.fields.get(b"accept-encoding")
        said = "no accept-encoding" if asked is None else f"accept-encoding: {_shown(asked)}"
        if chosen is entry:
            what = "identity"
        else:
            tag = "no tag" if chosen.etag is None else f"tag {_shown(chosen.etag)}"
            what = f"{_shown(chosen.coding)}, {chosen.size} bytes, {tag}"
        there = ", ".join(_shown(coding) for coding in entry.siblings) or "none"
        made = ", ".join(_shown(coding) for coding in entry.makeable) or "none"
        self._note("variant", f"{said}: {what} (beside the file: {there}; made in memory: {made})")

    # -- which answer

    def conditions(self, request: Request, status: int) -> None:
        """The preconditions, all together, came to this status."""
        sent = [name for name in _PRECONDITIONS if name in request.fields]
        if sent:
            said = ", ".join(f"{_shown(name)}: {_shown(request.fields[name])}" for name in sent)
            self._note("preconditions", f"{said}: {_CAME_TO.get(status, str(status))}")
        if b"range" in request.fields and request.method != b"GET":
            self._note("range", f"ignored, {_shown(request.method)} has none")

    def changed(self, validator: bytes) -> None:
        """If-Range names something else than what is here."""
        self._note("range", f"ignored, if-range: {_shown(validator)} is not what is here")

    def spans(self, value: bytes, spans: Sequence[Span] | Unsatisfiable | None, size: int) -> None:
        """A Range came to these spans, or cannot be satisfied, or is ignored: None."""
        if spans is None:
            what = "ignored, malformed or not worth it"
        elif isinstance(spans, Unsatisfiable):
            what = f"nothing of {size} bytes"
        else:
            what = f"{', '.join(f'{first}-{end - 1}' for first, end in spans)} of {size} bytes"
        self._note("range", f"{_shown(value)}: {what}")


_CAME_TO: Final = {304: "the client has it", 412: "not what it wants", 200: "met"}


def _names(pattern: str, host: str) -> bool:
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern


def _shown(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")
