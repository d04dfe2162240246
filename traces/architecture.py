"""Architecture: the published shape of a model, and what follows from it: parameters, weight, KV and state bytes.

Does not know GPUs, latencies or how a model is split over them: every figure is for the whole model, a
tensor-parallel rank divides. Text model only, vision towers are not counted.
"""

import re
from functools import cache
from typing import Annotated, Self

from pydantic import Field, ValidationError, model_validator

from traces.base import Strict
from traces.errors import TraceFormatError
from traces.fact_table import FactTable

BYTES_PER_VALUE: dict[str, int] = {"fp32": 4, "bf16": 2, "fp16": 2, "fp8": 1}
"""Storage of one value, bytes; block scales (below 1 % of fp8 weights) are not counted."""
GDN_STATE_BYTES_PER_VALUE = 4
"""The gated-DeltaNet state is fp32 whatever the weights are (`mamba_ssm_dtype: float32` in Qwen3.5's config.json)."""
GDN_CONV_KERNEL = 4
"""Taps of the short convolution of gated DeltaNet (`linear_conv_kernel_dim: 4` in Qwen3-Next's config.json)."""

_TABLE = "model_configs.csv"
_FIELD_OF_COLUMN = {
    "model": "name",
    "layers": "num_layers",
    "full_attention_layers": "num_full_attention_layers",
    "linear_attention_layers": "num_linear_attention_layers",
    "hidden": "hidden_size",
    "ffn": "ffn_size",
    "moe_ffn": "expert_ffn_size",
    "shared_ffn": "shared_ffn_size",
    "num_experts": "num_experts",
    "experts_per_token": "num_experts_per_token",
    "q_heads": "num_q_heads",
    "kv_heads": "num_kv_heads",
    "head_dim": "head_size",
    "linear_k_heads": "num_linear_k_heads",
    "linear_v_heads": "num_linear_v_heads",
    "linear_head_dim": "linear_head_size",
    "vocab": "vocab_size",
    "mtp_layers": "num_mtp_layers",
    "tied_embeddings": "tied_embeddings",
    "attention": "attention",
    "source": "source",
}

Count = Annotated[int, Field(ge=1, le=10_000_000)]


class MlaShape(Strict):
    """Multi-head latent attention: low-rank queries, one shared latent per cached token (arXiv:2412.19437 §2.1)."""

    q_rank: Count
    """Rank of the query projection, values."""
    kv_rank: Count
    """Latent that is cached per token and layer, values."""
    nope_size: Count
    """Part of a query/key head without rotary position, values."""
    rope_size: Count
    """Rotary part, one per token shared by all heads, also cached, values."""
    v_size: Count
    """Value head, values."""


