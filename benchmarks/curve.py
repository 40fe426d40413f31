"""What becomes of clients under more and more load, as a picture: goodput above, below it the wait of who is served.

Owns:    nothing; no font, script or picture from elsewhere is in it.
Used by: benchmarks.main (--overload --svg).
"""

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Final

from benchmarks.overload import Curve, Point

_WIDTH: Final = 880
_LEFT, _RIGHT, _TOP, _PANEL, _GAP, _BOTTOM = 70, 150, 60, 190, 50, 66
_TICKS_MS: Final = (1, 10, 100, 1000, 10_000)
_NAMES: Final = {"ours": "pyserver", "gunicorn": "gunicorn + WhiteNoise"}

_STYLE: Final = """\
.page { fill: #ffffff } .grid { stroke: #d1d9e0 }
text { fill: #1f2328; font: 13px system-ui, "Segoe UI", "DejaVu Sans", sans-serif }
.title { font-size: 16px; font-weight: 600 }
.soft { fill: #59636e; font-size: 12px } .tick { fill: #59636e; font-size: 11px }
polyline { fill: none; stroke-width: 2 }
.ours { stroke: #0969da } .nginx { stroke: #1a7f37 } .gunicorn { stroke: #d4751b } .other { stroke: #818b98 }
text.ours { fill: #0969da; stroke: none } text.nginx { fill: #1a7f37; stroke: none }
text.gunicorn { fill: #d4751b; stroke: none } text.other { fill: #818b98; stroke: none }
@media (prefers-color-scheme: dark) {
.page { fill: #0d1117 } .grid { stroke: #3d444d } text { fill: #f0f6fc } .soft, .tick { fill: #9198a1 }
.ours { stroke: #4493f8 } .nginx { stroke: #3fb950 } .gunicorn { stroke: #e8963f } .other { stroke: #7d8590 }
text.ours { fill: #4493f8 } text.nginx { fill: #3fb950 } text.gunicorn { fill: #e8963f } text.other { fill: #7d8590 }
}"""


def draw(curves: Sequence[Curve], where: str, how: str) -> str:
    """Return the picture; `where` and `how` it was measured stand below it."""
    height = _TOP + 2 * _PANEL + _GAP + _BOTTOM
    widest = max(point.share for curve in curves for point in curve.points)
    waits = [point.p99_ms for curve in curves for point in curve.points if point.p99_ms is not None]
    low, high = min([*waits, 5.0]) / 1.2, max([*waits, 5.0]) * 1.2

    def x(share: float) -> float:
        return _LEFT + share / widest * (_WIDTH - _LEFT - _RIGHT)

    def of_goodput(share: float) -> float:
        return _TOP + _PANEL * (1 - share)

    def of_wait(ms: float) -> float:
        return _TOP + 2 * _PANEL + _GAP - _PANEL * math.log(ms / low) / math.log(high / low)

    size = f'viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
    label = escape(_spoken(curves))
    above, below = "right answers to clients that still wait, of what it can serve", "99th percentile of their wait"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{label}">',
        f"<style>{_STYLE}</style>",
        f'<rect class="page" width="{_WIDTH}" height="{height}" rx="6"/>',
        '<text class="title" x="20" y="28">Under more load than can be served</text>',
        f'<text class="soft" x="20" y="{_TOP - 10}">{above}</text>',
        f'<text class="soft" x="20" y="{_TOP + _PANEL + _GAP - 14}">{below}, logarithmic</text>',
    ]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts += _line(of_goodput(share), f"{share:.0%}")
    for ms in _TICKS_MS:
        if low <= ms <= high:
            parts += _line(of_wait(ms), f"{ms} ms" if ms < 1000 else f"{ms // 1000} s")
    bottom = _TOP + 2 * _PANEL + _GAP
    parts += [
        f'<text class="tick" x="{x(tick):.1f}" y="{bottom + 16}" text-anchor="middle">{tick} x</text>'
        for tick in range(math.floor(widest) + 1)
    ]
    for curve in curves:
        parts += _of(curve, x, lambda one: of_goodput(min(1.0, one.goodput / one.can)))
        parts += _of(curve, x, lambda one: None if one.p99_ms is None else of_wait(one.p99_ms))
    parts += [
        f'<text class="tick" x="20" y="{height - 24}">{escape(where)}</text>',
        f'<text class="tick" x="20" y="{height - 9}">{escape(how)}</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _line(y: float, text: str) -> list[str]:
    return [
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>',
        f'<text class="tick" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>',
    ]


def _of(curve: Curve, x: Callable[[float], float], y: Callable[[Point], float | None]) -> list[str]:
    """Return the line of a server, and its name at the end of it."""
    kind = curve.server if curve.server in ("ours", "nginx", "gunicorn") else "other"
    found = [(x(one.share), at) for one in curve.points if (at := y(one)) is not None]
    if not found:
        return []
    points = " ".join(f"{across:.1f},{down:.1f}" for across, down in found)
    name = escape(_NAMES.get(curve.server, curve.server))
    return [
        f'<polyline class="{kind}" points="{points}"/>',
        f'<text class="{kind}" x="{found[-1][0] + 8:.1f}" y="{found[-1][1] + 4:.1f}">{name}</text>',
    ]


def _spoken(curves: Sequence[Curve]) -> str:
    """Return the picture in words, for those who cannot see it."""
    told = [
        f"{_NAMES.get(curve.server, curve.server)}: {last.goodput / last.can:.0%} of what it can serve"
        f" at {last.share:g} times that load"
        for curve in curves
        for last in curve.points[-1:]
    ]
    return "Goodput under overload. " + "; ".join(told)
