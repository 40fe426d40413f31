"""Which response fields a site adds to its answers, by the option that asks for them and by the name of the file.

Owns:    the compiled patterns, and the order in which later fields replace earlier ones: what every answer carries,
         the preset of `security`, `immutable`, then each rule of [[site.fields]] that matches.
Never:   runs once per request: the lines of a file are made when its entry is described (handlers.static).
Fails:   ValueError for a field that could not be sent as one line (T-42); the configuration refuses it before.
Used by: handlers.static, handlers.entries.

Patterns are matched with the name of the file that was opened, as a path of the site: `*.html` matches `/` where that
is answered with /index.html, and what a page is called with clean_urls or as the fallback makes no difference (T-1: it
is the very name that was opened, after it was decoded and cleaned).
"""

import re
from typing import Final, NamedTuple

from pyserver.config import FieldRule, Site
from pyserver.handlers.security import PRESETS
from pyserver.http import cors
from pyserver.http.fields import (
    NO_LINES,
    NO_VALUE,
    FieldName,
    FieldValue,
    Lines,
    field_line,
    field_name,
    field_value,
    joined_lines,
)
from pyserver.http.response import PAGE_POLICY

_Fields = dict[bytes, tuple[FieldName, FieldValue]]  # by lower-case name

# Every 200 carries it, so whoever has something stored has it, and a 304 need not repeat it.
_NOSNIFF: Final = (field_name(b"X-Content-Type-Options"), field_value(b"nosniff"))

# RFC 8246. A year, as everyone does; RFC 9111 has no maximum any more.
_IMMUTABLE: Final = (field_name(b"Cache-Control"), field_value(b"public, max-age=31536000, immutable"))

# A hash in a name: eight or more hexadecimal digits as a part of its own. Letters and digits both, so that a date
# (20240131) or a word (fabaceae) is none: a hash that is taken for a word is asked for once more, a word that is taken
# for a hash would never be again. One hash in thirty of eight digits has no letter.
_FINGERPRINT: Final = re.compile(
    rb"(?<![0-9A-Za-z])(?=[0-9]*[a-f])(?=[a-f]*[0-9])[0-9a-f]{8,128}(?![0-9A-Za-z])"
    rb"|(?<![0-9A-Za-z])(?=[0-9]*[A-F])(?=[A-F]*[0-9])[0-9A-F]{8,128}(?![0-9A-Za-z])"
)

# What describes the content, which a 304 does not have (RFC 9110 15.4.5: no representation metadata that does not guide
# the update of what is stored). All other fields may have changed with the configuration while the file, and so its
# tag, did not: they go with a 304, as Cache-Control, Content-Location, Expires and Vary must.
_OF_CONTENT: Final = frozenset(
    (b"content-disposition", b"content-language", b"content-type", b"link", b"repr-digest", b"content-digest")
)


_POLICY: Final = field_name(b"Content-Security-Policy")
_VARY: Final = field_name(b"Vary")


class Added(NamedTuple):
    """The field lines that a site adds for one file."""

    whole: Lines  # to a 200 or 206
    unchanged: Lines  # to a 304