class Architecture(Strict):
    """One model: a row of `model_configs.csv`; None where the table is blank."""

    name: str = Field(min_length=1, max_length=200)
    """Model name without its owner."""
    num_layers: Count
    """Decoder layers, the MTP layers not counted."""
    num_full_attention_layers: Annotated[int, Field(ge=0)]
    """Layers with a KV cache (GQA or MLA)."""
    num_linear_attention_layers: Annotated[int, Field(ge=0)]
    """Gated-DeltaNet layers: a fixed-size state per sequence, no KV cache."""
    hidden_size: Count
    """Width of the residual stream, values."""
    ffn_size: Count | None
    """Inner width of a dense feed-forward layer; None where every layer is MoE."""
    expert_ffn_size: Count | None
    """Inner width of one routed expert; None for dense models."""
    shared_ffn_size: Count | None
    """Inner width of the always-active shared expert; None without one."""
    num_experts: Count | None
    """Routed experts per MoE layer; None for dense models."""
    num_experts_per_token: Count | None
    """Routed experts one token visits (top-k)."""
    num_q_heads: Count
    """Query heads of a full-attention layer."""
    num_kv_heads: Count | None
    """Key/value heads (GQA); None for MLA."""
    head_size: Count | None
    """Width of one attention head, values; None for MLA."""
    num_linear_k_heads: Count | None
    """Query and key heads of a gated-DeltaNet layer."""
    num_linear_v_heads: Count | None
    """Value heads of a gated-DeltaNet layer: as many states."""
    linear_head_size: Count | None
    """Width of one gated-DeltaNet head (keys and values alike), values."""
    vocab_size: Count
    """Rows of the embedding and of the lm_head."""
    num_mtp_layers: Annotated[int, Field(ge=0)]
    """MTP layers released with the model; 0: none was."""
    tied_embeddings: bool
    """Whether lm_head and embedding are one matrix."""
    num_dense_ffn_layers: Annotated[int, Field(ge=0)] = 0
    """Of a MoE model: leading layers with a dense feed-forward instead."""
    output_gate: bool = False
    """Whether attention multiplies its output by a gate, which doubles the query projection (Qwen3-Next)."""
    mla: MlaShape | None = None
    """Set for multi-head latent attention."""
    attention: str
    """The table's own words on attention."""
    source: str
    """Where the row comes from."""

    @model_validator(mode="after")
    def _is_coherent(self) -> Self:
        if self.num_full_attention_layers + self.num_linear_attention_layers != self.num_layers:
            raise ValueError(
                f"layers: {self.num_full_attention_layers} full + {self.num_linear_attention_layers} linear attention "
                f"layers are not {self.num_layers}"
            )
        moe = (self.num_experts, self.num_experts_per_token, self.expert_ffn_size)
        if any(value is None for value in moe) != all(value is None for value in moe):
            raise ValueError(f"num_experts, experts_per_token, moe_ffn: {moe} must be given together")
        if self.num_experts is None and self.ffn_size is None:
            raise ValueError("ffn and num_experts: one of them is needed")
        if self.num_experts is not None and (self.num_experts_per_token or 0) > self.num_experts:
            raise ValueError(f"experts_per_token: {self.num_experts_per_token} exceeds {self.num_experts} experts")
        if self.mla is None and (self.num_kv_heads is None or self.head_size is None):
            raise ValueError("kv_heads, head_dim: needed unless the attention is MLA")
        return self

    def fact(self, field: str) -> int:
        """Return a whole-number field that must be known; TraceFormatError where the table leaves it blank."""
        value = getattr(self, field)
        if value is None:
            column = next(column for column, name in _FIELD_OF_COLUMN.items() if name == field)
            raise TraceFormatError(f"{_TABLE}: {self.name}: column {column} is blank and needed here; fill it in")
        return int(value)

    @property
    def is_moe(self) -> bool:
        """Whether some layers route tokens to experts."""
        return self.num_experts is not None

    @property
    def num_moe_layers(self) -> int:
        """Layers with routed experts: layers - leading dense layers, 0 for dense models."""
        return self.num_layers - self.num_dense_ffn_layers if self.is_moe else 0

    @property
    def full_attention_params(self) -> int:
        """Weights of one full-attention block.

        GQA: h*(g*n_q + 2*n_kv)*d + n_q*d*h + 2d (q/k norms), g = 2 with an output gate, else 1.
        MLA: h*r_q + r_q*n*(nope+rope) + h*(r_kv+rope) + r_kv*n*(nope+v) + n*v*h.
        """
        h, n_q = self.hidden_size, self.num_q_heads
        if self.mla is not None:
            m = self.mla
            queries = h * m.q_rank + m.q_rank * n_q * (m.nope_size + m.rope_size)
            keys_values = h * (m.kv_rank + m.rope_size) + m.kv_rank * n_q * (m.nope_size + m.v_size)
            return queries + keys_values + n_q * m.v_size * h
        n_kv, d = self.fact("num_kv_heads"), self.fact("head_size")
        gate = 2 if self.output_gate else 1
        return h * (gate * n_q + 2 * n_kv) * d + n_q * d * h + 2 * d

    @property
    def linear_attention_params(self) -> int:
        """Weights of one gated-DeltaNet block (arXiv:2412.06464; layout of Qwen3-Next).

        h*(2*n_k + 2*n_v)*d (q, k, v, z) + h*2*n_v (alpha, beta) + 4*(2*n_k + n_v)*d (convolution) + n_v*d*h (output)
        + 2*n_v + d.
        """
        h, d = self.hidden_size, self.fact("linear_head_size")
        n_k, n_v = self.fact("num_linear_k_heads"), self.fact("num_linear_v_heads")
        projections = h * (2 * n_k + 2 * n_v) * d + h * 2 * n_v + n_v * d * h
        return projections + GDN_CONV_KERNEL * (2 * n_k + n_v) * d + 2 * n_v + d

    @property
    def dense_ffn_params(self) -> int:
        """Weights of one dense feed-forward: 3*h*ffn (gate, up, down)."""
        return 3 * self.hidden_size * self.fact("ffn_size")

    @property
    def expert_params(self) -> int:
        """Weights of one routed expert: 3*h*moe_ffn."""
        return 3 * self.hidden_size * self.fact("expert_ffn_size")

    @property
    def moe_fixed_params(self) -> int:
        """Weights every token visits in a MoE layer: router h*E, and shared expert 3*h*shared_ffn."""
        return self.hidden_size * self.fact("num_experts") + 3 * self.hidden_size * (self.shared_ffn_size or 0)

    @property
    def lm_head_params(self) -> int:
        """Weights of the projection to the vocabulary: V*h, also when it is tied to the embedding."""
        return self.vocab_size * self.hidden_size

    @property
    def embedding_params(self) -> int:
        """Weights of embedding and lm_head together: 2*V*h, or V*h when tied."""
        return self.lm_head_params * (1 if self.tied_embeddings else 2)

    @property
    def num_params(self) -> int:
        """Parameters without the MTP head: embedding + attention + feed-forward (all experts) + norms 2*h per layer."""
        experts = self.num_experts or 0
        return self._params(experts)

    @property
    def active_params(self) -> int:
        """Parameters one token visits, embedding and lm_head included (as model names count): top-k experts only."""
        return self._params(self.num_experts_per_token or 0)

    @property
    def mtp_layer_params(self) -> int:
        """Weights of one MTP layer of this model's shape, released or not (arXiv:2412.19437 §2.2).

        2h*h projection + a full-attention block + one feed-forward like the last layer's (all experts) + 5h norms.
        Embedding and lm_head are the target's own.
        """
        h = self.hidden_size
        if self.is_moe:
            ffn = self.moe_fixed_params + self.fact("num_experts") * self.expert_params
        else:
            ffn = self.dense_ffn_params
        return 2 * h * h + self.full_attention_params + ffn + 5 * h

    @property
    def mtp_params(self) -> int:
        """Parameters of the released MTP head: mtp_layers * mtp_layer_params, embedding and lm_head not counted."""
        return self.num_mtp_layers * self.mtp_layer_params if self.num_mtp_layers else 0

    def weight_bytes(self, precision: str = "bf16") -> int:
        """Return bytes of the weights without the MTP head: layers in `precision`, embedding and lm_head in bf16.

        Published fp8 checkpoints keep embedding and lm_head in bf16 (`modules_to_not_convert` in Qwen3-*-FP8).
        """
        layers = self.num_params - self.embedding_params
        return layers * _bytes_per_value(precision) + self.embedding_params * BYTES_PER_VALUE["bf16"]

    def mtp_weight_bytes(self, precision: str = "bf16") -> int:
        """Return bytes of the released MTP head: mtp_params * bytes per value."""
        return self.mtp_params * _bytes_per_value(precision)

    def kv_bytes_per_token_per_layer(self, precision: str = "bf16") -> int:
        """Return KV-cache bytes of one token in one full-attention layer.

        GQA: 2*n_kv*d*bytes; MLA: (kv_lora + rope)*bytes, one latent for all heads (a TP rank does not divide it).
        """
        if self.mla is not None:
            return (self.mla.kv_rank + self.mla.rope_size) * _bytes_per_value(precision)
        return 2 * self.fact("num_kv_heads") * self.fact("head_size") * _bytes_per_value(precision)

    def kv_bytes_per_token(self, precision: str = "bf16") -> int:
        """Return KV-cache bytes of one token: full-attention layers only, the MTP layer's own cache not counted."""
        return self.num_full_attention_layers * self.kv_bytes_per_token_per_layer(precision)

    def mtp_kv_bytes_per_token(self, precision: str = "bf16") -> int:
        """Return KV-cache bytes of one token in the released MTP layers."""
        return self.num_mtp_layers * self.kv_bytes_per_token_per_layer(precision)

    @property
    def state_bytes_per_seq_per_layer(self) -> int:
        """Gated-DeltaNet state of one sequence in one layer: n_v*d_k*d_v*4 bytes (fp32), convolution tail apart."""
        d = self.fact("linear_head_size")
        return self.fact("num_linear_v_heads") * d * d * GDN_STATE_BYTES_PER_VALUE

    @property
    def state_bytes_per_seq(self) -> int:
        """Gated-DeltaNet state of one sequence: state_bytes_per_seq_per_layer * linear layers; 0 without such layers.

        One slot; speculation with k drafts keeps 1 + k of them (vLLM `num_speculative_blocks`).
        """
        if self.num_linear_attention_layers == 0:
            return 0
        return self.num_linear_attention_layers * self.state_bytes_per_seq_per_layer

    def _params(self, num_experts_counted: int) -> int:
        total = self.embedding_params + self.hidden_size * (2 * self.num_layers + 1)
        total += self.num_full_attention_layers * self.full_attention_params
        if self.num_linear_attention_layers:
            total += self.num_linear_attention_layers * self.linear_attention_params
        if self.num_moe_layers:
            total += self.num_moe_layers * (self.moe_fixed_params + num_experts_counted * self.expert_params)
        num_dense = self.num_layers - self.num_moe_layers
        return total + (num_dense * self.dense_ffn_params if num_dense else 0)


