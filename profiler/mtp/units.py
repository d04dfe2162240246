"""Units of the study: a part (a domain of text, or sums, on which RL runs) under one seed.

A unit trains a target, heads and rollouts of its own, so that what differs between seeds is all that chance decides.
Every head of a target starts from one that was trained with cross-entropy, as the paper's heads do, and gets as many
further batches as the others. Units do not know each other.
"""

import copy
import time
from collections.abc import Iterable

import torch
from torch import Tensor

from profiler.models.decoder import Decoder, build_decoder
from profiler.models.rank import slice_rank
from profiler.models.weights import WeightMaker, num_values
from profiler.mtp.acceptance import Acceptance, entropy_bins, of_own_tokens, place_bins, summarise
from profiler.mtp.corpora import VOCAB_SIZE, own_tokens, stream, windows
from profiler.mtp.heads import Head, new_head
from profiler.mtp.ragged import generate
from profiler.mtp.reinforce import RESPONSE_TOKENS, Policy, RlRecipe, response_mask, sums, worked_sums
from profiler.mtp.rejection import process
from profiler.mtp.results import (
    LOSSES_COMPARED,
    NARROW,
    NUM_DRAFTS,
    ONLINE,
    RECIPES,
    TEMPERATURE_CURVES,
    TEMPERATURES,
    Cell,
    RlPoint,
    Size,
    Unit,
)
from profiler.mtp.speculate import speculate
from profiler.mtp.train import HeadRecipe, OnlineHead, Rollouts, read, train_head, train_target
from traces.architecture import Architecture

PROMPT_TOKENS = 32
NUM_ENTROPY_BINS = 8
PLACE_BINS = (0, 32, 64)
"""First tokens of the bins of position in the response."""
SUMS = "sums"
"""The part that RL runs on."""
PRE_RL_TEMPERATURES = (1.0, 1.4, 1.8)
"""Of the rollouts that RL's frozen heads learn from: their entropies cover those that RL is led through, as the paper's
claim holds only inside the entropies of MTP training."""
SUMS_BATCH = 32
"""Answers to sums are a fourth as long as responses in a domain of text: batches of as many tokens."""
ONLINE_SHARE = 4
"""Online heads learn from one in so many responses of a step."""
TARGET_RATE, START_RATE, HEAD_RATE, RL_RATE = 3e-3, 2e-3, 5e-4, 2e-4
"""Learning rates at a hidden size of RATED_HIDDEN, assumed: of targets, and policies before RL; of the heads' common
start; of each loss behind it, and of online training; of RL. Others go with 1 / hidden size, as those of matrices do in
muP (arXiv:2203.03466)."""
RATED_HIDDEN = 128


def run_unit(size: Size, part: str, seed: int, device: str = "cpu") -> Unit:
    """Return what one part measures under one seed, on a device of torch's."""
    began = time.perf_counter()
    torch.manual_seed(seed)
    cells: list[Cell] = []
    rl: list[RlPoint] = []
    entropies: tuple[tuple[float, float], ...] = ()
    if part == SUMS:
        text, num_batches = worked_sums(size.stream_tokens, seed, size.largest_number), size.policy_batches
    else:
        text, num_batches = stream(part, size.stream_tokens, seed=seed), size.target_batches
    decoder = build_decoder(slice_rank(shape_of(size)), WeightMaker.seeded(torch.device(device), "fp32", seed))
    losses = train_target(decoder, text, num_batches, learning_rate=_rate(size, TARGET_RATE), seed=seed)
    if part == SUMS:
        rl, entropies = _reinforce(decoder, size, seed)
    else:
        heads = _heads(decoder, [_rollouts(decoder, part, text, size, seed)], LOSSES_COMPARED, size, seed)
        cells = _compare_losses(decoder, heads, part, size, seed)
        cells += _by_temperature(decoder, heads, part, size, seed) if part == "math" else []
    head_values = num_values(decoder.mtp)
    return Unit(
        part=part,
        seed=seed,
        target_values=num_values(decoder) - head_values,
        head_values=head_values,
        target_nats=sum(losses[-10:]) / len(losses[-10:]),
        seconds=time.perf_counter() - began,
        cells=tuple(cells),
        rl=tuple(rl),
        entropy_by_temperature=entropies,
    )


