"""Weights file: a GGUF of random weights in the shape of a Qwen3.5 decoder, gated DeltaNet and one MTP layer included.

What llama.cpp calls the architecture `qwen35`. Latency depends on shapes, not on what a model has learnt. Does not know
how it is run.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from profiler.errors import DeviceError, UnsupportedModelError
from traces.architecture import BYTES_PER_VALUE, GDN_CONV_KERNEL, Architecture
from traces.base import canonical_hash

F32 = NDArray[np.float32]

WRITER_VERSION = 1
"""Raise it when the same request would give another file."""
MAX_BYTES = 8e9
"""Largest file that is written: this source is for models that a CPU runs."""
MIN_VOCAB = 512
"""256 bytes, and words enough to draw prompts from."""
MAX_CONTEXT_TOKENS = 262_144
"""Context that the model is said to be trained with (Qwen3.5's `max_position_embeddings`): the engine's limit."""
ROPE_BASE = 1e7
ROPE_SHARE = 4
"""A quarter of a head is rotated (`rope_theta`, `partial_rotary_factor` of Qwen3-Next's config.json)."""
_TYPES = {"fp32": gguf.GGMLQuantizationType.F32, "bf16": gguf.GGMLQuantizationType.BF16}


@dataclass(frozen=True, slots=True)
class WeightsRequest:
    """What decides the contents of a file."""

    model: Architecture
    precision: str = "fp32"
    """Of the matrices; vectors are always fp32."""
    seed: int = 0

    def key(self) -> str:
        """Return what tells files apart."""
        shape = self.model.model_dump(mode="json", exclude={"name", "source", "attention"})
        return canonical_hash({"v": WRITER_VERSION, "shape": shape, "precision": self.precision, "seed": self.seed})[
            :16
        ]


def weights_file(request: WeightsRequest, folder: Path | None = None) -> Path:
    """Return a file of these weights, written now unless one is in `folder` (default: a cache of this user).

    Raises:
        UnsupportedModelError: The shape is not Qwen3.5's, or too large.
        DeviceError: The disk is full, or the folder cannot be written.
    """
    check_shape(request)
    try:
        folder = _cache_folder() if folder is None else folder
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{request.model.name}-{request.key()}.gguf"
        if not path.exists():
            unfinished = path.with_suffix(f".{np.random.default_rng().integers(1 << 32):08x}.tmp")
            try:
                _write(request, unfinished)
                unfinished.replace(path)
            finally:
                unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise DeviceError(
            f"{error.filename or folder}: cannot be written ({error.strerror}); free some space"
        ) from None
    return path


def check_shape(request: WeightsRequest) -> None:
    """Raise UnsupportedModelError unless llama.cpp's `qwen35` can hold the model, and a CPU run it."""
    a = request.model
    if a.is_moe or a.mla is not None or not a.output_gate:
        raise UnsupportedModelError(
            f"{a.name}: llama.cpp is given dense models of Qwen3.5's kind only (gated attention and DeltaNet); choose "
            "one, or time this one with --device cpu"
        )
    if request.precision not in _TYPES:
        raise UnsupportedModelError(f"precision {request.precision}: weights files hold {', '.join(_TYPES)}")
    # Without any DeltaNet layer llama.cpp 2026.10 aborts: its `qwen35` always asks for recurrent memory.
    if not 0 < a.num_full_attention_layers < a.num_layers or a.num_layers % a.num_full_attention_layers:
        raise UnsupportedModelError(
            f"{a.name}: {a.num_full_attention_layers} of {a.num_layers} layers have full attention, which is not one "
            "in every n above 1; correct the file, or time it with --device cpu"
        )
    if a.vocab_size < MIN_VOCAB or a.fact("head_size") % (2 * ROPE_SHARE):
        raise UnsupportedModelError(
            f"{a.name}: a vocabulary of {a.vocab_size} and heads of {a.fact('head_size')} values; at least {MIN_VOCAB} "
            f"tokens are needed, and heads of a multiple of {2 * ROPE_SHARE}"
        )
    size = float(a.num_params + a.mtp_layer_params) * BYTES_PER_VALUE[request.precision]
    if size > MAX_BYTES:
        raise UnsupportedModelError(
            f"{a.name}: {size / 1e9:.1f} GB of weights, at most {MAX_BYTES / 1e9:.0f} GB are written; choose a smaller "
            "model, or a GPU with --device cuda"
        )


def _cache_folder() -> Path:
    """Return the folder of this user's weights; a temporary one where the home cannot be written."""
    folder = Path.home() / ".cache" / "bebop" / "llamacpp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return Path(tempfile.gettempdir()) / "bebop-llamacpp"


def _write(request: WeightsRequest, path: Path) -> None:
    a = request.model
    writer = gguf.GGUFWriter(path, "qwen35")
    _add_shape(writer, a)
    _add_vocabulary(writer, a.vocab_size)
    for name, values in _Tensors(request).all():
        if request.precision == "bf16" and values.ndim == 2 and "conv1d" not in name:  # llama.cpp convolves in fp32
            kind = _TYPES["bf16"]
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_shape(writer: Any, a: Architecture) -> None:
    head, half = a.fact("head_size"), a.fact("head_size") // ROPE_SHARE // 2
    writer.add_block_count(a.num_layers + 1)
    writer.add_context_length(MAX_CONTEXT_TOKENS)
    writer.add_embedding_length(a.hidden_size)
    writer.add_feed_forward_length(a.fact("ffn_size"))
    writer.add_head_count(a.num_q_heads)
    writer.add_head_count_kv(a.fact("num_kv_heads"))
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(ROPE_BASE)
    writer.add_rope_dimension_count(head // ROPE_SHARE)
    writer.add_array("qwen35.rope.dimension_sections", [half - 2 * (half // 4), half // 4, half // 4, 0])
    writer.add_uint32("qwen35.full_attention_interval", a.num_layers // a.num_full_attention_layers)
    writer.add_uint32("qwen35.nextn_predict_layers", 1)
    n_v, width = a.fact("num_linear_v_heads"), a.fact("linear_head_size")
    writer.add_uint32("qwen35.ssm.conv_kernel", GDN_CONV_KERNEL)
    writer.add_uint32("qwen35.ssm.state_size", width)
    writer.add_uint32("qwen35.ssm.group_count", a.fact("num_linear_k_heads"))
    writer.add_uint32("qwen35.ssm.time_step_rank", n_v)
    writer.add_uint32("qwen35.ssm.inner_size", n_v * width)


def _add_vocabulary(writer: Any, size: int) -> None:
    """Add a byte-level vocabulary: 256 bytes as GPT-2 spells them, then words without meaning; the last one ends."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spelling = {byte: chr(byte) for byte in visible}
    for rank, byte in enumerate(byte for byte in range(256) if byte not in spelling):
        spelling[byte] = chr(256 + rank)
    tokens = [spelling[byte] for byte in range(256)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([*tokens, *(f"<t{i}>" for i in range(size - 256))])
    writer.add_token_types([gguf.TokenType.NORMAL] * size)
    writer.add_token_merges([f"{tokens[0]} {tokens[1]}"])
    writer.add_bos_token_id(size - 2)
    writer.add_eos_token_id(size - 1)


class _Tensors:
    """The tensors of one model, by llama.cpp's names; matrices are [outputs, inputs]."""

    def __init__(self, request: WeightsRequest) -> None:
        self._a = request.model
        self._random = np.random.default_rng(request.seed)

    def all(self) -> list[tuple[str, F32]]:
        """Return name and values of every tensor."""
        a, h = self._a, self._a.hidden_size
        tensors = [("token_embd.weight", self._vocabulary(1.0)), ("output_norm.weight", _ones(h))]
        if not a.tied_embeddings:
            tensors.append(("output.weight", self._vocabulary(h**-0.5)))
        interval = a.num_layers // a.num_full_attention_layers
        for layer in range(a.num_layers):
            block = self._attention() if (layer + 1) % interval == 0 else self._delta_net()
            tensors += _named(layer, {**block, **self._feed_forward()})
        mtp = {
            "nextn.eh_proj": np.concatenate([np.eye(h, dtype=np.float32), self._matrix(h, h)], axis=1),
            **{f"nextn.{norm}": _ones(h) for norm in ("enorm", "hnorm", "shared_head_norm")},
        }
        return tensors + _named(a.num_layers, {**self._attention(), **self._feed_forward(), **mtp})

    def _matrix(self, outputs: int, inputs: int) -> F32:
        return self._random.standard_normal((outputs, inputs), np.float32) * np.float32(inputs**-0.5)

    def _vocabulary(self, scale: float) -> F32:
        values = self._random.standard_normal((self._a.vocab_size, self._a.hidden_size), np.float32) * np.float32(scale)
        # Forced acceptance refuses a drafted end token: of logit 0 it is never the best one.
        values[-1] = 0.0
        return values

    def _attention(self) -> dict[str, F32]:
        a, h, d = self._a, self._a.hidden_size, self._a.fact("head_size")
        n_q, n_kv = a.num_q_heads, a.fact("num_kv_heads")
        return {
            "attn_q": self._matrix(2 * n_q * d, h),  # queries and their output gate
            "attn_k": self._matrix(n_kv * d, h),
            "attn_v": self._matrix(n_kv * d, h),
            "attn_output": self._matrix(h, n_q * d),
            "attn_q_norm": _ones(d),
            "attn_k_norm": _ones(d),
        }

    def _delta_net(self) -> dict[str, F32]:
        a, h, d = self._a, self._a.hidden_size, self._a.fact("linear_head_size")
        n_k, n_v = a.fact("num_linear_k_heads"), a.fact("num_linear_v_heads")
        return {
            "attn_qkv": self._matrix((2 * n_k + n_v) * d, h),
            "attn_gate": self._matrix(n_v * d, h),
            "ssm_conv1d": self._matrix((2 * n_k + n_v) * d, GDN_CONV_KERNEL),
            "ssm_dt.bias": _ones(n_v),
            "ssm_a.": -_ones(n_v),
            "ssm_beta": self._matrix(n_v, h),
            "ssm_alpha": self._matrix(n_v, h),
            "ssm_norm": _ones(d),
            "ssm_out": self._matrix(h, n_v * d),
        }

    def _feed_forward(self) -> dict[str, F32]:
        h, f = self._a.hidden_size, self._a.fact("ffn_size")
        return {
            "ffn_gate": self._matrix(f, h),
            "ffn_up": self._matrix(f, h),
            "ffn_down": self._matrix(h, f),
            "attn_norm": _ones(h),
            "post_attention_norm": _ones(h),
        }


def _ones(size: int) -> F32:
    return np.ones(size, np.float32)


def _named(layer: int, tensors: dict[str, F32]) -> list[tuple[str, F32]]:
    """Return the tensors with llama.cpp's names: `.weight` at the end, unless a name says what it is itself."""
    return [
        (f"blk.{layer}.{name.rstrip('.')}" + ("" if "." in name.removeprefix("nextn.") else ".weight"), values)
        for name, values in tensors.items()
    ]
