"""Calibration: what physics leaves open of a scenario, fitted to a log; everything else stays as its author stated it.

Changed are the trainer's lines, the engine's efficiency and host gap, the tail and drift of response lengths, and the
seconds of a weight sync. Does not know files, nor how results are shown.
"""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from simulator.calibration.engine import REPLAY_SD, EngineFit, fit_engine
from simulator.calibration.lengths import LengthFit, fit_lengths
from simulator.calibration.match import Match, match_step
from simulator.calibration.overlapped import fit_overlapped
from simulator.calibration.speculation import arm_name, logged_arm, with_logged_arm
from simulator.calibration.toml import to_toml
from simulator.calibration.trainer import TrainerFit, constant_value, fit_trainer
from simulator.calibration.values import INTERVAL, Value, from_fit
from simulator.config import Scenario
from simulator.errors import ForecastError
from simulator.forecast import laws
from simulator.forecast.fit import fit
from simulator.forecast.forecast import steady_part
from simulator.forecast.steps import LoggedSteps, logged_steps
from simulator.inputs import resolve
from simulator.scenario_file import parse_fields, set_field
from traces.base import Origin
from traces.measured import MeasuredRun

F64 = NDArray[np.float64]
Bools = NDArray[np.bool_]

MIN_STEPS: Final = 3
_BATCH_TOLERANCE: Final = 0.25
"""Share by which responses per step may differ from the scenario's, e.g. because a filter took some out."""
_TOGETHER: Final = 0.7
"""Correlation of two errors above which it is said."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """A scenario with fitted fields, and what is to be said of each of them."""

    logged: LoggedSteps
    content: dict[str, Any]
    """The scenario as TOML has it."""
    scenario: Scenario
    values: tuple[Value, ...]
    match: Match | None
    notes: tuple[str, ...]
    engine: EngineFit | None
    """None where generation was not replayed."""
    trainer: TrainerFit | None

    def toml(self, source: str) -> str:
        """Return the calibrated scenario as a file."""
        told = [
            f"  {one.path} = {one.value:.4g} ({one.low:.4g} to {one.high:.4g})" for one in self.values if one.is_told
        ]
        comment = f"Calibrated by `bebop calibrate {source}`; fitted fields, with 90 % intervals:\n" + "\n".join(told)
        return to_toml(self.content, comment)


def calibrate(run: MeasuredRun, content: dict[str, Any], name: str, source: str) -> Calibration:
    """Fit what a scenario leaves open to a log.

    Args:
        run: What was logged.
        content: The scenario as tomllib reads it.
        name: Of the scenario, for messages.
        source: Of the log, for the origins of fitted fields.

    Raises:
        ForecastError: The log has too few usable steps, or is of another batch than the scenario; one line.
        ScenarioError: The scenario cannot be run.
    """
    scenario = parse_fields(content, name)
    logged = logged_steps(run)
    _check(logged, scenario, name)
    notes = [*logged.left_out, *logged.notes]
    steady = steady_part(logged, np.ones(len(logged), bool), notes)
    new = deepcopy(content)
    lengths, trainer = fit_lengths(logged), fit_trainer(logged, steady)
    notes.extend(lengths.notes)
    values: list[Value] = list(lengths.values)
    _take_lengths(new, lengths, logged, source)
    values.extend(_take_sync(new, logged, steady, source))
    engine, said = _engine(new, name, logged, steady)
    if engine is not None:
        values.extend(_take_engine(new, engine, resolve(scenario).architecture.num_layers, source))
    if trainer is not None:
        values.extend(_take_trainer(new, trainer, engine, logged, steady, source))
    else:
        said.append("trainer.s_per_token: the log has no training seconds; the scenario's trainer stays")
    if engine is None and not said:
        overlapped = fit_overlapped(parse_fields(new, name), logged, steady)
        values.append(overlapped)
        if overlapped.is_told:
            _set(new, "engine.efficiency", _round(overlapped.value), source, overlapped)
    calibrated = parse_fields(new, name)
    match = match_step(calibrated, logged, steady, engine, trainer, values)
    return Calibration(logged, new, calibrated, tuple(values), match, (*notes, *said), engine, trainer)


def _check(logged: LoggedSteps, scenario: Scenario, name: str) -> None:
    if len(logged) < MIN_STEPS:
        said = f" ({logged.left_out[0]})" if logged.left_out else ""
        raise ForecastError(
            f"{logged.run.name}: {len(logged)} usable steps, a calibration needs {MIN_STEPS}{said}; give a longer log"
        )
    workload = scenario.workload
    if workload.kind != "synthetic":
        raise ForecastError(
            f"{name}: workload.kind is {workload.kind}, whose lengths are no parameters; calibrate a synthetic workload"
        )
    is_asynchronous, kind = logged.run.setup.is_asynchronous, scenario.policy.kind
    if (is_asynchronous is False and kind == "fully_async") or (is_asynchronous and kind == "synchronous"):
        raise ForecastError(
            f"{name}: policy.kind is {kind}, but generation and training "
            f"{'overlap' if is_asynchronous else 'alternate'} in {logged.run.name}; state the policy of the logged run"
        )
    stated, found = workload.prompts_per_step * workload.group_size, float(np.median(logged.num_sequences))
    if not logged.notes and abs(stated / found - 1) > _BATCH_TOLERANCE:
        raise ForecastError(
            f"{name}: workload.prompts_per_step x group_size = {stated}, but a step of {logged.run.name} has "
            f"{found:.0f} responses; state the batch of the logged run"
        )


def _engine(
    content: dict[str, Any], name: str, logged: LoggedSteps, steady: Bools
) -> tuple[EngineFit | None, list[str]]:
    """Return the replayed engine; None, and why nothing else can be tried, where generation cannot be replayed."""
    generation = logged.seconds["generation"]
    scenario = parse_fields(content, name)
    timed = np.flatnonzero(steady & np.isfinite(generation))
    if logged.is_asynchronous or scenario.policy.kind == "fully_async":
        return None, []
    if not len(timed):
        return None, ["engine.efficiency: the log has no generation seconds; the scenario's engine stays"]
    bare = deepcopy(content)
    gap_s = scenario.engine.layer_overhead_s * resolve(scenario).architecture.num_layers
    bare["engine"].pop("efficiency", None)
    bare["engine"]["layer_overhead_s"] = 0.0
    inputs = resolve(with_logged_arm(parse_fields(bare, name), logged.run))
    return fit_engine(inputs, logged, timed.tolist(), arm_name(logged_arm(logged.run)), gap_s), []


def _take_engine(content: dict[str, Any], engine: EngineFit, num_layers: int, source: str) -> list[Value]:
    why = f"generation seconds of {len(engine.indices)} steps against replays of their lengths"
    together = float(engine.fit.correlation()[0, 1])
    if engine.is_gap_known and abs(together) > _TOGETHER:
        why += f"; efficiency and host gap are told mostly together (correlation {together:.2f})"
    efficiency = from_fit(engine.fit, "slowness", "engine.efficiency", why, is_inverse=True, model_sd=REPLAY_SD)
    gap = from_fit(engine.fit, "host_gap_s", "engine.layer_overhead_s", why, scale=1 / num_layers)
    if not engine.is_gap_known:
        kept = float(content["engine"].get("layer_overhead_s", 0.0))
        why = "the log does not tell a gap between steps from a slower engine; kept as the scenario has it"
        gap = Value(gap.path, kept, kept, kept, "not told", why)
    _set(content, "engine.efficiency", _round(efficiency.value), source, efficiency)
    if gap.is_told:
        _set(content, "engine.layer_overhead_s", _round(gap.value), source, gap)
    return [efficiency, gap]


def _take_trainer(
    content: dict[str, Any],
    trainer: TrainerFit,
    engine: EngineFit | None,
    logged: LoggedSteps,
    steady: Bools,
    source: str,
) -> list[Value]:
    """Write the trainer's lines; its constant takes what a step has beyond its phases."""
    rest, error = _rest(logged, trainer, steady)
    seconds, variance = rest, error**2 + trainer.constant_error_s**2
    if engine is not None:
        place = engine.fit.law.names.index("constant_s")
        constant = float(np.exp(engine.fit.parameters[place]))
        seconds += constant
        variance += (constant * float(np.sqrt(engine.fit.covariance[place, place]))) ** 2
    seconds += trainer.constant_s
    why = "constants of the passes and of generation, and what the logged phases leave of a step"
    constant_field = constant_value(seconds, variance**0.5, why)
    kept = content["trainer"].get("stalls")
    content["trainer"] = {"kind": "linear"} | ({"stalls": kept} if kept else {})
    _forget(content, "trainer")
    for one in (*trainer.values, constant_field):
        _set(content, one.path, _round(one.value), source, one)
    return [*trainer.values, constant_field]


