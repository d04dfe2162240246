"""Acceptance of every recipe as lines, solid where data stand under them, with counted rows and theory's bounds."""

from collections.abc import Callable, Sequence
from html import escape
from itertools import pairwise

import plotly.graph_objects as go

from dashboard.curves import Curve, Dots
from dashboard.look import Look, dress, empty, line_style, look_of, wrapped

RECIPES = ("to", "rs_ce", "rs_tv", "rs_e2e_tv")
RECIPE_NAMES = {
    "to": "TO: greedy draft",
    "rs_ce": "RS, CE head",
    "rs_tv": "RS, TV head",
    "rs_e2e_tv": "RS, e2e-TV head",
}
SYMBOLS = ("circle", "square", "diamond", "triangle-up")
Bound = tuple[str, Callable[[float], float]]


def recipes(
    curves: Sequence[Curve],
    *,
    x_title: str,
    y_title: str,
    dots: Sequence[Dots] = (),
    bounds: Sequence[Bound] = (),
    marked: float | None = None,
    whole_x: bool = False,
    dark: bool = False,
) -> go.Figure:
    """Draw one line per recipe; dashed where it is an extrapolation, dotted for what theory allows.

    Args:
        curves: One per recipe, all over the same x.
        x_title: What is drawn, with its unit.
        y_title: Likewise.
        dots: Counted rows.
        bounds: Name and function of x.
        marked: Value of x that the other figures look at.
        whole_x: x counts something.
        dark: Theme.
    """
    look = look_of(dark)
    if not curves:
        return empty("This trace holds no law of that fit.", look)
    figure = go.Figure()
    for name, bound in bounds:
        _draw_bound(figure, name, bound, curves[0].x, look)
    for each in dots:
        _draw_dots(figure, each, look)
    for curve in curves:
        _draw_curve(figure, curve, look, mode="lines+markers" if whole_x else "lines")
    dress(figure, look, height=380)
    if marked is not None:
        figure.add_vline(x=marked, line={"color": look.muted, "width": 1})
    figure.update_xaxes(title_text=x_title, dtick=1 if whole_x else None)
    figure.update_yaxes(title_text=y_title)
    return figure


def _draw_curve(figure: go.Figure, curve: Curve, look: Look, mode: str) -> None:
    """Draw a line in two styles, without a gap where one ends and the other begins."""
    style = line_style(RECIPES.index(curve.recipe), look)
    name = RECIPE_NAMES[curve.recipe]
    inside = [curve.low <= x <= curve.high for x in curve.x]
    solid = [y if covered else None for y, covered in zip(curve.y, inside, strict=True)]
    # A point belongs to the dashed line too when either neighbour lies outside: the two meet there.
    touches = [False] * len(inside)
    for index, (left, right) in enumerate(pairwise(inside)):
        if not (left and right):
            touches[index] = touches[index + 1] = True
    dashed = [y if touch else None for y, touch in zip(curve.y, touches, strict=True)]
    hover = "<b>" + escape(name) + "</b><br>%{y:.3f} at %{x:.3~g}%{customdata}<extra></extra>"
    source = wrapped(f"{curve.origin.value}: {curve.source}")
    for values, dash, said in ((dashed, "dash", "extrapolated"), (solid, "solid", "")):
        figure.add_scatter(
            x=curve.x,
            y=values,
            mode=mode,
            line={**style, "dash": dash, "width": 2.5 if dash == "solid" else 1.5},
            marker={"symbol": SYMBOLS[RECIPES.index(curve.recipe)], "size": 7},
            name=name,
            legendgroup=curve.recipe,
            showlegend=dash == "solid",
            customdata=[f" {said}<br>{source}"] * len(curve.x),
            hovertemplate=hover,
        )


def _draw_dots(figure: go.Figure, dots: Dots, look: Look) -> None:
    index = RECIPES.index(dots.recipe)
    figure.add_scatter(
        x=dots.x,
        y=dots.y,
        mode="markers",
        marker={"color": look.lines[index], "symbol": SYMBOLS[index], "size": 6, "opacity": 0.45},
        legendgroup=dots.recipe,
        showlegend=False,
        name=RECIPE_NAMES[dots.recipe],
        customdata=[escape(about) for about in dots.about],
        hovertemplate="%{y:.3f} at %{x:.3f} nats<br>%{customdata}<extra>" + dots.origin.value + "</extra>",
    )


def _draw_bound(figure: go.Figure, name: str, bound: Callable[[float], float], x: Sequence[float], look: Look) -> None:
    figure.add_scatter(
        x=x,
        y=[bound(value) for value in x],
        mode="lines",
        line={"color": look.muted, "width": 1.5, "dash": "dot"},
        name=name,
        hovertemplate=escape(name) + ": %{y:.3f}<extra></extra>",
    )