class Rules:
    """The response fields of one site."""

    __slots__ = ("_always", "_immutable", "_rules", "_vary", "built_in", "errors", "listing")

    def __init__(self, site: Site) -> None:
        origins = [origin.encode() for origin in site.cors]
        self._vary = (b"Origin",) if cors.varies(origins) else ()
        self._always: _Fields = {
            name.lower(): (name, value) for name, value in (*_preset(site), *cors.everyone(origins))
        }
        self._immutable = site.immutable
        self._rules = tuple((pattern(rule.match), _set(rule), rule.match) for rule in site.fields)
        # What answers carry that are no file of the site: errors, redirects, and the 204 to OPTIONS. A rule for files
        # says nothing about them: an immutable 404 could never be mended (nginx needs "always" to get this wrong).
        self.errors = _written(self._always, self._vary)
        # The built-in pages, which have their style within them, say for themselves what they need.
        policy = (b"content-security-policy", (_POLICY, PAGE_POLICY))
        own = dict([policy]) if policy[0] in self._always else {}
        self.built_in = _written({**self._always, **own}, self._vary)
        self.listing = self._of_listings() if site.listing else NO_LINES

    def _of_listings(self) -> Lines:
        """Return what listings carry. Others have a say in what stands there, so they have their policy in any case."""
        from pyserver.handlers.listing import POLICY  # noqa: PLC0415  with HTML and calendars: 4 ms of a start

        policy = (b"content-security-policy", (_POLICY, POLICY))
        return _written({**self._always, **dict([policy])}, (b"Accept", *self._vary))

    def lines(self, name: bytes, *, vary: tuple[bytes, ...] = ()) -> Added:
        """Return what the answers for the file `name` carry; they vary with the request fields `vary` too."""
        fields: _Fields = {_NOSNIFF[0].lower(): _NOSNIFF, **self._always}
        if self._immutable and fingerprinted(name):
            fields[b"cache-control"] = _IMMUTABLE
        for matches, changed, _ in self._rules:
            if matches.fullmatch(name) is not None:
                fields.update(changed)
        unchanged = {key: field for key, field in fields.items() if key not in _OF_CONTENT and field != _NOSNIFF}
        vary = (*vary, *self._vary)
        return Added(_written(fields, vary), _written(unchanged, vary))

    def matching(self, name: bytes) -> list[str]:
        """Return the patterns that match, for `pyserver explain`."""
        return [text for matches, _, text in self._rules if matches.fullmatch(name) is not None]


def pattern(text: str) -> re.Pattern[bytes]:
    """Return what matches the paths that a pattern of the configuration means.

    `*` is any part of a name, `?` one character, `**` any number of whole names; without a slash it is the name of a
    file in any folder.
    """
    text = re.sub(r"(?:/\*\*)+", "/**", text if "/" in text else f"/**/{text}")
    parts = re.split(r"(/\*\*/|/\*\*\Z|\*|\?)", text)
    return re.compile(b"".join(_MEANING.get(part) or re.escape(part.encode()) for part in parts), re.DOTALL)


_MEANING: Final = {
    "/**/": rb"/(?:[^/]+/)*",
    "/**": rb"/.*",
    "*": rb"[^/]*",
    # A character of UTF-8, or a byte that is none.
    "?": rb"(?:[\x00-\x2e\x30-\x7f]|[\xc0-\xff][\x80-\xbf]+|[\x80-\xff])",
}


def fingerprinted(name: bytes) -> bool:
    """Tell whether the last segment of `name` has a hash in it."""
    return _FINGERPRINT.search(name, name.rfind(b"/") + 1) is not None


# -- fields ----------------------------------------------------------------------------------------


def _preset(site: Site) -> list[tuple[FieldName, FieldValue]]:
    """Return the fields of `security`. Whoever lets other origins read the files lets them load them, too."""
    return [
        (field_name(careful.name.encode()), field_value(careful.value.encode()))
        for careful in PRESETS[site.security]
        if not (site.cors and careful.name == "Cross-Origin-Resource-Policy")
    ]


def _set(rule: FieldRule) -> _Fields:
    return {
        name.lower().encode(): (field_name(name.encode()), field_value(value.encode()))
        for name, value in rule.set.items()
    }


def _written(fields: _Fields, vary: tuple[bytes, ...]) -> Lines:
    """Return the lines of `fields`, with the names of `vary` in the one Vary; an empty value removes a field."""
    fields = dict(fields)
    own = fields.pop(b"vary", (_VARY, NO_VALUE))[1]
    known = [member.strip().lower() for member in own.split(b",")]
    members = [own] * bool(own) + [name for name in vary if name.lower() not in known and b"*" not in known]
    lines = [field_line(name, value) for name, value in fields.values() if value]
    if members:
        lines.append(field_line(_VARY, field_value(b", ".join(members))))
    return joined_lines(lines)
