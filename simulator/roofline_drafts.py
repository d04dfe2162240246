"""Draft kinds: what one draft pass and one of its projections cost, by how tokens are drafted.

`mtp` is the model's own layer (`roofline_passes.draft_pass_s`). EAGLE heads are one dense layer of their own in bf16,
EAGLE-3 with a vocabulary of 32,000; n-gram drafts cost no pass; a parallel head (DFlash, P-EAGLE) drafts everything in
its first pass. Does not know acceptance, nor the host.
"""

from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from simulator.roofline_ops import gemm_s
from simulator.roofline_passes import Machine, draft_pass_s, lm_head_s
from simulator.roofline_precision import BF16
from traces.architecture import Architecture
from traces.latency import MIN_LATENCY_S

Array = NDArray[np.float64]

DraftKind = Literal["mtp", "eagle", "eagle3", "ngram", "parallel"]

EAGLE3_VOCAB = 32_000
"""Draft vocabulary of the published EAGLE-3 heads (`draft_vocab_size` in their config.json)."""
EAGLE_HEAD_SIZE = 128
EAGLE_GROUP = 4
"""Query heads per KV head of an EAGLE head whose target's attention is MLA (model card of GLM-4.7-Flash-Eagle3: 16/4).
"""
EAGLE_FFN_FACTOR = 4
"""Inner over hidden size of an EAGLE head whose target is a mixture of experts (the same card: 8192 / 2048)."""


def kind_pass_s(machine: Machine, kind: DraftKind, batch: Array, context_tokens: Array, tokens_per_seq: Array) -> Array:
    """Return one draft pass of `kind`; the first has k + 1 tokens per sequence, later ones one."""
    if kind == "mtp":
        return draft_pass_s(machine, batch, context_tokens, tokens_per_seq)
    nothing = np.full_like(np.asarray(batch, dtype=np.float64), MIN_LATENCY_S)
    if kind == "ngram":
        return nothing
    head = _eagle_machine(machine)
    pass_s = draft_pass_s(head, batch, context_tokens, tokens_per_seq)
    if kind == "parallel":
        return np.where(tokens_per_seq > 1, pass_s, nothing)
    if kind == "eagle3":
        # Three hidden states of the target are joined before the first pass; later passes use the head's own.
        h = machine.architecture.hidden_size
        joined_s = gemm_s(machine.gpu, machine.fit.gemm, batch * tokens_per_seq, h / machine.tp_size, 3 * h)
        return pass_s + np.where(tokens_per_seq > 1, joined_s, 0.0)
    return pass_s


def kind_lm_head_s(machine: Machine, kind: DraftKind, batch: Array, num_draft_tokens: int) -> Array:
    """Return the projection to the vocabulary per draft token, of which a step runs k."""
    if kind == "ngram":
        return np.full_like(np.asarray(batch, dtype=np.float64), MIN_LATENCY_S)
    if kind == "eagle3":
        a = machine.architecture
        small = a.model_copy(update={"vocab_size": min(EAGLE3_VOCAB, a.vocab_size)})
        return lm_head_s(replace(machine, architecture=small), batch)
    if kind == "parallel":
        return lm_head_s(machine, batch * num_draft_tokens) / num_draft_tokens
    return lm_head_s(machine, batch)


def _eagle_machine(machine: Machine) -> Machine:
    """Return the machine that runs an EAGLE layer: dense, bf16, its attention the target's where that is GQA."""
    a: Architecture = machine.architecture
    update: dict[str, object] = {}
    if a.is_moe:
        update |= {"num_experts": None, "num_experts_per_token": None, "expert_ffn_size": None}
        update |= {"shared_ffn_size": None, "ffn_size": a.ffn_size or EAGLE_FFN_FACTOR * a.hidden_size}
    if a.mla is not None:
        heads = max(1, a.hidden_size // EAGLE_HEAD_SIZE)
        update |= {"mla": None, "head_size": EAGLE_HEAD_SIZE, "num_q_heads": heads}
        update |= {"num_kv_heads": max(1, heads // EAGLE_GROUP)}
    return replace(machine, architecture=a.model_copy(update=update) if update else a, number_format=BF16)
