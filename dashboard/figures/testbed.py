"""The testbed's speedups: predicted against measured, every configuration a point, the band of 10 % around equality."""

import math
from collections.abc import Sequence
from html import escape

import plotly.graph_objects as go

from dashboard.look import Look, dress, empty, look_of
from dashboard.words import signed_percent
from simulator.testbed_rows import Row

BAND = 0.10
"""Half width of the shaded band: the target of every configuration."""
POLICIES = {"synchronous": "synchronous", "one_step_off": "one step off", "fully_async": "fully asynchronous"}
SYMBOLS = ("circle", "diamond", "square", "triangle-up")
"""By engine, in the order of the rows."""


def speedups(rows: Sequence[Row], *, dark: bool = False) -> go.Figure:
    """Draw rows on logarithmic axes with the predicted interval, and the range of what the sittings measured."""
    look = look_of(dark)
    if not rows:
        return empty("No configuration was compared.", look)
    figure = go.Figure()
    low, high = _range(rows)
    _draw_band(figure, low, high, look)
    engines = list(dict.fromkeys(row.config.engine for row in rows))
    for number, engine in enumerate(engines):
        for colour, (kind, name) in enumerate(POLICIES.items()):
            some = [row for row in rows if (row.config.engine, row.config.policy.kind) == (engine, kind)]
            if some:
                said = name if len(engines) == 1 else f"{engine}, {name}"
                _draw_rows(figure, some, said, look.lines[colour], SYMBOLS[number % len(SYMBOLS)])
    dress(figure, look, height=620)
    figure.update_xaxes(title_text="measured speedup (×)")
    figure.update_yaxes(title_text="predicted speedup (×)")
    for update in (figure.update_xaxes, figure.update_yaxes):
        update(type="log", range=[math.log10(low), math.log10(high)], tickvals=_ticks(low, high), tickformat="~r")
    figure.update_layout(margin={"t": 56}, paper_bgcolor=look.page)
    return figure


def _range(rows: Sequence[Row]) -> tuple[float, float]:
    values = [
        value
        for row in rows
        for value in (*_measured(row), row.speedup.predicted, row.speedup.low, row.speedup.high, 1.0)
    ]
    return min(values) / 1.08, max(values) * 1.08


def _measured(row: Row) -> list[float]:
    return [both.measured for both in row.sittings]


def _draw_band(figure: go.Figure, low: float, high: float, look: Look) -> None:
    """Shade where predictions are within the band, and rule the lines of equality and of no speedup."""
    figure.add_scatter(
        x=[low, high, high, low],
        y=[low * (1 + BAND), high * (1 + BAND), high * (1 - BAND), low * (1 - BAND)],
        fill="toself",
        mode="none",
        fillcolor=look.grid,
        name=f"within {BAND:.0%}",
        hoverinfo="skip",
    )
    equal = {"color": look.muted, "width": 1}
    figure.add_scatter(x=[low, high], y=[low, high], mode="lines", line=equal, showlegend=False, hoverinfo="skip")
    figure.add_vline(x=1.0, line={**equal, "dash": "dot"})
    figure.add_hline(y=1.0, line={**equal, "dash": "dot"})


def _draw_rows(figure: go.Figure, rows: Sequence[Row], name: str, colour: str, symbol: str) -> None:
    measured = [row.speedup.measured for row in rows]
    predicted = [row.speedup.predicted for row in rows]
    figure.add_scatter(
        x=measured,
        y=predicted,
        error_x=_bars([_measured(row) for row in rows], measured, colour),
        error_y=_bars([(row.speedup.low, row.speedup.high) for row in rows], predicted, colour),
        mode="markers",
        marker={"size": 10, "color": colour, "symbol": symbol},
        name=name,
        hovertext=[_hover(row) for row in rows],
        hovertemplate="%{hovertext}<extra></extra>",
    )


def _bars(ranges: Sequence[Sequence[float]], at: Sequence[float], colour: str) -> dict[str, object]:
    return {
        "type": "data",
        "symmetric": False,
        "array": [max(max(values) - point, 0.0) for values, point in zip(ranges, at, strict=True)],
        "arrayminus": [max(point - min(values), 0.0) for values, point in zip(ranges, at, strict=True)],
        "thickness": 1,
        "width": 0,
        "color": colour,
    }


def _ticks(low: float, high: float) -> list[float]:
    step = 0.1 if high / low < 2.5 else 0.25
    first = math.ceil(low / step)
    return [round(number * step, 2) for number in range(first, math.floor(high / step) + 1)]


def _hover(row: Row) -> str:
    speedup = row.speedup
    return (
        f"<b>{escape(row.config.name)}</b><br>{escape(speedup.configuration)}<br>measured {speedup.measured:.2f}×, "
        f"predicted {speedup.predicted:.2f}× ({speedup.low:.2f} to {speedup.high:.2f}), "
        f"error {signed_percent(speedup.error)}"
    )
