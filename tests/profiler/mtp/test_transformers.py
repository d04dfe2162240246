"""A head is trained on a Hugging Face causal LM, which lends its embedding, lm_head and hidden states."""

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from profiler.mtp.heads import head_for_transformer, transformer_hidden  # noqa: E402
from profiler.mtp.train import HeadRecipe, Rollouts, train_head  # noqa: E402
from tests.profiler.shapes import DENSE  # noqa: E402


def test_a_head_learns_what_a_causal_lm_says() -> None:
    torch.manual_seed(0)
    config = transformers.Qwen3Config(
        vocab_size=DENSE.vocab_size,
        hidden_size=DENSE.hidden_size,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        initializer_range=0.2,
    )
    model = transformers.Qwen3ForCausalLM(config).eval()
    tokens = torch.randint(DENSE.vocab_size, (8, 24))
    hidden = transformer_hidden(model, tokens)
    head = head_for_transformer(model, DENSE)
    with torch.no_grad():
        assert torch.allclose(head.logits(hidden), model(tokens).logits, atol=1e-4)
    before = [weight.clone() for weight in model.parameters()]
    rollouts = Rollouts(tokens, torch.ones_like(tokens, dtype=torch.bool), hidden)
    losses = train_head(head, rollouts, HeadRecipe("kl", 40, num_steps=2))
    assert losses[-1] < 0.8 * losses[0]
    assert all(torch.equal(*both) for both in zip(model.parameters(), before, strict=True))
