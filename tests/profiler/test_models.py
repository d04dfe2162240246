"""Decoders with random weights: a cached pass is the full pass, and the sizes are the architecture table's."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

import numpy as np  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from profiler.errors import UnsupportedModelError  # noqa: E402
from profiler.models.decoder import Decoder, build_decoder, full_attention_pattern  # noqa: E402
from profiler.models.delta_net import delta_chunks  # noqa: E402
from profiler.models.experts import Routing  # noqa: E402
from profiler.models.glue import delta_step  # noqa: E402
from profiler.models.hf_config import architecture_of, read_config  # noqa: E402
from profiler.models.latent_attention import LatentAttention  # noqa: E402
from profiler.models.rank import slice_rank  # noqa: E402
from profiler.models.step import Step  # noqa: E402
from profiler.models.weights import WeightMaker, num_values  # noqa: E402
from profiler.sources.model_config import config_json  # noqa: E402
from simulator.roofline_moe import distinct_experts  # noqa: E402
from tests.profiler import shapes  # noqa: E402
from traces.architecture import Architecture, list_architectures, load_architecture  # noqa: E402

CPU = torch.device("cpu")
by_family = pytest.mark.parametrize("shape", shapes.ALL, ids=lambda shape: shape.name)


class AllAlike:
    """Every token visits the same experts, wherever it stands in a pass."""

    def draw(self, num_tokens: int, num_experts: int, num_per_token: int, layer: int) -> "np.ndarray":
        return np.tile(np.arange(layer, layer + num_per_token) % num_experts, (num_tokens, 1))


def build(shape: Architecture, tp_size: int = 1, ep_size: int = 1) -> Decoder:
    rank = slice_rank(shape, tp_size, ep_size)
    return build_decoder(rank, WeightMaker.seeded(CPU, "fp32"), routing=AllAlike(), max_tokens=512)


def full_logits(model: Decoder, tokens: "torch.Tensor") -> "torch.Tensor":
    batch, length = tokens.shape
    return model.logits(model.forward(tokens, model.new_caches(batch, length), Step(0, length)))


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


@by_family
@pytest.mark.parametrize("num_cached", [1, 7, 70])
@pytest.mark.parametrize("num_new", [1, 4, 33])
def test_a_cached_pass_gives_the_logits_of_the_full_pass(shape: Architecture, num_cached: int, num_new: int) -> None:
    model = build(shape)
    tokens = model.maker.tokens(2, num_cached + num_new, below=shape.vocab_size)
    caches = model.new_caches(2, tokens.shape[1], num_states=num_new)
    model.forward(tokens[:, :num_cached], caches, Step(0, num_cached))
    hidden = model.forward(tokens[:, num_cached:], caches, Step(num_cached, num_new, keeps_states=num_new <= 4))
    torch.testing.assert_close(model.logits(hidden), full_logits(model, tokens)[:, num_cached:], rtol=1e-3, atol=5e-4)


@by_family
@pytest.mark.parametrize("num_accepted", [1, 2, 4])
def test_rejected_tokens_leave_no_trace(shape: Architecture, num_accepted: int) -> None:
    model = build(shape)
    tokens = model.maker.tokens(2, 12, below=shape.vocab_size)
    caches = model.new_caches(2, 32, num_states=4)
    model.forward(tokens[:, :5], caches, Step(0, 5))
    drafts = torch.cat((tokens[:, 5 : 5 + num_accepted], model.maker.tokens(2, 4 - num_accepted, below=100)), dim=1)
    model.forward(drafts, caches, Step(5, 4, keeps_states=True))
    for cache in caches:
        cache.accept(num_accepted)
    rest = model.forward(tokens[:, 5 + num_accepted :], caches, Step(5 + num_accepted, 7 - num_accepted))
    expected = full_logits(model, tokens)[:, 5 + num_accepted :]
    torch.testing.assert_close(model.logits(rest), expected, rtol=1e-3, atol=5e-4)


@by_family
def test_a_draft_pass_with_a_cache_gives_what_one_over_everything_gives(shape: Architecture) -> None:
    model = build(shape)
    hidden = model.maker.normal(2, 9, shape.hidden_size)
    tokens = model.maker.tokens(2, 9, below=shape.vocab_size)
    whole = model.draft(hidden, tokens, model.new_mtp_cache(2, 9), Step(0, 9))
    cache = model.new_mtp_cache(2, 9)
    model.draft(hidden[:, :5], tokens[:, :5], cache, Step(0, 5))
    parts = [model.draft(hidden[:, i : i + 2], tokens[:, i : i + 2], cache, Step(i, 2)) for i in (5, 7)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole[:, 5:], rtol=1e-3, atol=5e-4)


@by_family
def test_without_a_cache_the_pass_is_the_same(shape: Architecture) -> None:
    model = build(shape)
    tokens = model.maker.tokens(2, 40, below=shape.vocab_size)
    logits = model.logits(model.forward(tokens, None, Step(0, 40)))
    torch.testing.assert_close(logits, full_logits(model, tokens), rtol=1e-3, atol=5e-4)


@by_family
def test_later_tokens_do_not_change_earlier_ones(shape: Architecture) -> None:
    model = build(shape)
    tokens = model.maker.tokens(1, 20, below=shape.vocab_size)
    changed = tokens.clone()
    changed[:, 12:] = (changed[:, 12:] + 1) % shape.vocab_size
    first, second = full_logits(model, tokens), full_logits(model, changed)
    torch.testing.assert_close(first[:, :12], second[:, :12])
    assert not torch.allclose(first[:, 12:], second[:, 12:])


def test_both_ways_of_latent_attention_agree() -> None:
    mixer = LatentAttention.build(shapes.LATENT, WeightMaker.seeded(CPU, "fp32"), build(shapes.LATENT).layers[0].glue)
    maker = WeightMaker.seeded(CPU, "fp32", seed=1)
    m = mixer.shape
    q_nope, q_rope = maker.normal(2, 4, 3, m.nope_size), maker.normal(2, 4, 3, m.rope_size)
    keys = maker.normal(2, 1, 11, m.kv_rank + m.rope_size)
    absorbed, expanded = mixer._absorbed(q_nope, q_rope, keys), mixer._expanded(q_nope, q_rope, keys)
    torch.testing.assert_close(absorbed, expanded, rtol=1e-4, atol=1e-5)


def test_chunks_of_gated_deltanet_are_its_recurrence() -> None:
    maker = WeightMaker.seeded(CPU, "fp32")
    q, k = (torch.nn.functional.normalize(maker.normal(2, 3, 150, 16), dim=-1) for _ in range(2))
    v, state = maker.normal(2, 3, 150, 8), maker.normal(2, 3, 16, 8)
    log_decay, beta = -maker.normal(2, 3, 150).abs(), maker.normal(2, 3, 150).sigmoid()
    out, last = delta_chunks(q, k, v, log_decay, beta, state)
    for token in range(150):
        # The rule as the paper writes it (arXiv:2412.06464, eq. 10), not as `delta_step` arranges it.
        state = state * log_decay[:, :, token].exp()[..., None, None]
        delta = beta[:, :, token, None] * (v[:, :, token] - torch.einsum("bnkv,bnk->bnv", state, k[:, :, token]))
        stepped = delta_step(
            state, q[:, :, token], k[:, :, token], v[:, :, token], 0 * beta[:, :, 0], beta[:, :, token]
        )
        state = state + k[:, :, token, :, None] * delta[..., None, :]
        expected = torch.einsum("bnkv,bnk->bnv", state, q[:, :, token])
        torch.testing.assert_close(out[:, :, token], expected, rtol=1e-3, atol=5e-4)
        torch.testing.assert_close(stepped, (state, expected), rtol=1e-3, atol=5e-4)
    torch.testing.assert_close(last, state, rtol=1e-3, atol=5e-4)


@by_family
def test_a_model_has_the_parameters_of_the_architecture_table(shape: Architecture) -> None:
    model = build(shape)
    mtp = num_values(model.mtp)
    assert mtp == shape.mtp_layer_params
    assert num_values(model) - mtp == shape.num_params


@pytest.mark.parametrize("name", list_architectures())
def test_published_models_have_their_parameters(name: str) -> None:
    shape = load_architecture(name)
    maker = WeightMaker.seeded(torch.device("meta"), "bf16")
    model = build_decoder(slice_rank(shape), maker, routing=AllAlike(), max_tokens=1)
    assert num_values(model.mtp) == shape.mtp_layer_params
    assert num_values(model) - num_values(model.mtp) == shape.num_params


def attention_flops(q: list[int], k: list[int], v: list[int], *_: object, **__: object) -> int:
    return 2 * q[0] * q[1] * q[2] * k[2] * (q[3] + v[3])


def grouped_flops(rows: list[int], weights: list[int], *_: object, **__: object) -> int:
    return 2 * rows[0] * weights[1] * weights[2]


UNKNOWN_TO_TORCH = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention_flops,
    torch.ops.aten._grouped_mm: grouped_flops,
}


@by_family
def test_a_pass_computes_what_the_architecture_table_says(shape: Architecture) -> None:
    model = build(shape)
    batch, context, num_new = 3, 20, 4
    caches = model.new_caches(batch, 32, num_states=num_new)
    tokens = model.maker.tokens(batch, num_new, below=shape.vocab_size)
    with FlopCounterMode(display=False, custom_mapping=UNKNOWN_TO_TORCH) as counter:
        model.logits(model.forward(tokens, caches, Step(context, num_new, keeps_states=True)))
    visited = shape.active_params - (0 if shape.tied_embeddings else shape.lm_head_params)
    norms = shape.hidden_size * (2 * shape.num_layers + 1)
    if shape.num_linear_attention_layers:
        norms += shape.num_linear_attention_layers * (2 * shape.num_linear_v_heads + shape.linear_head_size)
    if shape.mla is None:
        norms += shape.num_full_attention_layers * 2 * shape.head_size
    width = 2 * shape.head_size if shape.mla is None else 2 * shape.mla.kv_rank + shape.mla.rope_size
    # New tokens meet each other in full: a kernel masks here, it does not skip.
    pairs = shape.num_full_attention_layers * batch * num_new * (context + num_new) * shape.num_q_heads
    assert counter.get_total_flops() == 2 * batch * num_new * (visited - norms) + 2 * pairs * width


@pytest.mark.parametrize("shape", [shapes.DENSE, shapes.HYBRID, shapes.LATENT], ids=lambda shape: shape.name)
def test_two_ranks_hold_the_model_once_and_what_is_shared_twice(shape: Architecture) -> None:
    whole, half = build(shape), build(shape, tp_size=2)
    replicated = sum(layer.mixer_norm.numel() + layer.ffn_norm.numel() for layer in whole.layers)
    replicated += num_values(whole.final_norm)
    for layer in whole.layers:
        replicated += sum(
            getattr(layer.mixer, name).numel()
            for name in ("q_norm", "k_norm", "out_norm", "q_down", "kv_down")
            if hasattr(layer.mixer, name)
        )
        replicated += layer.ffn.router.numel() if hasattr(layer.ffn, "router") else 0
    rank, model = (num_values(m) - num_values(m.mtp) for m in (half, whole))
    assert 2 * rank - replicated == model


def test_expert_parallel_ranks_hold_half_of_the_experts() -> None:
    whole, half = build(shapes.HYBRID_MOE), build(shapes.HYBRID_MOE, tp_size=2, ep_size=2)
    assert half.layers[0].ffn.gate_up_EHI.shape == (4, 64, 96)
    assert whole.layers[0].ffn.gate_up_EHI.shape == (8, 64, 96)
    assert half.layers[0].ffn.router.shape == whole.layers[0].ffn.router.shape


def test_experts_of_other_ranks_add_nothing() -> None:
    whole, half = build(shapes.MOE), build(shapes.MOE, tp_size=2, ep_size=2)
    mine, ours = half.layers[0].ffn, whole.layers[0].ffn
    mine.router, mine.gate_up_EHI, mine.down_EIH = ours.router, ours.gate_up_EHI[:4], ours.down_EIH[:4]
    x = whole.maker.normal(5, 64)
    visits = torch.tensor([[0, 5], [1, 2], [6, 7], [3, 0], [4, 1]])
    ours.visits_TK = mine.visits_TK = visits
    ours.down_EIH = ours.down_EIH.clone()
    ours.down_EIH[4:] = 0
    torch.testing.assert_close(mine.forward(x), ours.forward(x))


@pytest.mark.parametrize(("tp_size", "ep_size", "words"), [(3, 1, "not divisible"), (2, 4, "does not divide --tp")])
def test_a_layout_that_does_not_divide_the_model_is_named(tp_size: int, ep_size: int, words: str) -> None:
    with pytest.raises(UnsupportedModelError, match=words):
        slice_rank(shapes.MOE, tp_size, ep_size)


@pytest.mark.parametrize("num_tokens", [1, 4, 16, 64])
def test_routing_visits_as_many_distinct_experts_as_its_skew_says(num_tokens: int) -> None:
    drawn = [Routing(skew=1.01).draw(num_tokens, 128, 8, layer) for layer in range(200)]
    distinct = np.mean([len(np.unique(visits)) for visits in drawn])
    expected = float(distinct_experts(num_tokens, 128, 8, 1.01))
    # The simulator counts with replacement between ranks, a draw without replacement spreads a little more.
    assert expected * 0.98 <= distinct <= expected * 1.15
    assert all(len(set(row)) == 8 for row in drawn[0])


def test_uniform_routing_visits_the_closed_form_number_of_experts() -> None:
    drawn = [Routing(skew=0.0).draw(16, 128, 8, layer) for layer in range(300)]
    expected = 128 * (1 - (1 - 8 / 128) ** 16)
    assert np.mean([len(np.unique(visits)) for visits in drawn]) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("name", ["Qwen3.5-27B", "Qwen3.5-35B-A3B", "Llama-3.1-8B"])
def test_a_hugging_face_configuration_gives_the_architecture_of_the_table(name: str) -> None:
    ours = load_architecture(name)
    read = architecture_of(config_json(ours), name, "config.json")
    same = ours.model_copy(update={field: getattr(read, field) for field in ("num_mtp_layers", "attention", "source")})
    assert read == same


def test_deepseek_v3_is_read_from_its_own_configuration(tmp_path: Path) -> None:
    config = {
        "model_type": "deepseek_v3", "num_hidden_layers": 61, "hidden_size": 7168, "intermediate_size": 18432,
        "moe_intermediate_size": 2048, "n_routed_experts": 256, "n_shared_experts": 1, "num_experts_per_tok": 8,
        "first_k_dense_replace": 3, "num_attention_heads": 128, "num_key_value_heads": 128, "q_lora_rank": 1536,
        "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "vocab_size": 129280,
        "num_nextn_predict_layers": 1, "tie_word_embeddings": False,
    }  # fmt: skip
    folder = tmp_path / "DeepSeek-V3"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    read, ours = read_config(folder / "config.json"), load_architecture("DeepSeek-V3")
    assert read.name == "DeepSeek-V3"
    assert (read.num_params, read.active_params, read.mtp_params) == (
        ours.num_params,
        ours.active_params,
        ours.mtp_params,
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not JSON"),
        ('{"model_type": "gpt2"}', "model_type 'gpt2' is not one of"),
        ('{"model_type": "qwen3", "num_hidden_layers": 2}', "'num_attention_heads' is missing"),
        ("[1]", "expected an object"),
    ],
)
def test_a_wrong_configuration_is_one_line(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(UnsupportedModelError, match=words) as caught:
        read_config(path)
    assert "\n" not in str(caught.value)


def test_the_layers_of_a_hybrid_end_each_period_with_full_attention() -> None:
    assert full_attention_pattern(slice_rank(shapes.HYBRID)) == [False, False, False, True]
    table = slice_rank(load_architecture("Qwen3.5-27B"))
    assert sum(full_attention_pattern(table)) == 16
