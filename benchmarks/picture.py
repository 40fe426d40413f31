"""What was measured, as a picture for light and dark pages: a row for each workload, a mark for each server.

Owns:    nothing; no font, script or picture from elsewhere is in it.
Used by: benchmarks.main.
"""

import math
from collections.abc import Sequence
from html import escape
from statistics import median
from typing import Final

from benchmarks.record import Record
from benchmarks.report import Results, compare, samples_of
from benchmarks.workloads import Workload

_WIDTH: Final = 880
_LEFT, _RIGHT, _TOP, _ROW, _BOTTOM = 196, 96, 92, 27, 64
_TICKS: Final = (2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)

# Class of the style sheet, and shape: ours and nginx stand out, those in Python have their colour, the rest theirs.
_MARKS: Final = {
    "ours": ("ours", "circle"), "nginx": ("nginx", "diamond"), "floor": ("floor", "bar"), "h2o": ("native", "square"),
    "lighttpd": ("native", "up"), "caddy": ("native", "circle"), "apache": ("native", "down"),
    "gunicorn": ("python", "circle"), "granian": ("python", "square"), "uvicorn": ("python", "up"),
}  # fmt: skip
_POINTS: Final = {
    "square": ((-1, -1), (1, -1), (1, 1), (-1, 1)),
    "diamond": ((0, -1), (1, 0), (0, 1), (-1, 0)),
    "up": ((0, -1), (1, 1), (-1, 1)),
    "down": ((0, 1), (1, -1), (-1, -1)),
    "bar": ((-0.3, -2), (0.3, -2), (0.3, 2), (-0.3, 2)),
}
_OTHER: Final = ("native", "bar")
_NAMES: Final = {
    "ours": "pyserver",
    "floor": "C floor",
    "gunicorn": "gunicorn + WhiteNoise",
    "uvicorn": "uvicorn + Starlette",
}

_STYLE: Final = """\
.page { fill: #ffffff } .band { fill: #f6f8fa } .grid { stroke: #d1d9e0 }
text { fill: #1f2328; font: 13px system-ui, "Segoe UI", "DejaVu Sans", sans-serif }
.title { font-size: 16px; font-weight: 600 } .ratio { font-weight: 600 }
.soft { fill: #59636e; font-size: 12px } .tick { fill: #59636e; font-size: 11px }
.ours { fill: #0969da } .nginx { fill: #1a7f37 } .floor { fill: #1f2328 }
.native { fill: #818b98 } .python { fill: #d4751b }
@media (prefers-color-scheme: dark) {
.page { fill: #0d1117 } .band { fill: #151b23 } .grid { stroke: #3d444d }
text { fill: #f0f6fc } .soft, .tick { fill: #9198a1 }
.ours { fill: #4493f8 } .nginx { fill: #3fb950 } .floor { fill: #f0f6fc }
.native { fill: #7d8590 } .python { fill: #e8963f }
}"""


def draw(record: Record, workloads: Sequence[Workload], servers: Sequence[str]) -> str:
    """Return the picture."""
    results = record.results
    shown = [server for server in servers if any(samples_of(results, one.name, server) for one in workloads)]
    values = [_cpu(results, one.name, server) for one in workloads for server in shown]
    known = [value for value in values if value is not None]
    low, high = _bounds(known)
    bottom = _TOP + _ROW * len(workloads)
    height = bottom + _BOTTOM

    def x(value: float) -> float:
        share = math.log(value / low) / math.log(high / low)
        return _LEFT + share * (_WIDTH - _RIGHT - _LEFT)

    size = f'viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
    label = escape(_spoken(results, workloads))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{label}">',
        f"<style>{_STYLE}</style>",
        f'<rect class="page" width="{_WIDTH}" height="{height}" rx="6"/>',
        '<text class="title" x="20" y="28">CPU time for each request, in µs</text>',
        f'<text class="soft" x="{_WIDTH - 20}" y="28" text-anchor="end">further left is better; logarithmic</text>',
        *_legend(shown),
    ]
    bands = range(_TOP, bottom, 2 * _ROW)
    parts += [f'<rect class="band" x="12" y="{top}" width="{_WIDTH - 24}" height="{_ROW}" rx="3"/>' for top in bands]
    for tick in _TICKS:
        if low <= tick <= high:
            at = x(tick)
            parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{bottom}"/>')
            parts.append(f'<text class="tick" x="{at:.1f}" y="{bottom + 15}" text-anchor="middle">{tick}</text>')
    for number, workload in enumerate(workloads):
        middle = _TOP + number * _ROW + _ROW / 2
        parts.append(f'<text x="20" y="{middle + 4.5}">{escape(workload.title)}</text>')
        # Ours last, so that it lies on top.
        for server in sorted(shown, key=lambda name: (name == "ours", name == "nginx")):
            value = _cpu(results, workload.name, server)
            if value is not None:
                parts.append(_mark(server, x(value), middle))
        against = compare(results, workload, "nginx")
        if against is not None:
            at = _WIDTH - 20
            parts.append(
                f'<text class="ratio" x="{at}" y="{middle + 4.5}" text-anchor="end">{against.ratio:.2f}</text>'
            )
    parts += [
        f'<text class="tick" x="{_WIDTH - 20}" y="{_TOP - 8}" text-anchor="end">nginx / pyserver</text>',
        f'<text class="tick" x="20" y="{height - 24}">{escape(record.machine)}</text>',
        f'<text class="tick" x="20" y="{height - 9}">{escape(f"{record.date}; {record.run}")}</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _bounds(values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of the axis, with some room."""
    return (min(values) / 1.15, max(values) * 1.15) if values else (1, 10)


def _cpu(results: Results, workload: str, server: str) -> float | None:
    samples = samples_of(results, workload, server)
    return median(one.cpu_us for one in samples) if samples else None


def _legend(servers: Sequence[str]) -> list[str]:
    parts, at, line = [], 20.0, 52
    for server in servers:
        name = _NAMES.get(server, server)
        wide = 24 + 7.2 * len(name)
        if at + wide > _WIDTH - 120:
            at, line = 20.0, line + 18
        parts.append(_mark(server, at + 5, line - 4))
        parts.append(f'<text class="soft" x="{at + 14:.1f}" y="{line}">{escape(name)}</text>')
        at += wide
    return parts


def _mark(server: str, x: float, y: float) -> str:
    kind, shape = _MARKS.get(server, _OTHER)
    r = 6.0 if kind in ("ours", "nginx") else 4.5
    if shape == "circle":
        return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{r}"/>'
    text = " ".join(f"{x + dx * r:.1f},{y + dy * r:.1f}" for dx, dy in _POINTS[shape])
    return f'<polygon class="{kind}" points="{text}"/>'


def _spoken(results: Results, workloads: Sequence[Workload]) -> str:
    """Return the picture in words, for those who cannot see it."""
    told = []
    for workload in workloads:
        ours, nginx = _cpu(results, workload.name, "ours"), _cpu(results, workload.name, "nginx")
        if ours is not None and nginx is not None:
            told.append(f"{workload.title}: pyserver {ours:.1f}, nginx {nginx:.1f}")
    return "CPU time for each request in microseconds. " + "; ".join(told)
