"""Plots: RunReport -> Plotly figure. Does not know Streamlit, and computes no number of the answer."""

import math
from html import escape

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dashboard.look import Look, caption, dress, empty, line_style, look_of
from dashboard.words import QUANTITY_NAMES, between, factor_name, percent, plain, seconds, signed_percent, times
from traces.report import ArmReport, MeasuredComparison, RunReport, StepPoint

TRAINER_USES = {
    "training": "training",
    "weight_sync": "weight sync",
    "waiting": "waiting for samples",
    "other_idle": "other idle",
}
ROLLOUT_USES = {
    "generating": "generating",
    "weight_sync": "weight sync",
    "staleness_stall": "staleness stall",
    "other_idle": "other idle",
}
BUSY = ("training", "generating", "weight_sync")
"""Uses of time drawn solid; the rest is hatched: GPUs that wait."""

HATCH = {"shape": "/", "fillmode": "overlay", "fgcolor": "rgba(255,255,255,0.55)", "size": 7, "solidity": 0.2}


def waterfall(report: RunReport, arm: str, *, dark: bool = False) -> go.Figure:
    """Draw how an arm's accept length becomes its end-to-end speedup: factors that multiply, on a log axis."""
    look = look_of(dark)
    chosen = _arm(report, arm)
    factors = chosen.waterfall
    if not factors:
        return empty("Nothing to split: this way of decoding has no accept length to lose.", look)
    before = [1.0, *(factor.speedup_after for factor in factors[:-1])]
    after = [factor.speedup_after for factor in factors]
    total = chosen.end_to_end_speedup
    names = [*(factor_name(factor.name) for factor in factors), "<b>end-to-end speedup</b>"]
    lows = [*map(min, before, after), min(1.0, total.mean)]
    highs = [*map(max, before, after), max(1.0, total.mean)]
    colours = [*(look.gain if f.factor >= 1 else look.loss for f in factors), look.total]
    hovers = [
        f"<b>{escape(factor_name(f.name))}</b>  ×{f.factor:.4f}<br>speedup after it: {f.speedup_after:.4f}×"
        f"<br>{_wrapped(f.meaning)}"
        for f in factors
    ]
    hovers.append(f"<b>end-to-end speedup</b>  {total.mean:.4f}×<br>90 % interval {total.low:.4f} to {total.high:.4f}")
    figure = go.Figure(
        go.Bar(
            y=list(range(len(names))),
            x=[high - low for low, high in zip(lows, highs, strict=True)],
            base=lows,
            orientation="h",
            width=0.62,
            marker={"color": colours, "line": {"width": 0}},
            customdata=[*(factor.factor for factor in factors), total.mean],
            hovertext=hovers,
            hovertemplate="%{hovertext}<extra></extra>",
            name=arm,
        )
    )
    dress(figure, look, height=100 + 40 * len(names))
    low, high = min(lows), max(highs)
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
    figure.update_yaxes(
        tickvals=list(range(len(names))),
        ticktext=names,
        range=[len(names) - 0.4, -0.6],
        showgrid=False,
        ticklabelstandoff=8,
        tickfont={"color": look.ink},
    )
    figure.add_vline(x=1.0, line={"color": look.muted, "width": 1})
    for row, end in enumerate(after):
        figure.add_shape(
            type="line", x0=end, x1=end, y0=row + 0.31, y1=row + 0.69, line={"color": look.muted, "width": 1}
        )
    for row, factor in enumerate(factors):
        gain = factor.factor >= 1
        caption(
            figure,
            f"<b>×{factor.factor:.2f}</b>",
            look,
            x=math.log10(factor.speedup_after),
            y=row,
            xanchor="left" if gain else "right",
            xshift=4 if gain else -4,
            color=look.gain if gain else look.loss,
        )
    faster = total.mean >= 1
    caption(
        figure,
        f"<b>{times(total.mean)}</b>  ({between(total)})",
        look,
        x=math.log10(total.mean),
        y=len(factors),
        xanchor="left" if faster else "right",
        xshift=4 if faster else -4,
    )
    return figure


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
            customdata=[[point.accept_length, point.step_s] for point in arm.by_step],
            mode=mode,
            line=line_style(index, look),
            name=escape(name),
            hovertemplate="%{y:.3f}×  (accept length %{customdata[0]:.3f}, step %{customdata[1]:,.1f} s)",
        )
    points = report.baseline.by_step or next(iter(arms.values())).by_step
    figure.add_scatter(
        x=[point.rl_step for point in points],
        y=[point.entropy_nats for point in points],
        yaxis="y2",
        mode=mode,
        line={"color": look.muted, "width": 2},
        name="policy entropy",
        hovertemplate="%{y:.4f} nats at RL step %{x}",
    )
    # Two panels on one x axis, not two that match: only so does one hover box read both.
    figure.update_layout(yaxis={"domain": [0.36, 1.0]}, yaxis2={"domain": [0.0, 0.27]}, xaxis={"anchor": "y2"})
    dress(figure, look, height=430)
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
    _shade_warmup(figure, report, points, look)
    return figure


