"""Step latency against batch: one line per q, the least time that physics allows under it, one panel per context."""

from collections.abc import Sequence
from html import escape

import plotly.graph_objects as go
from plotly.colors import sample_colorscale
from plotly.subplots import make_subplots

from dashboard.look import Look, dress, empty, look_of
from profiler.step_times import StepTime, StepTimes
from traces.latency import LatencyTrace

_SCALES = {False: ("Viridis", 0.0, 0.86), True: ("Viridis", 0.3, 1.0)}
"""Dark page or not -> colours of q, from the first to the last: the ends that vanish on the page are left out."""


def step_latency(
    trace: LatencyTrace, found: StepTimes, contexts_tokens: Sequence[int], *, dark: bool = False
) -> go.Figure:
    """Draw decode and verify passes over batch, both axes logarithmic; points are rows, lines only join them."""
    look = look_of(dark)
    contexts = [context for context in contexts_tokens if context in found.contexts_tokens]
    if not contexts:
        return empty("No decode or verify rows to draw.", look)
    figure = make_subplots(
        rows=1,
        cols=len(contexts),
        shared_yaxes=True,
        horizontal_spacing=0.025,
        subplot_titles=[f"context {context:,} tokens" for context in contexts],
    )
    colours = dict(zip(found.queries, query_colours(len(found.queries), dark), strict=True))
    drawn: set[int] = set()
    for column, context in enumerate(contexts, start=1):
        for q in found.queries:
            line = [time for time in found.times if (time.context_tokens, time.tokens_per_seq) == (context, q)]
            if line:
                _add_line(figure, line, q, colours[q], column, in_legend=q not in drawn)
                drawn.add(q)
    dress(figure, look, height=560)
    _frame(figure, trace, found, contexts, look)
    return figure


def _add_line(figure: go.Figure, line: list[StepTime], q: int, colour: str, column: int, *, in_legend: bool) -> None:
    batches = [time.batch for time in line]
    known = [time for time in line if time.floor_s]
    figure.add_scatter(
        x=[time.batch for time in known],
        y=[1e3 * (time.floor_s or 0.0) for time in known],
        mode="lines",
        line={"color": colour, "width": 1.25, "dash": "dot"},
        showlegend=False,
        hoverinfo="skip",
        row=1,
        col=column,
    )
    figure.add_scatter(
        x=batches,
        y=[1e3 * time.latency_s for time in line],
        customdata=[_hover(time) for time in line],
        mode="lines+markers",
        line={"color": colour, "width": 2},
        marker={"size": 5},
        name="decode, q = 1" if q == 1 else f"q = {q}",
        legendgroup=str(q),
        showlegend=in_legend,
        hovertemplate="%{customdata}<extra></extra>",
        row=1,
        col=column,
    )


def _frame(figure: go.Figure, trace: LatencyTrace, found: StepTimes, contexts: list[int], look: Look) -> None:
    if found.no_floor is None:
        # Drawn once for the legend: the lines themselves have the colours of their q.
        style = {"color": look.muted, "width": 1.25, "dash": "dot"}
        name = f"least time at {escape(trace.gpu)}'s datasheet peaks"
        figure.add_scatter(x=[None], y=[None], mode="lines", line=style, name=name, row=1, col=1)
    # Axes run along what is drawn; ticks at powers of two, where engines capture their graphs.
    batches = sorted({time.batch for time in found.times if time.context_tokens in contexts})
    ticks = [2**power for power in range(21) if batches[0] <= 2**power <= batches[-1]]
    ticks = ticks[:: 1 + (len(ticks) - 1) // 5] or batches
    figure.update_xaxes(type="log", tickvals=ticks, ticktext=[f"{tick:,}" for tick in ticks])
    figure.update_xaxes(title_text="batch (sequences)", title_standoff=8)
    figure.update_yaxes(type="log", dtick="D2", tickformat="~r")
    figure.update_yaxes(title_text="one pass of the target (ms)", row=1, col=1)
    figure.update_layout(paper_bgcolor=look.page, margin={"l": 16, "r": 16, "t": 104, "b": 112})
    # Below the panels, where a narrow page may break it into rows.
    figure.update_layout(legend={"y": -0.15, "yanchor": "top", "itemclick": "toggle", "font": {"size": 13}})
    figure.update_annotations(font={"size": 14, "color": look.ink})
    layout = f"TP{found.tp_size}" + (f", EP{found.ep_size}" if found.ep_size > 1 else "")
    subject = f"<b>{escape(trace.model)}</b> on {escape(trace.gpu)}, {layout}, {escape(trace.precision)}"
    title = {"text": subject, "x": 0.01, "xanchor": "left", "y": 0.975, "yanchor": "top", "font": {"size": 17}}
    title["subtitle"] = {"text": _source(trace, found), "font": {"size": 13, "color": look.muted}}
    figure.update_layout(title=title)


def _source(trace: LatencyTrace, found: StepTimes) -> str:
    origins = ", ".join(sorted({time.origin.value for time in found.times}))
    notes = (found.floor_note, None if found.no_floor is None else f"least time unknown: {found.no_floor}")
    return "; ".join([origins, escape(trace.engine), *(escape(note) for note in notes if note)])


def _hover(time: StepTime) -> str:
    lines = [f"<b>{1e3 * time.latency_s:.4g} ms</b>  q {time.tokens_per_seq}, batch {time.batch:,}"]
    if time.over_decode is not None and time.tokens_per_seq > 1:
        lines.append(f"{time.over_decode:.3f}× its decode pass")
    if time.floor_s:
        lines.append(f"{time.latency_s / time.floor_s:.2f}× the least time, {1e3 * time.floor_s:.4g} ms")
    share = "" if time.measured_fraction is None else f", {time.measured_fraction:.0%} of its time measured"
    return "<br>".join([*lines, f"{time.origin.value}{share}"])


def query_colours(count: int, dark: bool) -> list[str]:
    """Return the colours of so many q, from the first to the last."""
    scale, low, high = _SCALES[dark]
    places = [low + (high - low) * index / max(count - 1, 1) for index in range(count)]
    return list(sample_colorscale(scale, places))
