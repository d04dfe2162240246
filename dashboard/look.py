"""Look: the colours, fonts and frame that all figures share, light and dark. Does not know any report."""

from dataclasses import dataclass
from html import escape
from typing import Any

import plotly.graph_objects as go

FONT = "Source Sans Pro, Source Sans, Helvetica, Arial, sans-serif"
DASHES = ("solid", "dash", "dot", "dashdot")


@dataclass(frozen=True, slots=True)
class Look:
    """Colours of one theme. Hues are Okabe and Ito's, darkened or lightened until they stand out from the page."""

    ink: str
    muted: str
    grid: str
    page: str
    total: str
    gain: str
    loss: str
    lines: tuple[str, ...]
    """Colours of arms, in the order of the report."""
    fills: dict[str, tuple[str, str]]
    """Use of time -> (colour of the bar, colour of the text on it)."""


_FILLS = {
    "training": ("#0072B2", "#FFFFFF"),
    "generating": ("#009E73", "#FFFFFF"),
    "weight_sync": ("#CC79A7", "#111111"),
    "waiting": ("#E69F00", "#111111"),
    "staleness_stall": ("#D55E00", "#FFFFFF"),
    "other_idle": ("#BDB8B1", "#111111"),
    "lost": ("#8C564B", "#FFFFFF"),
    "down": ("#4D4D4D", "#FFFFFF"),
}

LIGHT = Look(
    ink="#2F2D2B",
    muted="#6B6763",
    grid="#E6E3DF",
    page="#FFFFFF",
    total="#56524E",
    gain="#0072B2",
    loss="#D55E00",
    lines=("#0072B2", "#D55E00", "#00805D", "#A8447F", "#A87400", "#3B93C4"),
    fills=_FILLS,
)
DARK = Look(
    ink="#EDEBE8",
    muted="#A8A49E",
    grid="#35322F",
    page="#171614",
    total="#B8B3AC",
    gain="#4FA8DE",
    loss="#F0833A",
    lines=("#56B4E9", "#F0833A", "#2FC79E", "#E79AC6", "#EDBB3F", "#A9BCCF"),
    fills=_FILLS,
)


def look_of(dark: bool) -> Look:
    """Return the colours of a theme."""
    return DARK if dark else LIGHT


def line_style(index: int, look: Look) -> dict[str, Any]:
    """Return colour and dash of arm number `index`; no two of 24 arms share both."""
    return {
        "color": look.lines[index % len(look.lines)],
        "dash": DASHES[index // len(look.lines) % len(DASHES)],
        "width": 2.25,
    }


def dress(figure: go.Figure, look: Look, height: int) -> go.Figure:
    """Give a figure the shared frame: transparent paper, quiet grid, no zoom by accident."""
    figure.update_layout(
        height=height,
        template="none",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": FONT, "size": 14, "color": look.ink},
        margin={"l": 8, "r": 16, "t": 16, "b": 48},
        hoverlabel={
            "bgcolor": look.page,
            "bordercolor": look.muted,
            "align": "left",
            "font": {"color": look.ink, "family": FONT},
        },
        legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "itemclick": False, "itemdoubleclick": False},
        dragmode=False,
    )
    axis = {
        "gridcolor": look.grid,
        "linecolor": look.grid,
        "zeroline": False,
        "automargin": True,
        "tickfont": {"color": look.muted},
        "title": {"font": {"color": look.muted, "size": 13}},
        "fixedrange": True,
    }
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    return figure


def empty(message: str, look: Look) -> go.Figure:
    """Return a figure that says why there is nothing to draw."""
    figure = dress(go.Figure(), look, height=120)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    figure.add_annotation(text=message, showarrow=False, x=0.5, y=0.5, xref="paper", yref="paper")
    figure.update_annotations(font={"color": look.muted, "size": 15})
    return figure


def caption(figure: go.Figure, text: str, look: Look, **where: Any) -> None:
    """Write a line of text into a figure."""
    font = {"color": where.pop("color", look.ink), "size": where.pop("size", 14)}
    figure.add_annotation(text=text, showarrow=False, font=font, **where)


def wrapped(text: str, width: int = 60) -> str:
    """Return plain text as escaped hover text in lines of at most `width` characters."""
    lines = [""]
    for word in escape(text).split():
        if len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] += f"{word} "
    return "<br>".join(line.rstrip() for line in lines)