def step_breakdown(report: RunReport, *, dark: bool = False) -> go.Figure:
    """Draw where the seconds of one RL step go, for the trainer's GPUs and for the rollout GPUs, in every arm."""
    look = look_of(dark)
    arms = {"baseline": report.baseline, **report.arms}
    bars_px, key_px = 34 * len(arms), 72
    figure = make_subplots(
        rows=2, cols=1, shared_xaxes=True, vertical_spacing=(key_px + 24) / (2 * bars_px + key_px + 24)
    )
    sides = (
        (f"trainer GPUs ({report.num_train_gpus})", "trainer_time", TRAINER_USES),
        (f"rollout GPUs ({report.num_rollout_gpus})", "rollout_time", ROLLOUT_USES),
    )
    for row, (title, side, uses) in enumerate(sides, start=1):
        for use, label in uses.items():
            shares = [float(getattr(getattr(arm, side), use)) for arm in arms.values()]
            figure.add_trace(_time_bar(arms, shares, use, label, look), row, 1)
        _write_key(figure, row, title, uses, look)
        for index, arm in enumerate(arms.values()):
            where = {"x": arm.step_s, "y": index, "xanchor": "left", "xshift": 4}
            caption(figure, seconds(arm.step_s), look, row=row, col=1, **where)
    dress(figure, look, height=2 * (bars_px + key_px) + 24 + 56)
    figure.update_yaxes(
        tickvals=list(range(len(arms))),
        ticktext=[escape(name) for name in arms],
        range=[len(arms) - 0.5, -0.5],
        showgrid=False,
        ticklabelstandoff=8,
        tickfont={"color": look.ink},
    )
    figure.update_xaxes(range=[0, max(arm.step_s for arm in arms.values())], nticks=7)
    figure.update_xaxes(title_text="seconds of one RL step", tickformat=",~r", row=2, col=1)
    figure.update_layout(barmode="stack", showlegend=False, margin={"t": key_px, "b": 56, "r": 72})
    return figure


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
    figure.update_xaxes(showgrid=False, range=[-0.6, last + 0.6])
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


def measured_vs_predicted(report: RunReport, *, dark: bool = False) -> go.Figure:
    """Draw published or logged numbers beside the prediction of the same quantity, one panel per unit."""
    look = look_of(dark)
    panels = _panels(report.measured)
    if not panels:
        return empty("The scenario carries no measured numbers.", look)
    figure = make_subplots(
        rows=len(panels),
        cols=1,
        row_heights=[len(rows) + 1.1 for rows in panels.values()],
        vertical_spacing=0.0 if len(panels) == 1 else min(0.2, 0.45 / len(panels)),
    )
    for index, (unit, rows) in enumerate(panels.items(), start=1):
        _draw_panel(figure, index, unit, rows, look)
    dress(figure, look, height=70 + 96 * len(panels) + 40 * len(report.measured))
    figure.update_yaxes(showgrid=True, tickfont={"color": look.ink}, ticklabelstandoff=8)
    figure.update_layout(
        margin={"r": 84, "t": 40}, legend={"traceorder": "normal", "yref": "container", "y": 1, "yanchor": "top"}
    )
    return figure


