"""Replay: the generation phase of a logged step, again in the simulator, with lengths drawn from its logged tail.

Every arm and every speed of the engine gets the same lengths, so that their ratio is that of paired runs. Does not know
what is fitted. One step alone: what another policy overlaps with training is not in it.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from simulator.config import Scenario
from simulator.forecast.steps import LoggedSteps
from simulator.inputs import Inputs, Noise, make_parts
from simulator.parts import Parts
from simulator.rng import generator
from simulator.rollout import RolloutSide
from simulator.rollout_state import JUMP
from simulator.step_table import StepTable, build_step_table, scaled
from simulator.workload import Workload, sequences_of

F64 = NDArray[np.float64]
I32 = NDArray[np.int32]


def replay_parts(inputs: Inputs, logged: LoggedSteps, index: int, arm: str, noise: Noise | None = None) -> Parts:
    """Return one arm's parts for one logged step.

    The policy of step `index` counts as trained on `index` RL steps; a scenario that is to follow the log's entropy
    has it at these numbers.

    Raises:
        ScenarioError: The scenario does not hold the step: its KV cache, or its latency source.
    """
    workload = logged_workload(inputs.scenario, logged, index)
    parts, _ = make_parts(inputs, arm, workload, noise or Noise(), 0)
    law = parts.law_of(index)
    return replace(parts, law_of=lambda _: law)


def logged_workload(scenario: Scenario, logged: LoggedSteps, index: int) -> Workload:
    """Return the scenario's batch with the lengths of a logged step: its tail at even quantiles, in random order."""
    config = scenario.workload
    assert config.kind == "synthetic"
    count = config.prompts_per_step * config.group_size
    prompt = logged.steps[index].prompt_tokens_mean
    prompts = np.full(count, max(round(prompt if prompt is not None else config.prompt_tokens.mean_after_cut), 1))
    responses = generator("replay", index).permutation(tail_lengths(logged, index, count))
    return sequences_of(config, prompts.astype(np.int32), responses, "replay", index)


def tail_lengths(logged: LoggedSteps, index: int, count: int) -> I32:
    """Return `count` lengths, ascending, with the mean and the longest response of a logged step."""
    one, mean = logged.tails[index], float(logged.mean_tokens[index])
    lengths = np.exp(one.log_median + one.sigma * ndtri((np.arange(count) + 0.5) / count))
    lengths = np.minimum(lengths, one.maximum)
    lengths[-1] = one.maximum
    inside = lengths < one.maximum
    if inside.any():  # quantiles of few responses miss the mean a little; the longest ones stay as logged
        missing = mean * count - lengths[~inside].sum()
        lengths[inside] *= np.clip(missing / lengths[inside].sum(), 0.2, 5.0)
    return np.maximum(np.rint(np.minimum(lengths, one.maximum)), 1).astype(np.int32)


def generation_s(parts: Parts, table: StepTable | None = None) -> float:
    """Return the seconds from the first prompt to the last token of one batch, with other step costs if given."""
    parts = parts if table is None else replace(parts, table=table)
    side = RolloutSide(parts, mode=JUMP)
    num_groups = parts.workload.num_groups
    side.submit(num_groups, 0.0)
    side.advance(float("inf"), num_groups)
    return side.ready_s(num_groups)


def slowed(table: StepTable, slowness: float) -> StepTable:
    """Return step costs of an engine that takes `slowness` times as long for everything."""
    return scaled(table, slowness, [1.0] * (len(table.step_s) // table.rows_per_level))


def delayed(table: StepTable, seconds: float) -> StepTable:
    """Return step costs with `seconds` more in every step of a batch that is not empty."""
    levels = len(table.step_s) // table.rows_per_level
    step_s = table.step_s + seconds
    step_s[:: table.rows_per_level] = 0.0
    return build_step_table(
        table.knots, step_s, table.prefill_tokens, table.prefill_s, table.attention_s_per_token2, num_levels=levels
    )
