"""The scorecard: predicted against measured on logarithmic axes, a panel per class of rows."""

from collections.abc import Sequence
from html import escape

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dashboard.look import Look, dress, empty, look_of, wrapped
from dashboard.words import signed_percent
from simulator.scorecard.figure import BAND
from simulator.scorecard.score import CLASSES, RL_SPEEDUP, SCENARIO_SECONDS, SERVING, SERVING_DRAFTS, SPEEDUP, Scored

MAX_COLUMNS = 2
TITLES = {
    SERVING: "Plain decoding",
    SPEEDUP: "Inference speedup",
    RL_SPEEDUP: "RL speedup",
    SERVING_DRAFTS: "With drafts",
    SCENARIO_SECONDS: "Seconds",
}
"""Short enough for half of a narrow page."""


def scorecard(rows: Sequence[Scored], *, dark: bool = False) -> go.Figure:
    """Draw every row with its interval; filled rows only check, open ones decided a fit."""
    look = look_of(dark)
    kinds = [kind for kind in CLASSES if any(row.kind == kind for row in rows)]
    if not kinds:
        return empty("No row could be predicted.", look)
    columns = min(len(kinds), MAX_COLUMNS)
    lines = -(-len(kinds) // columns)
    figure = make_subplots(
        rows=lines,
        cols=columns,
        subplot_titles=[TITLES[kind] for kind in kinds],
        horizontal_spacing=0.12,
        vertical_spacing=0.28 / max(lines, 2),
    )
    for index, kind in enumerate(kinds):
        _panel(figure, divmod(index, columns), [row for row in rows if row.kind == kind], look, is_first=index == 0)
    dress(figure, look, height=60 + 400 * lines)
    figure.update_annotations(font={"size": 14, "color": look.ink})
    figure.update_xaxes(type="log", dtick="D2", tickformat="~r")
    figure.update_yaxes(type="log", dtick="D2", tickformat="~r")
    figure.update_layout(margin={"t": 72}, legend={"y": 1.0, "yref": "container", "yanchor": "top"})
    return figure


def _panel(figure: go.Figure, place: tuple[int, int], rows: Sequence[Scored], look: Look, *, is_first: bool) -> None:
    line, column = place[0] + 1, place[1] + 1
    scale = 1.0 if rows[0].kind in (SPEEDUP, RL_SPEEDUP) else 1e3
    unit = "×" if scale == 1.0 else "ms per token"
    values = [value * scale for row in rows for value in (row.measured, row.predicted)]
    low, high = min(values) / 1.2, max(values) * 1.2
    figure.add_scatter(
        x=[low, high, high, low],
        y=[low * (1 + BAND), high * (1 + BAND), high / (1 + BAND), low / (1 + BAND)],
        fill="toself",
        mode="none",
        fillcolor=look.grid,
        name=f"within {BAND:.0%}",
        showlegend=is_first,
        hoverinfo="skip",
        row=line,
        col=column,
    )
    for name, fitted in (("checks only", False), ("decided a fit", True)):
        some = [row for row in rows if (row.fitted is not None) == fitted]
        if some or is_first:
            _add_rows(figure, (line, column), some, scale, name, look, in_legend=is_first)
    figure.update_xaxes(title_text=f"measured ({unit})", row=line, col=column)
    figure.update_yaxes(title_text=f"predicted ({unit})", row=line, col=column)


def _add_rows(
    figure: go.Figure,
    place: tuple[int, int],
    rows: Sequence[Scored],
    scale: float,
    name: str,
    look: Look,
    *,
    in_legend: bool,
) -> None:
    is_open = name == "decided a fit"
    colour = look.muted if is_open else look.gain
    figure.add_scatter(
        x=[row.measured * scale for row in rows],
        y=[row.predicted * scale for row in rows],
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [(row.high - row.predicted) * scale for row in rows],
            "arrayminus": [(row.predicted - row.low) * scale for row in rows],
            "thickness": 1,
            "width": 0,
            "color": colour,
        },
        mode="markers",
        marker={"size": 8, "color": colour, "symbol": "diamond-open" if is_open else "circle"},
        name=name,
        showlegend=in_legend,
        hovertext=[_hover(row, scale) for row in rows],
        hovertemplate="%{hovertext}<extra></extra>",
        row=place[0],
        col=place[1],
    )


def _hover(row: Scored, scale: float) -> str:
    unit = "×" if scale == 1.0 else " ms"
    numbers = f"measured {row.measured * scale:.4g}{unit}, predicted {row.predicted * scale:.4g}{unit}"
    interval = f"interval {row.low * scale:.4g} to {row.high * scale:.4g}{unit}, error {signed_percent(row.error)}"
    return (
        f"<b>{escape(row.id)}</b><br>{wrapped(row.configuration)}<br>{numbers}<br>{interval}<br>{wrapped(row.source)}"
    )
