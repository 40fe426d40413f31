"""The listing of a folder as an answer: a page for people, JSON for programs (RFC 8259).

Owns:    the reading of `?sort=name|size|time&order=asc|desc`, and how a listing looks.
Never:   reads a folder, or keeps a listing: a change of a file in it does not change the folder's time, so nothing
         could tell whether one is still true (T-22).
Fails:   never.
Used by: handlers.static, handlers.rules: both load it only for a site that lists its folders.

The page works without script: a column is sorted by following its link. It loads nothing, and a policy forbids it to
(handlers.rules). Names come from whoever may write into the folder: as text they are escaped and kept apart in their
direction, as addresses they are percent-encoded byte by byte, so that those that are not UTF-8 lead to their files, too
(T-8).
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from html import escape
from typing import Final, NamedTuple
from urllib.parse import parse_qs

from pyserver import limits
from pyserver.digest import blake2b
from pyserver.files.listing import Folder, Item, Key, Lister, Order, resting
from pyserver.handlers.listings import Listing
from pyserver.http import accept, target
from pyserver.http.fields import field_value, written
from pyserver.http.headers import joined
from pyserver.http.request import Request
from pyserver.limits import NS_PER_S

_HTML: Final = b"text/html"
_JSON: Final = b"application/json"

_FIELDS: Final = {
    _HTML: written(b"Content-Type: text/html; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n"),
    _JSON: written(b"Content-Type: application/json\r\nX-Content-Type-Options: nosniff\r\n"),
}


class Wish(NamedTuple):
    """Which listing a request asks for."""

    order: Order
    as_json: bool


def wish(request: Request) -> Wish:
    """Read what `request` asks for; what is not understood is not asked for."""
    query = parse_qs((request.query or b"").decode("latin-1"))
    key = _KEYS.get(query.get("sort", [""])[-1], "name")
    order = Order(key, descending=query.get("order", [""])[-1] == "desc")
    return Wish(order, as_json=accept.choose(joined(request.head, b"accept"), (_HTML, _JSON)) == _JSON)


_KEYS: Final[dict[str, Key]] = {"size": "size", "time": "time"}


def lister(prefix: bytes, wished: Wish, hidden: Callable[[bytes], bool]) -> Lister:
    """Return what reads the folder. Left out are names that are hidden, and those that no target can name."""
    return Lister(prefix, wished.order, lambda path: hidden(path) or not target.can_name(path))


def render(folder: Folder, wished: Wish) -> Listing:
    """Return the listing of `folder`. Not in the leader: thousands of rows take a while."""
    kind, parts = (_JSON, as_json(folder)) if wished.as_json else (_HTML, as_html(folder, wished.order))
    content = "".join(resting(parts)).encode()
    return Listing(kind, _FIELDS[kind], content, blake2b(content, digest_size=32, person=kind[:16]).digest())


def _within(rows: Iterable[str], max_bytes: int) -> Iterator[str]:
    """Yield the first of `rows` that are not more than so many bytes."""
    for row in rows:
        max_bytes -= len(row) if row.isascii() else len(row.encode())
        if max_bytes < 0:
            return
        yield row


# -- for programs ----------------------------------------------------------------------------------


def as_json(folder: Folder) -> Iterator[str]:
    """Yield the parts of the document. A name that is not UTF-8 is told with U+FFFD in it; `href` is always exact."""
    yield f'{{"path": {json.dumps(_text(folder.path), ensure_ascii=False)}, "items": ['
    shown = 0
    rows = (json.dumps(_members(item), ensure_ascii=False) for item in folder.items)
    for row in _within(rows, limits.LISTING_MAX_BYTES):
        yield (",\n" if shown else "\n") + row
        shown += 1
    complete = folder.first(shown).shown_whole
    yield f'\n], "total": {folder.total}, "complete": {json.dumps(complete)}}}\n'


def _members(item: Item) -> dict[str, object]:
    return {
        "name": _text(item.name),
        "href": _href(item),
        "type": "folder" if item.is_folder else "file",
        "size": None if item.is_folder else item.size,
        "modified": f"{_when(item):%Y-%m-%dT%H:%M:%SZ}",  # RFC 3339
    }


# -- for people ------------------------------------------------------------------------------------

_STYLE: Final = """
:root { --line: color-mix(in srgb, currentColor 14%, transparent); --soft: .68; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 2rem 1.25rem 3rem; }
h1 { font-size: 1.25rem; font-weight: 600; line-height: 1.4; margin: 0 .5rem 1rem; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .5rem .3rem 1rem; font-weight: 400; text-align: end; vertical-align: top; }
td { white-space: nowrap; }
th:first-child { width: 100%; padding-inline-start: .5rem; text-align: start; overflow-wrap: anywhere; }
thead th { border-block-end: 1px solid; }
tbody tr { border-block-end: 1px solid var(--line); }
tbody tr:hover { background: var(--line); }
td, footer { opacity: var(--soft); }
a { color: inherit; text-decoration: none; text-underline-offset: .2em; }
a:hover, h1 a { text-decoration: underline; text-decoration-color: var(--line); }
a:hover { text-decoration-color: currentColor; }
a:focus-visible { outline: 2px solid; outline-offset: 2px; border-radius: 2px; }
thead a { font-weight: 600; white-space: nowrap; }
th[aria-sort] a::after { content: " \\2191" / ""; }
th[aria-sort=descending] a::after { content: " \\2193" / ""; }
.d a { font-weight: 600; }
footer { margin: 1rem .5rem 0; }
@media (max-width: 34rem) {
body { padding: 1.25rem .75rem 2rem; }
th, td, th:first-child { padding-inline: .3rem; }
h1, footer { margin-inline: .3rem; }
time span { display: none; }
}
"""

# The Content-Security-Policy of the page: nothing is loaded, nothing runs, and of styles only its own counts, known by
# its hash (CSP3 2.3.1, hash-source).
POLICY: Final = field_value(
    b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    b"style-src 'sha256-8Mv7JrCxj/Bub41kAGlRpbLAQxEneLSN+MwpPfn411s='"
)

_START: Final = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="robots" content="noindex">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{trail}</h1>
<table aria-label="Content of this folder">
<thead><tr>{heads}</thead>
<tbody>
"""
_END: Final = """\
</tbody>
</table>
<footer>{count}. Times are UTC.</footer>
</body>
</html>
"""


