"""A forecast beside its log: seconds of every term by step, predicted with its band and as logged."""

from html import escape

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dashboard.look import Look, dress, empty, look_of
from simulator.forecast.report import ForecastReport, StepForecast, StepTerm
from simulator.forecast.steps import TERMS

TERM_NAMES = {
    "step": "step",
    "generation": "generation",
    "train": "training",
    "log_prob": "log-prob",
    "reference": "reference",
    "critic": "critic",
    "sync": "weight sync",
}
PANEL_PX = 150
STEP_PX = 230


def forecast_by_step(report: ForecastReport, *, dark: bool = False) -> go.Figure:
    """Draw a panel per term, the whole step first: measured as points, predicted as a line in its band."""
    look = look_of(dark)
    order = sorted(TERMS, key=lambda term: term != "step")
    terms = [term for term in order if any(term in step.terms for step in report.steps)]
    if not terms:
        return empty("No term of a step was forecast.", look)
    heights = [STEP_PX if term == "step" else PANEL_PX for term in terms]
    figure = make_subplots(
        rows=len(terms), cols=1, shared_xaxes=True, vertical_spacing=0.25 / max(len(terms), 4), row_heights=heights
    )
    for row, term in enumerate(terms, start=1):
        points = [(step, step.terms[term]) for step in report.steps if term in step.terms]
        _panel(figure, row, points, look)
        figure.update_yaxes(title_text=f"{TERM_NAMES.get(term, term)}<br>(s)", rangemode="tozero", row=row, col=1)
    dress(figure, look, height=sum(heights) + 110)
    figure.update_yaxes(nticks=4)
    figure.update_xaxes(showgrid=False)
    figure.update_xaxes(title_text="RL step of the log", row=len(terms), col=1)
    _shade_fitted(figure, report, look)
    # A point in the margin beside each end: one step alone is still a picture.
    steps = [step.step for step in report.steps]
    figure.update_xaxes(range=[min(steps) - 0.7, max(steps) + 0.7])
    figure.update_layout(margin={"t": 44})
    return figure


def _panel(figure: go.Figure, row: int, points: list[tuple[StepForecast, StepTerm]], look: Look) -> None:
    first = row == 1
    x = [step.step for step, _ in points]
    figure.add_scatter(
        x=[*x, *reversed(x)],
        y=[*(term.high_s for _, term in points), *(term.low_s for _, term in reversed(points))],
        fill="toself",
        mode="lines",
        fillcolor=look.gain,
        opacity=0.22,
        line={"width": 0},
        hoverinfo="skip",
        name="80 % band",
        showlegend=first,
        row=row,
        col=1,
    )
    figure.add_scatter(
        x=x,
        y=[term.predicted_s for _, term in points],
        mode="lines+markers" if len(points) == 1 else "lines",
        line={"color": look.gain, "width": 2},
        hoverinfo="skip",
        name="predicted from lengths",
        showlegend=first,
        row=row,
        col=1,
    )
    measured = [(step, term) for step, term in points if term.measured_s is not None]
    figure.add_scatter(
        x=[step.step for step, _ in measured],
        y=[term.measured_s for _, term in measured],
        mode="markers",
        marker={"size": 7, "color": look.loss, "symbol": "diamond-open", "line": {"width": 1.8}},
        hovertext=[_hover(step, term) for step, term in measured],
        hovertemplate="%{hovertext}<extra></extra>",
        name="measured",
        showlegend=first,
        row=row,
        col=1,
    )


def _hover(step: StepForecast, term: StepTerm) -> str:
    assert term.measured_s is not None
    error = term.predicted_s / term.measured_s - 1 if term.measured_s > 0 else 0.0
    return escape(
        f"step {step.step}: measured {term.measured_s:,.4g} s, predicted {term.predicted_s:,.4g} s ({error:+.1%}), "
        f"band {term.low_s:,.4g} to {term.high_s:,.4g} s"
    ) + ("<br>the laws were fitted on this step" if step.is_fitted else "")


def _shade_fitted(figure: go.Figure, report: ForecastReport, look: Look) -> None:
    """Grey out the part that the laws were fitted on."""
    first = report.steps[: report.num_first_steps]
    if first:
        figure.add_vrect(
            x0=first[0].step - 0.5, x1=first[-1].step + 0.5, fillcolor=look.muted, opacity=0.16, line_width=0
        )
        figure.add_annotation(
            text="fitted on",
            x=first[0].step - 0.45,
            y=0.03,
            yref="y domain",
            xanchor="left",
            yanchor="bottom",
            showarrow=False,
            font={"color": look.muted, "size": 12},
        )
