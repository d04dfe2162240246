"""Speedup of every arm along the RL steps, above the policy entropy that moves it."""

from html import escape

import plotly.graph_objects as go

from dashboard.look import Look, caption, dress, empty, line_style, look_of
from traces.report import ArmReport, RunReport, StepPoint


def speedup_by_step(report: RunReport, *, dark: bool = False) -> go.Figure:
    """Draw every arm's speedup along the RL steps, and below it the policy entropy that moves it."""
    look = look_of(dark)
    arms = {name: arm for name, arm in report.arms.items() if arm.by_step}
    if not arms:
        return empty("No RL steps to draw.", look)
    figure = go.Figure()
    mode = "lines+markers" if report.num_steps <= 30 else "lines"
    for index, (name, arm) in enumerate(arms.items()):
        figure.add_scatter(
            x=[point.rl_step for point in arm.by_step],
            y=[point.speedup for point in arm.by_step],
            customdata=[[_accept_length(point), point.step_s] for point in arm.by_step],
            mode=mode,
            line=line_style(index, look),
            name=escape(name),
            hovertemplate="%{y:.3f}×  (%{customdata[0]}, step %{customdata[1]:,.1f} s)",
        )
    points = report.baseline.by_step or next(iter(arms.values())).by_step
    with_entropy = [point for point in points if point.entropy_nats is not None]
    figure.add_scatter(
        x=[point.rl_step for point in with_entropy],
        y=[point.entropy_nats for point in with_entropy],
        yaxis="y2",
        mode=mode,
        line={"color": look.muted, "width": 2},
        name="policy entropy",
        hovertemplate="%{y:.4f} nats at RL step %{x}",
    )
    # Two panels on one x axis, not two that match: only so does one hover box read both.
    figure.update_layout(yaxis={"domain": [0.36, 1.0]}, yaxis2={"domain": [0.0, 0.27]}, xaxis={"anchor": "y2"})
    dress(figure, look, height=430)
    figure.update_layout(margin={"t": 28})
    figure.update_layout(showlegend=False, hovermode="x unified", hoversubplots="axis")
    _label_line_ends(figure, arms, look)
    steps = [point.rl_step for point in points]
    edge = max(0.5, (steps[-1] - steps[0]) * 0.01)
    figure.update_xaxes(range=[steps[0] - edge, steps[-1] + edge], showgrid=False, title_text="RL step")
    if steps[-1] - steps[0] <= 10:
        figure.update_xaxes(dtick=1)
    figure.update_layout(yaxis={"title_text": "speedup of the step (×)", "ticksuffix": "×"})
    figure.update_layout(yaxis2={"title_text": "entropy (nats)", "nticks": 4})
    figure.add_hline(y=1.0, line={"color": look.muted, "width": 1})
    if not with_entropy:
        note = {"x": 0.5, "y": 0.5, "xref": "x domain", "yref": "y2 domain"}
        caption(figure, "the scenario states no entropy", look, color=look.muted, **note)
        figure.update_layout(yaxis2={"showticklabels": False, "showgrid": False})
    _shade_warmup(figure, points, look)
    return figure


def _label_line_ends(figure: go.Figure, arms: dict[str, ArmReport], look: Look) -> None:
    """Name each line at its right end, pushed apart where lines end together, with a leader to its own end."""
    values = [1.0, *(point.speedup for arm in arms.values() for point in arm.by_step)]
    low, high = min(values), max(values)
    pad = max((high - low) * 0.06, 0.02)
    figure.update_layout(yaxis={"range": [low - pad, high + pad]})
    # The upper panel is about 255 px high and a label needs 17 of them.
    gap = (high - low + 2 * pad) * 17 / 255
    ends = {name: arm.by_step[-1].speedup for name, arm in arms.items()}
    order = sorted(ends, key=lambda name: ends[name])
    places = _spread([ends[name] for name in order], gap, low - pad + gap / 2, high + pad - gap / 2)
    indices = list(arms)
    for name, place in zip(order, places, strict=True):
        colour = line_style(indices.index(name), look)["color"]
        figure.add_shape(
            type="line",
            xref="x domain",
            yref="y",
            x0=1.0,
            x1=1.018,
            y0=ends[name],
            y1=place,
            line={"color": colour, "width": 1},
        )
        caption(
            figure,
            f"<b>{escape(name)}</b>",
            look,
            xref="x domain",
            yref="y",
            x=1.02,
            y=place,
            xanchor="left",
            color=colour,
            size=13,
        )
    figure.update_layout(margin={"r": 24 + 8 * max(len(name) for name in arms)})


def _spread(values: list[float], gap: float, low: float, high: float) -> list[float]:
    """Move ascending values apart until neighbours are a gap away, staying between low and high if they fit."""
    places = list(values)
    for index in range(1, len(places)):
        places[index] = max(places[index], places[index - 1] + gap)
    limit = high
    for index in range(len(places) - 1, -1, -1):
        places[index] = min(places[index], limit)
        limit = places[index] - gap
    shift = max(0.0, low - places[0])
    return [place + shift for place in places]


def _accept_length(point: StepPoint) -> str:
    if point.accept_length is None:
        return "nothing decoded"
    return f"accept length {point.accept_length:.3f}"


def _shade_warmup(figure: go.Figure, points: tuple[StepPoint, ...], look: Look) -> None:
    """Grey out the steps that no mean includes."""
    warmup = [point.rl_step for point in points if point.is_warmup]
    if not warmup:
        return
    start, end = warmup[0], warmup[-1] + 1
    figure.add_shape(
        type="rect",
        x0=start - 1,
        x1=end - 0.5,
        y0=0,
        y1=1,
        yref="y domain",
        fillcolor=look.muted,
        opacity=0.12,
        line_width=0,
        layer="below",
    )
    caption(
        figure,
        "warm-up, in no mean",
        look,
        x=0,
        xref="x domain",
        y=1,
        yref="y domain",
        xanchor="left",
        yanchor="bottom",
        color=look.muted,
        size=12,
    )