def _rest(logged: LoggedSteps, trainer: TrainerFit, steady: Bools) -> tuple[float, float]:
    """Return the seconds of a step that no phase has, and the error of their median."""
    parts = sum((logged.seconds[term] for term in trainer.fits), np.zeros(len(logged)))
    parts = parts + np.nan_to_num(logged.seconds["sync"], nan=0.0)
    wait = logged.seconds["wait"] if logged.is_asynchronous else logged.measured("generation")
    rest = (logged.seconds["step"] - parts - wait)[steady]
    rest = rest[np.isfinite(rest)]
    if not len(rest):
        return 0.0, 0.0
    middle = float(np.median(rest))
    return middle, 1.2533 * 1.4826 * float(np.median(np.abs(rest - middle))) / len(rest) ** 0.5


def _take_sync(content: dict[str, Any], logged: LoggedSteps, steady: Bools, source: str) -> list[Value]:
    seconds = logged.seconds["sync"]
    timed = steady & np.isfinite(seconds)
    path = "weight_sync.seconds"
    if not timed.any():
        old = content["weight_sync"].get("seconds", float("nan"))
        why = "the log has no seconds of a weight sync; the scenario's stay, and what a sync took is in the constant"
        return [Value(path, old, old, old, "not told", why)]
    found = fit(*laws.constant(seconds[timed]), np.zeros((int(timed.sum()), 1)), seconds[timed])
    value = from_fit(found, "seconds", path, f"weight-sync seconds of {int(timed.sum())} steps")
    content["weight_sync"] = {"kind": "seconds"} | {
        key: content["weight_sync"][key] for key in ("mode", "swap_s") if key in content["weight_sync"]
    }
    _forget(content, "weight_sync")
    _set(content, path, _round(value.value), source, value)
    return [value]


