"""Forecast: laws fitted to the first part of a run predict its later steps from their lengths.

Nothing of a later step but its lengths and counts is read before it is predicted. Does not know files, nor how results
are shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from simulator.errors import ForecastError
from simulator.forecast import laws, naive, regimes
from simulator.forecast.fit import Fit, fit
from simulator.forecast.steps import LoggedSteps, logged_steps
from traces.measured import MeasuredRun

F64 = NDArray[np.float64]
Bools = NDArray[np.bool_]

BAND: Final = 0.8
"""Share of later steps that a band is to hold."""
MIN_STEPS: Final = 4
"""Usable steps of a log below which there is nothing to forecast."""
_WIDEST: Final = 10.0
"""Logarithm of the widest half of a band: beyond it nothing is known."""
MIN_FIRST: Final = 2
"""Steps of the first part: a warm-up and another."""
_PASSES: Final = ("train", "log_prob", "reference", "critic")


@dataclass(frozen=True, slots=True)
class Prediction:
    """Seconds of one term at every usable step of a run, fitted ones included."""

    seconds: F64
    low: F64
    high: F64
    """Ends of the band."""
    fit: Fit | None
    """None: put together from other terms."""


@dataclass(frozen=True, slots=True)
class Score:
    """How one term was met at the later steps."""

    mape: float
    """Mean of |predicted / measured - 1|, 0..1."""
    coverage: float
    """Share of steps inside the band."""
    linear_length: float
    last_value: float
    """MAPE of the naive baselines."""
    num_steps: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """The forecast of a run, beside what happened."""

    logged: LoggedSteps
    is_first: Bools
    """[steps]: the part that the laws were fitted on, warm-up and an earlier regime included."""
    is_fitted: Bools
    """[steps]: of these, the steps that were used."""
    predictions: dict[str, Prediction]
    scores: dict[str, Score]
    notes: tuple[str, ...]

    @property
    def coverage(self) -> float:
        """Share of (later step, term) pairs inside their band."""
        inside = sum(score.coverage * score.num_steps for score in self.scores.values())
        return inside / sum(score.num_steps for score in self.scores.values())


def forecast(run: MeasuredRun, train_fraction: float) -> Forecast:
    """Fit the first part of a run and predict the rest.

    Args:
        run: What was logged.
        train_fraction: Share of the usable steps to fit on, 0..1; at least two steps are.

    Raises:
        ForecastError: Too few usable steps; one line.
    """
    if not 0 < train_fraction < 1:
        raise ForecastError(f"--train-fraction: {train_fraction:g} is not between 0 and 1; 0.2 fits on the first fifth")
    logged = logged_steps(run)
    if len(logged) < MIN_STEPS:
        raise ForecastError(
            f"{run.name}: {len(logged)} usable steps, a forecast needs {MIN_STEPS}"
            + (f" ({logged.left_out[0]})" if logged.left_out else "")
            + "; give a longer log"
        )
    num_first = min(max(int(train_fraction * len(logged) + 1e-9), MIN_FIRST), len(logged) - 1)
    is_first = np.arange(len(logged)) < num_first
    notes = list(logged.notes)
    is_fitted = steady_part(logged, is_first, notes)
    predictions = predict_terms(logged, is_fitted, notes)
    scores = {
        term: score
        for term, prediction in predictions.items()
        if (score := _score(logged, term, prediction, is_first, is_fitted)) is not None
    }
    if not scores:
        raise ForecastError(f"{run.name}: no term is timed both before and after step {num_first}; raise the fraction")
    notes.extend(_later_jumps(logged, predictions, num_first))
    return Forecast(logged, is_first, is_fitted, predictions, scores, tuple(notes))


def steady_part(logged: LoggedSteps, chosen: Bools, notes: list[str]) -> Bools:
    """Return the chosen steps that laws can be fitted on: of the last regime, without warm-up where others are left."""
    steady = chosen.copy()
    last = int(np.flatnonzero(chosen)[-1])
    for term in ("generation", "train"):
        change = regimes.jumps(_per_unit(logged, term)[: last + 1])
        if change:
            steady[: change[-1].index] = False
            notes.append(
                f"{term} changes to {change[-1].factor:.2f}x per token at step {logged.steps[change[-1].index].step}; "
                "only the steps from there on are fitted"
            )
    without_warmup = steady & ~logged.is_warmup
    return without_warmup if without_warmup.any() else steady


def predict_terms(logged: LoggedSteps, fitted: Bools, notes: list[str]) -> dict[str, Prediction]:
    """Fit every term that the chosen steps time, and predict it at all steps."""
    predictions: dict[str, Prediction] = {}
    generated = logged.measured("generation")
    timed = fitted & np.isfinite(generated)
    if timed.any():
        law, prior = laws.generation(logged.generation[timed], generated[timed], is_overlapped=logged.is_asynchronous)
        fitted_law = fit(law, prior, logged.generation[timed], generated[timed])
        predictions["generation"] = _prediction(fitted_law, logged.generation)
        if np.isnan(logged.seconds["generation"]).all():
            notes.append("the log has waiting for samples, not generation; generation stands for that wait")
    for term in _PASSES:
        one = _fit_pass(logged, term, fitted)
        if one is not None:
            predictions[term] = one
    seconds = logged.seconds["sync"]
    timed = fitted & np.isfinite(seconds)
    if timed.any():
        constant = fit(*laws.constant(seconds[timed]), np.zeros((int(timed.sum()), 1)), seconds[timed])
        predictions["sync"] = _prediction(constant, np.zeros((len(logged), 1)))
    whole = _predict_step(logged, predictions, fitted)
    if whole is not None:
        predictions["step"] = whole
    return predictions


def _fit_pass(logged: LoggedSteps, term: str, fitted: Bools) -> Prediction | None:
    """Fit a pass on the tokens that it goes over: those trained on or all of them, whichever explains the steps."""
    seconds, choices = logged.seconds[term], []
    for tokens in (logged.trained_tokens, logged.all_tokens):
        timed = fitted & np.isfinite(seconds) & np.isfinite(tokens[:, 0])
        if timed.any() and np.isfinite(tokens[:, 0]).mean() > 0.99:
            law, prior = laws.token_pass(tokens[timed], seconds[timed])
            choices.append((fit(law, prior, tokens[timed], seconds[timed]), tokens))
    if not choices:
        return None
    # With few steps, or no filter, both explain them alike: then the trained ones, which cost in any framework.
    chosen, tokens = min(choices, key=lambda choice: round(choice[0].noise, 3))
    return _prediction(chosen, np.where(np.isnan(tokens), np.nanmedian(tokens), tokens))


def _predict_step(logged: LoggedSteps, predictions: dict[str, Prediction], fitted: Bools) -> Prediction | None:
    """Add the terms up (of generation what the trainer waits for), with what the fitted steps leave as a constant."""
    measured = logged.seconds["step"]
    if not (fitted & np.isfinite(measured)).any() or "generation" not in predictions:
        return None
    known = [term for term in (*_PASSES, "sync") if term in predictions]
    exposed, variance = _exposed(logged, predictions["generation"], fitted)
    total = exposed.copy()
    for term in known:
        one = predictions[term]
        total += one.seconds
        assert one.fit is not None
        variance += (_deviation(one) * one.seconds) ** 2
    logged_sum = sum((logged.seconds[term] for term in known), np.zeros(len(logged)))
    wait = logged.seconds["wait"] if logged.is_asynchronous else logged.measured("generation")
    wait = exposed if np.isnan(wait).all() else wait
    rest = (measured - logged_sum - wait)[fitted]
    rest = rest[np.isfinite(rest)]
    if not len(rest):
        rest = (measured - total)[fitted & np.isfinite(measured)]
    total = np.maximum(total + float(np.median(rest)), 0.05 * float(np.nanmedian(measured[fitted])))
    variance += (1.4826 * float(np.median(np.abs(rest - np.median(rest))))) ** 2
    assert predictions["generation"].fit is not None
    return _band(total, np.sqrt(variance) / total, predictions["generation"].fit, None)


def _exposed(logged: LoggedSteps, generation: Prediction, fitted: Bools) -> tuple[F64, F64]:
    """Return the seconds that the trainer waits for generation, and their variance."""
    variance = (_deviation(generation) * generation.seconds) ** 2
    both = fitted & np.isfinite(logged.seconds["generation"]) & np.isfinite(logged.seconds["wait"])
    if not logged.is_asynchronous or not both.any():
        return generation.seconds, variance
    head_start = (logged.seconds["generation"] - logged.seconds["wait"])[both]
    usual = float(np.median(head_start))
    spread = 1.4826 * float(np.median(np.abs(head_start - usual)))
    return np.maximum(generation.seconds - usual, 0.0), variance + spread**2


def _deviation(prediction: Prediction) -> F64:
    """Return the relative standard deviation that a band was made from."""
    assert prediction.fit is not None
    deviation: F64 = np.log(prediction.high / prediction.seconds) / prediction.fit.quantile(BAND)
    return deviation


def _prediction(fitted: Fit, features: F64) -> Prediction:
    seconds, deviation = fitted.predict(features)
    return _band(seconds, deviation, fitted, fitted)


def _band(seconds: F64, deviation: F64, spread: Fit, fitted: Fit | None) -> Prediction:
    factor = np.exp(np.minimum(spread.quantile(BAND) * deviation, _WIDEST))
    return Prediction(seconds, seconds / factor, seconds * factor, fitted)


def _score(logged: LoggedSteps, term: str, prediction: Prediction, is_first: Bools, is_fitted: Bools) -> Score | None:
    measured = logged.measured(term)
    later = ~is_first & np.isfinite(measured)
    fitted = is_fitted & np.isfinite(measured)
    if not later.any() or not fitted.any():
        return None

    def mape(seconds: F64) -> float:
        return float(np.mean(np.abs(seconds[later] / measured[later] - 1.0)))

    inside = (measured >= prediction.low) & (measured <= prediction.high)
    return Score(
        mape=mape(prediction.seconds),
        coverage=float(inside[later].mean()),
        linear_length=mape(naive.linear_length(measured, logged.mean_tokens, fitted)),
        last_value=mape(naive.last_value(measured, fitted)),
        num_steps=int(later.sum()),
    )


def _later_jumps(logged: LoggedSteps, predictions: dict[str, Prediction], num_first: int) -> Sequence[str]:
    """Return sentences on lasting changes after the first part, which no fit on it could know."""
    said = []
    for term in ("generation", "train"):
        if term in predictions:
            for jump in regimes.jumps(logged.measured(term) / predictions[term].seconds):
                if jump.index >= num_first:
                    said.append(
                        f"from step {logged.steps[jump.index].step} on, {term} takes {jump.factor:.2f}x what it took "
                        "before at the same lengths: a change that the first part does not show"
                    )
    return said


def _per_unit(logged: LoggedSteps, term: str) -> F64:
    """Return seconds over what the phase had to do, for finding regimes."""
    if term == "train":
        tokens = logged.trained_tokens[:, 0]
        return logged.seconds["train"] / np.where(np.isfinite(tokens), tokens, logged.all_tokens[:, 0])
    longest, generated, read = logged.generation.T
    work = longest + generated / laws.DOUBLING_BATCH + read / laws.DOUBLING_CONTEXT_TOKENS
    per_unit: F64 = logged.measured("generation") / work
    return per_unit
