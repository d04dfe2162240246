"""What the trainer and every replica did, and when."""

from collections.abc import Sequence
from html import escape

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dashboard.look import dress, empty, look_of
from dashboard.words import seconds
from traces.timeline import Counter, Span, Timeline

MAX_TRACKS = 18
"""Tracks drawn; Perfetto shows all."""
_TITLES = {
    "sequences under way": "sequences<br>under way",
    "buffer": "groups<br>ready",
    "staleness": "versions<br>behind",
}
_FILL = {
    "training": "training",
    "generating": "generating",
    "generating on its GPUs": "generating",
    "weight sync": "weight_sync",
    "waiting for samples": "waiting",
    "waiting for replicas to stop": "waiting",
    "waiting for tools": "waiting",
    "down": "down",
}


def run_counters(found: Timeline) -> list[Counter]:
    """Return what is drawn unless a reader chooses: sequences under way, buffer and staleness."""
    return [counter for counter in found.counters if counter.track == "run" and counter.name != "policy version"]


def timeline_figure(
    found: Timeline,
    *,
    dark: bool = False,
    counters: Sequence[Counter] | None = None,
    window_s: tuple[float, float] | None = None,
) -> go.Figure:
    """Draw a bar per span on a row per track, and counters under it, those of the whole run unless others are given.

    `window_s` is what of the run is shown at first; dragging zooms further.
    """
    look = look_of(dark)
    spans = [span for span in found.spans if span.track != "weight sync"]
    if not spans:
        return empty("Nothing happened.", look)
    tracks = list(dict.fromkeys(span.track for span in spans))
    tracks.sort(key=lambda track: (track != "trainer", int(track.split()[-1]) if track != "trainer" else 0))
    tracks = tracks[:MAX_TRACKS]
    counters = run_counters(found) if counters is None else counters
    heights = [24 * len(tracks) + 20, *(84 for _ in counters)]
    figure = make_subplots(rows=len(heights), cols=1, shared_xaxes=True, vertical_spacing=0.03, row_heights=heights)
    for name in dict.fromkeys(span.name for span in spans):
        mine = [span for span in spans if span.name == name and span.track in tracks]
        if mine:
            figure.add_trace(_bars(mine, tracks, name, look.fills[_FILL.get(name, "other_idle")][0]), 1, 1)
    for row, counter in enumerate(counters, start=2):
        figure.add_trace(
            go.Scatter(
                x=[*counter.times_s, found.end_s],
                y=[*counter.values, counter.values[-1]],
                mode="lines",
                line={"shape": "hv", "width": 1.5, "color": look.lines[0]},
                name=counter.name,
                showlegend=False,
                hovertemplate=f"%{{y:,.3~g}} {counter.unit} at %{{x:,.0f}} s"
                f"<extra>{counter.track} {counter.name}</extra>",
            ),
            row,
            1,
        )
        figure.update_yaxes(title_text=_title(counter), row=row, col=1, nticks=4)
    dress(figure, look, height=sum(heights) + 110)
    figure.update_yaxes(
        tickvals=list(range(len(tracks))),
        ticktext=[escape(track) for track in tracks],
        range=[len(tracks) - 0.4, -0.6],
        showgrid=False,
        tickfont={"color": look.ink},
        row=1,
        col=1,
    )
    figure.update_layout(barmode="overlay", dragmode="zoom")
    figure.update_xaxes(range=window_s or [0, found.end_s], fixedrange=False)
    figure.update_xaxes(title_text="seconds of the run", tickformat=",~r", row=len(heights), col=1)
    return figure


def _title(counter: Counter) -> str:
    name = _TITLES.get(counter.name, counter.name)
    return name if counter.track == "run" else f"{escape(counter.track)}<br>{name}"


def _bars(spans: list[Span], tracks: list[str], name: str, colour: str) -> go.Bar:
    return go.Bar(
        y=[tracks.index(span.track) for span in spans],
        x=[span.end_s - span.begin_s for span in spans],
        base=[span.begin_s for span in spans],
        orientation="h",
        width=0.78,
        name=name,
        marker={"color": colour, "line": {"width": 0}},
        customdata=[[span.track, seconds(span.begin_s), seconds(span.end_s)] for span in spans],
        hovertemplate="%{customdata[0]}: %{customdata[1]} to %{customdata[2]}<extra>" + escape(name) + "</extra>",
    )
