"""What sites may not be together, and each of them in itself: two for one host, a redirect that leads back to itself.

Owns:    the Site of each [[site]], and the rules between its values.
Never:   asks the disk; config.system does.
Fails:   ConfigError.
Used by: config.reading.
"""

import urllib.parse
from collections.abc import Iterator, Sequence
from typing import Any, Final

from pyserver.config.errors import literal
from pyserver.config.options import IN_SITE, LISTS, Site, options_of
from pyserver.config.sources import Item, Setting


def build(given: Sequence[Item]) -> tuple[Site, ...]:
    """Return the sites in their order; raises ConfigError for what cannot be together."""
    _check_hosts(given)
    return tuple(_site(item) for item in given)


def roots(site: Item) -> Iterator[Setting]:
    """Yield the folders that a site is served from."""
    yield site.settings["root"]
    yield from (alias.settings["root"] for alias in site.lists.get("alias", []))


def _site(item: Item) -> Site:
    lists: dict[str, Any] = {}
    for key, attribute in IN_SITE.items():
        made = [LISTS[f"site.{key}"](**_values(f"site.{key}", inner)) for inner in item.lists.get(key, [])]
        lists[attribute] = tuple(made)
    site = Site(**_values("site", item), **lists)
    _check_twice(item.lists.get("alias", []), "path")
    _check_twice(item.lists.get("redirect", []), "from")
    _check_redirects(item.lists.get("redirect", []), site)
    return site


def _values(table: str, item: Item) -> dict[str, Any]:
    rows = options_of(table)
    return {rows[key].attribute: setting.value for key, setting in item.settings.items()}


# -- hosts -----------------------------------------------------------------------------------------


def _check_hosts(given: Sequence[Item]) -> None:
    taken: dict[str, Setting] = {}
    default: Item | None = None
    for item in given:
        hosts = item.settings.get("hosts")
        if hosts is None or not hosts.value:
            if default is not None:
                what = f"a second [[site]] without hosts after {default.place}, while one answers for all others"
                raise item.error(what, 'write hosts = ["example.org"] below it')
            default = item
            continue
        for host in hosts.value:
            if host in taken:
                where = "twice" if taken[host] is hosts else f"in two sites, the first at {taken[host].place}"
                raise hosts.error(f"host {literal(host)} is {where}", "write it once")
            taken[host] = hosts


# -- what is written twice, and what leads back ----------------------------------------------------


def _check_twice(items: Sequence[Item], key: str) -> None:
    taken: set[str] = set()
    for item in items:
        setting = item.settings[key]
        if setting.value in taken:
            raise setting.error(f"{key} {literal(setting.value)} is written twice", "write it once")
        taken.add(setting.value)


# No browser follows more (Fetch 4.4 has 20), and a chain that is not a ring but grows would never end.
_HOPS_MAX: Final = 20

# Stands for what "*" stands for: no rule is written for such a name.
_ANY: Final = "\0"


def _check_redirects(items: Sequence[Item], site: Site) -> None:
    for item, redirect in zip(items, site.redirects, strict=True):
        to = item.settings["to"]
        if redirect.to.endswith("*") and not redirect.source.endswith("*"):
            what = f'to {literal(redirect.to)} ends with "*", and from {literal(redirect.source)} does not'
            raise to.error(what, 'write "*" at the end of both, or of none')
        path: str | None = redirect.source.replace("*", _ANY)
        hops = 0
        while path is not None and hops < _HOPS_MAX:
            path, hops = _next(path, site), hops + 1
        if path is not None:
            what = f"redirect from {literal(redirect.source)} to {literal(redirect.to)} leads back to itself"
            raise to.error(what, "write an address that is not redirected")


def _next(path: str, site: Site) -> str | None:
    """Return the path that `path` is redirected to; None: it is not, or to somewhere else."""
    for redirect in site.redirects:
        below = redirect.source.removesuffix("*")
        if path == redirect.source or (below != redirect.source and path.startswith(below)):
            to = urllib.parse.unquote(redirect.to.partition("#")[0].partition("?")[0])
            to = to[:-1] + path.removeprefix(below) if to.endswith("*") else to
            return to if to.startswith("/") else None
    return path.removesuffix(".html") if site.clean_urls and path.endswith(".html") else None
