"""Which published rows decide the engines' habits, and the fit itself. All other rows only check.

A fit takes whole sources or a stated half of one, never a row for itself; its rows are in no class's figures. Least
squares on log(predicted / measured) from a fixed start, so the same rows give the same numbers.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from simulator.engine_habits import EngineHabits, Software
from simulator.scorecard.inference import Habits, Prepared, prepare
from simulator.scorecard.rows import InferenceRow, published_rows
from simulator.scorecard.score import Scored, scored
from traces.store import DATA_FOLDER

HABITS_FILE = DATA_FOLDER / "kernels" / "engine_habits.json"
SOFTWARE: tuple[Software, ...] = ("vllm", "sglang", "sglang_no_overlap", "llama_cpp")
_SHARES = ("recurrence_efficiency", "fp8_bandwidth_factor", "draft_expert_reuse")


_NOTHING = 1e-7
"""Seconds, or a share: what is fitted below it is none."""


@dataclass(frozen=True, slots=True)
class Fit:
    """One group of rows and the numbers that they decide."""

    name: str
    rule: str
    """Which rows, in words."""
    chooses: Callable[[InferenceRow], bool]
    engines: tuple[Software, ...]
    """Whose habits."""
    start: dict[str, float]
    """Field -> first guess; its scale too."""
    of_speedup: bool = False
    """Whether the rows' speedups are fitted, else their times per token."""


FITS: tuple[Fit, ...] = (
    Fit(
        "kernels",
        "plain decoding of Qwen3.8-27B on GB300 (SGLang, fp8); its drafts, and all rows on H200, check",
        lambda row: row.id.startswith("gb300-q38") and row.drafts == 0,
        SOFTWARE,
        {"recurrence_efficiency": 0.2, "fp8_bandwidth_factor": 0.7},
    ),
    Fit(
        "expert_reuse",
        "Qwen3.6-35B-A3B on a laptop (llama.cpp), experts on the host; the rows on Strix Halo and H200 check",
        lambda row: row.id.startswith("lcpp-3060") and row.drafts > 0,
        SOFTWARE,
        {"draft_expert_reuse": 0.2},
        of_speedup=True,
    ),
    Fit(
        "vllm_serving",
        "Qwen3-32B on two H100 (vLLM), as far as the requests fit into the KV cache; the rows on four check",
        lambda row: row.id.startswith("qwen3-32b-h100-tp2") and _fits_into_memory(row),
        ("vllm",),
        {"step_s": 5e-4, "step_s_per_seq": 5e-5},
    ),
    Fit(
        "vllm_drafts",
        "EAGLE and EAGLE-3 heads on H100 (vLLM) at even k; odd k checks",
        lambda row: row.id.startswith("vllm-20780-eagle") and row.drafts % 2 == 0,
        ("vllm",),
        {"speculative_step_s": 1e-3, "draft_launch_s": 8e-4},
        of_speedup=True,
    ),
    Fit(
        "sglang_no_overlap",
        "EAGLE and EAGLE-3 heads on H100 (SGLang 0.4.4) at every second batch: 2, 8, 24, 48, 64; the others check",
        lambda row: row.id.startswith(("eagle-b", "eagle3-b")) and row.concurrency in (2, 8, 24, 48, 64),
        ("sglang_no_overlap",),
        {"speculative_step_s": 2e-3, "speculative_step_s_per_seq": 1e-4},
        of_speedup=True,
    ),
)
"""In the order in which they are made: each starts from what the earlier ones found."""


def fit_of(row: InferenceRow) -> str | None:
    """Return the name of the fit that a row decides; None: it only checks."""
    for fit in FITS:
        if fit.chooses(row):
            return fit.name
    return None


