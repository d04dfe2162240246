"""Latency of one operation over batch and context: colour, the points it rests on, and where it ends."""

from html import escape

import numpy as np
import plotly.graph_objects as go

from dashboard.look import Look, dress, empty, look_of
from dashboard.profiles import LatencySurface, SurfaceCell
from traces.base import Origin

SYMBOLS = {Origin.MEASURED: "circle", Origin.MODELLED: "circle-open", Origin.ASSUMED: "x-thin"}
"""Marker of a point by its origin; what lies between points has none, what lies outside has no colour either."""
MAX_TICKS = 12
_SCALES = {False: "Viridis_r", True: "Viridis"}
"""The slowest stands out from either page."""


def latency_surface(found: LatencySurface, *, dark: bool = False) -> go.Figure:
    """Draw milliseconds as colour (logarithmic), every row of the trace as a marker that tells its origin."""
    look = look_of(dark)
    known = [cell.latency_s for cell in found.cells if cell.latency_s is not None]
    if not known:
        return empty("No points to draw.", look)
    columns = {batch: index for index, batch in enumerate(found.batches)}
    rows = {context: index for index, context in enumerate(found.contexts_tokens)}
    figure = go.Figure()
    figure.add_trace(_colours(found, min(known), max(known), look, dark))
    for origin in SYMBOLS:
        points = [cell for cell in found.cells if cell.origin is origin]
        if points:
            figure.add_trace(_points(points, origin, columns, rows))
            figure.add_trace(_legend_entry(f"{origin.value} ({len(points):,} points)", origin, look))
    dress(figure, look, height=460 if len(rows) > 1 else 220)
    figure.update_layout(margin={"t": 40}, showlegend=True)
    _ticks(figure, found)
    return figure


def _colours(found: LatencySurface, low: float, high: float, look: Look, dark: bool) -> go.Heatmap:
    width = len(found.batches)
    lines = [found.cells[start : start + width] for start in range(0, len(found.cells), width)]
    ticks = _round_ms(low * 1e3, high * 1e3)
    return go.Heatmap(
        x=list(range(width)),
        y=list(range(len(lines))),
        z=[
            [None if cell.latency_s is None else float(np.log10(1e3 * cell.latency_s)) for cell in line]
            for line in lines
        ],
        text=[[cell_text(cell) for cell in line] for line in lines],
        hovertemplate="%{text}<extra></extra>",
        hoverongaps=True,
        colorscale=_SCALES[dark],
        showscale=True,
        colorbar={
            "title": {"text": "ms", "side": "top"},
            "tickvals": [float(np.log10(tick)) for tick in ticks],
            "ticktext": [f"{tick:g}" for tick in ticks],
            "outlinewidth": 0,
            "thickness": 12,
            "tickfont": {"color": look.muted},
        },
    )


def _points(points: list[SurfaceCell], origin: Origin, columns: dict[int, int], rows: dict[int, int]) -> go.Scatter:
    return go.Scatter(
        x=[columns[cell.batch] for cell in points],
        y=[rows[cell.context_tokens] for cell in points],
        mode="markers",
        marker={"symbol": SYMBOLS[origin], "size": 7, "color": "#FFFFFF", "line": {"width": 1.6, "color": "#FFFFFF"}}
        | ({"line": {"width": 1.2, "color": "#111111"}} if origin is Origin.MEASURED else {}),
        hoverinfo="skip",
        showlegend=False,
    )


def _legend_entry(name: str, origin: Origin, look: Look) -> go.Scatter:
    """Stand in the legend for points that are drawn in white, which would vanish on a light page."""
    marker = {"symbol": SYMBOLS[origin], "size": 8, "color": look.ink, "line": {"width": 1.6, "color": look.ink}}
    return go.Scatter(x=[None], y=[None], mode="markers", marker=marker, name=name, hoverinfo="skip")


def cell_text(cell: SurfaceCell) -> str:
    """Return what is to be said of one place, as hover text."""
    place = f"batch {cell.batch:,}, context {cell.context_tokens:,} tokens"
    if cell.latency_s is None:
        return f"outside the points<br>{place}<br>the simulator stops here, or extrapolates where a scenario allows it"
    lines = [f"<b>{1e3 * cell.latency_s:.4g} ms</b>", place, escape(cell.origin.value)]
    if cell.measured_fraction is not None:
        lines[-1] += f", {cell.measured_fraction:.0%} of its time measured"
    if cell.relative_spread is not None:
        lines.append(f"spread {cell.relative_spread:.1%} (interquartile range over median)")
    return "<br>".join(lines)


def _ticks(figure: go.Figure, found: LatencySurface) -> None:
    points = [cell for cell in found.cells if cell.origin in SYMBOLS]
    for axis, places, own, title in (
        ("xaxis", found.batches, {cell.batch for cell in points}, "batch (sequences)"),
        ("yaxis", found.contexts_tokens, {cell.context_tokens for cell in points}, "context (tokens)"),
    ):
        ticks = [index for index, place in enumerate(places) if place in own]
        ticks = ticks[:: 1 + (len(ticks) - 1) // MAX_TICKS]
        ends = (-0.5, len(places) - 0.5)
        figure.update_layout(
            {
                axis: {
                    "tickvals": ticks,
                    "ticktext": [f"{places[index]:,}" for index in ticks],
                    "title": {"text": title},
                    "range": ends,
                    "showgrid": False,
                }
            }
        )


def _round_ms(low: float, high: float) -> list[float]:
    """Return round numbers between two, few enough to be read."""
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7)):
        ticks = [step * 10.0**power for power in powers for step in steps if low <= step * 10.0**power <= high]
        if len(ticks) >= 3:
            return ticks
    return [float(f"{low:.3g}"), float(f"{high:.3g}")] if high > low else [low]
