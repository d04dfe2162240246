"""How far acceptance is off: positions on heads it was not fitted on, laws on the paper's own runs.

`python benchmarks/acceptance.py` prints tables, `--json` one JSON object.
"""

import argparse
import csv
import json
from typing import Any

from simulator.acceptance import build_acceptance
from simulator.config import LawAcceptance, TraceEntropy
from simulator.entropy import build_entropy
from simulator.positions import CE_DECAY, TV_DECAY, PositionDecay, fit_decay, split_accept_length
from simulator.speculation import accept_length
from traces.acceptance import AcceptanceTrace
from traces.importers.bebop_paper import ENTROPY_CURVES, read_digitised
from traces.store import DATA_FOLDER, find_trace, load_trace

BY_POSITION = DATA_FOLDER / "published" / "mtp_acceptance_by_position.csv"
CURVE_OF_RECIPE = {"to": ("TO",), "rs_ce": ("RS_CE", "RS"), "rs_e2e_tv": ("RS_TV",)}
FIT_OF_RUN = {"bebop-reasoning": "reasoning", "bebop-swe": "swe"}


def decay_fits() -> list[dict[str, Any]]:
    """Return the parameters in use beside those fitted again, and each curve's error when it is left out of the fit."""
    rows = load_trace(find_trace("bebop-paper", "acceptance"), AcceptanceTrace).rows
    report = []
    for loss, used in (("ce", CE_DECAY), ("tv", TV_DECAY)):
        curves = {row.task: row.cumulative for row in rows if row.loss == loss}
        fitted = fit_decay(curves.values(), "again")
        left_out = {
            task: _largest_error(curve, fit_decay((c for t, c in curves.items() if t != task), "left out"))
            for task, curve in curves.items()
        }
        report.append(
            {
                "loss": loss,
                "drop": used.drop,
                "rho": used.rho,
                "drop_fitted_again": round(fitted.drop, 4),
                "rho_fitted_again": round(fitted.rho, 4),
                "largest_error_of_c_left_out": left_out,
            }
        )
    return report


def held_out_positions() -> list[dict[str, Any]]:
    """Return, per published head, c_j predicted from its accept length at k = 3 (or its last k) and counted."""
    report = []
    with BY_POSITION.open(newline="") as file:
        for row in csv.DictReader(file):
            counted = _numbers(row["cumulative"])
            lengths = _numbers(row["accept_length_by_k"]) or [1.0 + sum(counted[: k + 1]) for k in range(len(counted))]
            given_at = min(3, len(lengths))
            for name, decay in (("ce", CE_DECAY), ("tv", TV_DECAY)):
                predicted = split_accept_length(lengths[given_at - 1], given_at, len(lengths), decay)
                report.append(
                    {
                        "id": row["id"],
                        "head": row["head"],
                        "decay": name,
                        "accept_length_given_at_k": given_at,
                        "predicted": [round(float(c), 3) for c in predicted],
                        "counted": counted,
                        "k": len(lengths),
                        "accept_length_error": round(accept_length(predicted) / lengths[-1] - 1.0, 4),
                    }
                )
    return report


def law_consistency() -> list[dict[str, Any]]:
    """Return relative errors of the laws along the paper's runs. Not a prediction: the laws were fitted on these runs.

    The entropy is itself inferred from TO, so TO's error shows no more than the offset between law and curve.
    """
    digitised, report = read_digitised(), []
    for run, (key, _, _) in ENTROPY_CURVES.items():
        entropy = build_entropy(TraceEntropy(trace=run))
        for recipe, labels in CURVE_OF_RECIPE.items():
            curve = next(digitised[key][label] for label in labels if label in digitised[key])
            for fit in (FIT_OF_RUN[run], "all_runs"):
                law = build_acceptance(LawAcceptance(recipe=recipe, fit=fit), arm=recipe, temperature=1.0)
                errors: list[float] = [
                    accept_length(law.cumulative(3, entropy.at(10 * index + 5))) / float(published) - 1.0
                    for index, published in enumerate(curve)
                ]
                report.append(
                    {
                        "run": run,
                        "law": f"{recipe}/{fit}",
                        "mean_error": round(sum(errors) / len(errors), 4),
                        "largest_error": round(float(max(errors, key=_size)), 4),
                    }
                )
    return report


def main() -> None:
    """Print the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    report = {
        "decay": decay_fits(),
        "held_out_positions": held_out_positions(),
        "law_consistency": law_consistency(),
    }
    if parser.parse_args().json:
        print(json.dumps(report))
        return
    print("Position decay in use, fitted again on the paper's curves, and errors of c_j of a curve left out")
    for fit in report["decay"]:
        left_out = ", ".join(f"{task} {error:.3f}" for task, error in fit["largest_error_of_c_left_out"].items())
        again = f"again {fit['drop_fitted_again']} / {fit['rho_fitted_again']}"
        print(f"  {fit['loss']}: drop {fit['drop']} rho {fit['rho']} ({again}); left out: {left_out}")
    print("Heads never fitted on: from the accept length at one k to c_j and the accept length at k")
    for row in report["held_out_positions"]:
        print(
            f"  {row['id']:26} {row['decay']}  k {row['accept_length_given_at_k']} -> {row['k']}  "
            f"AL {100 * row['accept_length_error']:+6.2f} %  {row['predicted']} counted {row['counted']}"
        )
    print("Laws along the paper's own runs (consistency, not prediction)")
    for row in report["law_consistency"]:
        mean, largest = 100 * row["mean_error"], 100 * row["largest_error"]
        print(f"  {row['run']:16} {row['law']:20} mean {mean:+6.2f} %  largest {largest:+6.2f} %")


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(";") if part]


def _size(error: float) -> float:
    return abs(error)


def _largest_error(curve: tuple[float, ...], decay: PositionDecay) -> float:
    predicted = split_accept_length(1.0 + sum(curve), len(curve), len(curve), decay)
    return round(max(abs(float(p) - c) for p, c in zip(predicted, curve, strict=True)), 4)


if __name__ == "__main__":
    main()
