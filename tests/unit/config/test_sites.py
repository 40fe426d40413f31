from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest

from pyserver.config import Alias, Redirect, Site
from pyserver.config.errors import ConfigError
from pyserver.config.options import OPTIONS
from pyserver.config.sites import build, roots
from pyserver.config.sources import Item, Setting, Source

# The exact lines are in test_reading.py.
FILE = Source("/etc/x.toml", "/etc")


def item(table: str, lists: Mapping[str, list[Item]] = MappingProxyType({}), /, **written: object) -> Item:
    """A table as config.reading hands it over."""
    settings = {
        key: Setting(OPTIONS[f"{table}.{key}"].take(value, "/etc"), FILE, (key,)) for key, value in written.items()
    }
    return Item(settings, dict(lists), FILE, (table,))


def redirects(*pairs: tuple[str, str]) -> Item:
    written: list[dict[str, Any]] = [{"from": source, "to": to} for source, to in pairs]
    made = [item("site.redirect", **each) for each in written]
    return item("site", {"redirect": made}, root="/")


def test_a_site_is_made_of_its_values_and_lists() -> None:
    alias = item("site.alias", path="/a/", root="b")
    given = item("site", {"alias": [alias]}, root="www", listing=True)
    assert build([given]) == (Site("/etc/www", listing=True, aliases=(Alias("/a/", "/etc/b"),)),)
    assert [root.value for root in roots(given)] == ["/etc/www", "/etc/b"]


@pytest.mark.parametrize(
    "hosts",
    [
        [["a.org"], ["b.org"]],
        [["a.org"], []],
        [[], ["a.org"]],
        [["a.org"], ["*.a.org"], ["b.a.org"]],
    ],
)
def test_sites_for_different_hosts(hosts: list[list[str]]) -> None:
    built = build([item("site", root="/", hosts=names) for names in hosts])
    assert [list(site.hosts) for site in built] == hosts


@pytest.mark.parametrize(
    "hosts",
    [
        [[], []],
        [["a.org"], [], []],
        [["a.org"], ["A.ORG"]],
        [["*.a.org"], ["b.org", "*.a.org."]],
        [["[::1]"], ["[0:0::1]"]],
    ],
)
def test_sites_for_the_same_hosts(hosts: list[list[str]]) -> None:
    with pytest.raises(ConfigError):
        build([item("site", root="/", hosts=names) for names in hosts])


@pytest.mark.parametrize(
    "pairs",
    [
        [("/a", "/b")],
        [("/a", "/a/")],
        [("/a", "/b"), ("/b", "/c")],
        [("/a/*", "/b/*"), ("/b/x", "/c")],
        [("/a/*", "/a")],  # "/a/*" is what lies below "/a/", and not "/a"
        [("/a/*", "/*")],
        [("/*", "https://example.org/*")],
        [("/a", "https://example.org/a")],
        [("/z/*", "/a/a/a/a/*"), ("/a/*", "/*")],
    ],
)
def test_redirects_that_end(pairs: list[tuple[str, str]]) -> None:
    assert build([redirects(*pairs)])[0].redirects == tuple(Redirect(*pair) for pair in pairs)


@pytest.mark.parametrize(
    "pairs",
    [
        [("/a", "/a")],
        [("/a", "/a#top")],
        [("/a b", "/a%20b")],
        [("/a", "/b"), ("/b", "/a")],
        [("/a/*", "/a/b")],
        [("/a/*", "/a/*")],
        [("/a/*", "/a/b/*")],
        [("/*", "/new/*")],
        [("/a/*", "/b/*"), ("/b/*", "/c/*"), ("/c/*", "/a/*")],
    ],
)
def test_redirects_that_never_end(pairs: list[tuple[str, str]]) -> None:
    with pytest.raises(ConfigError, match="leads back to itself"):
        build([redirects(*pairs)])


def test_a_redirect_against_clean_urls_never_ends() -> None:
    made = redirects(("/a", "/a.html"))
    assert build([made])
    clean = item("site", made.lists, root="/", clean_urls=True)
    with pytest.raises(ConfigError, match="leads back to itself"):
        build([clean])
    assert build([item("site", redirects(("/a.html", "/b"), ("/c", "/d.html")).lists, root="/", clean_urls=True)])
