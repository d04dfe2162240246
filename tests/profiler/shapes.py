"""Small architectures of every family, for tests."""

from typing import Any

from traces.architecture import Architecture, MlaShape


def small(name: str, **changes: Any) -> Architecture:
    fields: dict[str, Any] = {
        "name": name,
        "num_layers": 3,
        "num_full_attention_layers": 3,
        "num_linear_attention_layers": 0,
        "hidden_size": 64,
        "ffn_size": 96,
        "expert_ffn_size": None,
        "shared_ffn_size": None,
        "num_experts": None,
        "num_experts_per_token": None,
        "num_q_heads": 4,
        "num_kv_heads": 2,
        "head_size": 32,
        "num_linear_k_heads": None,
        "num_linear_v_heads": None,
        "linear_head_size": None,
        "vocab_size": 160,
        "num_mtp_layers": 1,
        "tied_embeddings": False,
        "attention": "GQA",
        "source": "made up",
    }
    return Architecture(**{**fields, **changes})


_EXPERTS = {"num_experts": 8, "num_experts_per_token": 2, "expert_ffn_size": 48}
_LINEAR = {
    "num_layers": 4,
    "num_full_attention_layers": 1,
    "num_linear_attention_layers": 3,
    "num_linear_k_heads": 2,
    "num_linear_v_heads": 4,
    "linear_head_size": 16,
    "output_gate": True,
}

DENSE = small("dense")
MOE = small("moe", **_EXPERTS, ffn_size=None)
HYBRID = small("hybrid", **_LINEAR, tied_embeddings=True)
HYBRID_MOE = small("hybrid-moe", **_LINEAR, **_EXPERTS, ffn_size=None, shared_ffn_size=48)
LATENT = small(
    "latent",
    **_EXPERTS,
    shared_ffn_size=48,
    num_dense_ffn_layers=1,
    num_kv_heads=None,
    head_size=None,
    mla=MlaShape(q_rank=48, kv_rank=32, nope_size=16, rope_size=8, v_size=16),
)
ALL = (DENSE, MOE, HYBRID, HYBRID_MOE, LATENT)
