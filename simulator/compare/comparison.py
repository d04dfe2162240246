"""Compare: two sides in, terms, waterfall, intervals and a verdict out. Reads no files and runs nothing."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.compare.align import Aligned, align
from simulator.compare.intervals import COVERAGE, MIN_STEPS, block_length, percentiles, resampled_sums
from simulator.compare.result import Comparison, Fact, SideOfComparison, StepPair, Term
from simulator.compare.sides import BASELINE, Side
from simulator.compare.steps import FACTS, REST, TERMS, TINY
from simulator.compare.verdict import verdict
from simulator.compare.waterfall import overlaps, rollout_waterfall, step_waterfall
from traces.report import Interval

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Paired:
    """Intervals of what is compared; the point itself where there is none."""

    speedup: Interval
    differences: dict[str, Interval]
    meaning: str | None


def compare(a: Side, b: Side) -> Comparison:
    """Return what differs from A to B, over the RL steps that both have, paired by number.

    Raises:
        ComparisonError: They have no step in common.
    """
    aligned = align(a, b)
    terms, paired = _terms(a, b, aligned)
    a_s, b_s = float(aligned.a["step_s"].mean()), float(aligned.b["step_s"].mean())
    rollout, tokens = _rollout_speedup(aligned), _token_ratio(aligned)
    share = next((term.a_s / a_s for term in terms if term.name == "exposed_s"), None)
    result = Comparison(
        verdict="",
        a=_summary(a, aligned.unpaired[0], aligned.incomplete),
        b=_summary(b, aligned.unpaired[1], aligned.incomplete),
        num_steps=len(aligned.rl_steps),
        step_speedup=paired.speedup,
        interval=paired.meaning,
        rollout_speedup=rollout,
        generation_share_a=share,
        generation_share_b=next((term.b_s / b_s for term in terms if term.name == "exposed_s"), None),
        speedup_bound=_bound(aligned, share, rollout),
        token_ratio=tokens,
        speedup_at_equal_tokens=_at_equal_tokens(aligned, a_s, b_s, tokens),
        mean_step_error=_mean_step_error(a, aligned) if a.kind != b.kind else None,
        terms=terms,
        waterfall=step_waterfall(aligned.a, aligned.b),
        rollout_waterfall=rollout_waterfall(aligned.a, aligned.b),
        facts=_facts(aligned),
        steps=_steps(aligned),
        warnings=(*_different_setups(a, b), *a.notes, *b.notes, *aligned.notes),
    )
    return result.model_copy(update={"verdict": verdict(result, overlapping=overlaps(aligned.a))})


def _terms(a: Side, b: Side, aligned: Aligned) -> tuple[tuple[Term, ...], _Paired]:
    """Return the seconds of a step, the rest last, and the intervals of their differences."""
    parts_a, parts_b = ({name: side[name] for name in TERMS if name in side} for side in (aligned.a, aligned.b))
    for parts, side in ((parts_a, aligned.a), (parts_b, aligned.b)):
        parts[REST] = side["step_s"] - sum(parts.values(), np.zeros_like(side["step_s"]))
    paired = _intervals(a, b, aligned, parts_a, parts_b)
    terms = tuple(
        Term(
            name=name,
            a_s=float(parts_a[name].mean()),
            b_s=float(parts_b[name].mean()),
            difference=paired.differences[name],
            only_in=aligned.only_in.get(name),
        )
        for name in parts_a
    )
    return terms, paired


def _facts(aligned: Aligned) -> tuple[Fact, ...]:
    both = [name for name in FACTS if name in aligned.a and name in aligned.b]
    return tuple(Fact(name=name, a=float(aligned.a[name].mean()), b=float(aligned.b[name].mean())) for name in both)


def _steps(aligned: Aligned) -> tuple[StepPair, ...]:
    rows = zip(aligned.rl_steps, aligned.a["step_s"], aligned.b["step_s"], strict=True)
    return tuple(StepPair(rl_step=int(step), a_s=float(before), b_s=float(after)) for step, before, after in rows)


def _summary(side: Side, unpaired: int, incomplete: int) -> SideOfComparison:
    excluded = side.excluded() | ({"terms missing on a side": incomplete} if incomplete else {})
    return SideOfComparison(
        name=side.name,
        kind=side.kind,
        about=side.about,
        num_steps=len(side.rl_steps),
        excluded=excluded,
        num_unpaired=unpaired,
    )


def _intervals(a: Side, b: Side, aligned: Aligned, parts_a: dict[str, F64], parts_b: dict[str, F64]) -> _Paired:
    """Return the interval of the speedup, and of every term's difference."""
    step_a, step_b = aligned.a["step_s"], aligned.b["step_s"]
    speedup = float(step_a.sum() / step_b.sum())
    means = {name: float(parts_b[name].mean() - parts_a[name].mean()) for name in parts_a}
    points = {name: Interval(mean=mean, low=mean, high=mean) for name, mean in means.items()}
    if a.kind == b.kind == "predicted":
        return _reported(a, b, speedup, points)
    num_steps = len(step_a)
    if num_steps < MIN_STEPS:
        return _Paired(Interval(mean=speedup, low=speedup, high=speedup), points, None)
    block = block_length(np.log(step_b / step_a))
    columns = np.stack([step_a, step_b, *(parts_b[name] - parts_a[name] for name in means)], axis=1)
    sums = resampled_sums(columns, block)
    low, high = percentiles(sums[:, 0] / sums[:, 1])
    for index, name in enumerate(means):
        least, most = percentiles(sums[:, 2 + index] / num_steps)
        points[name] = Interval(mean=means[name], low=least, high=most)
    meaning = (
        f"{100 * COVERAGE:.0f} %, of the mean over RL steps: block bootstrap over {num_steps} paired steps, {block} a "
        "block; what another seed would give is not in it"
    )
    return _Paired(Interval(mean=speedup, low=low, high=high), points, meaning)


