"""What if: the speedup over two knobs of a scenario at once, each cell one trial with the same random numbers."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from simulator.config import Scenario
from simulator.errors import ScenarioError, TraceCoverageError
from simulator.inputs import BASELINE, Noise, resolve
from simulator.scenario_file import with_fields
from simulator.trial import outcome_of, run_trial

MAX_CELLS = 400
SHORT_STEPS = 12
"""RL steps after the warm-up of one trial."""


@dataclass(frozen=True, slots=True)
class Knob:
    """A field and the values that it takes."""

    path: str
    title: str
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class SpeedupMap:
    """End-to-end speedup of an arm over plain decoding with the same knobs."""

    scenario: str
    arm: str
    across: Knob
    up: Knob
    speedups: tuple[tuple[float | None, ...], ...]
    """[up, across]; None: that scenario cannot run."""
    why_not: dict[str, int]
    """What those that cannot run lack -> how often."""


def speedup_map(
    scenario: Scenario,
    arm: str,
    across: Knob,
    up: Knob,
    *,
    progress: Callable[[float], None] | None = None,
) -> SpeedupMap:
    """Return the speedup at every pair of values, inputs as stated, over a few steps after the warm-up.

    Raises:
        ScenarioError: More than 400 cells.
    """
    pairs = [(right, high) for high in up.values for right in across.values]
    if len(pairs) > MAX_CELLS:
        raise ScenarioError(f"{len(pairs)} cells are above the limit of {MAX_CELLS}; give fewer values")
    why_not: dict[str, int] = {}

    def cell(pair: tuple[float, float]) -> float | str:
        try:
            return speedup_at(scenario, arm, [(across.path, pair[0]), (up.path, pair[1])])
        except (ScenarioError, TraceCoverageError) as error:
            return str(error)

    found: list[float | None] = []
    with ThreadPoolExecutor(max_workers=min(os.cpu_count() or 1, 8)) as executor:
        for index, value in enumerate(executor.map(cell, pairs)):
            found.append(value if isinstance(value, float) else None)
            if isinstance(value, str):
                field = value.removeprefix(f"{scenario.name}: ").split(":")[0]
                why_not[field] = why_not.get(field, 0) + 1
            if progress is not None:
                progress((index + 1) / len(pairs))
    width = len(across.values)
    rows = tuple(tuple(found[i : i + width]) for i in range(0, len(found), width))
    return SpeedupMap(scenario.name, arm, across, up, rows, why_not)


def speedup_at(scenario: Scenario, arm: str, fields: Sequence[tuple[str, float]]) -> float:
    """Return the speedup with other values in some fields, inputs as stated, over a few steps after the warm-up.

    Raises:
        ScenarioError: That scenario cannot run.
        TraceCoverageError: A trace does not reach that far.
    """
    return run_trial(shortened(with_fields(scenario, fields)), arm, noise=Noise(accept_length=0.0)).speedup


def speedups(scenario: Scenario) -> dict[str, float]:
    """Return what `speedup_at` says of every arm with no field changed, plain decoding being run once for all.

    Raises:
        ScenarioError: The scenario cannot run.
        TraceCoverageError: A trace does not reach that far.
    """
    inputs = resolve(shortened(scenario))

    def step_s(name: str) -> float:
        return outcome_of(inputs, name, noise=Noise(accept_length=0.0)).step_s

    names = (BASELINE, *scenario.arms)
    with ThreadPoolExecutor(max_workers=min(os.cpu_count() or 1, 8)) as executor:
        seconds = dict(zip(names, executor.map(step_s, names), strict=True))
    return {arm: seconds[BASELINE] / seconds[arm] for arm in scenario.arms}


def shortened(scenario: Scenario) -> Scenario:
    """Return the scenario over a few RL steps after its warm-up."""
    return with_fields(scenario, [("run.num_steps", min(scenario.warmup_steps + SHORT_STEPS, scenario.run.num_steps))])


def drafts_by_batch(scenario: Scenario, arm: str) -> tuple[Knob, Knob]:
    """Return the knobs that matter most: draft tokens, and the batch that a replica decodes together."""
    most = max(scenario.arms[arm].k, 1)
    acceptance = scenario.arms[arm].acceptance
    if acceptance is not None and acceptance.kind == "fixed":
        most = len(acceptance.cumulative)
    own = scenario.engine.max_running_seqs
    batches = sorted({*(2**power for power in range(2, 10)), own})
    near = [batch for batch in batches if own / 16 <= batch <= own * 4]
    name = f'"{arm}"' if "." in arm else arm
    return (
        Knob("engine.max_running_seqs", "sequences that a replica decodes together", tuple(near)),
        Knob(f"arms.{name}.k", "draft tokens k", tuple(range(1, most + 1))),
    )
