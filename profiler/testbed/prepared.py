"""What a run starts with: a policy that knows the task, and a draft head, trained before RL and kept in a cache.

Targets and heads have files of their own, named by a hash of all that decides them, in `bebop/testbed` of the user's
cache folder: configs that differ in what couples rollout and trainer share them. Does not know engines or RL.
"""

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from profiler.models.decoder import Decoder, build_decoder
from profiler.models.rank import slice_rank
from profiler.models.weights import WeightMaker, tensors_of
from profiler.mtp.heads import Head, head_of
from profiler.mtp.ragged import generate
from profiler.mtp.train import HeadRecipe, Rollouts, read, train_head, train_target
from profiler.mtp.units import dense_shape
from profiler.testbed.task import END, PROMPT_TOKENS, problems, worked_problems
from traces.base import canonical_hash
from traces.testbed import TestbedConfig

RECIPE_VERSION = 2
"""Raised when task or training change: older files are then of other weights."""
HEAD_LOSS = "e2e_tv"
STREAM_TOKENS = 400_000
TARGET_BATCH, TARGET_LENGTH = 16, 96
HEAD_BATCH = 16
NUM_ROLLOUTS = 256
ROLLOUT_TOKENS = 72
"""Of the responses that a head learns from; longer ones are cut."""
KL_SHARE = 0.5
"""Of the head's batches: TV's gradient vanishes while drafts are far from the target's."""
DRAFTS_TRAINED = 4

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A policy and its draft head, which is the decoder's own MTP layer."""

    decoder: Decoder
    head: Head


def prepare(config: TestbedConfig, say: Say | None = None, folder: Path | None = None) -> Prepared:
    """Return the policy and the head of a config, from the cache or trained now, on one thread.

    Args:
        config: Decides them; of its policy, k, engine and group sizes nothing does.
        say: Told before anything that takes seconds.
        folder: Cache; None: `bebop/testbed` in XDG_CACHE_HOME, or in ~/.cache.
    """
    folder, say = folder or _default_folder(), say or _silent
    decoder = new_decoder(config)
    recipe = (RECIPE_VERSION, config.model.model_dump(), config.seed, torch.__version__)
    policy = [decoder.embedding_VH, decoder.head_VH, *policy_weights(decoder)]

    def learn_task() -> None:
        say(f"training the policy: {config.model.target_batches} batches")
        text = worked_problems(STREAM_TOKENS, config.seed)
        train_target(
            decoder,
            text,
            config.model.target_batches,
            batch=TARGET_BATCH,
            length=TARGET_LENGTH,
            seed=config.seed,
        )

    _kept(folder / f"policy-{canonical_hash(recipe)[:24]}.pt", policy, learn_task)
    head = head_of(decoder)

    def learn_to_draft() -> None:
        say(f"training the draft head: {config.head_batches} batches")
        recipe = HeadRecipe(
            HEAD_LOSS,
            config.head_batches,
            HEAD_BATCH,
            kl_share=KL_SHARE,
            num_steps=DRAFTS_TRAINED,
            seed=config.seed,
        )
        train_head(head, rollouts_of(decoder, NUM_ROLLOUTS, config.temperature, config.seed), recipe)

    if config.head_batches > 0:
        recipe_of_head = (*recipe, config.head_batches, config.temperature)
        _kept(folder / f"head-{canonical_hash(recipe_of_head)[:24]}.pt", head.parameters(), learn_to_draft)
    return Prepared(decoder, head)


def new_decoder(config: TestbedConfig) -> Decoder:
    """Return the untrained model of a config, of its seed."""
    shape = dense_shape("testbed", config.model.hidden_size, config.model.num_layers)
    return build_decoder(slice_rank(shape), WeightMaker.seeded(torch.device("cpu"), "fp32", config.seed))


def policy_weights(decoder: Decoder) -> list[Tensor]:
    """Return what RL changes of the policy: all but embedding and lm_head, with which the head drafts too."""
    return [*tensors_of(decoder.layers), decoder.final_norm]


def weights_of(decoder: Decoder, head: Head) -> list[Tensor]:
    """Return what a weight sync carries, in the order of `RolloutEngine.set_weights`: the policy's, then the head's."""
    return [*policy_weights(decoder), *head.parameters()]


def rollouts_of(decoder: Decoder, num: int, temperature: float, seed: int) -> Rollouts:
    """Return responses of the policy, with its hidden states, for a head to learn from."""
    torch.manual_seed(seed)
    prompts = torch.tensor([problem.prompt for problem in problems(num, 1_000_000 + seed)])
    tokens = generate(decoder, prompts, ROLLOUT_TOKENS, temperature)
    return read(decoder, tokens, response_mask(tokens), temperature=temperature)


def response_mask(tokens_BT: Tensor) -> Tensor:
    """Return which tokens behind the prompt are the response's: up to the first END, that one included."""
    is_end = tokens_BT == END
    is_end[:, :PROMPT_TOKENS] = False
    mask = is_end.long().cumsum(1) - is_end.long() == 0
    mask[:, :PROMPT_TOKENS] = False
    return mask


def _kept(path: Path, weights: list[Tensor], train: Callable[[], None]) -> None:
    """Fill these weights from a file, or else by training, and write the file."""
    if path.exists():
        stored = torch.load(path, weights_only=True)
        with torch.no_grad():
            for weight, values in zip(weights, stored, strict=True):
                weight.copy_(values)
        return
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in one order: the same weights on a machine of any size
    try:
        train()
    finally:
        torch.set_num_threads(num_threads)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Several processes may prepare the same weights at once: each file is whole, and all are alike.
    unfinished = path.with_suffix(f".{secrets.token_hex(4)}.tmp")
    torch.save([weight.detach().clone() for weight in weights], unfinished)
    unfinished.replace(path)


def _default_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bebop" / "testbed"


def _silent(text: str) -> None:
    del text
