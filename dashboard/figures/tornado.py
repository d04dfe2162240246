"""Which unknown input moves the speedup, and how far."""

from html import escape

import plotly.graph_objects as go

from dashboard.look import dress, empty, look_of
from dashboard.words import plain, times
from simulator.sensitivity import Sensitivity

MAX_ROWS = 12


def tornado(found: Sensitivity, *, dark: bool = False) -> go.Figure:
    """Draw the speedup at both ends of every input's range, the widest on top."""
    look = look_of(dark)
    rows = sorted(found.factors, key=lambda factor: -factor.swing)[:MAX_ROWS]
    if not rows:
        return empty("Nothing is uncertain.", look)
    figure = go.Figure()
    for end, colour in (("low", look.loss), ("high", look.gain)):
        ends = [getattr(factor, f"speedup_at_{end}") for factor in rows]
        values = [getattr(factor, end) for factor in rows]
        figure.add_trace(
            go.Bar(
                y=list(range(len(rows))),
                x=[value - found.speedup for value in ends],
                base=found.speedup,
                orientation="h",
                width=0.62,
                name=f"input at its {end} end",
                marker={"color": colour, "line": {"width": 1, "color": colour}},
                customdata=[
                    [escape(factor.meaning), plain(value), speedup, escape(factor.source)]
                    for factor, value, speedup in zip(rows, values, ends, strict=True)
                ],
                hovertemplate="<b>%{customdata[0]}</b> at %{customdata[1]}<br>speedup %{customdata[2]:.3f}×"
                "<br>%{customdata[3]}<extra></extra>",
            )
        )
    dress(figure, look, height=130 + 34 * len(rows))
    figure.add_vline(x=found.speedup, line={"color": look.muted, "width": 1})
    figure.update_layout(barmode="overlay")
    figure.update_yaxes(
        tickvals=list(range(len(rows))),
        ticktext=[escape(factor.meaning) for factor in rows],
        range=[len(rows) - 0.4, -0.6],
        showgrid=False,
        tickfont={"color": look.ink},
    )
    figure.update_xaxes(title_text=f"end-to-end speedup (×); as stated {times(found.speedup)}")
    return figure