def _arm(report: RunReport, arm: str) -> ArmReport:
    if arm == "baseline":
        return report.baseline
    if arm not in report.arms:
        raise ValueError(f"arm: {arm!r} is not in the report; arms are {sorted(report.arms)}")
    return report.arms[arm]


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


def _wrapped(text: str, width: int = 60) -> str:
    """Hover text in lines of at most `width` characters."""
    lines = [""]
    for word in escape(text).split():
        if len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] += f"{word} "
    return "<br>".join(line.rstrip() for line in lines)


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


def _shade_warmup(figure: go.Figure, report: RunReport, points: tuple[StepPoint, ...], look: Look) -> None:
    """Grey out the steps that no mean includes, when the report carries them."""
    if report.warmup_steps == 0 or len(points) != report.num_steps:
        return
    start, end = points[0].rl_step, points[report.warmup_steps].rl_step
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
        x=end - 0.5,
        y=1,
        yref="y domain",
        xanchor="left",
        yanchor="top",
        xshift=2,
        color=look.muted,
        size=12,
    )


def _write_key(figure: go.Figure, row: int, title: str, uses: dict[str, str], look: Look) -> None:
    """Write a side's name and what its colours mean above its bars: a line of work, a line of waiting."""
    lines = [f"<b>{title}</b>"]
    for square, busy in (("■", True), ("▨", False)):
        lines.append(
            "   ".join(
                f"<span style='color:{look.fills[use][0]};font-size:16px'>{square}</span> {label}"
                for use, label in uses.items()
                if (use in BUSY) == busy
            )
        )
    subplot = "" if row == 1 else "2"
    where = {"x": 0, "y": 1, "xref": f"x{subplot} domain", "yref": f"y{subplot} domain"}
    caption(
        figure, "<br>".join(lines), look, xanchor="left", yanchor="bottom", align="left", yshift=2, size=13, **where
    )


def _time_bar(arms: dict[str, ArmReport], shares: list[float], use: str, label: str, look: Look) -> go.Bar:
    """One use of time in all arms, as seconds of each arm's own step."""
    fill, text = look.fills[use]
    lengths = [share * arm.step_s for share, arm in zip(shares, arms.values(), strict=True)]
    longest = max(arm.step_s for arm in arms.values())
    return go.Bar(
        x=lengths,
        y=list(range(len(arms))),
        orientation="h",
        name=label,
        marker={
            "color": fill,
            "line": {"width": 1, "color": look.page},
            "pattern": {} if use in BUSY else HATCH,
        },
        text=[plain(length) if length > 0.09 * longest else "" for length in lengths],
        textposition="inside",
        insidetextanchor="middle",
        textangle=0,
        textfont={"color": text, "size": 12},
        customdata=[[escape(name), share] for name, share in zip(arms, shares, strict=True)],
        hovertemplate="%{customdata[0]}: %{x:,.2f} s (%{customdata[1]:.1%} of the step)<extra>" + label + "</extra>",
    )


def _panels(rows: tuple[MeasuredComparison, ...]) -> dict[str, list[MeasuredComparison]]:
    """Rows by what they are drawn in: speedups first, then seconds, then tokens."""
    panels: dict[str, list[MeasuredComparison]] = {}
    for unit in ("speedup (×)", "seconds", "tokens per verify step"):
        inside = [row for row in rows if _unit(row) == unit]
        if inside:
            panels[unit] = inside
    return panels


def _unit(row: MeasuredComparison) -> str:
    if row.measured_speedup is not None and row.predicted_speedup is not None:
        return "speedup (×)"
    return "tokens per verify step" if row.quantity == "accept_length" else "seconds"


