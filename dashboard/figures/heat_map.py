"""Speedup over two knobs: colour, number, and the line at which drafting breaks even."""

import plotly.graph_objects as go

from dashboard.look import Look, dress, empty, look_of
from simulator.what_if import SpeedupMap

STRONG = 0.65
"""Share of the colour scale's half from which text in the page's colour stands out more than ink."""


def heat_map(found: SpeedupMap, *, dark: bool = False) -> go.Figure:
    """Draw the speedup of every cell; blue is faster than plain decoding, orange slower, and 1 is the page's colour."""
    look = look_of(dark)
    known = [value for row in found.speedups for value in row if value is not None]
    if not known:
        return empty("None of these scenarios can run.", look)
    reach = max(max(known) - 1.0, 1.0 - min(known), 0.05)
    columns, rows = list(range(len(found.across.values))), list(range(len(found.up.values)))
    figure = go.Figure(
        go.Heatmap(
            x=columns,
            y=rows,
            z=[list(row) for row in found.speedups],
            customdata=[[_label(found, i, j) for j in columns] for i in rows],
            hovertemplate="%{customdata}<extra></extra>",
            colorscale=_scale(look),
            zmin=1.0 - reach,
            zmax=1.0 + reach,
            xgap=2,
            ygap=2,
            colorbar={"title": {"text": "speedup", "side": "right"}, "outlinewidth": 0, "thickness": 12},
        )
    )
    figure.add_trace(_numbers(found, look, reach))
    if min(known) < 1.0 < max(known) and len(columns) > 1 and len(rows) > 1:
        figure.add_trace(_break_even(found, look))
    dress(figure, look, height=160 + 44 * len(rows))
    figure.update_xaxes(
        title_text=found.across.title,
        tickvals=columns,
        ticktext=[f"{value:g}" for value in found.across.values],
        showgrid=False,
    )
    figure.update_yaxes(
        title_text=found.up.title, tickvals=rows, ticktext=[f"{value:g}" for value in found.up.values], showgrid=False
    )
    return figure


def _numbers(found: SpeedupMap, look: Look, reach: float) -> go.Scatter:
    """Return every cell's number, in the page's colour where the cell is too strong for ink."""
    cells = [
        (column, row, value)
        for row, line in enumerate(found.speedups)
        for column, value in enumerate(line)
        if value is not None
    ]
    return go.Scatter(
        x=[column for column, _, _ in cells],
        y=[row for _, row, _ in cells],
        text=[f"{value:.2f}×" for _, _, value in cells],
        textfont={"color": [look.page if abs(value - 1.0) > STRONG * reach else look.ink for _, _, value in cells]},
        mode="text",
        hoverinfo="skip",
        showlegend=False,
    )


def _label(found: SpeedupMap, row: int, column: int) -> str:
    value = found.speedups[row][column]
    said = "cannot run" if value is None else f"<b>{value:.3f}×</b>"
    return (
        f"{said}<br>{found.up.title}: {found.up.values[row]:g}<br>{found.across.title}: {found.across.values[column]:g}"
    )


def _break_even(found: SpeedupMap, look: Look) -> go.Contour:
    return go.Contour(
        x=list(range(len(found.across.values))),
        y=list(range(len(found.up.values))),
        z=[list(row) for row in found.speedups],
        contours={"start": 1.0, "end": 1.0, "size": 1.0, "coloring": "none"},
        line={"color": look.ink, "width": 2, "dash": "dot"},
        name="break-even",
        showlegend=True,
        showscale=False,
        hoverinfo="skip",
    )


def _scale(look: Look) -> list[tuple[float, str]]:
    return [(0.0, look.loss), (0.5, look.page), (1.0, look.gain)]
