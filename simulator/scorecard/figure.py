"""The scorecard's figure: predicted over measured on logarithmic axes, one panel per class, as an SVG.

Written by hand: the simulator has no plotting library. Does not predict.
"""

import math
from collections.abc import Sequence
from html import escape

from simulator.scorecard.score import RL_SPEEDUP, SERVING, SPEEDUP, Scored

PANEL, GAP, LEFT, TOP, BOTTOM = 300, 64, 62, 58, 52
TITLES = {
    SERVING: ("Plain decoding", "ms per token", 1e3),
    SPEEDUP: ("Inference speedup", "times faster", 1.0),
    RL_SPEEDUP: ("RL speedup", "times faster", 1.0),
}
BAND = 0.12
"""Half width of the shaded band: the target for the medians."""
CHECK, FITTED, INK, MUTED, SHADE = "#1f6f8b", "#c9c9c9", "#222222", "#777777", "#e8f1f4"


def draw(rows: Sequence[Scored]) -> str:
    """Return the figure as SVG text; fitted rows are grey, rows that only check are coloured."""
    width = LEFT + len(TITLES) * PANEL + (len(TITLES) - 1) * GAP + 20
    height = TOP + PANEL + BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="Helvetica, Arial, sans-serif" font-size="12" fill="{INK}">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="20" font-size="15" font-weight="bold">Predicted against measured</text>',
        f'<circle cx="{width - 330}" cy="16" r="4" fill="{CHECK}"/>'
        f'<text x="{width - 320}" y="20">checks only</text>'
        f'<circle cx="{width - 230}" cy="16" r="4" fill="{FITTED}"/>'
        f'<text x="{width - 220}" y="20">decided a fit</text>'
        f'<rect x="{width - 130}" y="11" width="14" height="10" fill="{SHADE}"/>'
        f'<text x="{width - 110}" y="20">within {BAND:.0%}</text>',
    ]
    for number, (kind, (title, unit, factor)) in enumerate(TITLES.items()):
        chosen = [row for row in rows if row.kind == kind]
        if chosen:
            parts.extend(_panel(chosen, LEFT + number * (PANEL + GAP), title, unit, factor))
    return "\n".join([*parts, "</svg>", ""])


def _panel(rows: Sequence[Scored], left: float, title: str, unit: str, factor: float) -> list[str]:
    values = [value * factor for row in rows for value in (row.measured, row.predicted)]
    low, high = min(values) / 1.15, max(values) * 1.15
    span = math.log(high / low)

    def across(value: float) -> float:
        return left + PANEL * math.log(value / low) / span

    def up(value: float) -> float:
        return TOP + PANEL - PANEL * math.log(value / low) / span

    clip = f"panel{left:.0f}"
    corners = [(low, low * (1 + BAND)), (high, high * (1 + BAND)), (high, high / (1 + BAND)), (low, low / (1 + BAND))]
    band = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in corners)
    parts = [
        f'<clipPath id="{clip}"><rect x="{left}" y="{TOP}" width="{PANEL}" height="{PANEL}"/></clipPath>',
        f'<text x="{left}" y="{TOP - 10}" font-weight="bold">{escape(title)}</text>',
        f'<g clip-path="url(#{clip})"><polygon points="{band}" fill="{SHADE}"/>',
        f'<line x1="{across(low):.1f}" y1="{up(low):.1f}" x2="{across(high):.1f}" y2="{up(high):.1f}" '
        f'stroke="{MUTED}"/></g>',
        f'<rect x="{left}" y="{TOP}" width="{PANEL}" height="{PANEL}" fill="none" stroke="{MUTED}"/>',
        f'<text x="{left + PANEL / 2}" y="{TOP + PANEL + 40}" text-anchor="middle">measured, {escape(unit)}</text>',
    ]
    if left == LEFT:
        middle = TOP + PANEL / 2
        parts.append(
            f'<text x="18" y="{middle}" text-anchor="middle" transform="rotate(-90 18 {middle})">predicted</text>'
        )
    for tick in _ticks(low, high):
        x, y, label = across(tick), up(tick), f"{tick:g}"
        parts.append(f'<line x1="{x:.1f}" y1="{TOP + PANEL}" x2="{x:.1f}" y2="{TOP + PANEL + 4}" stroke="{MUTED}"/>')
        parts.append(f'<text x="{x:.1f}" y="{TOP + PANEL + 18}" text-anchor="middle" font-size="11">{label}</text>')
        parts.append(f'<line x1="{left - 4}" y1="{y:.1f}" x2="{left}" y2="{y:.1f}" stroke="{MUTED}"/>')
        parts.append(f'<text x="{left - 7}" y="{y + 4:.1f}" text-anchor="end" font-size="11">{label}</text>')
    for row in sorted(rows, key=lambda row: row.fitted is None):
        colour = CHECK if row.fitted is None else FITTED
        x, y = across(row.measured * factor), up(row.predicted * factor)
        said = escape(f"{row.id}: measured {row.measured * factor:.3g}, predicted {row.predicted * factor:.3g}")
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}" fill-opacity="0.8"><title>{said}</title></circle>'
        )
    return parts


def _ticks(low: float, high: float) -> list[float]:
    steps = (1, 2, 5) if high / low > 4 else (1, 1.5, 2, 3, 5, 7)
    ticks = [
        step * 10.0**power
        for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for step in steps
    ]
    return [tick for tick in ticks if low <= tick <= high]
