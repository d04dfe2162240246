"""What a study leaves behind: a table, JSON, and AcceptanceTraces that a scenario can use. Does not measure."""

import datetime
import platform
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import torch

from profiler.mtp.acceptance import row
from profiler.mtp.estimates import (
    STRATEGIES,
    Drift,
    Estimate,
    accept_rate,
    bin_lines,
    domains_of,
    drifts,
    late,
    position_shifts,
    rl_lines,
    temperature_curve,
)
from profiler.mtp.laws import Line
from profiler.mtp.results import LOSSES_COMPARED, NUM_DRAFTS, RECIPES, TEMPERATURE_CURVES, TEMPERATURES, Results
from profiler.mtp.verdicts import verdicts
from traces.acceptance import AcceptanceLaw, AcceptanceRow, AcceptanceTrace, VerifyRule
from traces.base import Origin, Provenance


def as_json(results: Results) -> dict[str, Any]:
    """Return what `bebop study mtp --json` prints."""
    domains = domains_of(results)
    rates = {domain: {loss: accept_rate(results, domain, loss) for loss in LOSSES_COMPARED} for domain in domains}
    answer: dict[str, Any] = {
        "accept_rate": {d: {loss: round(e.mean, 5) for loss, e in of.items()} for d, of in rates.items()},
        "accept_rate_interval": {d: {loss: _interval(e) for loss, e in of.items()} for d, of in rates.items()},
        "slope": {},
        "slope_interval": {},
        "verdicts": {
            name: {"claim": one.claim, "outcome": one.outcome.value, "why": one.why}
            for name, one in verdicts(results).items()
        },
        "size": results.size.name,
        "seeds": _num_seeds(results),
        "seconds": round(results.seconds, 1),
    }
    answer["acceptance_by_position"] = {
        domain: {name: _shifts(results, domain, *RECIPES[name]) for name in RECIPES} for domain in domains
    }
    if "math" in domains:
        answer["accept_length_by_temperature"] = {
            f"{rule}, {loss}": {f"{t:g}": round(e.mean, 4) for t, e in temperature_curve(results, loss, rule).items()}
            for loss, rule in TEMPERATURE_CURVES
        }
    if results.rl:
        answer |= _rl_as_json(results)
    return answer


def _shifts(results: Results, domain: str, loss: str, rule: str) -> list[tuple[int, float]]:
    return [(place, round(one.mean, 3)) for place, one in position_shifts(results, domain, loss, rule).items()]


def _rl_as_json(results: Results) -> dict[str, Any]:
    lines, both = rl_lines(results), rl_lines(results, at_one_step=False)
    slopes = {name: round(line.slope_per_nat, 4) for name, line in lines.items()}
    return {
        "slope": {name: slopes[name] for name in RECIPES},
        "slope_of_others": {name: slope for name, slope in slopes.items() if name not in RECIPES},
        "slope_interval": {n: [round(line.slope_low, 4), round(line.slope_high, 4)] for n, line in lines.items()},
        "slope_with_drift": {name: round(line.slope_per_nat, 4) for name, line in both.items()},
        "per_rl_step": {
            name: [round(value, 5) for value in (line.per_step, line.per_step_low, line.per_step_high)]
            for name, line in lines.items()
        },
        "drift": {
            name: {end: _drift_as_json(one) for end, one in drifts(results, name, lines[name]).items()}
            for name in STRATEGIES
        },
        "accept_length_late_in_rl": {name: round(late(results, name).mean, 4) for name in STRATEGIES},
    }


def _drift_as_json(drift: Drift) -> dict[str, list[float]]:
    parts = {"change": drift.change, "entropy": drift.entropy, "mismatch": drift.mismatch}
    return {name: [round(one.mean, 4), *_interval(one)] for name, one in parts.items()}


def as_text(results: Results) -> str:
    """Return the tables and the verdicts, for people."""
    domains = domains_of(results)
    values = {(unit.target_values, unit.head_values) for unit in results.units}
    lines = [
        f"{results.size.name}: "
        + ", ".join(f"targets of {target:,} values, heads of {head:,}" for target, head in sorted(values))
        + f", {_num_seeds(results)} seed(s), k = {NUM_DRAFTS}, {results.seconds:.0f} s of units",
        "",
        "Acceptance rate (AL - 1) / k, rejection sampling, temperature 1 (95 % interval)",
        f"{'loss':12}" + "".join(f"{domain:>26}" for domain in domains),
    ]
    for loss in LOSSES_COMPARED:
        lines.append(f"{loss:12}" + "".join(f"{accept_rate(results, domain, loss)!s:>26}" for domain in domains))
    if "math" in domains:
        lines += ["", "Accept length by temperature, math", f"{'':24}" + "".join(f"{t:8g}" for t in TEMPERATURES)]
        for loss, rule in TEMPERATURE_CURVES:
            curve = temperature_curve(results, loss, rule)
            lines.append(f"{f'{rule}, {loss}':24}" + "".join(f"{curve[t].mean:8.3f}" for t in sorted(curve)))
    if results.rl:
        of_rl = rl_lines(results)
        lines += ["", "Accept length over reinforcement learning: slope in policy entropy at one step, change per step"]
        lines += [f"{name:24}{_line(line)}" for name, line in of_rl.items()]
        lines += ["", f"{'Parts of its change':24}{'change':>26}{'entropy':>26}{'mismatch':>26}"]
        for name in STRATEGIES:
            for end, drift in drifts(results, name, of_rl[name]).items():
                parts = (drift.change, drift.entropy, drift.mismatch)
                lines.append(f"{f'{name}, {end}':24}" + "".join(f"{one!s:>26}" for one in parts))
        lines += ["", "Accept length over the last third of it"]
        lines += [f"{name:24}{late(results, name)}" for name in STRATEGIES]
    lines += ["", "Verdicts"]
    lines += [f"{one.outcome.value:18}{one.claim}: {one.why}" for one in verdicts(results).values()]
    return "\n".join(lines)


