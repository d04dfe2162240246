"""The Bebop paper (arXiv 2606.12370) as traces: its laws, its per-position rates, its runs' entropy.

Reads `data/published/bebop_digitised.json` (values read off the figures, about +-1 %); tables and stated ranges are
here, as the paper prints them. Make the shipped files again with `python -m traces.importers.bebop_paper`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from traces.acceptance import AcceptanceLaw, AcceptanceRow, AcceptanceTrace, VerifyRule
from traces.base import Origin, Provenance
from traces.store import DATA_FOLDER, save_trace
from traces.workload import EntropyPoint, WorkloadTrace

PAPER = "arXiv 2606.12370"
DIGITISED = DATA_FOLDER / "published" / "bebop_digitised.json"
CREATED = "2026-11-22"
COMMAND = "python -m traces.importers.bebop_paper"
NUM_DRAFT_TOKENS = 3
"""k of every run in the paper."""

FITS = {
    "fig1a_all_runs": ("all_runs", 0.07, 0.66),
    "fig8a_reasoning_H0.337-0.452": ("reasoning", 0.337, 0.452),
    "fig8b_swe_H0.187-0.227": ("swe", 0.187, 0.227),
    "fig8c_swe_Qwen3.7-Max_H0.389-0.456": ("swe_qwen3.7_max", 0.389, 0.456),
}
"""Key in the digitised file -> name of the fit and its entropy range in nats, as stated."""

RECIPES = {"TO": "to", "RS_CE": "rs_ce", "RS_TV": "rs_e2e_tv"}
"""The RL runs labelled RS+TV used heads trained with the e2e TV loss (sec. 5)."""

SLOPE_READ_OFF_SD = 0.025
"""Slopes are read off the figures to +-0.02 .. 0.03; the paper gives no standard error of the fit."""

TABLE_2_GAIN = {
    "tv": {"math": 0.024, "code": 0.025, "swe": 0.033, "agent": 0.052, "mt_bench": 0.014},
    "e2e_tv": {"math": 0.030, "code": 0.033, "swe": 0.080, "agent": 0.067, "mt_bench": 0.023},
}
"""Table 2: acceptance rate (AL - 1) / k above that of the CE head; RS, k = 3."""

TASKS_OF_FIT = {
    "all_runs": ("math", "code", "swe", "agent", "mt_bench"),
    "reasoning": ("math",),
    "swe": ("swe",),
    "swe_qwen3.7_max": ("swe",),
}
"""Tasks of table 2 that stand for a fit when the per-step TV law is derived from the e2e TV one."""

POSITIONS = {
    ("ce", "code"): (0.884, 0.720, 0.563),
    ("ce", "math"): (0.902, 0.760, 0.617),
    ("ce", "mt_bench"): (0.830, 0.632, 0.473),
    ("ce", "swe"): (0.960, 0.890, 0.806),
    ("tv", "code"): (0.886, 0.742, 0.606),
    ("tv", "math"): (0.905, 0.779, 0.652),
    ("tv", "mt_bench"): (0.833, 0.652, 0.507),
}
"""Cumulative rates at the end of MTP training, read off to +-0.004; `swe` is the first step of SWE RL."""

ENTROPY_CURVES = {
    "bebop-reasoning": ("fig6a_reasoning_accept_length_10stepbins", 0.337, 0.452),
    "bebop-swe": ("fig6b_swe_accept_length_10stepbins", 0.187, 0.227),
}
"""Name of the trace -> accept-length curve it is inferred from, and the run's stated entropy range in nats."""

STEPS_PER_BIN = 10


def read_digitised(path: Path = DIGITISED) -> dict[str, Any]:
    """Return the digitised figures by key."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def acceptance_trace(digitised: Mapping[str, Any]) -> AcceptanceTrace:
    """Return the paper's laws, those derived for per-step TV heads, and its per-position rates."""
    stated = [
        _stated_law(RECIPES[label], key, *line)
        for key, lines in digitised["fits_accept_length_incl_bonus_gamma3"].items()
        if key in FITS
        for label, line in lines.items()
    ]
    by_name = {(law.recipe, law.fit): law for law in stated}
    derived = [_per_step_tv_law(law, by_name) for law in stated if law.recipe == "rs_e2e_tv"]
    return AcceptanceTrace(
        name="bebop-paper",
        model="Qwen3.5/3.6/3.7 with one recursive MTP layer",
        provenance=Provenance(
            source=f"{PAPER}: fits of figs. 1a and 8, per-position curves of MTP training and of SWE RL",
            created=CREATED,
            command=COMMAND,
            notes=(
                "Values are read off figures: accept lengths to about 1 %, slopes to 0.02-0.03, cumulative rates to "
                "0.004. Laws hold inside their entropy range at k = 3. rs_tv laws are derived, not published. Rows are "
                "at temperature 1 as far as the paper says; their TV head is labelled TV, and its gain over CE is that "
                "of the per-step TV row of table 2 rather than of the e2e one. Rows fit the position decay of the "
                "simulator: do not use them to judge it."
            ),
        ),
        rows=tuple(_row(loss, task, rates) for (loss, task), rates in POSITIONS.items()),
        laws=(*stated, *derived),
    )