def shape_of(size: Size) -> Architecture:
    """Return the target."""
    return dense_shape(f"mtp-study-{size.name}", size.hidden_size, size.num_layers)


def dense_shape(name: str, hidden_size: int, num_layers: int) -> Architecture:
    """Return a small shape: dense, Qwen3's layers, one MTP layer; `hidden_size` is a multiple of 32."""
    heads = hidden_size // 32
    return Architecture(
        name=name,
        num_layers=num_layers,
        num_full_attention_layers=num_layers,
        num_linear_attention_layers=0,
        hidden_size=hidden_size,
        ffn_size=8 * hidden_size // 3,
        expert_ffn_size=None,
        shared_ffn_size=None,
        num_experts=None,
        num_experts_per_token=None,
        num_q_heads=heads,
        num_kv_heads=heads,
        head_size=32,
        num_linear_k_heads=None,
        num_linear_v_heads=None,
        linear_head_size=None,
        vocab_size=VOCAB_SIZE,
        num_mtp_layers=1,
        tied_embeddings=False,
        attention="GQA",
        source="made for the study",
    )


def _rollouts(decoder: Decoder, domain: str, text: Tensor, size: Size, seed: int) -> Rollouts:
    """Return what the target writes behind pieces of its training text."""
    prompts = _beside(decoder, windows(text, size.num_rollouts, PROMPT_TOKENS, seed=100 + seed))
    tokens = generate(decoder, prompts, size.response_tokens)
    counts = own_tokens(domain, tokens)
    counts[:, :PROMPT_TOKENS] = False
    return read(decoder, tokens, counts)


def _heads(
    decoder: Decoder, rollouts: list[Rollouts], losses: Iterable[str], size: Size, seed: int, batch: int = 8
) -> dict[str, Head]:
    """Return a head per loss, all from one start."""
    start = new_head(decoder.rank.local, decoder.embedding_VH, decoder.head_VH, seed)
    train_head(start, rollouts, HeadRecipe("ce", size.start_batches, batch, _rate(size, START_RATE), seed=seed))
    heads = {}
    for loss in losses:
        heads[loss] = copy.deepcopy(start)
        recipe = HeadRecipe(loss, size.head_batches, batch, _rate(size, HEAD_RATE), seed=1000 + seed)
        train_head(heads[loss], rollouts, recipe)
    return heads


def _compare_losses(decoder: Decoder, heads: dict[str, Head], domain: str, size: Size, seed: int) -> list[Cell]:
    """Return acceptance by loss under rejection sampling, and that of the CE head under greedy drafts and block."""
    conditions = [(loss, "rejection") for loss in LOSSES_COMPARED] + [("ce", "greedy_draft"), ("e2e_tv", "block")]
    return [
        _measure(decoder, heads[loss], domain, loss, rule, 1.0, size, seed, with_bins=True) for loss, rule in conditions
    ]


def _by_temperature(decoder: Decoder, heads: dict[str, Head], domain: str, size: Size, seed: int) -> list[Cell]:
    return [
        _measure(decoder, heads[loss], domain, loss, rule, temperature, size, seed)
        for temperature in TEMPERATURES
        if temperature != 1.0
        for loss, rule in TEMPERATURE_CURVES
    ]


