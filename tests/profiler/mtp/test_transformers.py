"""A head is trained on a Hugging Face causal LM, which lends its embedding, lm_head and hidden states."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from profiler.mtp.heads import head_for_transformer, transformer_hidden  # noqa: E402
from profiler.mtp.train import HeadRecipe, Rollouts, train_head  # noqa: E402
from tests.profiler.shapes import small  # noqa: E402

SIZES = {
    "vocab_size": 61,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.2,
}
GROUPED = SIZES | {"intermediate_size": 96, "num_key_value_heads": 2, "head_dim": 16}
CONFIGS: dict[str, dict[str, Any]] = {
    "Qwen3": GROUPED,
    "Llama": GROUPED | {"tie_word_embeddings": True},
    "Mistral": GROUPED,
    "Qwen3Moe": GROUPED | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    "GPT2": {"vocab_size": 61, "n_embd": 64, "n_layer": 2, "n_head": 4, "initializer_range": 0.2},
    "GPTNeoX": SIZES | {"intermediate_size": 96},
}
"""Models of the families that a head is tried on: config classes by their name, without `Config`."""


def tiny(family: str, **changes: object) -> Any:
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**CONFIGS.get(family, GROUPED) | changes)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", list(CONFIGS))
def test_a_head_learns_what_a_causal_lm_says(family: str, dtype: str) -> None:
    model = tiny(family).to(getattr(torch, dtype))
    tokens = torch.randint(61, (8, 24))
    hidden = transformer_hidden(model, tokens)
    head = head_for_transformer(model, small("head", vocab_size=61))
    if dtype == "float32":
        with torch.no_grad():
            assert torch.allclose(head.logits(hidden), model(tokens).logits, atol=1e-4)
    before = [weight.clone() for weight in model.parameters()]
    rollouts = Rollouts(tokens, torch.ones_like(tokens, dtype=torch.bool), hidden)
    losses = train_head(head, rollouts, HeadRecipe("kl", 40, num_steps=2))
    assert losses[-1] < 0.8 * losses[0]
    assert all(torch.equal(*both) for both in zip(model.parameters(), before, strict=True))


def test_a_model_whose_logits_are_not_its_lm_heads_is_refused() -> None:
    model = tiny("Granite", logits_scaling=8.0)
    with pytest.raises(ValueError, match="GraniteForCausalLM: its logits are not lm_head x last hidden states"):
        transformer_hidden(model, torch.randint(61, (2, 5)))


def test_a_head_of_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match="width 64, the head has 48; make them equal"):
        head_for_transformer(tiny("Qwen3"), small("head", hidden_size=48))