def traces(results: Results, command: str) -> Iterator[AcceptanceTrace]:
    """Yield the traces of a study: whole domains, bins of entropy, bins of position, steps of RL."""
    stem = f"mtp-study-{results.size.name}"
    where = _provenance(results, command)
    means = [
        row(
            cell.found,
            loss=cell.loss,
            verify_rule=cell.verify_rule,
            temperature=cell.temperature,
            task=cell.domain,
            with_entropy=False,
        )
        for cell in results.cells
    ]
    yield _trace(stem, results, where, means)
    of_bins, of_places = [], []
    for cell in results.cells:
        same = {"loss": cell.loss, "verify_rule": cell.verify_rule, "temperature": cell.temperature}
        of_bins += [row(one, task=cell.domain, with_entropy=True, **same) for one in cell.entropy_bins]  # type: ignore[arg-type]
        of_places += [
            row(one, task=cell.domain, with_entropy=False, from_token=place, **same)  # type: ignore[arg-type]
            for place, one in cell.place_bins
        ]
    laws = [
        _law(line, name, f"bins_{domain}", "over bins of the entropy where the first draft stands")
        for domain in domains_of(results)
        for name, line in bin_lines(results, domain).items()
    ]
    yield _trace(f"{stem}-entropy", results, where, of_bins, laws)
    yield _trace(f"{stem}-places", results, where, of_places)
    if results.rl:
        along = [
            _law(line, name, "rl_sums", "over RL steps, at one step")
            for name, line in rl_lines(results).items()
            if name in RECIPES
        ]
        yield _trace(f"{stem}-rl", results, where, list(_rl_rows(results)), along)


def _rl_rows(results: Results) -> Iterator[AcceptanceRow]:
    for point in results.rl:
        for name, (loss, rule) in RECIPES.items():
            made = row(point.found[name], loss=loss, verify_rule=rule, temperature=1.0, task="sums", with_entropy=False)
            # The policy's entropy over its tokens, not that where drafts begin: what a scenario's trajectory holds.
            yield made.model_copy(update={"entropy_nats": round(point.entropy_nats, 5), "rl_step": point.step})


def _law(line: Line, recipe: str, fit: str, how: str) -> AcceptanceLaw:
    return AcceptanceLaw(
        recipe=recipe,
        fit=fit,
        verify_rule=VerifyRule(RECIPES[recipe][1]),
        num_draft_tokens=NUM_DRAFTS,
        intercept=min(max(line.intercept, 0.0), 17.0),
        slope_per_nat=line.slope_per_nat,
        slope_sd_per_nat=line.slope_sd_per_nat,
        entropy_low_nats=line.entropy_low_nats,
        entropy_high_nats=line.entropy_high_nats,
        origin=Origin.MODELLED,
        source=f"least squares {how}, {line.num_points} points, a level per seed, {line.errors}",
    )


def _trace(
    name: str, results: Results, where: Provenance, rows: list[AcceptanceRow], laws: list[AcceptanceLaw] | None = None
) -> AcceptanceTrace:
    unit = results.units[0]
    model = f"byte-level decoder of {unit.target_values:,} values, MTP head of {unit.head_values:,}"
    return AcceptanceTrace(name=name, model=model, rows=tuple(rows), laws=tuple(laws or ()), provenance=where)


def _provenance(results: Results, command: str) -> Provenance:
    size = results.size
    nats: dict[str, list[float]] = {}
    for unit in results.units:
        nats.setdefault(unit.part, []).append(unit.target_nats)
    reached = ", ".join(f"{part} {sum(of) / len(of):.2f}" for part, of in nats.items())
    return Provenance(
        source="counted on models that `bebop study mtp` trains from nothing, with their own MTP heads",
        created=datetime.datetime.now(datetime.UTC).date().isoformat(),
        command=command,
        versions={
            "bebop-rollout": version("bebop-rollout"),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        notes=f"{size}; {_num_seeds(results)} seeds were run. Targets reached a next-token loss of {reached} nats per "
        "character, mean over seeds. Text is characters of code, "
        "worked arithmetic and dialogues with tools; steps count where the policy writes itself, with all k positions. "
        "Tiny models on tiny text: the shape of an effect may carry over to real ones, no number here does. In RL the "
        "policy moves away from frozen heads as its entropy rises: a line over RL steps holds both effects.",
    )


def _num_seeds(results: Results) -> int:
    return len({unit.seed for unit in results.units})


def _interval(found: Estimate) -> list[float]:
    return [round(found.low, 5), round(found.high, 5)]


def _line(line: Line) -> str:
    slope = f"{line.slope_per_nat:+.3f} ({line.slope_low:+.3f} to {line.slope_high:+.3f})"
    span = f"H {line.entropy_low_nats:.3f} to {line.entropy_high_nats:.3f}"
    drift = f"{line.per_step:+.4f} ({line.per_step_low:+.4f} to {line.per_step_high:+.4f}) per step"
    return f"{line.intercept:.3f} {slope} per nat, {drift}, {span}, {line.num_points} points, {line.errors}"
