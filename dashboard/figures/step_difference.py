"""Where a step's seconds went between two runs: effects that add up from A's step to B's."""

from html import escape

import plotly.graph_objects as go

from dashboard.look import Look, caption, dress, empty, look_of, wrapped
from dashboard.words import plain
from simulator.compare.result import Comparison, Effect
from simulator.compare.verdict import WORDS


def step_difference(found: Comparison, *, dark: bool = False) -> go.Figure:
    """Draw A's step, every effect where the last one ended, and B's step, in seconds."""
    look = look_of(dark)
    if not found.waterfall:
        return empty("These runs share no step to compare.", look)
    first, last = found.waterfall[0], found.waterfall[-1]
    start_s, end_s = first.step_s_after - first.seconds, last.step_s_after
    figure = go.Figure(_bars(found, start_s, end_s, look))
    names = [f"A: {escape(found.a.name)}", *(effect_name(effect) for effect in found.waterfall)]
    names.append(f"B: {escape(found.b.name)}")
    dress(figure, look, height=100 + 38 * len(names))
    figure.update_yaxes(
        tickvals=list(range(len(names))),
        ticktext=names,
        range=[len(names) - 0.4, -0.6],
        showgrid=False,
        tickfont={"color": look.ink},
        ticklabelstandoff=8,
    )
    levels = [start_s, end_s, *(effect.step_s_after for effect in found.waterfall)]
    figure.update_xaxes(title_text="seconds per RL step", range=[min(0.0, min(levels) * 1.1), max(levels) * 1.16])
    _labels(figure, found, start_s, end_s, look)
    return figure


def effect_name(effect: Effect) -> str:
    """Return an effect in words."""
    return WORDS.get(effect.name, effect.name.replace("_", " "))


def _bars(found: Comparison, start_s: float, end_s: float, look: Look) -> go.Bar:
    effects = found.waterfall
    return go.Bar(
        y=list(range(len(effects) + 2)),
        x=[start_s, *(abs(effect.seconds) for effect in effects), end_s],
        base=[0.0, *(min(effect.step_s_after, effect.step_s_after - effect.seconds) for effect in effects), 0.0],
        orientation="h",
        width=0.62,
        marker={
            "color": [look.total, *(look.loss if effect.seconds > 0 else look.gain for effect in effects), look.total],
            "line": {"width": 1, "color": look.muted},
        },
        hovertext=[f"<b>{start_s:,.4g} s</b>", *map(_hover, effects), f"<b>{end_s:,.4g} s</b>"],
        hovertemplate="%{hovertext}<extra></extra>",
    )


def _hover(effect: Effect) -> str:
    lines = [f"<b>{effect_name(effect)}</b>  {effect.seconds:+,.4g} s", f"step after it {effect.step_s_after:,.4g} s"]
    if effect.factor is not None:
        lines.append(f"×{effect.factor:.3f} of the speedup")
    return "<br>".join([*lines, wrapped(effect.meaning)])


def _labels(figure: go.Figure, found: Comparison, start_s: float, end_s: float, look: Look) -> None:
    style = {"xanchor": "left", "xshift": 5, "size": 13}
    caption(figure, f"<b>{plain(start_s)} s</b>", look, x=start_s, y=0, **style)
    for row, effect in enumerate(found.waterfall, start=1):
        right = max(effect.step_s_after, effect.step_s_after - effect.seconds)
        shown = plain(abs(effect.seconds))
        sign = "" if shown == plain(0.0) else "+" if effect.seconds > 0 else "−"
        caption(figure, f"{sign}{shown} s", look, x=right, y=row, **style)
    caption(figure, f"<b>{plain(end_s)} s</b>", look, x=end_s, y=len(found.waterfall) + 1, **style)