def fit_habits(rows: Sequence[InferenceRow], without_source: str | None = None) -> Habits:
    """Return the habits that the rows give; a fit all of whose rows are of `without_source` is left out."""
    habits: Habits = {software: EngineHabits() for software in SOFTWARE}
    for fit in FITS:
        chosen = [row for row in rows if fit.chooses(row) and row.source != without_source]
        if without_source is not None and source_of(fit, rows) == without_source:
            chosen = []
        if chosen:
            found = _solve(fit, [prepare(row, habits) for row in chosen])
            for software in fit.engines:
                names = (*habits[software].fitted_on, fit.name)
                habits[software] = habits[software].model_copy(update={**found, "fitted_on": names})
    return habits


def source_of(fit: Fit, rows: Sequence[InferenceRow]) -> str:
    """Return the publication of a fit's rows, versions and numbers of its parts left out."""
    chosen = [row for row in rows if fit.chooses(row)]
    return publication(chosen[0]) if chosen else ""


def publication(row: InferenceRow) -> str:
    """Return where a row was published, without which of its tables or configurations it is."""
    return row.source.split(":")[0].split(" (")[0].split(", SGLang")[0].split(" Table")[0]


def write_habits(habits: Habits) -> None:
    """Store the habits with what decided them."""
    content: dict[str, Any] = {
        "schema_version": 1,
        "command": "python benchmarks/scorecard.py --fit",
        "fits": {fit.name: {"rows": fit.rule, "decides": sorted(fit.start)} for fit in FITS},
        "habits": {name: entry.model_dump(mode="json") for name, entry in habits.items()},
    }
    HABITS_FILE.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def leave_one_source_out(rows: Sequence[InferenceRow]) -> dict[str, list[Scored]]:
    """Return, for the publication behind each fit, its rows predicted with habits that never saw that publication."""
    from simulator.scorecard.inference import score_rows

    left_out: dict[str, list[Scored]] = {}
    for fit in FITS:
        name = source_of(fit, rows)
        if not name or name in left_out:
            continue
        of_it = [row for row in rows if publication(row) == name]
        blind = fit_habits([row for row in rows if publication(row) != name])
        left_out[name] = scored(score_rows(of_it, habits=blind))
    return left_out


def stored_fit_rows() -> dict[str, list[str]]:
    """Return the ids of each fit's rows among the shipped ones."""
    rows = published_rows()
    return {fit.name: [row.id for row in rows if fit.chooses(row)] for fit in FITS}


def _solve(fit: Fit, prepared: Sequence[Prepared]) -> dict[str, float]:
    names = list(fit.start)
    scale = np.array([fit.start[name] for name in names])

    def residuals(x: NDArray[np.float64]) -> NDArray[np.float64]:
        update = dict(zip(names, (x * scale).tolist(), strict=True))
        logs = []
        for entry in prepared:
            now = entry.under(entry.deployment.habits.model_copy(update=update))
            if fit.of_speedup:
                assert entry.row.speedup is not None
                logs.append(np.log(now.speedup() / entry.row.speedup))
            else:
                measured_s = entry.row.measured_tpot_s
                assert measured_s is not None
                logs.append(np.log(now.tpot_s() / measured_s))
        return np.array(logs)

    most = [1.0 / value if name in _SHARES else np.inf for name, value in fit.start.items()]
    least = [0.05 / value if name in _SHARES[:2] else 0.0 for name, value in fit.start.items()]
    start = np.clip(np.ones(len(names)), np.array(least) + 1e-9, np.array(most) - 1e-9)
    found = least_squares(residuals, start, bounds=(least, most), loss="soft_l1", f_scale=0.05)
    values = zip(names, (found.x * scale).tolist(), strict=True)
    return {name: float(f"{value:.3g}") if value > _NOTHING else 0.0 for name, value in values}


def _fits_into_memory(row: InferenceRow) -> bool:
    prepared = prepare(replace(row, complaints=()))
    load = prepared.load
    whole = load.prompt_tokens + (load.response_tokens or 0.0)
    return load.concurrency * whole <= prepared.deployment.kv_capacity_tokens
