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
from simulator.scorecard.inference import Habits, Prepared, prepare, score_rows
from simulator.scorecard.rows import InferenceRow
from simulator.scorecard.score import Scored, scored
from traces.store import DATA_FOLDER

HABITS_FILE = DATA_FOLDER / "kernels" / "engine_habits.json"
SOFTWARE: tuple[Software, ...] = (
    "vllm",
    "vllm_early",
    "vllm_piecewise",
    "sglang",
    "sglang_no_overlap",
    "llama_cpp",
)
_SHARES = ("recurrence_efficiency", "fp8_bandwidth_factor", "draft_expert_reuse")


PIECEWISE_LAYER_S = 1e-4
"""About ten launches at 10 us: what runs between the pieces of a layer's CUDA graphs; assumed."""
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


_H20_PLAIN = tuple(f"angelslim-h20-qwen3-{size}-ar" for size in ("1.7b", "8b", "32b"))
_H20_DRAFTED = tuple(f"angelslim-h20-qwen3-{size}-eagle3" for size in ("1.7b", "8b", "32b"))

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
        "Qwen3.6-35B-A3B on a laptop (llama.cpp, experts on the host) and on Strix Halo (vLLM) at even k; odd k and "
        "all other mixtures of experts check",
        lambda row: row.id.startswith(("lcpp-3060", "strix-q36-35b")) and row.drafts > 0 and row.drafts % 2 == 0,
        SOFTWARE,
        {"draft_expert_reuse": 0.2},
        of_speedup=True,
    ),
    Fit(
        "vllm_serving",
        "plain decoding of Qwen3-32B on two H100 (vLLM 0.12) as far as the requests fit into the KV cache, and of "
        "Qwen3-1.7B, -8B and -32B on one H20 (vLLM 0.11); the rows on four H100 and the other models check",
        lambda row: (row.id.startswith("qwen3-32b-h100-tp2") and _fits_into_memory(row)) or row.id in _H20_PLAIN,
        ("vllm", "vllm_early", "vllm_piecewise"),
        {"step_s": 5e-4, "step_s_per_seq": 5e-5},
    ),
    Fit(
        "vllm_drafts",
        "EAGLE-3 heads of Qwen3-1.7B, -8B and -32B on H20 (vLLM 0.11); those of the other models, and MTP, check",
        lambda row: row.id in _H20_DRAFTED,
        ("vllm",),
        {"speculative_step_s": 3e-4, "draft_launch_s": 3e-4},
        of_speedup=True,
    ),
    Fit(
        "vllm_early_drafts",
        "EAGLE and EAGLE-3 heads of Llama-3.1-8B on H100 (vLLM 0.9) at even k; odd k checks",
        lambda row: row.id.startswith("vllm-20780-eagle") and row.drafts % 2 == 0,
        ("vllm_early",),
        {"speculative_step_s": 1e-3, "draft_launch_s": 8e-4},
        of_speedup=True,
    ),
    Fit(
        "vllm_piecewise",
        "MTP of Qwen3.8-27B on A100 (vLLM 0.27, graphs downgraded) at k = 2; k = 1 and 3 check",
        lambda row: row.id == "vllm-35387-k2",
        ("vllm_piecewise",),
        {"draft_launch_s": 1e-2},
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


def fit_habits(rows: Sequence[InferenceRow]) -> Habits:
    """Return the habits that the rows give; a fit none of whose rows is among them leaves its numbers as they are."""
    habits: Habits = {software: EngineHabits() for software in SOFTWARE}
    for software in ("vllm_early", "vllm_piecewise"):
        habits[software] = EngineHabits(piecewise_layer_s=PIECEWISE_LAYER_S)
    for fit in FITS:
        chosen = [row for row in rows if fit.chooses(row)]
        if chosen:
            found = _solve(fit, [prepare(row, habits) for row in chosen])
            for software in fit.engines:
                names = (*habits[software].fitted_on, fit.name)
                habits[software] = habits[software].model_copy(update={**found, "fitted_on": names})
    return habits


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
    """Return, for each publication that a fit has rows of, its rows predicted by fits that never saw it."""
    fitted = dict.fromkeys(publication(row) for row in rows if fit_of(row) is not None)
    left_out: dict[str, list[Scored]] = {}
    for name in fitted:
        blind = fit_habits([row for row in rows if publication(row) != name])
        left_out[name] = scored(score_rows([row for row in rows if publication(row) == name], habits=blind))
    return left_out


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
