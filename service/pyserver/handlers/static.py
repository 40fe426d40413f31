"""Answer a request with a file of the site: the whole way, from the method to the response.

Owns:    the decisions and their order; the entries that it puts into the cache.
Never:   waits for the disk in respond() or finish(), sends anything, or opens a name other than the cleaned path that
         it judged.
Fails:   never: what is wrong with the request or on the disk becomes an error response. An exception is a bug.
Used by: handlers.router (builds it); worker.connection, handlers.status and handlers.explain (an answer that is not
         there yet).

All of it is called by the leader, one thread at a time, except Pending.run(): any thread may call that, so it knows the
disk only, and neither the site nor the cache.
"""

import errno
import os
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from pyserver import limits
from pyserver.clock import Clock
from pyserver.config import Site
from pyserver.files.codings import CODINGS
from pyserver.files.content import Stamp
from pyserver.files.generation import View
from pyserver.files.look import Found, Look, ToBeListed, stamp_at_once
from pyserver.files.mediatypes import is_packed
from pyserver.files.policy import hidden
from pyserver.files.resolve import STATUS_FOR_ERRNO, Root, WouldBlock, status_for
from pyserver.handlers import entries
from pyserver.handlers.cache import Entry, FileCache
from pyserver.handlers.listings import NOT_STORED, Listing, Listings, Start, Wanted
from pyserver.handlers.redirects import Redirects
from pyserver.handlers.rules import Rules
from pyserver.handlers.trace import Trace
from pyserver.handlers.trees import Tree, Trees
from pyserver.handlers.variants import Variants, Workshop
from pyserver.http import conditional, cors, lifecycle, multipart, ranges, target
from pyserver.http.dates import imf_fixdate
from pyserver.http.errors import ProtocolError
from pyserver.http.fields import (
    NO_LINES,
    NO_VALUE,
    FieldValue,
    Lines,
    field_line,
    field_name,
    field_value,
    joined_lines,
    written,
)
from pyserver.http.headers import field
from pyserver.http.request import Request
from pyserver.http.response import Head, Response, error_response, head
from pyserver.http.validators import is_precise

# RFC 9110 9.1: a method that is known and not for files is 405 with Allow (15.5.6), any other is 501 (15.6.2). To those
# that ask for something at the path, the server can say that it moved (15.4: 307 and 308 keep the method).
_SERVED: Final = frozenset((b"GET", b"HEAD"))
_OF_A_PATH: Final = _SERVED | {b"POST", b"PUT", b"DELETE", b"PATCH"}
_KNOWN_ELSEWHERE: Final = frozenset((b"TRACE", b"CONNECT"))
_ALLOW: Final = written(b"Allow: GET, HEAD, OPTIONS\r\n")
_LOCATION: Final = field_name(b"Location")
_TYPE: Final = field_name(b"Content-Type")
_NOSNIFF: Final = written(b"X-Content-Type-Options: nosniff\r\n")

# The fields that can turn the plain 200 into something else (RFC 9110 13.1, 14.2).
_CONDITIONS: Final = frozenset(
    (b"if-match", b"if-unmodified-since", b"if-none-match", b"if-modified-since", b"range", b"if-range")
)

# In the cache, before the path of a page that was not asked for: no path of a request begins so.
_UNASKED: Final = b"\0"


