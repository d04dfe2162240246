"""Passes of an engine, composed of operators: one target forward, one MTP pass, lm_head, sampling, prefill.

Knows how an engine (vLLM's habits) runs a model's layers on `tp_size` GPUs; does not know grids or traces. Every
function takes numpy arrays and returns seconds, element by element.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simulator.roofline_moe import DEFAULT_ROUTER, distinct_experts, moe_s
from simulator.roofline_ops import (
    BF16_BYTES,
    FP32_BYTES,
    all_gather_s,
    all_reduce_s,
    attention_s,
    delta_net_decode_s,
    delta_net_prefill_s,
    elementwise_s,
    gemm_s,
)
from simulator.roofline_parameters import RooflineParameters
from simulator.roofline_precision import BF16, NumberFormat
from traces.architecture import Architecture
from traces.hardware import Gpu

Array = NDArray[np.float64]

PASS_FLOOR_S = 5e-6
"""Start of one pass inside a captured graph; lower end of 5-15 us for a graph replay, assumed."""
HOST_GAP_S = 10e-6
"""GPU waiting for the host between two passes with overlapped scheduling: middle of 5-15 us; assumed."""
SAMPLE_FLOOR_S = 20e-6
"""About ten small kernels of a sampler; assumed."""
SAMPLE_FP32_PASSES = 6
"""Reads and writes of fp32 logits by temperature, softmax and sampling, unfused; assumed, as in traces/data/latency."""
NORM_KERNELS_PER_LAYER = 4
"""Two norms fused with the residual, rotary embedding, activation."""
DELTA_NET_CHUNK_TOKENS = 64
"""Chunk of the parallel form (flash-linear-attention's default)."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A model on the GPUs of one replica, with fitted efficiencies."""

    architecture: Architecture
    gpu: Gpu
    fit: RooflineParameters
    tp_size: int = 1
    """GPUs over which heads, feed-forward widths and the vocabulary are divided."""
    ep_size: int = 1
    """Of these, GPUs over which whole experts are divided; a divisor of tp_size, the rest splits each expert."""
    router: str = DEFAULT_ROUTER
    number_format: NumberFormat = BF16
    """Of the layers' weights; lm_head, router and KV cache are bf16."""
    recurrence_efficiency: float | None = None
    """Share of the memory peak at which an engine's gated-DeltaNet decode kernel reads states; None: as GEMM."""
    draft_expert_reuse: float = 0.0
    """Of the experts of a sequence's next token in the same pass, the share that its first one visits anyway."""
    expert_gpu: Gpu | None = None
    """Where the routed experts are computed, if not on `gpu`: a host that holds what its card cannot."""

    def __post_init__(self) -> None:
        """Refuse a split that does not come out even."""
        if self.tp_size < 1 or self.architecture.num_q_heads % self.tp_size:
            raise ValueError(
                f"tp_size {self.tp_size}: must divide the {self.architecture.num_q_heads} query heads of "
                f"{self.architecture.name}"
            )
        if self.ep_size < 1 or self.tp_size % self.ep_size:
            raise ValueError(f"ep_size {self.ep_size}: must divide tp_size {self.tp_size} (no data parallelism here)")
        if self.ep_size > 1 and (self.architecture.num_experts or 0) % self.ep_size:
            raise ValueError(f"ep_size {self.ep_size}: must divide {self.architecture.num_experts} experts")


def target_pass_s(machine: Machine, batch: Array, context_tokens: Array, tokens_per_seq: Array) -> Array:
    """Return one decode (q = 1) or verify (q = k + 1) pass, lm_head at every position included."""
    a = machine.architecture
    num_tokens = batch * tokens_per_seq
    total_s = PASS_FLOOR_S + a.num_full_attention_layers * _attention_block_s(
        machine, batch, context_tokens, tokens_per_seq
    )
    if a.num_linear_attention_layers:
        state_bytes = a.state_bytes_per_seq_per_layer / machine.tp_size
        recurrence_s = delta_net_decode_s(
            machine.gpu, machine.fit.gemm, batch, tokens_per_seq, state_bytes, machine.recurrence_efficiency
        )
        total_s = total_s + a.num_linear_attention_layers * (_delta_net_products_s(machine, num_tokens) + recurrence_s)
    routed = batch * (1 + (tokens_per_seq - 1) * (1 - machine.draft_expert_reuse))
    return total_s + _feed_forwards_s(machine, num_tokens, routed) + lm_head_s(machine, num_tokens)


def prefill_pass_s(machine: Machine, context_tokens: Array, prompt_tokens: Array) -> Array:
    """Return one prefill of `prompt_tokens` of one sequence after `context_tokens` cached ones; lm_head at the last."""
    a = machine.architecture
    one = np.ones_like(prompt_tokens)
    total_s = PASS_FLOOR_S + a.num_full_attention_layers * _attention_block_s(
        machine, one, context_tokens, prompt_tokens, is_prefill=True
    )
    if a.num_linear_attention_layers:
        size = a.fact("linear_head_size")
        flops = 2 * (3 * size * size + 2 * DELTA_NET_CHUNK_TOKENS * size) * a.fact("num_linear_v_heads")
        state_bytes = a.state_bytes_per_seq_per_layer / machine.tp_size
        chunked_s = delta_net_prefill_s(
            machine.gpu, machine.fit.gemm, prompt_tokens, state_bytes, flops / machine.tp_size
        )
        total_s = total_s + a.num_linear_attention_layers * (_delta_net_products_s(machine, prompt_tokens) + chunked_s)
    return total_s + _feed_forwards_s(machine, prompt_tokens, prompt_tokens) + lm_head_s(machine, one)


def draft_pass_s(machine: Machine, batch: Array, context_tokens: Array, tokens_per_seq: Array) -> Array:
    """Return one pass of one MTP layer: 2h -> h projection, attention, feed-forward; its lm_head not included."""
    a, gpu, fit = machine.architecture, machine.gpu, machine.fit
    num_tokens = batch * tokens_per_seq
    h = a.hidden_size
    projection_s = _product_s(machine, num_tokens, h / machine.tp_size, 2 * h)
    gather_s = all_gather_s(gpu, fit.all_reduce, num_tokens * h * BF16_BYTES, machine.tp_size)
    # Two norms, embedding look-up and concatenation, each a read and a write of h values.
    joining_s = elementwise_s(gpu, fit.gemm, num_tokens, 8 * h * BF16_BYTES, 3)
    attention = _attention_block_s(machine, batch, context_tokens, tokens_per_seq)
    feed_forward_s = _moe_block_s(machine, num_tokens, num_tokens) if a.is_moe else _dense_block_s(machine, num_tokens)
    return PASS_FLOOR_S + projection_s + gather_s + joining_s + attention + feed_forward_s


def lm_head_s(machine: Machine, num_rows: ArrayLike) -> Array:
    """Return the projection of `num_rows` hidden states to the vocabulary, the logits gathered on every GPU.

    vLLM gathers the whole vocabulary unless `use_local_argmax_reduction` is set (off by default).
    """
    a = machine.architecture
    product_s = gemm_s(machine.gpu, machine.fit.gemm, num_rows, a.vocab_size / machine.tp_size, a.hidden_size)
    logits_bytes = np.asarray(num_rows, dtype=np.float64) * a.vocab_size * BF16_BYTES
    return product_s + all_gather_s(machine.gpu, machine.fit.all_reduce, logits_bytes, machine.tp_size)


def sample_s(machine: Machine, num_rows: ArrayLike) -> Array:
    """Return softmax and sampling (or rejection) of `num_rows` rows of fp32 logits; every GPU does all rows."""
    rows = np.asarray(num_rows, dtype=np.float64)
    moved_bytes = rows * machine.architecture.vocab_size * FP32_BYTES * SAMPLE_FP32_PASSES
    return SAMPLE_FLOOR_S + moved_bytes / (machine.fit.gemm.bandwidth_efficiency * machine.gpu.hbm_bytes_per_s)


def _attention_block_s(
    machine: Machine, batch: Array, context_tokens: Array, tokens_per_seq: Array, *, is_prefill: bool = False
) -> Array:
    """Return norms, projections, attention and the all-reduce of one full-attention layer."""
    a, gpu, fit, tp = machine.architecture, machine.gpu, machine.fit, machine.tp_size
    num_tokens = batch * tokens_per_seq
    h, q_heads = a.hidden_size, a.num_q_heads / tp
    if a.mla is not None:
        m = a.mla
        products_s = (
            _product_s(machine, num_tokens, m.q_rank + m.kv_rank + m.rope_size, h)
            + _product_s(machine, num_tokens, q_heads * (m.nope_size + m.rope_size), m.q_rank)
            + _product_s(machine, num_tokens, q_heads * (m.nope_size + m.v_size), m.kv_rank)
            + _product_s(machine, num_tokens, h, q_heads * m.v_size)
        )
        kv_heads = 1.0
        # Prefill expands the latent into heads; decode works on the latent itself (arXiv:2405.04434 §2.1).
        expanded = m.nope_size + m.rope_size + m.v_size
        flops = 2 * q_heads * (expanded if is_prefill else 2 * m.kv_rank + m.rope_size)
    else:
        size = a.fact("head_size")
        kv_heads = max(1.0, a.fact("num_kv_heads") / tp)
        gate = 2 if a.output_gate else 1
        products_s = _product_s(machine, num_tokens, (gate * q_heads + 2 * kv_heads) * size, h)
        products_s = products_s + _product_s(machine, num_tokens, h, q_heads * size)
        flops = 4 * q_heads * size
    kv_share = 1.0 if a.mla is not None else kv_heads / a.fact("num_kv_heads")
    over_cache_s = attention_s(
        gpu,
        fit.attention,
        batch=batch,
        context_tokens=context_tokens,
        tokens_per_seq=tokens_per_seq,
        num_kv_heads=kv_heads,
        kv_bytes_per_token=a.kv_bytes_per_token_per_layer("bf16") * kv_share,
        flops_per_query_key=flops,
    )
    return products_s + over_cache_s + _reduce_s(machine, num_tokens)


def _delta_net_products_s(machine: Machine, num_tokens: Array) -> Array:
    """Return projections, convolution, gated norm and the all-reduce of one gated-DeltaNet layer, recurrence apart."""
    a, gpu, fit, tp = machine.architecture, machine.gpu, machine.fit, machine.tp_size
    size = a.fact("linear_head_size")
    k_width = a.fact("num_linear_k_heads") * size / tp
    v_heads = a.fact("num_linear_v_heads") / tp
    v_width = v_heads * size
    inputs_s = _product_s(machine, num_tokens, 2 * k_width + 2 * v_width + 2 * v_heads, a.hidden_size)
    output_s = _product_s(machine, num_tokens, a.hidden_size, v_width)
    # Convolution reads and writes q, k, v; the gated norm reads output and gate and writes once.
    local_s = elementwise_s(gpu, fit.gemm, num_tokens, (4 * k_width + 5 * v_width) * BF16_BYTES, 2)
    return inputs_s + output_s + local_s + _reduce_s(machine, num_tokens)


def _feed_forwards_s(machine: Machine, num_tokens: Array, routed_tokens: Array) -> Array:
    a = machine.architecture
    total_s = np.zeros_like(num_tokens)
    if a.num_moe_layers:
        total_s = total_s + a.num_moe_layers * _moe_block_s(machine, num_tokens, routed_tokens)
    num_dense_layers = a.num_layers - a.num_moe_layers
    return total_s + num_dense_layers * _dense_block_s(machine, num_tokens) if num_dense_layers else total_s


def _dense_block_s(machine: Machine, num_tokens: Array) -> Array:
    return _swiglu_s(machine, num_tokens, machine.architecture.fact("ffn_size")) + _norms_s(machine, num_tokens)


def _moe_block_s(machine: Machine, num_tokens: Array, routed_tokens: Array) -> Array:
    """Return router, shared expert, routed experts and the all-reduce of one MoE layer.

    `routed_tokens` of the tokens choose experts independently; the rest go where those of their sequence went.

    Expert parallelism takes its share of the distinct experts and of the visits: popular experts are assumed to be
    spread over the GPUs.
    """
    a, gpu, fit = machine.architecture, machine.gpu, machine.fit
    experts, top = a.fact("num_experts"), a.fact("num_experts_per_token")
    distinct = distinct_experts(routed_tokens, experts, top, fit.moe.router_skew[machine.router])
    routed_s = moe_s(
        machine.expert_gpu or gpu,
        fit.moe,
        num_tokens=num_tokens,
        distinct=distinct / machine.ep_size,
        experts_per_token=top / machine.ep_size,
        hidden_size=a.hidden_size,
        inner_size=a.fact("expert_ffn_size") * machine.ep_size / machine.tp_size,
        imbalance=fit.moe.router_imbalance[machine.router],
        number_format=machine.number_format,
    )
    router_s = gemm_s(gpu, fit.gemm, num_tokens, experts, a.hidden_size)
    if a.shared_ffn_size:
        shared_s = _swiglu_s(machine, num_tokens, a.shared_ffn_size)
    else:
        shared_s = _reduce_s(machine, num_tokens)
    return router_s + routed_s + shared_s + _norms_s(machine, num_tokens)


def _swiglu_s(machine: Machine, num_tokens: Array, inner_size: float) -> Array:
    """Return gate and up in one product, down in another, and the all-reduce."""
    gpu, fit, h = machine.gpu, machine.fit.gemm, machine.architecture.hidden_size
    inner = inner_size / machine.tp_size
    products_s = _product_s(machine, num_tokens, 2 * inner, h) + _product_s(machine, num_tokens, h, inner)
    return products_s + elementwise_s(gpu, fit, num_tokens, 3 * inner * BF16_BYTES, 0) + _reduce_s(machine, num_tokens)


def _norms_s(machine: Machine, num_tokens: Array) -> Array:
    """Return a layer's small kernels: each of two norms reads and writes stream and residual."""
    moved_bytes = 8 * machine.architecture.hidden_size * BF16_BYTES
    num_kernels = NORM_KERNELS_PER_LAYER + machine.number_format.quantising_kernels
    return elementwise_s(machine.gpu, machine.fit.gemm, num_tokens, moved_bytes, num_kernels)


def _product_s(machine: Machine, num_tokens: Array, out_size: float, in_size: float) -> Array:
    """Return one product of a layer in the machine's number format."""
    return gemm_s(machine.gpu, machine.fit.gemm, num_tokens, out_size, in_size, 1, machine.number_format)


def _reduce_s(machine: Machine, num_tokens: Array) -> Array:
    message_bytes = num_tokens * machine.architecture.hidden_size * BF16_BYTES
    return all_reduce_s(machine.gpu, machine.fit.all_reduce, message_bytes, machine.tp_size)
