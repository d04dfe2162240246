"""Columns of a comparison: which seconds make up a step, and what a measured run says about generation and drafts."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from traces.measured import MeasuredRun, MeasuredStep

F64 = NDArray[np.float64]

TERMS: Final = {
    "exposed_s": "generation that the step waits for",
    "train_s": "training the policy",
    "log_prob_s": "log-probabilities under the policy",
    "reference_s": "log-probabilities under a reference or teacher",
    "critic_s": "values and critic update",
    "reward_s": "rewards that the step waits for",
    "sync_s": "weight sync",
}
"""Seconds of a step, in the order of the waterfall, and what they are; the rest of the step follows."""

REST: Final = "rest"

FACTS: Final = {
    "num_sequences": "responses per step",
    "response_tokens_mean": "mean response tokens",
    "response_tokens_max": "longest response, tokens",
    "response_tokens": "response tokens per step",
    "prompt_tokens_mean": "mean prompt tokens",
    "observation_tokens_mean": "mean observation tokens",
    "total_tokens": "all tokens per step",
    "clipped_fraction": "clipped responses, share",
    "turns_mean": "mean turns",
    "tool_s_mean": "tool time per trajectory, s",
    "entropy_nats": "entropy, nats",
    "accept_length": "accept length, tokens",
    "generation_s": "generation, engines busy, s",
    "staleness_mean_versions": "mean staleness, versions",
    "dropped_samples": "dropped samples per step",
    "aborted_fraction": "aborted responses, share",
}
"""What is shown beside the times, where both sides say it."""

MEASURED_COLUMNS: Final = (
    "step_s",
    *(name for name in TERMS if name != "exposed_s"),
    "generation_wait_s",
    *(name for name in FACTS if name not in ("accept_length", "response_tokens")),
)
"""Fields of a measured step that are read as they are."""

TINY: Final = 1e-6
"""Seconds, or tokens, below which there are none; nobody logs a shorter time."""

_OVERLAP: Final = 1.02
"""Parts that sum to more than this times the step overlap."""


def count_tokens(columns: dict[str, F64]) -> None:
    """Fill in how many responses a step has, and the response tokens of all of them, as far as other columns say."""
    observations = np.nan_to_num(columns["observation_tokens_mean"])
    per_sequence = columns["prompt_tokens_mean"] + columns["response_tokens_mean"] + observations
    counted = columns["total_tokens"] / np.where(per_sequence > 0, per_sequence, np.nan)
    columns["num_sequences"] = np.where(np.isnan(columns["num_sequences"]), counted, columns["num_sequences"])
    columns["response_tokens"] = columns["num_sequences"] * columns["response_tokens_mean"]


def exposed_generation(run: MeasuredRun, columns: dict[str, F64]) -> tuple[F64, list[str]]:
    """Return the generation that each step waits for, NaN where the log does not say, and what was concluded."""
    waits, busy = columns["generation_wait_s"], columns["generation_s"]
    if run.setup.is_asynchronous or not np.isnan(waits).all():
        return waits, []
    both = busy + columns["train_s"]
    known = ~np.isnan(both)
    if run.setup.is_asynchronous is None and known.any():
        over = np.median(both[known] / columns["step_s"][known])
        if over > _OVERLAP:
            return waits, [
                f"generation and training sum to {over:.2f}x the step, so they overlap; how long the trainer waited is "
                "not logged"
            ]
    return busy, []


def accept_lengths(steps: Sequence[MeasuredStep]) -> F64:
    """Return the accept length of each step, NaN where it is not said."""
    lengths = np.full(len(steps), np.nan)
    for index, step in enumerate(steps):
        said = step.speculation
        if said is None:
            continue
        if said.accept_length is not None:
            lengths[index] = said.accept_length
        elif said.num_drafts and said.num_accepted_tokens is not None:
            lengths[index] = 1 + said.num_accepted_tokens / said.num_drafts
        elif said.per_position:
            lengths[index] = 1 + sum(said.per_position)
    return lengths


def decodes_plainly(run: MeasuredRun) -> bool:
    """Return whether a run is set up without drafts, or says nothing of any."""
    if run.setup.num_draft_tokens is not None:
        return run.setup.num_draft_tokens == 0
    return all(step.speculation is None for step in run.steps)
