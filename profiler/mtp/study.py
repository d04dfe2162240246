"""The study of `bebop study mtp`: losses by domain, verify rules by temperature, acceptance along RL.

Targets are trained here from nothing. Every head of a domain starts from one that was trained with cross-entropy, as
the paper's heads do, and gets as many further batches as the others. Does not know how results are judged or printed.
"""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from profiler.models.decoder import Decoder, build_decoder
from profiler.models.rank import slice_rank
from profiler.models.weights import WeightMaker, num_values
from profiler.mtp.acceptance import Acceptance, entropy_bins, of_own_tokens, place_bins, summarise
from profiler.mtp.corpora import DOMAINS, VOCAB_SIZE, own_tokens, stream, windows
from profiler.mtp.heads import Head, new_head
from profiler.mtp.ragged import generate
from profiler.mtp.reinforce import RESPONSE_TOKENS, Policy, RlRecipe, response_mask, sums
from profiler.mtp.speculate import speculate
from profiler.mtp.train import HeadRecipe, OnlineHead, Rollouts, read, train_head, train_target
from traces.architecture import Architecture

LOSSES_COMPARED = ("ce", "kl", "reverse_kl", "tv", "e2e_tv")
"""Rows of the paper's table 2."""
TEMPERATURES = (0.1, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4)
"""Of the paper's fig. 12a."""
RECIPES = {
    "to": ("ce", "greedy_draft"),
    "rs_ce": ("ce", "rejection"),
    "rs_tv": ("tv", "rejection"),
    "rs_e2e_tv": ("e2e_tv", "rejection"),
}
"""Loss of the head and verify rule, by the names that acceptance laws have."""
NUM_DRAFTS = 3
PROMPT_TOKENS = 32
NUM_ENTROPY_BINS = 8
PLACE_BINS = (0, 32, 64)
"""First tokens of the bins of position in the response."""

ENTROPY_WEIGHT = 0.1
"""Bonus, then penalty per nat in RL: enough to move the entropy of these small policies by some tenths of a nat."""


@dataclass(frozen=True, slots=True)
class Size:
    """How large a study is."""

    name: str
    hidden_size: int
    num_layers: int
    stream_tokens: int
    target_batches: int
    start_batches: int
    """Cross-entropy batches that all heads of a domain have in common."""
    head_batches: int
    """Batches of each loss after that."""
    num_rollouts: int
    num_measured: int
    """Sequences that acceptance is counted on."""
    response_tokens: int
    rl_steps: int
    rl_pretrain_steps: int
    seeds: tuple[int, ...]


QUICK = Size("quick", 96, 3, 500_000, 250, 100, 60, 256, 96, 96, 12, 6, (0,))
"""About five minutes on two cores."""
FULL = Size("full", 192, 5, 3_000_000, 1200, 600, 300, 768, 384, 128, 60, 30, (0, 1, 2))
"""About 85 minutes on two free cores: scaled up from the quick one, never run so far."""


