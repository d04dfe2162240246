"""Rank: the part of a model that one GPU of a tensor- and expert-parallel replica holds, as a smaller shape.

Heads, inner widths, experts and vocabulary rows are divided; the hidden size, norms, routers and MLA's latent are not.
Layout of vLLM: experts are spread over `ep_size` GPUs, their inner width over tp_size / ep_size. Does not know weights.
"""

from dataclasses import dataclass

from profiler.errors import UnsupportedModelError
from traces.architecture import Architecture


@dataclass(frozen=True, slots=True)
class Rank:
    """One GPU's share of a model."""

    whole: Architecture
    """The model."""
    local: Architecture
    """The same with this GPU's heads, widths, experts and vocabulary."""
    tp_size: int
    ep_size: int


def slice_rank(model: Architecture, tp_size: int = 1, ep_size: int = 1) -> Rank:
    """Return the share of one GPU out of `tp_size`.

    Raises:
        UnsupportedModelError: The sizes do not divide the model.
    """
    if tp_size % ep_size:
        raise UnsupportedModelError(f"--ep {ep_size} does not divide --tp {tp_size}; use ep 1 or ep = tp")
    if ep_size > 1 and not model.is_moe:
        raise UnsupportedModelError(f"{model.name} is dense, --ep {ep_size} has no experts to split; omit --ep")

    def part(field: str, parts: int) -> int | None:
        value = getattr(model, field)
        if value is None:
            return None
        if value % parts:
            raise UnsupportedModelError(
                f"{model.name}: {field} {value} is not divisible by {parts}; choose another --tp or --ep"
            )
        return int(value // parts)

    update = {
        field: part(field, tp_size)
        for field in ("num_q_heads", "ffn_size", "shared_ffn_size", "num_linear_k_heads", "num_linear_v_heads")
    }
    update["vocab_size"] = -(-model.vocab_size // tp_size)  # engines pad the vocabulary
    # Fewer key/value heads than GPUs: each GPU keeps a copy of one.
    shared = model.num_kv_heads is not None and model.num_kv_heads < tp_size and tp_size % model.num_kv_heads == 0
    update["num_kv_heads"] = 1 if shared else part("num_kv_heads", tp_size)
    update["num_experts"] = part("num_experts", ep_size)
    update["expert_ffn_size"] = part("expert_ffn_size", tp_size // ep_size)
    return Rank(model, model.model_copy(update=update), tp_size, ep_size)
