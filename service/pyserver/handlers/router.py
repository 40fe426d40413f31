"""Which site answers: by the host that was asked for.

Owns:    the table of hosts; the putting together of all sites, which share one room of memory (handlers.cache).
Never:   looks at a path: what belongs to one site is decided there, so one request touches one site's cache only.
Fails:   RootError (a root of a site cannot be served).
Used by: worker.main and handlers.explain (build), worker.connection (asks).

Request.host is compared as http.request gives it: lower case, without port and final dot (T-47).
"""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from pyserver.clock import Clock
from pyserver.config import Limits, Site
from pyserver.files.resolve import Root
from pyserver.handlers.cache import FileCache
from pyserver.handlers.listings import Listings
from pyserver.handlers.static import LookAgain, Pending, StaticSite
from pyserver.handlers.trace import Trace
from pyserver.handlers.variants import Submit, Workshop
from pyserver.http.request import Request
from pyserver.http.response import Response

# The part of the memory for files in which is kept what was made of them, for other files with the same content: text
# is coded to a quarter or less, and the rest of the room is for entries.
_OUTCOMES_PART: Final = 8


class Handler(Protocol):
    """What answers requests."""

    def respond(self, request: Request, keep: bool) -> Response | Pending:  # noqa: FBT001  # a keyword costs
        """Return the answer to `request`, or a Pending when the disk is needed for it."""

    @property
    def misses_root(self) -> bool:
        """Whether a path of a folder leads nowhere at the moment; then tidy() is worth calling again soon."""

    def tidy(self) -> list[LookAgain]:
        """Let go of what is not needed; to be called every second. Returns what has to wait for the disk."""


class Router:
    """Several sites, each with its hosts."""

    __slots__ = ("_below", "_default", "_named", "_sites")

    def __init__(self, sites: Sequence[tuple[Sequence[str], Handler]]) -> None:
        """Take the hosts of each site, and the site: the first one without hosts, or else the first, is the default."""
        self._default = next((site for hosts, site in sites if not hosts), sites[0][1])
        self._sites = [site for _, site in sites]
        named = [(host.encode(), site) for hosts, site in sites for host in hosts]
        self._named = {host: site for host, site in named if not host.startswith(b"*.")}
        self._below = {host[2:]: site for host, site in named if host.startswith(b"*.")}

    def respond(self, request: Request, keep: bool) -> Response | Pending:  # noqa: FBT001  # a keyword costs
        """Let the site that is asked answer."""
        site = self._named.get(request.host)
        return (self.site(request.host) if site is None else site).respond(request, keep)

    def site(self, host: bytes) -> Handler:
        """Return the site of `host`: of its whole name, of the longest end of it that has a `*.`, or the default."""
        found = self._named.get(host)
        while found is None and self._below:
            _, dot, host = host.partition(b".")
            if not dot:
                break
            found = self._below.get(host)
        return self._default if found is None else found

    @property
    def misses_root(self) -> bool:
        """Whether a folder of some site is missing."""
        return any(site.misses_root for site in self._sites)

    def tidy(self) -> list[LookAgain]:
        """Let go of what is not needed, in all sites."""
        return [look for site in self._sites for look in site.tidy()]


def build(
    sites: Sequence[Site],
    limits: Limits,
    clock: Clock,
    *,
    trace: Trace | None = None,
    submit: Submit | None = None,
    on_switch: Callable[[], None] | None = None,
) -> Handler:
    """Return what answers for `sites`: where there is one, itself.

    What they decide, they tell `trace`; `submit` takes work that is not the leader's; `on_switch` is called when a root
    leads to another release.
    """
    outcomes = 0 if submit is None else limits.cache_bytes // _OUTCOMES_PART
    cache = FileCache(limits.cache_bytes - outcomes, limits.cache_entries)
    workshop = None if submit is None else Workshop(submit, outcomes)
    listings = Listings()
    made = [(site.hosts, _site(site, clock, cache.beside(), workshop, listings)) for site in sites]
    for _, site in made:
        site.trace = trace
        site.on_switch = on_switch
    return made[0][1] if len(made) == 1 else Router(made)


def _site(site: Site, clock: Clock, cache: FileCache, workshop: Workshop | None, listings: Listings) -> StaticSite:
    aliases = [(alias.path, Root(alias.root, site.symlinks)) for alias in site.aliases]
    return StaticSite(site, Root(site.root, site.symlinks), clock, cache, aliases, workshop, listings)
