"""Speedup over one knob, with the value that is looked at."""

from collections.abc import Sequence

import plotly.graph_objects as go

from dashboard.look import caption, dress, empty, look_of
from dashboard.words import times
from simulator.what_if import Knob

MAX_TICKS = 16


def one_knob(
    knob: Knob, speedups: Sequence[float | None], chosen: float, at_chosen: float | None, *, dark: bool = False
) -> go.Figure:
    """Draw the speedups known so far and the chosen point; above 1 drafting pays."""
    look = look_of(dark)
    known = [(value, speedup) for value, speedup in zip(knob.values, speedups, strict=True) if speedup is not None]
    if not known and at_chosen is None:
        return empty("No value of this knob can run.", look)
    figure = go.Figure(
        go.Scatter(
            x=[value for value, _ in known],
            y=[speedup for _, speedup in known],
            mode="lines+markers",
            line={"color": look.lines[0], "width": 2.25},
            name="speedup",
            hovertemplate="%{x:,.4~g}: %{y:.3f}×<extra></extra>",
        )
    )
    if at_chosen is not None:
        figure.add_scatter(
            x=[chosen],
            y=[at_chosen],
            mode="markers",
            marker={"size": 15, "color": look.lines[1], "line": {"color": look.page, "width": 2}},
            name="chosen",
            hovertemplate="%{x:,.4~g}: %{y:.3f}×<extra></extra>",
        )
        caption(figure, f"<b>{times(at_chosen)}</b>", look, x=chosen, y=at_chosen, yanchor="bottom", yshift=12)
    dress(figure, look, height=300)
    figure.add_hline(y=1.0, line={"color": look.muted, "width": 1, "dash": "dot"})
    values = [1.0, *(speedup for _, speedup in known), *([at_chosen] if at_chosen is not None else [])]
    pad = max((max(values) - min(values)) * 0.2, 0.05)
    figure.update_yaxes(
        range=[min(values) - pad, max(values) + pad], ticksuffix="×", title_text="speedup over plain decoding (×)"
    )
    counts_few = all(value == int(value) for value in knob.values) and knob.values[-1] - knob.values[0] <= MAX_TICKS
    figure.update_xaxes(title_text=knob.title, tickformat=",~g", dtick=1 if counts_few else None)
    figure.update_layout(showlegend=False)
    return figure
