"""Two latency traces, B over A, by region: the median as a dot, the lowest and highest ratio as a bar."""

from collections.abc import Sequence

import plotly.graph_objects as go

from dashboard.look import Look, caption, dress, empty, look_of
from profiler.comparison import Region

MAX_REGIONS = 40


def profile_ratio(regions: Sequence[Region], *, dark: bool = False) -> go.Figure:
    """Draw a row per region on a logarithmic axis of ratios; right of 1, B is slower."""
    look = look_of(dark)
    shown = list(regions)[:MAX_REGIONS]
    if not shown:
        return empty("No region to compare.", look)
    figure = go.Figure()
    _add_rows(figure, shown, look)
    dress(figure, look, height=110 + 40 * len(shown))
    low, high = min(region.lowest for region in shown), max(region.highest for region in shown)
    ticks = _ratio_ticks(min(low, 0.95), max(high, 1.05))
    figure.update_xaxes(type="log", tickvals=ticks, ticktext=[f"{tick:g}×" for tick in ticks])
    figure.update_xaxes(title_text="B over A (×, logarithmic; right of 1: B is slower)")
    figure.update_yaxes(
        tickvals=list(range(len(shown))),
        ticktext=[_tick(region) for region in shown],
        range=[len(shown) - 0.4, -0.6],
        tickfont={"color": look.ink, "size": 12},
        showgrid=True,
    )
    figure.add_vline(x=1.0, line={"color": look.muted, "width": 1})
    figure.update_layout(margin={"t": 24, "r": 64}, showlegend=False)
    return figure


def region_name(region: Region) -> str:
    """Return where a region lies, e.g. `verify q 2 to 9, batch 8 to 63, context 1,024 to 8,191`."""
    q = "" if region.queries == (1, 1) else f" q {_ends(region.queries)}"
    return f"{region.operation.value}{q}, batch {_ends(region.batches)}, context {_ends(region.contexts_tokens)}"


def _tick(region: Region) -> str:
    """Return a region in two short lines, so that a narrow page has room beside them."""
    return f"<b>{region.operation.value}</b>, batch {_ends(region.batches)}<br>context {_ends(region.contexts_tokens)}"


def _add_rows(figure: go.Figure, shown: Sequence[Region], look: Look) -> None:
    medians = [region.median for region in shown]
    figure.add_scatter(
        x=medians,
        y=list(range(len(shown))),
        mode="markers",
        # One hue is not enough for who cannot tell them apart: the axis says which side is slower.
        marker={"size": 10, "color": [look.loss if median > 1 else look.gain for median in medians]},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [region.highest - region.median for region in shown],
            "arrayminus": [region.median - region.lowest for region in shown],
            "thickness": 2,
            "width": 4,
            "color": look.muted,
        },
        hovertext=[_hover(region) for region in shown],
        hovertemplate="%{hovertext}<extra></extra>",
    )
    for row, region in enumerate(shown):
        where = {"x": 1, "xref": "x domain", "xanchor": "left", "xshift": 8, "y": row, "yref": "y"}
        caption(figure, f"<b>{region.median:.2f}×</b>", look, size=13, **where)


def _hover(region: Region) -> str:
    return (
        f"<b>{region.median:.3f}×</b> (median)<br>{region.lowest:.3f}× to {region.highest:.3f}×<br>"
        f"{region_name(region)} tokens<br>{region.num_points} points"
    )


def _ends(ends: tuple[int, int]) -> str:
    return f"{ends[0]:,}" if ends[0] == ends[1] else f"{ends[0]:,} to {ends[1]:,}"


def _ratio_ticks(low: float, high: float) -> list[float]:
    for candidates in (
        [2.0**power for power in range(-10, 11)],
        [0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4],
        [0.9, 1, 1.1, 1.25],
    ):
        inside = [tick for tick in candidates if low <= tick <= high]
        if len(inside) >= 3:
            return inside
    return [1.0]