class StaticSite:
    """The files below one root, as answers."""

    __slots__ = (
        "_by_origin",
        "_cache",
        "_cached",
        "_date",
        "_date_second",
        "_decisive",
        "_dot_files",
        "_error_pages",
        "_fallback",
        "_folders",
        "_folders_second",
        "_origins",
        "_redirects",
        "_rules",
        "_trees",
        "_variants",
        "clean_urls",
        "clock",
        "index",
        "listings",
        "on_switch",
        "settings",
        "trace",
    )

    def __init__(
        self,
        settings: Site,
        root: Root,
        clock: Clock,
        cache: FileCache,
        aliases: Sequence[tuple[str, Root]] = (),
        workshop: Workshop | None = None,
        listings: Listings | None = None,
    ) -> None:
        """Serve `root` and the folders of `aliases`; without a workshop, no variants are made.

        The cache, the workshop and the listings are those of a worker, beside other sites.
        """
        self.settings = settings
        self.trace: Trace | None = None  # `pyserver explain` has one
        self.on_switch: Callable[[], None] | None = None  # whoever else remembers answers forgets them
        self._trees = Trees(root, aliases)
        self._dot_files = settings.dot_files == "allow"
        # T-4: an index that nobody may ask for is none, or the redirect to its folder would lead to a 404.
        self.index = tuple(name.encode() for name in settings.index if not self.hidden(b"/" + name.encode()))
        self.clean_urls = settings.clean_urls
        self._fallback = settings.fallback.encode()
        self._error_pages = {status: path.encode() for status, path in settings.errors.items()}
        self._redirects = Redirects(settings.redirects) if settings.redirects else None
        self._rules = Rules(settings)
        self._origins = frozenset(origin.encode() for origin in settings.cors)
        self._by_origin = cors.varies(self._origins)
        self._decisive = _CONDITIONS | {b"origin"} if self._by_origin else _CONDITIONS
        self.clock = clock
        self._cache = cache
        self._cached = cache.get
        self._variants = Variants(cache, workshop if settings.compress else None)
        self.listings = Listings() if listings is None else listings
        self._date = NO_VALUE
        self._date_second = -1
        self._folders: dict[tuple[bytes, bytes], Stamp | None] = {}  # by prefix and path of a folder: of this second
        self._folders_second = -1

    def respond(self, request: Request, keep: bool) -> "Response | Pending":  # noqa: FBT001  # a keyword costs
        """Return the answer to `request`, or a Pending when the disk is needed for it.

        `keep`: the connection goes on after the answer.
        """
        # The short cut, taken by most requests of a busy site: the full way has built the plain answer of this path in
        # this very second, and nothing in this request asks for another. The full way would return the same object.
        # (A raw path that is the cleaned path of an entry cleans to itself: those with a "%" have no plain answer.)
        entry, second = self._cached(request.path), self.clock.second
        if (
            entry is not None
            and entry.looked_at == second
            and keep
            and request.minor == 1
            and request.method == b"GET"
            and (entry.file is None or entries.is_true(entry))
        ):
            fields = request.fields
            if not fields or self._decisive.isdisjoint(fields):
                try:
                    chosen = entry.ready[fields.get(b"accept-encoding")] or entry
                    if chosen.plain_at == second and chosen.plain is not None:
                        return chosen.plain
                except KeyError:
                    pass
        return self._full_way(request, lifecycle.connection_field(request.minor, keep))

    @property
    def misses_root(self) -> bool:
        """Whether a path of a folder leads nowhere at the moment; then tidy() is worth calling again soon."""
        return any(tree.generations.misses for tree in self._trees)

    def tidy(self) -> "list[LookAgain]":
        """Let go of what is not needed: large files that nobody asked for lately, and a release that was replaced.

        To be called every second, also when no request comes; returns what has to wait for the disk.
        """
        self._close_unused()
        errands = ((tree, tree.generations.errand(self.clock.second)) for tree in self._trees)
        looks = [LookAgain(self, tree, view) for tree, view in errands if view is not None]
        return [look for look in looks if not look.run_at_once()]

    def take(self, tree: Tree, view: View) -> None:
        """Go on with the generation of a tree that a view has seen."""
        if tree.generations.take(view):
            self._cache.clear()
            self._folders.clear()
            if self.on_switch is not None:
                self.on_switch()

    # -- which file ----------------------------------------------------------------------------

    def _full_way(self, request: Request, connection: Lines) -> "Response | Pending":
        trace = self.trace
        if trace:
            trace.site(self.settings, request)
        served = request.method in _SERVED
        if not served and request.method not in _OF_A_PATH:
            return self._other_method(request, connection)
        try:
            path = target.clean(request.path)
        except ProtocolError as error:
            if trace:
                trace.no_path(error)
            return self._error(error.status, request, lifecycle.CLOSE if error.close else connection)
        if trace:
            trace.path(path)
        moved = None if self._redirects is None else self._redirects.find(path, request.query)
        if moved is not None:
            if trace:
                trace.moved(moved.status, moved.location)
            return self._redirect(moved.status, moved.location, request, connection)
        if not served:
            if trace:
                trace.method(request.method)
            return self._error(405, request, connection, _ALLOW)
        entry = self._cached(path)
        if entry is None and self.hidden(path):  # what is in the cache has been judged
            if trace:
                trace.hidden()
            return self._error(404, request, connection)
        if entry is not None and (
            (entry.looked_at == self.clock.second and entries.is_true(entry)) or self._renew(entry)
        ):
            return self._answer(request, connection, entry)
        return self._look(Pending(self, request, connection, self._trees.of(path), path, entry, None))

    def _renew(self, entry: Entry) -> bool:
        """Make an entry of an earlier second one of this second, if a single quick look shows that all is as it was.

        The common case of conclude(), for a file that has been what it is for long, in a folder that has too.
        """
        tree, second = self._trees.of(entry.path), self.clock.second
        if self.clean_urls or not tree.generations.was_looked_at(second) or not entries.is_quiet(entry):
            return False
        index = entry.name[len(entry.path) :]
        if index and index != self.index[0]:
            return False
        start = len(tree.prefix)
        if self.settings.precompressed and not is_packed(entry.media_type):
            # In a folder that did not change nothing new lies beside the file.
            is_alone = entry.folder is not None and len(entry.absent) == len(CODINGS)
            if not is_alone or self._folder_now(tree, entry.name[start:]) != entry.folder:
                return False
        if stamp_at_once(tree.generations.root, entry.name[start:]) != entry.stamp:
            return False
        for each in (entry, *entry.made.values()):
            each.looked_at = second
        if len(entry.made) < len(entry.makeable):
            entry.forget_ready()  # who would be better served by what is not made yet shall ask for it again
        self._cache.touch(entry.path)
        return True

    def _folder_now(self, tree: Tree, name: bytes) -> Stamp | None:
        """Return the stamp of the folder of a file of `tree`, as it was when it was first asked for in this second."""
        second = self.clock.second
        if self._folders_second != second:
            self._folders.clear()
            self._folders_second = second
        folder = name[: name.rindex(b"/")] or b"/"
        key = (tree.prefix, folder)
        if key not in self._folders:
            self._folders[key] = stamp_at_once(tree.generations.root, folder, directory=True)
        return self._folders[key]

    def _stand_in(self, request: Request, connection: Lines, path: bytes, page: "Page") -> "Response | Pending":
        """Answer with a page of the site that was not asked for."""
        if self.trace:
            self.trace.stands_in(path, page.status)
        entry = self._cached(_UNASKED + path)
        if entry is not None and entry.looked_at == self.clock.second and entries.is_true(entry):
            return self._tell(request, connection, entry, page)
        return self._look(Pending(self, request, connection, self._trees.of(path), path, entry, page))

    @staticmethod
    def _look(pending: "Pending") -> "Response | Pending":
        return pending.finish() if pending.run_at_once() else pending

    def conclude(self, pending: "Pending") -> "Response | Pending":
        """Go on where the disk has been looked at. What is not there may have a page that stands in for it."""
        request, connection, tree, found = pending.request, pending.connection, pending.tree, pending.outcome
        if found is TO_BE_LISTED:
            return pending
        if isinstance(found, Exception):
            raise found
        self.take(tree, pending.view)
        if self.trace:
            self.trace.tree(tree.prefix, pending.view.root.path, pending.view.root.links)
        if isinstance(found, Found) and pending.page is None and self.hidden(tree.prefix + found.name):
            found = errno.ENOENT  # T-4: what was opened is more than what was asked for, so it is judged too
        if isinstance(found, Found) and found.file is not None:
            formers = (self._cached(pending.key), pending.entry)  # another Pending may have been here meanwhile
            self._cache.drop(pending.key)
            entry = entries.renewed(
                formers,
                Entry(pending.key, tree.prefix + found.name, found.file.stamp, found.file),
                found,
                pending.view.second,
                self._rules,
                compress=self._variants.are_made,
            )
            if tree.generations.is_current(pending.view):  # else it is for this answer only
                self._cache.put(pending.key, entry)
            self._close_unused()
            return self._tell(request, connection, entry, pending.page)
        self._cache.drop(pending.key)
        if self.trace and isinstance(found, int):
            self.trace.missing(found, self.settings.symlinks)
        if pending.page is not None:  # not there either: what it would have told is told without it
            if pending.page is FALLBACK:
                return self._error(404, request, connection)
            return self._built_in(pending.page.status, request, connection, *pending.page.lines)
        if isinstance(found, Listing):
            if self.trace:
                self.trace.listing(found.media_type)
            return self._listing(request, connection, found)
        if isinstance(found, Found):
            if self.trace:
                self.trace.elsewhere(tree.prefix + found.name)
            return self._elsewhere(tree.prefix + found.name, request, connection)
        status = STATUS_FOR_ERRNO.get(found, 500)
        if status == 404 and self._fallback and b"." not in pending.path.rpartition(b"/")[2]:
            return self._stand_in(request, connection, self._fallback, FALLBACK)
        return self._error(status, request, connection)

    def hidden(self, path: bytes) -> bool:
        """Tell whether a path of the site is nobody's business. Any thread may call this."""
        return hidden(path, dot_files=self._dot_files)

    def _close_unused(self) -> None:
        self._cache.close_unused(self.clock.second - limits.FILES_KEPT_OPEN_S)

    # -- which answer --------------------------------------------------------------------------

    def _tell(self, request: Request, connection: Lines, entry: Entry, page: "Page | None") -> "Response | Pending":
        """Answer with a file: what was asked for, the fallback in its place, or a page that tells an error."""
        if page is None or page is FALLBACK:
            return self._answer(request, connection, entry)
        return self._error_page(request, connection, entry, page)

    def _answer(self, request: Request, connection: Lines, entry: Entry) -> "Response | Pending":
        """Decide in the order of RFC 9110 13.2.2. Only a request that would be 200 comes here (13.2.1)."""
        fields, second, trace = request.fields, self.clock.second, self.trace
        chosen = self._variants.select(request, entry, second)
        if trace:
            trace.file(entry, self._rules.matching(entry.name))
            trace.variant(request, entry, chosen)
        if self._decisive.isdisjoint(fields):
            answer = self._whole(request, connection, chosen)
            if answer is chosen.plain:
                entry.keep_ready(fields.get(b"accept-encoding"), chosen)
            return answer

        status = conditional.evaluate(fields, chosen.etag, chosen.modified, request.method, second)
        if trace:
            trace.conditions(request, status)
        if status == 304:
            return self._bare(304, request, connection, chosen.unchanged)
        if status == 412:
            return self._error(412, request, connection)

        if request.method == b"GET" and b"range" in fields:  # RFC 9110 14.2: no other method has ranges (T-29)
            return self._ranged(request, connection, chosen)
        return self._whole(request, connection, chosen)

    def _ranged(self, request: Request, connection: Lines, entry: Entry) -> "Response | Pending":
        """Decide what a Range gets; with If-Range only while this is what the client has the rest of (13.1.5)."""
        fields, second = request.fields, self.clock.second
        validator = fields.get(b"if-range")
        # A date is strong only where no two representations may share it (RFC 9110 8.8.2.2), or what the client has a
        # part of might be another one: all variants have that of the file, or one that somebody gave them; and a time
        # that was set to a whole second may be that of the last release, too.
        own_date = not entry.coding and not entry.negotiated and is_precise(entry.stamp[3])
        settled = entry.settled and own_date
        if validator is not None and not conditional.if_range_matches(
            validator, entry.etag, entry.modified, second, settled=settled
        ):
            if self.trace:
                self.trace.changed(validator)
            return self._whole(request, connection, entry)
        value = fields[b"range"]
        part_bytes = multipart.part_bytes(entry.size, entry.media_type) if b"," in value else 0
        spans = ranges.resolve(value, entry.size, part_bytes)
        if self.trace:
            self.trace.spans(value, spans, entry.size)
        if spans is None:
            return self._whole(request, connection, entry)
        if spans is ranges.UNSATISFIABLE:
            return self._error(416, request, connection, ranges.unsatisfied_range(entry.size))
        if len(spans) == 1:
            return self._part(request, connection, entry, spans[0])
        if entry.coding:  # does Content-Encoding mean the parts or the whole of them? Readers differ
            return self._whole(request, connection, entry)
        return self._parts(request, connection, entry, spans)

    def _other_method(self, request: Request, connection: Lines) -> "Response | Pending":
        if self.trace:
            self.trace.method(request.method)
        if request.method == b"OPTIONS":  # of "*" too (RFC 9110 9.3.7): all files allow the same
            wanted = field(request.head, b"Access-Control-Request-Method")
            preflight = cors.preflight(self._origins, request.fields.get(b"origin"), wanted)
            return self._bare(204, request, connection, joined_lines((_ALLOW, self._rules.errors, preflight)))
        if request.method in _KNOWN_ELSEWHERE:
            return self._error(405, request, connection, _ALLOW)
        return self._error(501, request, connection)

    # -- what it looks like --------------------------------------------------------------------

    def _whole(self, request: Request, connection: Lines, entry: Entry) -> Response:
        asker = self._asker(request) if self._by_origin else NO_LINES
        # HTTP/1.1 that goes on needs no Connection field.
        plain = request.method == b"GET" and not connection and not asker
        if plain and entry.plain is not None and entry.plain_at == self.clock.second:
            return entry.plain
        length = Lines(b"Content-Length: %d\r\n" % entry.size)
        start = head(200, (entry.fields, length, asker), self._now(), connection)
        if request.method == b"HEAD":
            return Response(200, start, close=connection == lifecycle.CLOSE)
        answer = _with_content(200, start, entry, (0, entry.size), connection)
        # A Pending may finish seconds after its look. For "%" see respond().
        if plain and entry.looked_at == self.clock.second and b"%" not in entry.name:
            entry.keep_plain(answer, len(start))
        return answer

    def _part(self, request: Request, connection: Lines, entry: Entry, span: ranges.Span) -> Response:
        length = Lines(b"Content-Length: %d\r\n" % (span[1] - span[0]))
        lines = (entry.fields, ranges.content_range(*span, entry.size), length, self._asker(request))
        start = head(206, lines, self._now(), connection)
        part = self._read_part(entry, span)
        if part is not None:
            return Response(206, start, part, content_bytes=len(part), close=connection == lifecycle.CLOSE)
        return _with_content(206, start, entry, span, connection)

    @staticmethod
    def _read_part(entry: Entry, span: ranges.Span) -> bytes | None:
        """Return a small part of a file that is not held in memory; None where sendfile must do."""
        first, end = span
        file = entry.file
        if file is None or end - first > limits.PART_IN_MEMORY_MAX_BYTES:
            return None
        part = file.read_part(first, end - first)
        # Read first and looked at then: what goes out is of the file that its tag names.
        return part if part is not None and not file.refresh() and file.stamp == entry.stamp else None

    def _parts(self, request: Request, connection: Lines, entry: Entry, spans: Sequence[ranges.Span]) -> Response:
        """Return several spans as one content. Each part has a Content-Range, the whole none (RFC 9110 15.3.7.2)."""
        boundary = field_value(os.urandom(multipart.BOUNDARY_BYTES // 2).hex().encode())
        parts = multipart.parts(spans, entry.size, entry.media_type, boundary)
        count = sum(len(part) if isinstance(part, bytes) else part[1] for part in parts)
        length = Lines(b"Content-Length: %d\r\n" % count)
        lines = (
            entries.fields(multipart.content_type(boundary), entry.validators, entry.added),
            length,
            self._asker(request),
        )
        start, close = head(206, lines, self._now(), connection), connection == lifecycle.CLOSE
        content = entry.content
        if content is None:
            return Response(206, start, content_bytes=count, source=entry.file, more=tuple(parts), close=close)
        pieces = (part if isinstance(part, bytes) else content[part[0] : sum(part)] for part in parts)
        # T-32: a boundary is for one answer only.
        return Response(206, start, b"".join(pieces), content_bytes=count, close=close, again=False)

    def _listing(self, request: Request, connection: Lines, made: Listing) -> "Response | Pending":
        """Return the listing of a folder. It has no validators, so only `*` can be a precondition that matters."""
        status = conditional.evaluate(request.fields, None, None, request.method, self.clock.second)
        if status == 304:
            return self._bare(304, request, connection, joined_lines((NOT_STORED, self._rules.listing)))
        if status == 412:
            return self._error(412, request, connection)
        count, close = len(made.content), connection == lifecycle.CLOSE
        length = Lines(b"Content-Length: %d\r\n" % count)
        lines = (made.fields, NOT_STORED, self._rules.listing, length, self._asker(request))
        start = head(200, lines, self._now(), connection)
        if request.method == b"HEAD":
            return Response(200, start, close=close)
        if count < limits.LISTING_SHARED_MIN_BYTES:
            return Response(200, start, made.content, content_bytes=count, close=close)
        shared = self.listings.share(made)
        if shared is None:
            return self._error(503, request, connection)
        return Response(200, start, content_bytes=count, source=shared, more=(shared.content,), close=close)

    def _elsewhere(self, path: bytes, request: Request, connection: Lines) -> Response:
        """Add the slash that the relative links in a folder's index need, or lead to the clean URL of a page.

        The Location is relative as well (RFC 9110 10.2.2), so nothing of Host is reflected; the query stays (T-10).
        """
        query = b"" if request.query is None else b"?" + target.encode_query(request.query)
        return self._redirect(301, target.encode(path) + query, request, connection)

    def _redirect(self, status: int, location: bytes, request: Request, connection: Lines) -> Response:
        return self._built_in(status, request, connection, field_line(_LOCATION, field_value(location)))

    def _bare(self, status: int, request: Request, connection: Lines, lines: Lines) -> Response:
        """Return a 204 or 304: a head, and never any content (RFC 9112 6.3)."""
        asker = self._asker(request) if self._by_origin else NO_LINES
        start = head(status, (lines, asker), self._now(), connection)
        return Response(status, start, close=connection == lifecycle.CLOSE)

    def _error(self, status: int, request: Request, connection: Lines, *lines: Lines) -> "Response | Pending":
        """Tell an error, by the site's own page where it has one."""
        path = self._error_pages.get(status)
        if path is None:
            return self._built_in(status, request, connection, *lines)
        return self._stand_in(request, connection, path, Page(status, lines))

    def _error_page(self, request: Request, connection: Lines, entry: Entry, page: "Page") -> Response:
        """Return an error told by a page of the site: its content, and nothing that is said of the file (T-23)."""
        length = Lines(b"Content-Length: %d\r\n" % entry.size)
        about = (field_line(_TYPE, entry.media_type), _NOSNIFF, length)
        lines = (*about, *page.lines, self._rules.errors, self._asker(request))
        start = head(page.status, lines, self._now(), connection)
        if request.method == b"HEAD":
            return Response(page.status, start, close=connection == lifecycle.CLOSE)
        return _with_content(page.status, start, entry, (0, entry.size), connection)

    def _built_in(self, status: int, request: Request, connection: Lines, *lines: Lines) -> Response:
        return error_response(
            status,
            date=self._now(),
            connection=connection,
            head_only=request.method == b"HEAD",
            fields=(*lines, self._rules.built_in, self._asker(request)),
        )

    def _asker(self, request: Request) -> Lines:
        """Return the lines that are for the origin that asks, where answers differ between origins."""
        return cors.named(self._origins, request.fields.get(b"origin"))

    def _now(self) -> FieldValue:
        """Return the Date of this second."""
        second = self.clock.second
        if second != self._date_second:
            self._date_second, self._date = second, imf_fixdate(second)
        return self._date


# A release may be replaced while an answer is looked for, and the next one too; who does it more often has to wait.
_SWITCHES_MAX: Final = 3


class Pending:
    """An answer that needs the disk: run() in a thread that may wait for it, then finish() by the leader."""

    __slots__ = (
        "_clean",
        "_index",
        "_known",
        "_site",
        "connection",
        "entry",
        "lists",
        "outcome",
        "page",
        "path",
        "request",
        "tree",
        "view",
    )

    def __init__(
        self,
        site: StaticSite,
        request: Request,
        connection: Lines,
        tree: Tree,
        path: bytes,
        entry: Entry | None,
        page: "Page | None",
    ) -> None:
        self._site = site
        # What was not asked for is opened by its own name and no other.
        self._index, self._clean = (site.index, site.clean_urls) if page is None else ((), False)
        self._known = entries.known(entry, len(tree.prefix))
        self.request = request
        self.connection = connection
        self.tree = tree
        self.path = path  # in the site
        self.entry = entry  # what the cache held
        self.page = page  # what `path` stands in for; None: it was asked for
        self.view = tree.generations.view(site.clock.second)  # one generation for all of the answer
        self.lists = False  # it is known to be a folder that is to be listed
        # What is there, or the errno why it is not, or a bug of ours.
        self.outcome: Found | Listing | int | Exception = errno.EIO

    def run_at_once(self) -> bool:
        """Look without waiting; return whether that was possible."""
        try:
            self.outcome = self._look(cached_only=True)
        except WouldBlock:
            return False
        except ToBeListed:
            self.lists = True
            return False
        except OSError as error:
            self.outcome = error.errno or errno.EIO
        return True

    def run(self) -> None:
        """Look, and wait for the disk as long as it takes. Any thread may call this; it never raises."""
        try:
            self.outcome = self._look(cached_only=False)
        except OSError as error:
            self.outcome = error.errno or errno.EIO
        except ToBeListed:
            self.lists, self.outcome = True, TO_BE_LISTED
        except Exception as bug:  # noqa: BLE001  # finish() raises it, where it is logged and answered
            self.outcome = bug

    def begin(self, start: Start, then: Callable[[], None]) -> None:
        """Have run() run by a thread that may wait, and `then` by the leader: a listing when its turn comes."""
        if not self.lists:
            start(self.run, then)
            return
        from pyserver.handlers import listing  # noqa: PLC0415  see handlers.rules, which loads it for a site that lists

        key = (id(self.tree), self.view.root.identity, self.path, listing.wish(self.request))
        self._site.listings.enter(key, self, start, then)

    def learn(self, other: Wanted) -> bool:
        """Take what another one came to that waited for the same listing; False: it is of no use for this one."""
        assert isinstance(other, Pending)
        of_use = isinstance(other.outcome, (int, Listing))
        if of_use:
            self.outcome = other.outcome
        return of_use

    @property
    def key(self) -> bytes:
        """By what the cache knows it."""
        return self.path if self.page is None else _UNASKED + self.path

    def finish(self) -> "Response | Pending":
        """Return the answer, or what else has to be looked at for it. By the leader, after run()."""
        return self._site.conclude(self)

    def _look(self, *, cached_only: bool) -> Found | Listing:
        root = self.view.look(cached_only=cached_only)
        for _ in range(_SWITCHES_MAX):
            try:
                return self._look_in(root, cached_only=cached_only)
            except OSError as error:
                # What is not there may have gone with its release, which was replaced within this second.
                if status_for(error) != 404 or not self.view.has_moved_on(cached_only=cached_only):
                    raise
                root = self.view.root
        return self._look_in(root, cached_only=cached_only)

    def _look_in(self, root: Root, *, cached_only: bool) -> Found | Listing:
        path = self.path[len(self.tree.prefix) :]
        site, lister = self._site, None
        if self.lists:
            from pyserver.handlers import listing  # noqa: PLC0415  as above

            wish = listing.wish(self.request)
            lister = listing.lister(self.tree.prefix, wish, site.hidden)
        look = Look(
            root, path, self._index, self._known,
            clean=self._clean, precompressed=site.settings.precompressed,
            listed=site.settings.listing and self.page is None, lister=lister,
        )  # fmt: skip
        found = look.take(cached_only=cached_only)
        return listing.render(found.folder, wish) if found.folder is not None and lister is not None else found


# An outcome: there is a listing to be made, and it is not yet its turn.
TO_BE_LISTED: Final = ToBeListed()


class Page(NamedTuple):
    """What a page of the site that was not asked for stands in for."""

    status: int
    lines: tuple[Lines, ...] = ()  # such as Allow


# Nothing is where it was asked for, and a page of the site takes care of it: a 200 like any other, with its validators.
FALLBACK: Final = Page(200)


class LookAgain:
    """A look at where the root's path leads, without a request; run() and finish() as those of Pending."""

    __slots__ = ("_site", "_tree", "_view")

    def __init__(self, site: StaticSite, tree: Tree, view: View) -> None:
        self._site = site
        self._tree = tree
        self._view = view

    def run_at_once(self) -> bool:
        """Look without waiting; return whether that was possible, and then finish."""
        try:
            self._view.look(cached_only=True)
        except WouldBlock:
            return False
        self.finish()
        return True

    def run(self) -> None:
        """Look, and wait for the disk as long as it takes. Any thread may call this."""
        self._view.look(cached_only=False)

    def finish(self) -> None:
        """Go on with what was seen. By the leader."""
        self._site.take(self._tree, self._view)


def _with_content(status: int, start: Head, entry: Entry, span: ranges.Span, connection: Lines) -> Response:
    """Return the answer that sends the head `start` and then the bytes of `span`, first to one behind the last."""
    (first, end), close = span, connection == lifecycle.CLOSE
    count = end - first
    if entry.content is None:
        return Response(status, start, content_bytes=count, source=entry.file, offset=first, count=count, close=close)
    return Response(status, start, entry.content[first:end], content_bytes=count, close=close)
