"""Plans that no other beats in time, cost and staleness at once."""

from html import escape

import plotly.graph_objects as go

from dashboard.look import dress, look_of
from dashboard.words import plain
from simulator.optimize import PlanReport, Scored


def pareto(found: PlanReport, *, dark: bool = False) -> go.Figure:
    """Draw run time against cost, staleness as colour; the recommended plan and the scenario as it stands are named."""
    look = look_of(dark)
    has_price = found.recommended.usd is not None
    figure = go.Figure(
        go.Scatter(
            x=[scored.hours.mean for scored in found.front],
            y=[_cost(scored) for scored in found.front],
            mode="markers",
            name="plans",
            marker={
                "size": 13,
                "color": [scored.staleness_versions for scored in found.front],
                "colorscale": "Cividis",
                "line": {"color": look.muted, "width": 1},  # the dark end of the scale stands out from a dark page
                "colorbar": {"title": {"text": "staleness (versions)", "side": "right"}, "thickness": 12},
            },
            customdata=[_about(scored) for scored in found.front],
            hovertemplate="%{customdata}<extra></extra>",
        )
    )
    for scored, name, symbol in (
        (found.today, "as it stands", "x-thin-open"),
        (found.recommended, "recommended", "circle-open"),
    ):
        figure.add_trace(
            go.Scatter(
                x=[scored.hours.mean],
                y=[_cost(scored)],
                mode="markers",
                name=name,
                marker={"symbol": symbol, "size": 21, "color": look.ink, "line": {"color": look.ink, "width": 2.5}},
                customdata=[_about(scored)],
                hovertemplate="%{customdata}<extra></extra>",
            )
        )
    dress(figure, look, height=400)
    figure.update_xaxes(title_text="hours of the whole run", rangemode="tozero")
    figure.update_yaxes(title_text="US dollars" if has_price else "GPU hours", rangemode="tozero", tickformat=",~r")
    return figure


def _cost(scored: Scored) -> float:
    return scored.usd if scored.usd is not None else scored.hours.mean * scored.plan.num_gpus


def _about(scored: Scored) -> str:
    money = "" if scored.usd is None else f", {scored.usd:,.0f} USD"
    return (
        f"<b>{escape(scored.plan.words())}</b><br>{plain(scored.hours.mean)} h ({plain(scored.hours.low)} to "
        f"{plain(scored.hours.high)}){money}<br>staleness {scored.staleness_versions:.2f}, drafting "
        f"{scored.speedup.mean:.2f}×"
    )
