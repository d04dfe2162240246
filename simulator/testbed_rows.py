"""Rows of a testbed's comparison: what runs measured beside what was predicted before them. Does not run or predict."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

import numpy as np

from simulator.compare.sides import BASELINE, Side, measured_side, predicted_side
from simulator.errors import ComparisonError
from simulator.scorecard.score import RL_SPEEDUP, Scored, summary
from simulator.testbed_scenario import ARM
from traces.measured import MeasuredRun
from traces.report import RunReport
from traces.testbed import TestbedConfig

QUANTITIES: Final = {
    "step_s": "RL step, s",
    "rollout_s": "rollout, s",
    "exposed_s": "waiting for rollout, s",
    "train_s": "training, s",
    "sync_s": "weight sync, s",
    "tokens_per_s": "response tokens/s",
    "response_tokens": "response tokens per step",
    "accept_length": "accept length",
    "staleness": "staleness, versions",
}
"""What is laid side by side, and its heading."""


@dataclass(frozen=True, slots=True)
class Both:
    """One quantity, measured and predicted."""

    measured: float
    predicted: float

    @property
    def error(self) -> float:
        """Predicted over measured, less one."""
        return self.predicted / self.measured - 1 if self.measured else float("nan")


@dataclass(frozen=True, slots=True)
class Round:
    """One sitting: what was predicted of a profile, and the runs made within minutes of it."""

    report: RunReport
    plain: MeasuredRun
    drafting: MeasuredRun


@dataclass(frozen=True, slots=True)
class Row:
    """A config that drafts, beside its own plain decoding."""

    config: TestbedConfig
    speedup: Scored
    """Medians of the sittings."""
    sittings: tuple[Both, ...]
    """Speedup in each."""
    plain: dict[str, Both]
    """Of plain decoding, by quantity; those that a side does not say are missing."""
    arm: dict[str, Both]

    @property
    def noise(self) -> float | None:
        """Half of the range of measured speedups over the speedup; None of a single sitting."""
        if len(self.sittings) < 2:
            return None
        measured = [both.measured for both in self.sittings]
        return (max(measured) - min(measured)) / 2 / self.speedup.measured


def row_of(config: TestbedConfig, rounds: Sequence[Round]) -> Row:
    """Return one row.

    Raises:
        ComparisonError: No sitting, or a run that has no step beyond the warm-up.
    """
    if not rounds:
        raise ComparisonError(f"{config.name}: no profile with runs, with and without drafts; make them")
    warmup = config.num_warmup_steps
    plain = [_measured(one.plain, warmup) for one in rounds]
    arm = [_measured(one.drafting, warmup) for one in rounds]
    said = [one.report.arms[ARM].end_to_end_speedup for one in rounds]
    sittings = tuple(Both(p["step_s"] / a["step_s"], s.mean) for p, a, s in zip(plain, arm, said, strict=True))
    return Row(
        config=config,
        speedup=Scored(
            id=config.name,
            kind=RL_SPEEDUP,
            configuration=in_words(config),
            quantity="step_s",
            measured=median(both.measured for both in sittings),
            predicted=median(both.predicted for both in sittings),
            low=median(one.low for one in said),
            high=median(one.high for one in said),
            source=f"{len(rounds)} sittings of {config.num_steps} RL steps, with drafts and without",
        ),
        sittings=sittings,
        plain=_beside(plain, [_predicted(one.report, BASELINE) for one in rounds]),
        arm=_beside(arm, [_predicted(one.report, ARM) for one in rounds]),
    )


def in_words(config: TestbedConfig) -> str:
    """Return what distinguishes a config."""
    policy = config.policy
    words = [policy.kind.replace("_", " ")]
    if policy.max_staleness is not None:
        words.append(f"staleness {policy.max_staleness}, {policy.in_flight}")
    words.append(f"k = {config.k}")
    if config.forced_acceptance is not None:
        words.append("forced acceptance")
    else:
        words.append(f"head of {config.head_batches} batches" if config.head_batches else "untrained head")
    return ", ".join([*words, f"batch {config.max_running_seqs}"])


def as_json(rows: Sequence[Row]) -> dict[str, Any]:
    """Return everything for machines; errors are predicted over measured, less one."""
    figures = summary([row.speedup for row in rows])
    return {
        "rows": [_row_as_json(row) for row in rows],
        "median_error": figures["median_error"],
        "worst_error": round(max((abs(row.speedup.error) for row in rows), default=0.0), 4),
        "sign_accuracy": figures["sign_accuracy"],
        "inside_interval": figures["inside_interval"],
        "worst_accept_length_error": round(
            max((abs(row.arm["accept_length"].error) for row in rows if "accept_length" in row.arm), default=0.0), 4
        ),
    }


def _row_as_json(row: Row) -> dict[str, Any]:
    speedup = row.speedup
    return {
        "name": speedup.id,
        "engine": row.config.engine,
        "configuration": speedup.configuration,
        "measured": _rounded(speedup.measured),
        "predicted": _rounded(speedup.predicted),
        "interval": [_rounded(speedup.low), _rounded(speedup.high)],
        "error": round(speedup.error, 4),
        "right_sign": speedup.has_right_sign,
        "sittings": [
            {"measured": _rounded(both.measured), "predicted": _rounded(both.predicted)} for both in row.sittings
        ],
        **{
            side: {
                name: {"measured": _rounded(both.measured), "predicted": _rounded(both.predicted)}
                for name, both in numbers.items()
            }
            for side, numbers in (("plain", row.plain), ("drafting", row.arm))
        },
    }


def _measured(run: MeasuredRun, warmup: int) -> dict[str, float]:
    """Return the means over the steps of one run that are no warm-up."""
    side = measured_side(run)
    kept = side.rl_steps >= min(step.step for step in run.steps) + warmup
    if not kept.any():
        raise ComparisonError(f"{run.name}: no usable step after {warmup} of warm-up; run more of them")
    means = _means(side, kept)
    numbers = set(side.rl_steps[kept].tolist())
    steps = [step.logged for step in run.steps if step.step in numbers]
    if run.setup.num_draft_tokens and all(name in logged for logged in steps for name in _COUNTERS):
        tokens, prefills, verify_steps = (math.fsum(logged[name] for logged in steps) for name in _COUNTERS)
        means["accept_length"] = (tokens - prefills) / verify_steps
    return means


_COUNTERS: Final = ("bebop/num_generated_tokens", "bebop/num_prefills", "bebop/num_verify_steps")
"""What a testbed logs of its engine, from which the accept length of a report follows: without what a last step emits
beyond the end of its response, which engines count."""


def _predicted(report: RunReport, arm: str) -> dict[str, float]:
    side = predicted_side(report, arm)
    return _means(side, np.ones(len(side.rl_steps), dtype=bool))


def _means(side: Side, kept: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> dict[str, float]:
    names = {
        "rollout_s": "generation_s",
        "staleness": "staleness_mean_versions",
        **{name: name for name in QUANTITIES if name in side.columns},
    }
    means: dict[str, float] = {}
    for name, column in names.items():
        values = side.columns[column][kept]
        if not np.isnan(values).all():
            means[name] = float(np.nanmean(values))
    if "response_tokens" in means:
        means["tokens_per_s"] = means["response_tokens"] / means["step_s"]
    return means


def _beside(measured: Sequence[dict[str, float]], predicted: Sequence[dict[str, float]]) -> dict[str, Both]:
    """Return the quantities that both sides have; of several sittings the median."""
    return {
        name: Both(median(one[name] for one in measured), median(one[name] for one in predicted))
        for name in QUANTITIES
        if all(name in one for one in (*measured, *predicted))
    }


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")
