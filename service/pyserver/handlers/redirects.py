"""Where pages went that moved: the rules of [[site.redirect]].

Owns:    the order (the first that fits) and the Location.
Never:   reflects anything of Host; lets the path of a request decide to which host a Location leads (T-9); decodes.
Used by: handlers.static, handlers.taken.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from pyserver.config import Redirect
from pyserver.http import target

_STAR: Final = "*"


class Moved(NamedTuple):
    """The answer to a request for what moved."""

    status: int
    location: bytes  # a relative or absolute reference, ready to be sent


class Redirects:
    """The redirects of one site."""

    __slots__ = ("_rules",)

    def __init__(self, rules: Sequence[Redirect]) -> None:
        self._rules = tuple(_Rule.of(rule) for rule in rules)

    def __bool__(self) -> bool:
        return bool(self._rules)

    def find(self, path: bytes, query: bytes | None) -> Moved | None:
        """Return where `path`, decoded and cleaned, went; None: it is here."""
        for rule in self._rules:
            if path == rule.source:
                return Moved(rule.status, _with_query(rule.to, query))
            if rule.below is not None and path.startswith(rule.below):
                # encode() puts a slash in front, and `to` ends with one.
                to = rule.to + target.encode(path[len(rule.below) :])[1:] if rule.carried else rule.to
                return Moved(rule.status, _with_query(to, query))
        return None


class _Rule(NamedTuple):
    source: bytes | None  # a whole path
    below: bytes | None  # or the beginning of one, with its slash
    to: bytes  # without the star
    carried: bool  # what the star of the source stood for comes behind `to`
    status: int

    @classmethod
    def of(cls, rule: Redirect) -> "_Rule":
        starred, carried = rule.source.endswith(_STAR), rule.to.endswith(_STAR)
        source = rule.source.removesuffix(_STAR).encode()
        to = rule.to.removesuffix(_STAR).encode("ascii")
        if carried and not (starred and to.endswith(b"/")):
            # Behind a host without a slash, the path of a request would go on with its name.
            raise ValueError(f'redirect to {rule.to}: "*" must stand for what it stands for in from, behind a slash')
        return cls(None if starred else source, source if starred else None, to, carried, rule.status)


def _with_query(location: bytes, query: bytes | None) -> bytes:
    """Keep the query of the request (T-10), unless the rule has one of its own; a fragment stays last."""
    if query is None or b"?" in location:
        return location
    before, hash_sign, fragment = location.partition(b"#")
    return b"%b?%b%b%b" % (before, target.encode_query(query), hash_sign, fragment)
