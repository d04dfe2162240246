"""Published or logged numbers beside the prediction of the same quantity."""

from html import escape

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dashboard.look import Look, caption, dress, empty, look_of, wrapped
from dashboard.words import QUANTITY_NAMES, signed_percent
from traces.report import MeasuredComparison, RunReport


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
    lines += [f"prediction over measurement: {signed_percent(row.relative_error)}", wrapped(row.source)]
    return "<br>".join(lines)


def _or_dash(value: float | None) -> str:
    return "not stated" if value is None else f"{value:,.2f}"
