"""What becomes of clients under more and more load, as a picture: goodput above, below it the wait of who is served.

Owns:    nothing; no font, script or picture from elsewhere is in it.
Used by: benchmarks.main (--overload --svg).
"""

import math
from collections.abc import Sequence
from html import escape
from typing import Final, NamedTuple

from benchmarks.overload import Curve

_WIDTH: Final = 880
_LEFT, _RIGHT, _TOP, _PANEL, _GAP, _BOTTOM = 70, 170, 60, 190, 50, 66
_TICKS_MS: Final = (1, 10, 100, 1000, 10_000)
_LINE: Final = 15
_NAMES: Final = {"ours": "pyserver", "gunicorn": "gunicorn + WhiteNoise"}

_STYLE: Final = """\
.page { fill: #ffffff } .grid { stroke: #d1d9e0 }
text { fill: #1f2328; font: 13px system-ui, "Segoe UI", "DejaVu Sans", sans-serif }
.title { font-size: 16px; font-weight: 600 }
.soft { fill: #59636e; font-size: 12px } .tick { fill: #59636e; font-size: 11px }
polyline { fill: none; stroke-width: 2 } .second { stroke-dasharray: 6 4 }
.ours { stroke: #0969da } .nginx { stroke: #1a7f37 } .gunicorn { stroke: #d4751b } .other { stroke: #818b98 }
text.ours { fill: #0969da; stroke: none } text.nginx { fill: #1a7f37; stroke: none }
text.gunicorn { fill: #d4751b; stroke: none } text.other { fill: #818b98; stroke: none }
@media (prefers-color-scheme: dark) {
.page { fill: #0d1117 } .grid { stroke: #3d444d } text { fill: #f0f6fc } .soft, .tick { fill: #9198a1 }
.ours { stroke: #4493f8 } .nginx { stroke: #3fb950 } .gunicorn { stroke: #e8963f } .other { stroke: #7d8590 }
text.ours { fill: #4493f8 } text.nginx { fill: #3fb950 } text.gunicorn { fill: #e8963f } text.other { fill: #7d8590 }
}"""


class _Line(NamedTuple):
    curve: Curve
    number: int  # of its content: the first is a full line
    points: Sequence[tuple[float, float]]


def draw(curves: Sequence[Curve], where: str, how: str) -> str:
    """Return the picture; `where` and `how` it was measured stand below it."""
    height = _TOP + 2 * _PANEL + _GAP + _BOTTOM
    widest = max(point.share for curve in curves for point in curve.points)
    most = max([1.0, *(point.goodput / point.can for curve in curves for point in curve.points)])
    waits = [point.p50_ms for curve in curves for point in curve.points if point.p50_ms is not None]
    low, high = min([*waits, 5.0]) / 1.2, max([*waits, 5.0]) * 1.2

    def x(share: float) -> float:
        return _LEFT + share / widest * (_WIDTH - _LEFT - _RIGHT)

    def of_goodput(share: float) -> float:
        return _TOP + _PANEL * (1 - share / most)

    def of_wait(ms: float) -> float:
        return _TOP + 2 * _PANEL + _GAP - _PANEL * math.log(ms / low) / math.log(high / low)

    size = f'viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
    label = escape(_spoken(curves))
    above, below = "right answers to clients that still wait, of what it can serve", "the median of their wait"
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
    contents = sorted({curve.content for curve in curves}, key=[curve.content for curve in curves].index)
    goodput = [
        _Line(
            curve,
            contents.index(curve.content),
            [(x(one.share), of_goodput(one.goodput / one.can)) for one in curve.points],
        )
        for curve in curves
    ]
    waits_of = [
        _Line(
            curve,
            contents.index(curve.content),
            [(x(one.share), of_wait(one.p50_ms)) for one in curve.points if one.p50_ms is not None],
        )
        for curve in curves
    ]
    parts += [*_drawn(goodput), *_drawn(waits_of)]
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


def _drawn(lines: Sequence[_Line]) -> list[str]:
    """Return the lines of one panel, and at the end of each its name, apart from the others."""
    parts, names = [], []
    for line in lines:
        if line.points:
            kind = line.curve.server if line.curve.server in ("ours", "nginx", "gunicorn") else "other"
            points = " ".join(f"{across:.1f},{down:.1f}" for across, down in line.points)
            parts.append(f'<polyline class="{kind}{" second" * (line.number > 0)}" points="{points}"/>')
            names.append((line.points[-1][1], line.points[-1][0], kind, line.curve))
    free = -math.inf
    for down, across, kind, curve in sorted(names, key=lambda name: name[0]):
        at = max(down + 4, free)
        free = at + _LINE
        parts.append(f'<text class="{kind}" x="{across + 8:.1f}" y="{at:.1f}">{escape(_name(curve))}</text>')
    return parts


def _name(curve: Curve) -> str:
    return f"{_NAMES.get(curve.server, curve.server)}, {curve.content}"


def _spoken(curves: Sequence[Curve]) -> str:
    """Return the picture in words, for those who cannot see it."""
    told = [
        f"{_name(curve)}: {last.goodput / last.can:.0%} of what it can serve, at {last.share:g} times that load"
        for curve in curves
        for last in curve.points[-1:]
    ]
    return "Goodput under overload. " + "; ".join(told)
