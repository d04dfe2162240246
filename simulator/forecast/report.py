"""What `bebop forecast` answers: errors per term beside the naive baselines, and every step. Computes nothing new."""

from typing import Annotated

import numpy as np
from pydantic import Field

from simulator.forecast.forecast import BAND, Forecast
from simulator.forecast.steps import TERMS
from traces.base import Strict
from traces.measured import Quality

Share = Annotated[float, Field(ge=0, le=1)]


class Naive(Strict):
    """MAPE of the naive baselines by term, fitted on the same steps."""

    linear_length: dict[str, float]
    """Least-squares line in the mean response length."""
    last_value: dict[str, float]
    """Seconds of the last fitted step."""


class Parameter(Strict):
    """One fitted parameter of a law."""

    value: float
    low: float
    high: float
    """Ends of the 80 % interval."""
    learned: Share
    """Share of the prior's width that the log has taken away; near 0 the log says nothing."""


class StepTerm(Strict):
    """One term of one step, seconds."""

    predicted_s: float
    low_s: float
    high_s: float
    measured_s: float | None


class StepForecast(Strict):
    """One usable step."""

    step: int
    segment: int
    is_fitted: bool
    response_tokens_mean: float
    entropy_nats: float | None
    terms: dict[str, StepTerm]


class ForecastReport(Strict):
    """The forecast of a run's later steps, beside what was logged."""

    run: str
    framework: str
    train_fraction: Share
    num_first_steps: int
    """Usable steps of the first part."""
    num_fitted_steps: int
    """Of these, the ones that laws were fitted on."""
    num_later_steps: int
    mape: dict[str, float]
    """Mean of |predicted / measured - 1| over the later steps, 0..1 and above, by term."""
    naive: Naive
    coverage: Share
    """Share of (later step, term) pairs inside the band, which is to hold 0.8 of them."""
    coverage_by_term: dict[str, Share]
    band: Share = BAND
    collapsed_from_step: int | None
    """First collapsed step; none of them is fitted or scored."""
    is_collapsed: bool
    """Whether most steps of the run are collapsed; then the errors are of what came before."""
    left_out: tuple[str, ...]
    notes: tuple[str, ...]
    parameters: dict[str, dict[str, Parameter]]
    """Term -> parameter of its law."""
    steps: tuple[StepForecast, ...]


def forecast_report(forecast: Forecast, train_fraction: float) -> ForecastReport:
    """Return a forecast as a document."""
    logged, scores = forecast.logged, forecast.scores
    fallen = sum(Quality.COLLAPSED in step.quality for step in logged.run.steps)
    terms = [term for term in TERMS if term in scores]
    return ForecastReport(
        run=logged.run.name,
        framework=logged.run.framework,
        train_fraction=train_fraction,
        num_first_steps=int(forecast.is_first.sum()),
        num_fitted_steps=int(forecast.is_fitted.sum()),
        num_later_steps=int((~forecast.is_first).sum()),
        mape={term: scores[term].mape for term in terms},
        naive=Naive(
            linear_length={term: scores[term].linear_length for term in terms},
            last_value={term: scores[term].last_value for term in terms},
        ),
        coverage=forecast.coverage,
        coverage_by_term={term: scores[term].coverage for term in terms},
        collapsed_from_step=logged.collapsed_from,
        is_collapsed=max(fallen, logged.num_collapsed) > len(logged.run.steps) / 2,
        left_out=logged.left_out,
        notes=forecast.notes,
        parameters=_parameters(forecast),
        steps=_steps(forecast),
    )


def _parameters(forecast: Forecast) -> dict[str, dict[str, Parameter]]:
    said: dict[str, dict[str, Parameter]] = {}
    for term, prediction in forecast.predictions.items():
        fit = prediction.fit
        if fit is None:
            continue
        half = fit.quantile(BAND) * np.sqrt(np.diag(fit.covariance))
        learned = np.clip(fit.learned(), 0.0, 1.0)
        said[term] = {}
        for i, name in enumerate(fit.law.names):
            ends = fit.parameters[i] + np.array([0.0, -half[i], half[i]])
            value, low, high = (ends if name == "bend" else np.exp(ends)).tolist()
            said[term][name] = Parameter(value=value, low=low, high=high, learned=float(learned[i]))
    return said


def _steps(forecast: Forecast) -> tuple[StepForecast, ...]:
    logged = forecast.logged
    rows = []
    for i, step in enumerate(logged.steps):
        terms = {}
        for term in TERMS:
            if term in forecast.predictions:
                one, measured = forecast.predictions[term], logged.measured(term)[i]
                terms[term] = StepTerm(
                    predicted_s=float(one.seconds[i]),
                    low_s=float(one.low[i]),
                    high_s=float(one.high[i]),
                    measured_s=float(measured) if np.isfinite(measured) else None,
                )
        rows.append(
            StepForecast(
                step=step.step,
                segment=step.segment,
                is_fitted=bool(forecast.is_fitted[i]),
                response_tokens_mean=float(logged.mean_tokens[i]),
                entropy_nats=step.entropy_nats,
                terms=terms,
            )
        )
    return tuple(rows)