def entropy_trace(digitised: Mapping[str, Any], name: str) -> WorkloadTrace:
    """Return the entropy of one of the paper's RL runs, inferred from its TO accept length.

    The paper prints the entropy's range, not its curve. Under TO accept length falls in a straight line with entropy
    (fig. 8), so the curve is the TO accept length, turned over and stretched to that range.
    """
    key, low, high = ENTROPY_CURVES[name]
    lengths = digitised[key]["TO"]
    longest, shortest = max(lengths), min(lengths)
    points = tuple(
        EntropyPoint(
            rl_step=STEPS_PER_BIN * index + STEPS_PER_BIN // 2,
            entropy_nats=round(low + (high - low) * (longest - length) / (longest - shortest), 4),
        )
        for index, length in enumerate(lengths)
    )
    figure = key.split("_", maxsplit=1)[0].replace("fig", "fig. ")
    return WorkloadTrace(
        name=name,
        model="Qwen3.6",
        provenance=Provenance(
            source=f"inferred from {PAPER} {figure}: TO accept length mapped onto the stated {low}..{high} nats",
            created=CREATED,
            command=COMMAND,
            notes=(
                "The paper states the range of entropy only; the shape is the TO accept-length curve, upside down. "
                "RL step = centre of a bin of 10 steps. TO accept lengths of this run say nothing about a prediction "
                "made with this trajectory: they are its input."
            ),
        ),
        entropy=points,
    )


def write_shipped_traces(folder: Path = DATA_FOLDER) -> list[Path]:
    """Write the traces that are shipped, return their files."""
    digitised = read_digitised()
    acceptance = folder / "acceptance" / "bebop-paper.json"
    save_trace(acceptance_trace(digitised), acceptance)
    written = [acceptance]
    for name in ENTROPY_CURVES:
        path = folder / "workload" / "entropy" / f"{name}.json"
        save_trace(entropy_trace(digitised, name), path)
        written.append(path)
    return written


def _stated_law(recipe: str, key: str, slope: float, intercept: float) -> AcceptanceLaw:
    fit, low, high = FITS[key]
    return AcceptanceLaw(
        recipe=recipe,
        fit=fit,
        verify_rule=VerifyRule.GREEDY_DRAFT if recipe == "to" else VerifyRule.REJECTION,
        num_draft_tokens=NUM_DRAFT_TOKENS,
        intercept=intercept,
        slope_per_nat=slope,
        slope_sd_per_nat=SLOPE_READ_OFF_SD,
        entropy_low_nats=low,
        entropy_high_nats=high,
        origin=Origin.STATED,
        source=f"{PAPER} {key.split('_', maxsplit=1)[0].replace('fig', 'fig. ')}, line read off the figure",
    )


def _per_step_tv_law(e2e: AcceptanceLaw, laws: Mapping[tuple[str, str], AcceptanceLaw]) -> AcceptanceLaw:
    # Not the plain difference of table 2: in SWE RL, e2e TV gained a quarter of what it gains in the table, and the
    # whole difference would put per-step TV below CE, which it beats on every task.
    tasks = TASKS_OF_FIT[e2e.fit]
    gain, full_gain = (sum(TABLE_2_GAIN[loss][task] for task in tasks) for loss in ("tv", "e2e_tv"))
    anchor = e2e.fit if ("rs_ce", e2e.fit) in laws else "swe"
    middle = (laws["rs_ce", anchor].entropy_low_nats + laws["rs_ce", anchor].entropy_high_nats) / 2
    gap = laws["rs_e2e_tv", anchor].accept_length(middle) - laws["rs_ce", anchor].accept_length(middle)
    tokens = round((gain / full_gain - 1.0) * gap, 3)
    return e2e.model_copy(
        update={
            "recipe": "rs_tv",
            "intercept": round(e2e.intercept + tokens, 3),
            "origin": Origin.ASSUMED,
            "source": (
                f"no curve published: law rs_e2e_tv/{e2e.fit} {tokens:+g} tokens, so that per-step TV gains {gain:.3f}/"
                f"{full_gain:.3f} of what e2e TV gains over CE, as in {PAPER} table 2 ({', '.join(tasks)}); the gap "
                f"is that of the {anchor} laws at {middle:.3g} nats; slope unchanged"
            ),
        }
    )


def _row(loss: str, task: str, rates: tuple[float, ...]) -> AcceptanceRow:
    return AcceptanceRow(
        loss=loss,
        verify_rule=VerifyRule.REJECTION,
        task=task,
        rl_step=0 if task == "swe" else None,
        cumulative=rates,
        origin=Origin.STATED,
    )


if __name__ == "__main__":
    for written_path in write_shipped_traces():
        print(written_path)