def as_html(folder: Folder, order: Order) -> Iterator[str]:
    """Yield the parts of the page."""
    onward = "" if order == Order() else _query(order)
    yield _START.format(style=_STYLE, title=_shown(folder.path), trail=_trail(folder.path, onward), heads=_heads(order))
    if folder.path != b"/":
        yield f'<tr class=d><th scope=row><a href="../{onward}" title="The folder above">..</a><td><td>\n'
    shown = 0
    for row in _within((_row(item, onward) for item in folder.items), limits.LISTING_MAX_BYTES):
        yield row
        shown += 1
    yield _END.format(count=_count(folder.first(shown)))


def _row(item: Item, onward: str) -> str:
    name, href, when = _shown(item.name), escape(_href(item)), _when(item)
    time = f"<time datetime={when:%Y-%m-%dT%H:%M:%SZ}>{when:%Y-%m-%d}<span> {when:%H:%M}</span></time>"
    if item.is_folder:
        return f'<tr class=d><th scope=row><a href="{href}{onward}"><bdi>{name}</bdi>/</a><td><td>{time}\n'
    exact = _several(item.size, "byte")
    return f'<tr><th scope=row><a href="{href}"><bdi>{name}</bdi></a><td title="{exact}">{human(item.size)}<td>{time}\n'


def _heads(order: Order) -> str:
    """Return the heads of the columns, each a link that sorts by it; the one sorted by now turns the order round."""
    heads = []
    for key, label in _COLUMNS:
        if key == order.key:
            sort = f" aria-sort={'descending' if order.descending else 'ascending'}"
            turned = Order(key, descending=not order.descending)
        else:
            sort, turned = "", Order(key, descending=key != "name")  # the largest and the newest are what one looks for
        heads.append(f'<th scope=col{sort}><a href="{_query(turned)}">{label}</a>')
    return "".join(heads)


_COLUMNS: Final[tuple[tuple[Key, str], ...]] = (("name", "Name"), ("size", "Size"), ("time", "Modified"))


def _query(order: Order) -> str:
    return f"?sort={order.key}&amp;order={'desc' if order.descending else 'asc'}"


def _trail(path: bytes, onward: str) -> str:
    """Return the way to the folder: every folder on it, with a link to it."""
    names = [b"", *path.split(b"/")[1:-1]]
    links = []
    for above, name in zip(reversed(range(len(names))), names, strict=True):
        href = "../" * above or "./"
        here = "" if above else " aria-current=page"
        label = f"<bdi>{_shown(name)}</bdi>/" if name else "/"
        links.append(f'<a href="{href}{onward}"{here}>{label}</a>')
    return "<wbr>".join(links)


def _count(folder: Folder) -> str:
    shown = len(folder.items)
    if not folder.shown_whole:
        return f"{shown:,} of {'' if folder.read_whole else 'more than '}{folder.total:,} are shown"
    if not shown:
        return "This folder is empty"
    folders = sum(item.is_folder for item in folder.items)
    return f"{_several(folders, 'folder')}, {_several(shown - folders, 'file')}"


# -- values ----------------------------------------------------------------------------------------


def human(size: int) -> str:
    """Return a size in three digits at most: 999 B, 1.0 KiB, 12.3 KiB, 123 KiB."""
    if size < 1000:
        return f"{size} B"
    amount, unit = size / 1024, "KiB"
    for larger in ("MiB", "GiB", "TiB", "PiB", "EiB"):
        if amount < 999.5:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.1f} {unit}" if amount < 99.95 else f"{amount:.0f} {unit}"


def _several(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _text(name: bytes) -> str:
    return name.decode("utf-8", "replace")


def _shown(name: bytes) -> str:
    """Return `name` for HTML."""
    return escape(_DECEIVING.sub("\ufffd", _text(name)))


# Control characters (C1; http.target lets no other through), and those that turn the direction of text round within a
# name: what ends in "gnp.exe" could be shown as "exe.png".
_DECEIVING: Final = re.compile("[\x80-\x9f\u202a-\u202e\u2066-\u2069]")


def _href(item: Item) -> str:
    """Return the relative address. With "./" in front a colon in the name does not make it a scheme (RFC 3986 4.2)."""
    return "." + target.encode(b"/" + item.name).decode("ascii") + ("/" if item.is_folder else "")


# File systems know times that a calendar of four digits does not have.
_FIRST_S: Final = int(datetime(1000, 1, 1, tzinfo=UTC).timestamp())
_LAST_S: Final = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp())


def _when(item: Item) -> datetime:
    return datetime.fromtimestamp(min(max(item.modified_ns // NS_PER_S, _FIRST_S), _LAST_S), UTC)