def load_architecture(name: str) -> Architecture:
    """Return the architecture named `name`, spelled as in `list_architectures()`.

    An unknown name is a TraceFormatError: one line with close matches and the list.
    """
    return _facts().find(name)


def list_architectures() -> tuple[str, ...]:
    """Return the names of all known architectures, in the order of the table."""
    return tuple(_facts().rows)


@cache
def _facts() -> FactTable[Architecture]:
    return FactTable("architecture", "models", _TABLE, _parse_row)


def _parse_row(line: int, row: dict[str, str]) -> Architecture:
    if set(row) != set(_FIELD_OF_COLUMN):
        raise TraceFormatError(f"{_TABLE}: line {line}: columns {sorted(row)} are not {sorted(_FIELD_OF_COLUMN)}")
    content: dict[str, object] = {_FIELD_OF_COLUMN[column]: value or None for column, value in row.items()}
    words = row["attention"]
    mla = {key: _number_after(word, words) for key, word in _MLA_WORDS.items()} if words.startswith("MLA") else None
    dense = re.search(r"first (\d+) layers dense", words)
    content |= {
        "tied_embeddings": {"yes": True, "no": False}.get(row["tied_embeddings"], row["tied_embeddings"]),
        "output_gate": "output gate" in words,
        "num_dense_ffn_layers": int(dense.group(1)) if dense else 0,
        "mla": mla,
    }
    try:
        return Architecture.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "row"
        raise TraceFormatError(f"{_TABLE}: line {line}, {row['model']}, {where}: {first['msg']}") from None


_MLA_WORDS = {"q_rank": "q_lora", "kv_rank": "kv_lora", "nope_size": "nope", "rope_size": "rope", "v_size": "v"}


def _number_after(word: str, words: str) -> int | None:
    match = re.search(rf"\b{word} (\d+)", words)
    return int(match.group(1)) if match else None


def _bytes_per_value(precision: str) -> int:
    if precision not in BYTES_PER_VALUE:
        raise ValueError(f"precision {precision!r}: known are {', '.join(BYTES_PER_VALUE)}")
    return BYTES_PER_VALUE[precision]
