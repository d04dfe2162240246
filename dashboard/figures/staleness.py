"""How many policy versions behind the trainer the groups it trains on are."""

from html import escape

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dashboard.look import caption, dress, empty, look_of
from dashboard.words import percent
from traces.report import RunReport


def staleness_histogram(report: RunReport, *, dark: bool = False) -> go.Figure:
    """Draw how many policy versions behind the trainer the groups it trains on are, one row per arm."""
    look = look_of(dark)
    arms = {name: arm for name, arm in {"baseline": report.baseline, **report.arms}.items() if arm.staleness}
    if not arms:
        return empty("No staleness to draw: nothing was trained on.", look)
    figure = make_subplots(rows=len(arms), cols=1, shared_xaxes=True, vertical_spacing=0.24 / (len(arms) + 1))
    last = max(bin_.versions for arm in arms.values() for bin_ in arm.staleness)
    for row, (name, arm) in enumerate(arms.items(), start=1):
        style = look.muted if name == "baseline" else look.lines[(row - 2) % len(look.lines)]
        figure.add_bar(
            x=[bin_.versions for bin_ in arm.staleness],
            y=[bin_.fraction for bin_ in arm.staleness],
            marker={"color": style, "line": {"width": 0}},
            text=[percent(bin_.fraction) for bin_ in arm.staleness] if last <= 12 else None,
            textposition="outside",
            textangle=0,
            textfont={"color": look.ink, "size": 12},
            cliponaxis=False,
            name=escape(name),
            hovertemplate="%{x} versions behind: %{y:.2%} of trained groups<extra>%{fullData.name}</extra>",
            row=row,
            col=1,
        )
    dress(figure, look, height=90 + 84 * len(arms))
    figure.update_layout(showlegend=False, bargap=0.25)
    highest = max(bin_.fraction for arm in arms.values() for bin_ in arm.staleness)
    figure.update_yaxes(range=[0, highest * 1.3], tickformat=".0%", nticks=3)
    figure.update_xaxes(showgrid=False, range=[-0.6, max(last, 3) + 0.6])
    figure.update_xaxes(dtick=max(1, round(last / 16)), title_text="policy versions behind the trainer", row=len(arms))
    for row, name in enumerate(arms, start=1):
        subplot = "" if row == 1 else str(row)
        caption(
            figure,
            f"<b>{escape(name)}</b>",
            look,
            x=1,
            y=1,
            xref=f"x{subplot} domain",
            yref=f"y{subplot} domain",
            xanchor="right",
            yanchor="top",
        )
    where = {"x": 0, "y": 1, "xref": "paper", "yref": "paper", "xanchor": "left", "yanchor": "bottom"}
    caption(figure, "share of trained groups (%)", look, color=look.muted, size=13, **where)
    figure.update_layout(margin={"t": 28})
    return figure
