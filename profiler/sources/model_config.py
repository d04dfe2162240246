"""Model configurations for aiconfigurator: from its registry, else a config.json folder from our architecture table."""

import json
from pathlib import Path
from typing import Any

from profiler.errors import UnsupportedModelError
from traces.architecture import GDN_CONV_KERNEL, Architecture, load_architecture


def model_path(model: str, registry: frozenset[str], folder: Path) -> str:
    """Return what aiconfigurator accepts as `model`: its own name for it, or `folder` with a config.json written there.

    Raises:
        UnsupportedModelError: the layout is neither in the registry nor one that this file can write.
        TraceFormatError: nobody knows the model.
    """
    for known in sorted(registry):
        if known.split("/")[-1] == model:
            return known
    config = config_json(load_architecture(model))
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return str(folder)


def config_json(architecture: Architecture) -> dict[str, Any]:
    """Return the Hugging Face configuration of a Qwen3.5-like hybrid or a dense GQA model: what latency needs of it."""
    a = architecture
    if a.mla is not None or (a.is_moe and a.num_linear_attention_layers == 0):
        raise UnsupportedModelError(
            f"{a.name}: not in aiconfigurator's registry, and only hybrids and dense GQA models "
            "can be described to it; choose one of its models"
        )
    shape: dict[str, Any] = {
        "num_hidden_layers": a.num_layers,
        "hidden_size": a.hidden_size,
        "num_attention_heads": a.num_q_heads,
        "num_key_value_heads": a.fact("num_kv_heads"),
        "head_dim": a.fact("head_size"),
        "vocab_size": a.vocab_size,
        "dtype": "bfloat16",
        "hidden_act": "silu",
        "max_position_embeddings": 262144,
        "tie_word_embeddings": a.tied_embeddings,
    }
    if a.is_moe:
        shape |= {
            "num_experts": a.fact("num_experts"),
            "num_experts_per_tok": a.fact("num_experts_per_token"),
            "moe_intermediate_size": a.fact("expert_ffn_size"),
            "shared_expert_intermediate_size": a.shared_ffn_size or 0,
        }
    else:
        shape["intermediate_size"] = a.fact("ffn_size")
    if a.num_linear_attention_layers == 0:
        return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", **shape}
    kind = "Qwen3_5Moe" if a.is_moe else "Qwen3_5"
    return {
        "architectures": [f"{kind}ForConditionalGeneration"],
        "model_type": "qwen3_5_moe" if a.is_moe else "qwen3_5",
        "text_config": shape | _linear_attention(a),
    }


def _linear_attention(a: Architecture) -> dict[str, Any]:
    period = a.num_layers // a.num_full_attention_layers
    is_full = [layer % period == period - 1 for layer in range(a.num_layers)]
    return {
        "layer_types": ["full_attention" if full else "linear_attention" for full in is_full],
        "linear_conv_kernel_dim": GDN_CONV_KERNEL,
        "linear_num_key_heads": a.fact("num_linear_k_heads"),
        "linear_num_value_heads": a.fact("num_linear_v_heads"),
        "linear_key_head_dim": a.fact("linear_head_size"),
        "linear_value_head_dim": a.fact("linear_head_size"),
        "mamba_ssm_dtype": "float32",
    }
