"""The entropy trajectory that a run is asked about."""

from collections.abc import Sequence

import plotly.graph_objects as go

from dashboard.look import dress, empty, look_of

Points = Sequence[tuple[int, float]]


def trajectory(points: Points, first_step: int, num_steps: int, *, dark: bool = False) -> go.Figure:
    """Draw (rl_step, nats) points as the run uses them: straight lines, flat beyond the ends; the run shaded."""
    look = look_of(dark)
    if not points:
        return empty("The scenario states no entropy.", look)
    last_step = first_step + num_steps - 1
    ends = (min(points[0][0], first_step), max(points[-1][0], last_step))
    drawn = [(ends[0], points[0][1]), *points, (ends[1], points[-1][1])]
    figure = go.Figure(
        go.Scatter(
            x=[step for step, _ in drawn],
            y=[nats for _, nats in drawn],
            mode="lines+markers" if len(points) <= 30 else "lines",
            line={"color": look.lines[0], "width": 2.25},
            hovertemplate="%{y:.4f} nats at RL step %{x}<extra></extra>",
        )
    )
    dress(figure, look, height=220)
    figure.add_vrect(x0=first_step, x1=last_step, fillcolor=look.muted, opacity=0.1, line_width=0, layer="below")
    figure.update_xaxes(title_text="RL step (shaded: this run)")
    figure.update_yaxes(title_text="policy entropy (nats)", rangemode="tozero")
    figure.update_layout(showlegend=False, margin={"t": 12})
    return figure