def _take_lengths(content: dict[str, Any], lengths: LengthFit, logged: LoggedSteps, source: str) -> None:
    said = f"fitted to {source}: lengths of {len(logged)} steps"
    _forget(content, "workload.response_tokens")
    _forget(content, "workload.length_drift")
    content["workload"]["response_tokens"] = lengths.response_tokens
    _note(content, "workload.response_tokens", said)
    if lengths.length_drift is not None:
        content["workload"]["length_drift"] = lengths.length_drift
        _note(content, "workload.length_drift", said)


def _set(content: dict[str, Any], path: str, number: float, source: str, value: Value) -> None:
    keys = path.split(".")
    set_field(content, keys, number, path)
    _forget(content, path)
    _note(
        content,
        path,
        f"fitted to {source}: {value.why}; {100 * INTERVAL:.0f} % interval {value.low:.4g} to {value.high:.4g}",
    )


def _note(content: dict[str, Any], path: str, source: str) -> None:
    content.setdefault("origins", {})[path] = {"origin": Origin.MODELLED.value, "source": source[:1000]}


def _forget(content: dict[str, Any], path: str) -> None:
    """Take out what was said of fields that are no longer there."""
    origins = content.get("origins", {})
    for known in [known for known in origins if known == path or known.startswith(f"{path}.")]:
        del origins[known]


def _round(value: float) -> float:
    return float(f"{value:.5g}")