def shape_of(size: Size) -> Architecture:
    """Return the target: dense, Qwen3's layers, one MTP layer."""
    heads = size.hidden_size // 32
    return Architecture(
        name=f"mtp-study-{size.name}",
        num_layers=size.num_layers,
        num_full_attention_layers=size.num_layers,
        num_linear_attention_layers=0,
        hidden_size=size.hidden_size,
        ffn_size=8 * size.hidden_size // 3,
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


@dataclass(frozen=True, slots=True)
class Cell:
    """One measurement: under which conditions, and what was counted."""

    domain: str
    loss: str
    verify_rule: str
    temperature: float
    seed: int
    found: Acceptance
    entropy_bins: tuple[Acceptance, ...] = ()
    place_bins: tuple[tuple[int, Acceptance], ...] = ()


@dataclass(frozen=True, slots=True)
class RlPoint:
    """Acceptance of every head at one step of reinforcement learning."""

    seed: int
    step: int
    entropy_nats: float
    reward: float
    found: dict[str, Acceptance]
    """By recipe, and by strategy of online training."""


@dataclass(slots=True)
class Results:
    """All that a study measured."""

    size: Size
    cells: list[Cell] = field(default_factory=list)
    rl: list[RlPoint] = field(default_factory=list)
    target_nats: dict[str, float] = field(default_factory=dict)
    """Next-token loss that each target reached, nats, by domain."""
    target_values: int = 0
    head_values: int = 0
    seconds: float = 0.0


Say = Callable[[str], None]


def run_study(size: Size, say: Say, domains: tuple[str, ...] | None = None) -> Results:
    """Run all parts over all domains, or some; `say` hears of each as it begins."""
    results, began = Results(size), time.perf_counter()
    for domain in domains or DOMAINS:
        say(f"{domain}: training a target of {size.target_batches} batches")
        decoder, text = _target(domain, size, results)
        for seed in size.seeds:
            say(f"{domain}: training heads, seed {seed}")
            torch.manual_seed(seed)
            heads = _heads(decoder, _rollouts(decoder, domain, text, size, seed), size, seed)
            results.cells += _compare_losses(decoder, heads, domain, size, seed)
            if domain == "math":
                say(f"{domain}: verify rules by temperature, seed {seed}")
                results.cells += _by_temperature(decoder, heads, domain, size, seed)
                if size.rl_steps == 0:
                    continue
                say(f"{domain}: reinforcement learning, seed {seed}")
                results.rl += _reinforce(copy.deepcopy(decoder), heads["start"], size, seed)
    results.seconds = time.perf_counter() - began
    return results


def _target(domain: str, size: Size, results: Results) -> tuple[Decoder, Tensor]:
    maker = WeightMaker.seeded(torch.device("cpu"), "fp32")
    decoder = build_decoder(slice_rank(shape_of(size)), maker)
    text = stream(domain, size.stream_tokens)
    losses = train_target(decoder, text, size.target_batches)
    results.target_nats[domain] = sum(losses[-10:]) / 10
    results.head_values = num_values(decoder.mtp)
    results.target_values = num_values(decoder) - results.head_values
    return decoder, text


def _rollouts(decoder: Decoder, domain: str, text: Tensor, size: Size, seed: int) -> Rollouts:
    """Return what the target writes behind pieces of its training text."""
    prompts = windows(text, size.num_rollouts, PROMPT_TOKENS, seed=100 + seed)
    tokens = generate(decoder, prompts, size.response_tokens)
    counts = own_tokens(domain, tokens)
    counts[:, :PROMPT_TOKENS] = False
    return read(decoder, tokens, counts)


def _heads(decoder: Decoder, rollouts: Rollouts, size: Size, seed: int) -> dict[str, Head]:
    """Return the common start and a head per loss."""
    start = new_head(decoder.rank.local, decoder.embedding_VH, decoder.head_VH, seed)
    train_head(start, rollouts, HeadRecipe("ce", size.start_batches, seed=seed))
    heads = {"start": start}
    for loss in LOSSES_COMPARED:
        heads[loss] = _tuned(start, rollouts, loss, size.head_batches, seed)
    return heads


def _tuned(head: Head, rollouts: Rollouts, loss: str, num_batches: int, seed: int) -> Head:
    tuned = copy.deepcopy(head)
    train_head(tuned, rollouts, HeadRecipe(loss, num_batches, learning_rate=5e-4, seed=1000 + seed))
    return tuned


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
        for loss, rule in (("ce", "greedy_draft"), ("ce", "rejection"), ("e2e_tv", "rejection"), ("e2e_tv", "block"))
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
    prompts = windows(held_out, size.num_measured, PROMPT_TOKENS, seed=200 + seed)
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


ONLINE = {
    "start_ce_online_ce": ("ce", "ce", "greedy_draft"),
    "start_tv_online_tv": ("e2e_tv", "e2e_tv", "rejection"),
    "start_tv_online_ce": ("e2e_tv", "ce", "rejection"),
}
"""Strategies of fig. 9a beside the frozen heads: loss before RL, loss during it, verify rule."""


def _reinforce(decoder: Decoder, start: Head, size: Size, seed: int) -> list[RlPoint]:
    """Return acceptance along a run in which entropy is made to rise, then to fall.

    A plain run first teaches the policy the task; heads are then trained on its own rollouts, and frozen but for those
    of the online strategies.
    """
    torch.manual_seed(400 + seed)
    warm = Policy(decoder, RlRecipe(size.rl_pretrain_steps, entropy_weight=0.0, seed=500 + seed))
    for index in range(size.rl_pretrain_steps):
        warm.step(index)
    prompts, _ = sums(size.num_rollouts, seed=600 + seed)
    tokens = generate(decoder, prompts, RESPONSE_TOKENS)
    rollouts = read(decoder, tokens, response_mask(tokens))
    frozen = {loss: _tuned(start, rollouts, loss, 2 * size.head_batches, seed) for loss in ("ce", "tv", "e2e_tv")}
    online = {
        name: OnlineHead(copy.deepcopy(frozen[before]), HeadRecipe(during, 1, learning_rate=5e-4))
        for name, (before, during, _) in ONLINE.items()
    }
    policy = Policy(decoder, RlRecipe(size.rl_steps, entropy_weight=ENTROPY_WEIGHT, seed=seed))
    points = []
    for index in range(size.rl_steps):
        found = {name: _on_sums(decoder, frozen[loss], rule, size, seed) for name, (loss, rule) in RECIPES.items()}
        for name, head in online.items():
            found[name] = _on_sums(decoder, head.head, ONLINE[name][2], size, seed)
        made = policy.step(index)
        points.append(RlPoint(seed, index, made.entropy_nats, made.reward, found))
        seen = read(decoder, made.tokens_BT, made.counts_BT)
        for head in online.values():
            head.step(seen)
    return points


def _on_sums(decoder: Decoder, head: Head, rule: str, size: Size, seed: int) -> Acceptance:
    prompts, _ = sums(size.num_measured, seed=700 + seed)
    tokens, steps = speculate(decoder, head, prompts, RESPONSE_TOKENS, verify_rule=rule, num_drafts=NUM_DRAFTS)
    return summarise(steps, of_own_tokens(steps, response_mask(tokens)), rule)