def _measure(
    decoder: Decoder,
    head: Head,
    domain: str,
    loss: str,
    rule: str,
    temperature: float,
    size: Size,
    seed: int,
    *,
    with_bins: bool = False,
) -> Cell:
    """Count acceptance behind pieces of held-out text; the same ones for every head."""
    held_out = stream(domain, size.stream_tokens // 4, held_out=True)
    prompts = _beside(decoder, windows(held_out, size.num_measured, PROMPT_TOKENS, seed=200 + seed))
    torch.manual_seed(300 + seed)
    tokens, steps = speculate(
        decoder, head, prompts, size.response_tokens, verify_rule=rule, num_drafts=NUM_DRAFTS, temperature=temperature
    )
    counts = of_own_tokens(steps, own_tokens(domain, tokens))
    cell = Cell(domain, loss, rule, temperature, seed, summarise(steps, counts, rule))
    if not with_bins:
        return cell
    places = place_bins(steps, counts, tuple(PROMPT_TOKENS + start for start in PLACE_BINS))
    return Cell(
        domain,
        loss,
        rule,
        temperature,
        seed,
        cell.found,
        tuple(summarise(steps, chosen, rule) for chosen in entropy_bins(steps, counts, NUM_ENTROPY_BINS)),
        tuple((low - PROMPT_TOKENS, summarise(steps, chosen, rule)) for low, chosen in places),
    )


def _reinforce(decoder: Decoder, size: Size, seed: int) -> tuple[list[RlPoint], tuple[tuple[float, float], ...]]:
    """Return acceptance along a run in which entropy is led up and back, and the entropies that heads were trained at.

    The policy knows its task by then. Heads are trained on its own rollouts, and frozen but for those of the online
    strategies.
    """
    torch.manual_seed(400 + seed)
    pools, entropies = zip(*(_task_rollouts(decoder, t, size, seed) for t in PRE_RL_TEMPERATURES), strict=True)
    frozen = _heads(decoder, list(pools), ("ce", "tv", "e2e_tv"), size, seed, SUMS_BATCH)
    narrow = _heads(decoder, [pools[PRE_RL_TEMPERATURES.index(1.0)]], ("tv",), size, seed, SUMS_BATCH)["tv"]
    online = {
        name: OnlineHead(copy.deepcopy(frozen[before]), HeadRecipe(during, 1, learning_rate=_rate(size, HEAD_RATE)))
        for name, (before, during, _) in ONLINE.items()
    }
    drafting = {name: (frozen[loss], rule) for name, (loss, rule) in RECIPES.items()}
    drafting |= {NARROW: (narrow, "rejection")}
    drafting |= {name: (head.head, ONLINE[name][2]) for name, head in online.items()}
    rate = _rate(size, RL_RATE)
    recipe = RlRecipe(size.rl_steps, learning_rate=rate, largest=size.largest_number, seed=seed)
    policy, points = Policy(decoder, recipe), []
    for index in range(size.rl_steps + 1):
        found = {}
        if index % size.rl_measured_every == 0:
            found = {name: _on_sums(decoder, head, rule, size, seed) for name, (head, rule) in drafting.items()}
        made = policy.step(index)
        if found:
            points.append(RlPoint(seed, index, made.entropy_nats, made.reward, made.kl_nats, found))
        # Responses of a group share their prompt: some of each are enough.
        seen = read(decoder, made.tokens_BT[::ONLINE_SHARE], made.counts_BT[::ONLINE_SHARE])
        for head in online.values():
            head.step(seen)
    return points, tuple(zip(PRE_RL_TEMPERATURES, entropies, strict=True))


def _task_rollouts(decoder: Decoder, temperature: float, size: Size, seed: int) -> tuple[Rollouts, float]:
    """Return answers sampled at a temperature, and their mean entropy at it, nats."""
    prompts, _ = sums(size.num_rollouts, 600 + seed, size.largest_number)
    tokens = generate(decoder, _beside(decoder, prompts), RESPONSE_TOKENS, temperature)
    rollouts = read(decoder, tokens, response_mask(tokens), temperature=temperature)
    written = rollouts.hidden_STH[:, :-1][rollouts.counts_ST[:, 1:]]
    chances = process(decoder.logits(written), temperature)
    return rollouts, float(torch.special.entr(chances).sum(-1).mean())


def _on_sums(decoder: Decoder, head: Head, rule: str, size: Size, seed: int) -> Acceptance:
    prompts, _ = sums(size.num_measured, 700 + seed, size.largest_number)
    prompts = _beside(decoder, prompts)
    tokens, steps = speculate(decoder, head, prompts, RESPONSE_TOKENS, verify_rule=rule, num_drafts=NUM_DRAFTS)
    return summarise(steps, of_own_tokens(steps, response_mask(tokens)), rule)


def _rate(size: Size, rate: float) -> float:
    return rate * RATED_HIDDEN / size.hidden_size


def _beside(decoder: Decoder, tokens: Tensor) -> Tensor:
    return tokens.to(decoder.embedding_VH.device)