def _draw_panel(figure: go.Figure, index: int, unit: str, rows: list[MeasuredComparison], look: Look) -> None:
    """One unit's rows: predicted as a dot with its interval, measured as a diamond, the error at the right."""
    speedups = unit == "speedup (×)"
    heights = list(range(len(rows)))
    measured = [row.measured_speedup if speedups else row.measured_arm for row in rows]
    predicted = [
        row.predicted_speedup.mean if speedups and row.predicted_speedup else row.predicted_arm for row in rows
    ]
    ranges = [row.predicted_speedup if speedups else None for row in rows]
    hovers = [_measured_hover(row) for row in rows]
    figure.add_scatter(
        x=predicted,
        y=heights,
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [r.high - r.mean if r else 0 for r in ranges],
            "arrayminus": [r.mean - r.low if r else 0 for r in ranges],
            "thickness": 2,
            "width": 5,
            "color": look.gain,
        },
        mode="markers",
        marker={"size": 11, "color": look.gain},
        name="predicted (bar: 90 % interval)",
        hovertext=hovers,
        hovertemplate="%{hovertext}<extra>predicted</extra>",
        showlegend=index == 1,
        row=index,
        col=1,
    )
    figure.add_scatter(
        x=measured,
        y=heights,
        mode="markers",
        marker={"size": 13, "color": look.loss, "symbol": "diamond-open", "line": {"width": 2.5}},
        name="measured",
        hovertext=hovers,
        hovertemplate="%{hovertext}<extra>measured</extra>",
        showlegend=index == 1,
        row=index,
        col=1,
    )
    figure.update_yaxes(
        tickvals=heights,
        ticktext=[f"{escape(row.arm)}<br>{QUANTITY_NAMES[row.quantity]}" for row in rows],
        range=[len(rows) - 0.4, -0.6],
        row=index,
        col=1,
    )
    figure.update_xaxes(title_text=unit, rangemode="normal" if speedups else "tozero", nticks=7, row=index, col=1)
    if speedups:
        figure.update_xaxes(ticksuffix="×", row=index, col=1)
        figure.add_vline(x=1.0, line={"color": look.muted, "width": 1}, row=index, col=1)
    subplot = "" if index == 1 else str(index)
    end = {"x": 1, "xref": f"x{subplot} domain", "xanchor": "left", "xshift": 12}
    if index == 1:
        caption(figure, "error", look, y=-0.6, yref="y", yanchor="bottom", color=look.muted, size=13, **end)
    for height, row in zip(heights, rows, strict=True):
        caption(
            figure,
            f"<b>{signed_percent(row.relative_error)}</b>",
            look,
            y=height,
            yref=f"y{subplot}",
            **end,
        )


def _measured_hover(row: MeasuredComparison) -> str:
    """Both columns of the comparison with all their numbers."""
    lines = [f"<b>{escape(row.arm)}: {QUANTITY_NAMES[row.quantity]}</b>"]
    if row.measured_speedup is not None:
        lines.append(f"measured speedup {row.measured_speedup:.3f}×")
    if row.predicted_speedup is not None:
        interval = row.predicted_speedup
        lines.append(f"predicted speedup {interval.mean:.3f}× ({interval.low:.3f} to {interval.high:.3f})")
    unit = "tokens" if row.quantity == "accept_length" else "s"
    for side, base, arm in (
        ("measured", row.measured_baseline, row.measured_arm),
        ("predicted", row.predicted_baseline, row.predicted_arm),
    ):
        if base is not None or arm is not None:
            lines.append(f"{side} {_or_dash(base)} → {_or_dash(arm)} {unit}")
    lines += [f"prediction over measurement: {signed_percent(row.relative_error)}", _wrapped(row.source)]
    return "<br>".join(lines)


def _or_dash(value: float | None) -> str:
    return "not stated" if value is None else f"{value:,.2f}"