def _reported(a: Side, b: Side, speedup: float, points: dict[str, Interval]) -> _Paired:
    """Return the reports' own interval where they hold it: of an arm against its baseline, or of two arms apart."""
    assert a.report is not None
    assert b.report is not None
    reach = 0.0
    for side, report in ((a, a.report), (b, b.report)):
        if side.arm != BASELINE and side.arm is not None:
            own = report.arms[side.arm].end_to_end_speedup
            reach = math.hypot(reach, math.log(own.high / own.low) / 2)
    same = a.report.scenario_hash == b.report.scenario_hash and a.report.model_version == b.report.model_version
    if reach == 0.0 or not (same or a.arm != BASELINE):
        return _Paired(Interval(mean=speedup, low=speedup, high=speedup), points, None)
    interval = Interval(mean=speedup, low=speedup * math.exp(-reach), high=speedup * math.exp(reach))
    meaning = f"{100 * COVERAGE:.0f} %, the report's own interval of an arm against plain decoding"
    if a.arm != BASELINE:
        meaning = (
            f"{100 * COVERAGE:.0f} %, from each arm's interval against its own plain decoding, as if their errors were "
            "independent: too wide for scenarios that share inputs"
        )
    return _Paired(interval, points, meaning)


def _rollout_speedup(aligned: Aligned) -> float | None:
    """Return A's generation time over B's: busy where both say it, else exposed."""
    for name in ("generation_s", "exposed_s"):
        if name in aligned.a and name in aligned.b:
            before, after = float(aligned.a[name].mean()), float(aligned.b[name].mean())
            if min(before, after) > TINY:
                return before / after
    return None


def _bound(aligned: Aligned, share: float | None, rollout: float | None) -> float | None:
    """Return the most that the rollout's change can give with everything else as in A (Amdahl 1967)."""
    if share is None or not 0 <= share < 1:
        return None
    if overlaps(aligned.a):  # waiting may vanish altogether, whatever the rollout's speedup
        return 1 / (1 - share)
    return None if rollout is None else 1 / (share / rollout + 1 - share)


def _token_ratio(aligned: Aligned) -> float | None:
    for name in ("response_tokens", "response_tokens_mean"):
        if name in aligned.a and name in aligned.b:
            before = float(aligned.a[name].mean())
            return float(aligned.b[name].mean()) / before if before > TINY else None
    return None


def _at_equal_tokens(aligned: Aligned, a_s: float, b_s: float, tokens: float | None) -> float | None:
    """Return the speedup if B had A's tokens: its generation and training in proportion, everything else as it is."""
    if tokens is None or tokens < TINY:
        return None
    everything = tokens
    if (
        "total_tokens" in aligned.a
        and "total_tokens" in aligned.b
        and min(aligned.a["total_tokens"].mean(), aligned.b["total_tokens"].mean()) > TINY
    ):
        everything = float(aligned.b["total_tokens"].mean() / aligned.a["total_tokens"].mean())
    scaled_s = b_s
    for name, ratio in (("exposed_s", tokens), *((n, everything) for n in ("train_s", "log_prob_s", "reference_s"))):
        if name in aligned.b:
            scaled_s += float(aligned.b[name].mean()) * (1 / ratio - 1)
    return a_s / scaled_s if scaled_s > TINY else None


def _mean_step_error(a: Side, aligned: Aligned) -> float:
    predicted, measured = (aligned.a, aligned.b) if a.kind == "predicted" else (aligned.b, aligned.a)
    return float(np.abs(predicted["step_s"] / measured["step_s"] - 1).mean())


def _different_setups(a: Side, b: Side) -> list[str]:
    """Return what is known to differ between the set-ups, a line each."""
    return [
        f"different {word}: {a.setup[word]} against {b.setup[word]}"
        for word in a.setup
        if word in b.setup and _plain(a.setup[word]) != _plain(b.setup[word])
    ]


def _plain(value: str) -> str:
    """Return a name as far as it matters: `Qwen/Qwen3-8B` and `qwen3-8b` are one model."""
    return value.rstrip("/").rpartition("/")[2].lower().replace("_", "-")
