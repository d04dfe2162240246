"""Trainer of a logged run: seconds per token of each pass, and what a step takes whatever its tokens."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from simulator.calibration.values import INTERVAL, Value, from_fit
from simulator.forecast import laws
from simulator.forecast.fit import Fit, Prior, fit
from simulator.forecast.steps import LoggedSteps

F64 = NDArray[np.float64]
Bools = NDArray[np.bool_]

_FIELDS: Final = {
    "train": "trainer.s_per_token",
    "log_prob": "trainer.log_prob_s_per_token",
    "reference": "trainer.reference_s_per_token",
    "critic": "trainer.critic_s_per_token",
}
_STRAIGHT: Final = 1e-4
"""Deviation of the bend: a scenario's trainer is a line."""


@dataclass(frozen=True, slots=True)
class TrainerFit:
    """Slopes of the passes, and their constants together."""

    values: tuple[Value, ...]
    fits: dict[str, Fit]
    constant_s: float
    constant_error_s: float
    """Standard deviation."""
    seconds: F64
    """[steps]: what the passes take at all steps, their constants included."""


def fit_trainer(logged: LoggedSteps, steady: Bools) -> TrainerFit | None:
    """Return the trainer's lines; None where training is not timed."""
    values, fits, total = [], {}, np.zeros(len(logged))
    constant, variance = 0.0, 0.0
    for term, path in _FIELDS.items():
        found = _fit_pass(logged, term, steady)
        if found is None:
            continue
        line, tokens, share = found
        slope, extra = np.exp(line.parameters[:2])
        fits[term] = line
        total += line.seconds(np.where(np.isnan(tokens), np.nanmedian(tokens), tokens))
        constant += float(slope * extra)
        variance += float(slope * extra * np.sqrt(line.covariance[1, 1])) ** 2
        why = f"{term} seconds of {line.num_steps} steps against tokens"
        if share < 0.995:
            why += f"; {100 * share:.0f} % of the generated tokens are trained on"
        values.append(from_fit(line, "s_per_token", path, why, scale=share))
    if "train" not in fits:
        return None
    return TrainerFit(tuple(values), fits, constant, variance**0.5, total)


def _fit_pass(logged: LoggedSteps, term: str, steady: Bools) -> tuple[Fit, F64, float] | None:
    """Return the line of a pass, the tokens it goes over, and their share of all that are generated."""
    seconds, choices = logged.seconds[term], []
    for tokens in (logged.trained_tokens, logged.all_tokens):
        timed = steady & np.isfinite(seconds) & np.isfinite(tokens[:, 0])
        if timed.any():
            law, bent = laws.token_pass(tokens[timed], seconds[timed])
            straight = Prior(bent.log_centre, np.array([*bent.log_sd[:2], _STRAIGHT]), bent.noise)
            share = float(np.median(tokens[timed] / logged.all_tokens[timed]))
            choices.append((fit(law, straight, tokens[timed], seconds[timed]), tokens, share))
    return min(choices, key=lambda choice: round(choice[0].noise, 3)) if choices else None


def constant_value(seconds: float, error_s: float, why: str) -> Value:
    """Return the constant of a step as a field's value; it is never below 0."""
    reach = 1.645 * error_s if INTERVAL == 0.9 else np.nan
    value = max(seconds, 0.0)
    return Value("trainer.constant_s", value, max(seconds - reach, 0.0), max(seconds + reach, 0.0), "told", why)
