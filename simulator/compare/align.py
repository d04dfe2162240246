"""Align: two sides over the RL steps that both have, paired by number, with terms that mean the same on both.

Steps and terms that cannot be compared are counted or named, never guessed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from simulator.compare.sides import Side
from simulator.compare.steps import FACTS, TERMS
from simulator.errors import ComparisonError

F64 = NDArray[np.float64]

CORE: Final = ("exposed_s", "train_s")
"""Terms that every run has: where one is not logged it is unknown, not zero."""

MOSTLY: Final = 0.5
"""Share of the steps that must say a number for it to be used."""

SAME_WORK: Final = 0.02
"""Reports give tokens as a rate, a mean over replications; two that differ by less generate the same."""


@dataclass(frozen=True, slots=True)
class Aligned:
    """The RL steps that both sides have, and their columns, in which nothing is missing."""

    rl_steps: NDArray[np.int64]
    a: dict[str, F64]
    b: dict[str, F64]
    only_in: dict[str, Literal["a", "b"]]
    """Terms that one side alone logs."""
    unpaired: tuple[int, int]
    """RL steps of A, and of B, that the other one does not have."""
    incomplete: int
    """Common steps left out because a side lacks there what it logs in most steps."""
    notes: tuple[str, ...]


def align(a: Side, b: Side) -> Aligned:
    """Return the common steps of two sides.

    Raises:
        ComparisonError: They have none.
    """
    common, at_a, at_b = np.intersect1d(a.rl_steps, b.rl_steps, return_indices=True)
    unpaired = (_unpaired(a, b), _unpaired(b, a))
    if len(common) == 0:
        raise ComparisonError(_nothing_in_common(a, b))
    left = {name: column[at_a] for name, column in a.columns.items()}
    right = {name: column[at_b] for name, column in b.columns.items()}
    notes: list[str] = []
    if a.kind != b.kind:
        for side, columns in ((a, left), (b, right)):
            if side.kind == "measured" and _merge_training(columns):
                notes.append(f"{side.name}: log-probability, reference and critic are in training, as in a report")
    kept = np.ones(len(common), dtype=bool)
    terms = {name: _core_or_optional(name, left, right) for name in TERMS}
    for name in CORE:
        if terms[name] == "both":
            kept &= ~np.isnan(left[name]) & ~np.isnan(right[name])
        elif terms[name] is not None:
            notes.append(f"{TERMS[name]}: not logged by both, so it stands under the rest")
    if not kept.any():
        raise ComparisonError(
            f"{a.name} and {b.name}: in none of their {len(common)} common steps do both log what each logs in most; "
            "compare logs that are whole"
        )
    columns_a, columns_b = _complete(left, right, terms, kept)
    _same_work(a, b, columns_a, columns_b)
    for side, columns in ((a, columns_a), (b, columns_b)):
        notes += _beside_the_mean(side, columns)
    notes += _drafts(a, b, columns_a, columns_b)
    return Aligned(
        rl_steps=common[kept],
        a=columns_a,
        b=columns_b,
        only_in={name: where for name, where in terms.items() if name not in CORE and where in ("a", "b")},
        unpaired=unpaired,
        incomplete=int((~kept).sum()),
        notes=tuple(notes),
    )


def _unpaired(side: Side, other: Side) -> int:
    known = set(other.rl_steps.tolist()) | set(other.left_out)
    return sum(int(step) not in known for step in side.rl_steps)


def _nothing_in_common(a: Side, b: Side) -> str:
    parts = []
    for side in (a, b):
        steps = side.rl_steps
        has = f"{len(steps)} steps ({steps[0]} to {steps[-1]})" if len(steps) else "no usable steps"
        reasons = ", ".join(f"{count} {reason}" for reason, count in side.excluded().items())
        parts.append(f"{side.name} has {has}" + (f", left out: {reasons}" if reasons else ""))
    return f"no RL step in common: {'; '.join(parts)}; compare runs whose step numbers meet"


def _merge_training(columns: dict[str, F64]) -> bool:
    """Add to training what a report counts there; return whether there was anything."""
    found = False
    for name in ("log_prob_s", "reference_s", "critic_s"):
        if not np.isnan(columns[name]).all():
            columns["train_s"] = columns["train_s"] + np.nan_to_num(columns[name])
            columns[name] = np.full_like(columns[name], np.nan)
            found = True
    return found


def _core_or_optional(name: str, a: dict[str, F64], b: dict[str, F64]) -> Literal["both", "a", "b"] | None:
    """Return where a term is logged well enough; optional terms in any step, those of `CORE` in most."""
    least = MOSTLY if name in CORE else 0.0
    said_a, said_b = (_said(side[name]) > least for side in (a, b))
    if said_a and said_b:
        return "both"
    return "a" if said_a else "b" if said_b else None


def _said(column: F64) -> float:
    return float(1 - np.isnan(column).mean()) if len(column) else 0.0


def _complete(
    a: dict[str, F64], b: dict[str, F64], terms: dict[str, Literal["both", "a", "b"] | None], kept: NDArray[np.bool_]
) -> tuple[dict[str, F64], dict[str, F64]]:
    """Return the columns of the steps that stay: terms with zeros where nothing is logged, facts with their mean."""
    sides: Sequence[dict[str, F64]] = ({}, {})
    for done, columns in zip(sides, (a, b), strict=True):
        done["step_s"] = columns["step_s"][kept]
        for name, where in terms.items():
            if where == "both" or (where is not None and name not in CORE):
                done[name] = np.nan_to_num(columns[name][kept])
        for name in FACTS:
            values = columns[name][kept]
            if _said(values) > MOSTLY:
                done[name] = np.where(np.isnan(values), np.nanmean(values), values)
    return sides[0], sides[1]


def _same_work(a: Side, b: Side, columns_a: dict[str, F64], columns_b: dict[str, F64]) -> None:
    """Two reports whose token counts differ by no more than these are known generate the same."""
    if a.kind == b.kind == "predicted":
        before, after = columns_a["response_tokens"].mean(), columns_b["response_tokens"].mean()
        if abs(after - before) < SAME_WORK * before:
            columns_b["response_tokens"] = columns_a["response_tokens"]


def _drafts(a: Side, b: Side, columns_a: dict[str, F64], columns_b: dict[str, F64]) -> list[str]:
    """Forget accept lengths where neither side drafts; else say which side is taken not to."""
    columns = [side.get("accept_length") for side in (columns_a, columns_b)]
    if all(column is not None and bool((column == 1).all()) for column in columns):
        del columns_a["accept_length"], columns_b["accept_length"]
        return []
    return [
        f"{side.name}: nothing about drafts is logged, taken as plain decoding (accept length 1)"
        for side in (a, b)
        if side.is_taken_as_plain
    ]


def _beside_the_mean(side: Side, columns: dict[str, F64]) -> list[str]:
    """A report's terms are means over all its steps; say so where the compared ones take another time."""
    whole, compared = float(side.columns["step_s"].mean()), float(columns["step_s"].mean())
    if side.kind == "measured" or abs(compared / whole - 1) < 0.01:
        return []
    return [
        f"{side.name}: terms are means over its {len(side.rl_steps)} steps, whose step time is {whole:.1f} s; over "
        f"those compared it is {compared:.1f} s, and the difference stands under the rest"
    ]
