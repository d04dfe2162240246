"""How accept length becomes end-to-end speedup: factors that multiply."""

import math
from html import escape

import plotly.graph_objects as go

from dashboard.look import Look, caption, dress, empty, look_of, wrapped
from dashboard.words import between, factor_name, times
from traces.report import ArmReport, Factor, RunReport


def waterfall(report: RunReport, arm: str, *, dark: bool = False) -> go.Figure:
    """Draw how an arm's accept length becomes its end-to-end speedup: factors that multiply, on a log axis."""
    look = look_of(dark)
    chosen = _arm(report, arm)
    if not chosen.waterfall:
        return empty("Nothing to split: this way of decoding has no accept length to lose.", look)
    names = [*(factor_name(factor.name) for factor in chosen.waterfall), "<b>end-to-end speedup</b>"]
    spans = _spans(chosen)
    figure = go.Figure(_bars(arm, chosen, spans, look))
    dress(figure, look, height=100 + 40 * len(names))
    _scale(figure, min(low for low, _ in spans), max(high for _, high in spans))
    figure.update_yaxes(
        tickvals=list(range(len(names))),
        ticktext=names,
        range=[len(names) - 0.4, -0.6],
        showgrid=False,
        ticklabelstandoff=8,
        tickfont={"color": look.ink},
    )
    figure.add_vline(x=1.0, line={"color": look.muted, "width": 1})
    for row, factor in enumerate(chosen.waterfall):
        x, line = factor.speedup_after, {"color": look.muted, "width": 1}
        figure.add_shape(type="line", x0=x, x1=x, y0=row + 0.31, y1=row + 0.69, line=line)
        colour = look.muted if _is_one(factor) else look.gain if factor.factor >= 1 else look.loss
        _label(figure, row, x, f"<b>×{factor.factor:.2f}</b>", colour, look, right=factor.factor >= 1)
    total = chosen.end_to_end_speedup
    text = f"<b>{times(total.mean)}</b>  ({between(total)})"
    _label(figure, len(chosen.waterfall), total.mean, text, look.ink, look, right=total.mean >= 1)
    return figure


def _arm(report: RunReport, arm: str) -> ArmReport:
    if arm == "baseline":
        return report.baseline
    if arm not in report.arms:
        raise ValueError(f"arm: {arm!r} is not in the report; arms are {sorted(report.arms)}")
    return report.arms[arm]


def _spans(arm: ArmReport) -> list[tuple[float, float]]:
    """Ends of every bar: speedup before and after each factor, then 1 and the end-to-end speedup."""
    after = [factor.speedup_after for factor in arm.waterfall]
    ends = [*zip([1.0, *after[:-1]], after, strict=True), (1.0, arm.end_to_end_speedup.mean)]
    return [(min(pair), max(pair)) for pair in ends]


def _is_one(factor: Factor) -> bool:
    return f"{factor.factor:.2f}" == "1.00"


def _bars(name: str, arm: ArmReport, spans: list[tuple[float, float]], look: Look) -> go.Bar:
    total = arm.end_to_end_speedup
    colours = [*(look.gain if factor.factor >= 1 else look.loss for factor in arm.waterfall), look.total]
    hovers = [*map(_hover, arm.waterfall)]
    hovers.append(f"<b>end-to-end speedup</b>  {total.mean:.4f}×<br>90 % interval {total.low:.4f} to {total.high:.4f}")
    return go.Bar(
        y=list(range(len(spans))),
        x=[high - low for low, high in spans],
        base=[low for low, _ in spans],
        orientation="h",
        width=0.62,
        # The outline keeps a factor of 1 visible: its bar has no length.
        marker={"color": colours, "line": {"width": 1, "color": colours}},
        customdata=[*(factor.factor for factor in arm.waterfall), total.mean],
        hovertext=hovers,
        hovertemplate="%{hovertext}<extra></extra>",
        name=name,
    )


def _hover(factor: Factor) -> str:
    name = escape(factor_name(factor.name))
    after = f"speedup after it: {factor.speedup_after:.4f}×"
    return f"<b>{name}</b>  ×{factor.factor:.4f}<br>{after}<br>{wrapped(factor.meaning)}"


def _label(figure: go.Figure, row: int, x: float, text: str, colour: str, look: Look, *, right: bool) -> None:
    """Write beside the end of a bar, away from it. Annotations take a log axis in powers of ten."""
    anchor, shift = ("left", 4) if right else ("right", -4)
    caption(figure, text, look, x=math.log10(x), y=row, xanchor=anchor, xshift=shift, color=colour)


def _scale(figure: go.Figure, low: float, high: float) -> None:
    """Set a log axis of ratios with room for labels at both ends."""
    pad = max(math.log10(high / low) * 0.14, 0.02)
    span = (math.log10(low) - pad, math.log10(high) + pad)
    ticks = _ratio_ticks(10 ** span[0], 10 ** span[1])
    figure.update_xaxes(
        type="log",
        range=span,
        tickvals=ticks,
        ticktext=[f"{tick:g}×" for tick in ticks],
        title_text="speedup over plain decoding (×, log scale)",
    )


def _ratio_ticks(low: float, high: float) -> list[float]:
    """Round ratios inside a range, few enough to be read."""
    coarse = [2.0**power for power in range(-10, 11)]
    middle = [0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
    fine = (
        [round(0.05 * i, 2) for i in range(1, 400)] if high / low < 1.3 else [round(0.1 * i, 1) for i in range(1, 90)]
    )
    for candidates in (coarse, middle, [round(0.25 * i, 2) for i in range(1, 40)], fine):
        inside = [tick for tick in candidates if low <= tick <= high]
        if len(inside) >= 4:
            return inside
    return inside
