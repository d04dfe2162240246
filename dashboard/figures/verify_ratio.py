"""What a verify pass costs over the decode pass of the same batch: one line per q."""

import plotly.graph_objects as go

from dashboard.figures.step_latency import query_colours
from dashboard.look import dress, empty, look_of
from profiler.step_times import StepTime


def verify_ratio(ratios: dict[int, list[StepTime]], *, dark: bool = False) -> go.Figure:
    """Draw verify over decode against batch, logarithmic in batch; points are rows of the trace."""
    look = look_of(dark)
    if not ratios:
        return empty("No verify pass here has a decode pass beside it.", look)
    figure = go.Figure()
    for q, colour in zip(ratios, query_colours(len(ratios), dark), strict=True):
        figure.add_scatter(
            x=[time.batch for time in ratios[q]],
            y=[time.over_decode for time in ratios[q]],
            customdata=[_hover(time) for time in ratios[q]],
            mode="lines+markers",
            line={"color": colour, "width": 2},
            marker={"size": 6},
            name=f"q = {q}",
            hovertemplate="%{customdata}<extra></extra>",
        )
    dress(figure, look, height=420)
    batches = sorted({time.batch for times in ratios.values() for time in times})
    ticks = [2**power for power in range(21) if batches[0] <= 2**power <= batches[-1]]
    ticks = ticks[:: 1 + (len(ticks) - 1) // 7] or batches
    figure.update_xaxes(type="log", tickvals=ticks, ticktext=[f"{tick:,}" for tick in ticks])
    figure.update_xaxes(title_text="batch (sequences)", title_standoff=8)
    figure.update_yaxes(title_text="verify over decode (×)", ticksuffix="×", nticks=7)
    figure.add_hline(y=1.0, line={"color": look.muted, "width": 1})
    figure.update_layout(margin={"t": 24, "b": 96}, legend={"y": -0.24, "yanchor": "top"}, showlegend=True)
    return figure


def _hover(time: StepTime) -> str:
    share = "" if time.measured_fraction is None else f", {time.measured_fraction:.0%} of its time measured"
    return (
        f"<b>{time.over_decode:.3f}×</b>  q {time.tokens_per_seq}, batch {time.batch:,}<br>"
        f"{1e3 * time.latency_s:.4g} ms at context {time.context_tokens:,} tokens<br>{time.origin.value}{share}"
    )
