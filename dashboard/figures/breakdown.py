"""Where the seconds of one RL step go, on the trainer's GPUs and on the rollout GPUs."""

from html import escape

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dashboard.look import Look, caption, dress, look_of
from dashboard.words import plain, seconds
from traces.report import ArmReport, RunReport

TRAINER_USES = {
    "training": "training",
    "weight_sync": "weight sync",
    "waiting": "waiting for samples",
    "other_idle": "other idle",
}
FAILED_USES = {"lost": "lost to failures", "down": "down"}
ROLLOUT_USES = {
    "generating": "generating",
    "weight_sync": "weight sync",
    "staleness_stall": "staleness stall",
    "other_idle": "other idle",
}
BUSY = ("training", "generating", "weight_sync")
"""Uses of time drawn solid; the rest is hatched: GPUs that wait."""

OTHER_PHASE = {"trainer_time": "generating, or idle", "rollout_time": "training, or idle"}
"""What `other_idle` means where both sides are the same GPUs; drawn solid, as most of it is work."""

HATCH = {"shape": "/", "fillmode": "overlay", "fgcolor": "rgba(255,255,255,0.55)", "size": 7, "solidity": 0.2}


def step_breakdown(report: RunReport, *, dark: bool = False) -> go.Figure:
    """Draw where the seconds of one RL step go, for the trainer's GPUs and for the rollout GPUs, in every arm."""
    look = look_of(dark)
    arms = {"baseline": report.baseline, **report.arms}
    bars_px, key_px = 34 * len(arms), 72
    figure = make_subplots(
        rows=2, cols=1, shared_xaxes=True, vertical_spacing=(key_px + 24) / (2 * bars_px + key_px + 24)
    )
    for row, (title, side, uses) in enumerate(_sides(report), start=1):
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


def _sides(report: RunReport) -> list[tuple[str, str, dict[str, str]]]:
    """Title, field of the arm, and uses of time in words: of the trainer, then of the rollout."""
    arms = (report.baseline, *report.arms.values())
    fails = any(arm.trainer_time.lost + arm.trainer_time.down for arm in arms)
    crashes = any(arm.rollout_time.down for arm in arms)
    sides = [
        (
            f"trainer GPUs ({report.num_train_gpus})",
            "trainer_time",
            {**TRAINER_USES, **(FAILED_USES if fails else {})},
        ),
        (
            f"rollout GPUs ({report.num_rollout_gpus})",
            "rollout_time",
            {**ROLLOUT_USES, **({"down": "down"} if crashes else {})},
        ),
    ]
    if report.num_gpus == report.num_train_gpus + report.num_rollout_gpus:
        return sides
    title = f"the same {report.num_gpus} GPUs, as "
    return [
        (title + name, side, {**uses, "other_idle": OTHER_PHASE[side]})
        for name, (_, side, uses) in zip(("trainer", "rollout"), sides, strict=True)
    ]


def _is_work(use: str, label: str) -> bool:
    return use in BUSY or label in OTHER_PHASE.values()


def _write_key(figure: go.Figure, row: int, title: str, uses: dict[str, str], look: Look) -> None:
    """Write a side's name and what its colours mean above its bars: a line of work, a line of waiting."""
    lines = [f"<b>{title}</b>"]
    for square, busy in (("■", True), ("▨", False)):
        lines.append(
            "   ".join(
                f"<span style='color:{look.fills[use][0]};font-size:16px'>{square}</span> {label}"
                for use, label in uses.items()
                if _is_work(use, label) == busy
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
            "pattern": {} if _is_work(use, label) else HATCH,
        },
        text=[plain(length) if length > 0.09 * longest else "" for length in lengths],
        textposition="inside",
        insidetextanchor="middle",
        textangle=0,
        textfont={"color": text, "size": 12},
        customdata=[[escape(name), share] for name, share in zip(arms, shares, strict=True)],
        hovertemplate="%{customdata[0]}: %{x:,.2f} s (%{customdata[1]:.1%} of the step)<extra>" + label + "</extra>",
    )
