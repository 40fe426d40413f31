"""Response fields that make browsers more careful with a site: the presets of the option `security`.

Owns:    the two tables, each field with its reason.
Never:   promises what a static server cannot keep: Strict-Transport-Security is missing, since over plain HTTP it must
         not be sent (RFC 6797 7.2).
Used by: handlers.rules; docs/generate.py.

X-Content-Type-Options is not here: every answer carries it (T-46). A rule of [[site.fields]] changes a field, or with
the value "" removes it.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple


class Careful(NamedTuple):
    """One field of a preset."""

    name: str
    value: str
    reason: str  # for the documentation


# Nothing in here breaks a page that works without it, unless other sites show it in a frame.
BASIC: Final = (
    Careful(
        "Referrer-Policy",
        "strict-origin-when-cross-origin",
        "Other sites learn which site a visitor comes from, never which page of it.",
    ),
    Careful(
        "X-Frame-Options",
        "SAMEORIGIN",
        "No other site shows a page in a frame, where its visitors could be made to click on what they do not see.",
    ),
    Careful(
        "Cross-Origin-Opener-Policy",
        "same-origin-allow-popups",
        "A page that opened one of ours in a new window has no hold on it.",
    ),
)

# For sites that load everything from themselves, and have no script or style within their pages.
STRICT: Final = (
    Careful(
        "Content-Security-Policy",
        "default-src 'self'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'; object-src 'none'",
        "Scripts, styles, pictures and all else come from the site itself; what is written into a page does not run.",
    ),
    Careful(
        "Referrer-Policy",
        "no-referrer",
        "Nobody learns where a visitor comes from.",
    ),
    Careful(
        "X-Frame-Options",
        "DENY",
        "As frame-ancestors above, for browsers that do not know it.",
    ),
    Careful(
        "Cross-Origin-Opener-Policy",
        "same-origin",
        "No page of another site has a hold on a window of ours, nor ours on theirs.",
    ),
    Careful(
        "Cross-Origin-Resource-Policy",
        "same-origin",
        "Other sites cannot load the files as pictures, scripts or the like; with `cors`, this field is not sent.",
    ),
    Careful(
        "Permissions-Policy",
        "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
        "No page asks the visitor for these.",
    ),
)

PRESETS: Final[Mapping[str, tuple[Careful, ...]]] = {"off": (), "basic": BASIC, "strict": STRICT}
