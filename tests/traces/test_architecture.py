"""Architectures: parameter counts against the models' names, cache and state against closed forms, clear errors."""

import pytest

from traces.architecture import Architecture, list_architectures, load_architecture
from traces.errors import TraceFormatError

# Billions of parameters as model cards or names state them: total, active (None for dense models).
STATED_PARAMS_BILLION = {
    "Qwen3-8B": (8.2, None),
    "Qwen3-32B": (32.8, None),
    "Qwen3-30B-A3B": (30.5, 3.3),
    "Qwen3-235B-A22B": (235, 22),
    "Llama-3.1-8B": (8.03, None),
    "DeepSeek-V3": (671, 37),
    "Qwen3-Next-80B-A3B": (80, 3),
    "Qwen3.5-4B": (4, None),
    "Qwen3.5-9B": (9, None),
    "Qwen3.5-27B": (27, None),
    "Qwen3.6-27B": (27, None),
    "Qwen3.5-35B-A3B": (35, 3),
    "Qwen3.6-35B-A3B": (35, 3),
    "Qwen3.5-122B-A10B": (122, 10),
    "Qwen3.5-397B-A17B": (397, 17),
    "MiMo-7B-RL": (7.62, None),
    "Qwen2.5-Math-7B": (7.62, None),
    "Qwen3.8-27B": (27, None),
    "Qwen3-0.6B": (0.6, None),
    "Qwen3-1.7B": (1.7, None),
    "Qwen3-4B": (4.0, None),
    "Qwen3-14B": (14.8, None),
    "Qwen2.5-1.5B": (1.54, None),
    "Qwen2.5-3B": (3.09, None),
    "Qwen2.5-7B": (7.61, None),
    "Qwen2.5-14B": (14.7, None),
    "Qwen2.5-32B": (32.5, None),
    "Qwen2.5-72B": (72.7, None),
    "Llama-3-8B": (8.03, None),
    "Llama-3.1-70B": (70.6, None),
    "Llama-3.3-70B": (70.6, None),
    "Llama-3.2-1B": (1.23, None),
    "Llama-3.2-3B": (3.21, None),
    "Llama-2-7B": (6.74, None),
    "Llama-2-13B": (13.0, None),
    "Llama-2-70B": (69.0, None),
    "Vicuna-7B": (6.74, None),
    "Vicuna-13B": (13.0, None),
    "Mistral-7B": (7.24, None),
    "Mixtral-8x7B": (46.7, 12.9),
    "GLM-4.5-Air": (106, 13),
    "GLM-4.5": (355, 33),
    "GLM-4.7-Flash": (30, 3.6),
    "Kimi-K2": (1026, 32.9),
    "gpt-oss-20b": (20.9, 3.6),
    "gpt-oss-120b": (116.8, 5.1),
}
# Names round to whole billions, and some leave the embedding out of the active count.
TOTAL_TOLERANCE = 0.055
ACTIVE_TOLERANCE_BILLION = 0.9


@pytest.mark.parametrize("name", STATED_PARAMS_BILLION)
def test_parameter_counts_agree_with_the_model_card(name: str) -> None:
    total, active = STATED_PARAMS_BILLION[name]
    architecture = load_architecture(name)
    assert architecture.num_params / 1e9 == pytest.approx(total, rel=TOTAL_TOLERANCE)
    if active is None:
        assert architecture.active_params == architecture.num_params
    else:
        assert architecture.active_params / 1e9 == pytest.approx(active, abs=ACTIVE_TOLERANCE_BILLION)


def test_every_model_but_the_smallest_is_checked_against_its_card() -> None:
    assert set(list_architectures()) - set(STATED_PARAMS_BILLION) == {"Qwen3.5-0.8B"}


def test_deepseek_v3_mtp_module_has_the_stated_size() -> None:
    # README_WEIGHTS.md of DeepSeek-V3: 11.5 B unique parameters in the MTP module.
    assert load_architecture("DeepSeek-V3").mtp_params == pytest.approx(11.5e9, rel=0.02)


def test_mimo_with_its_mtp_layer_has_the_stated_size() -> None:
    mimo = load_architecture("MiMo-7B-RL")
    assert mimo.num_params + mimo.mtp_params == pytest.approx(7.83e9, rel=0.005)


def test_a_model_without_released_mtp_head_has_no_mtp_bytes() -> None:
    architecture = load_architecture("Qwen3-8B")
    assert (architecture.mtp_params, architecture.mtp_weight_bytes(), architecture.mtp_kv_bytes_per_token()) == (
        0,
        0,
        0,
    )
    assert architecture.mtp_layer_params > 0


def test_kv_cache_counts_full_attention_layers_only() -> None:
    assert load_architecture("Qwen3-8B").kv_bytes_per_token() == 36 * 2 * 8 * 128 * 2
    assert load_architecture("Qwen3.5-9B").kv_bytes_per_token() == 8 * 2 * 4 * 256 * 2
    assert load_architecture("Qwen3.5-9B").kv_bytes_per_token("fp8") == 8 * 2 * 4 * 256


def test_mla_caches_one_latent_and_one_rotary_key_per_token() -> None:
    assert load_architecture("DeepSeek-V3").kv_bytes_per_token() == 61 * (512 + 64) * 2


def test_delta_net_state_is_50_mb_per_sequence_for_qwen35_9b() -> None:
    assert load_architecture("Qwen3.5-9B").state_bytes_per_seq == 24 * 32 * 128 * 128 * 4
    assert load_architecture("Qwen3-8B").state_bytes_per_seq == 0


def test_fp8_halves_the_layers_and_keeps_the_embeddings() -> None:
    architecture = load_architecture("Qwen3-8B")
    saved = architecture.weight_bytes("bf16") - architecture.weight_bytes("fp8")
    assert saved == architecture.num_params - architecture.embedding_params


def test_unknown_model_names_close_matches_and_the_list_in_one_line() -> None:
    with pytest.raises(TraceFormatError, match=r"'Qwen3-9B': did you mean .*Qwen3-8B.*known: .*DeepSeek-V3") as caught:
        load_architecture("Qwen3-9B")
    assert "\n" not in str(caught.value)


def test_a_blank_fact_is_an_error_that_names_the_column() -> None:
    with pytest.raises(TraceFormatError, match=r"Qwen3\.5-0\.8B: column linear_v_heads is blank"):
        _ = load_architecture("Qwen3.5-0.8B").model_copy(update={"num_linear_v_heads": None}).state_bytes_per_seq


def test_unknown_precision_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'int3': known are fp32, bf16"):
        load_architecture("Qwen3-8B").weight_bytes("int3")


def test_layers_that_do_not_add_up_are_refused() -> None:
    content = load_architecture("Qwen3.5-9B").model_dump()
    with pytest.raises(ValueError, match=r"8 full \+ 24 linear attention layers are not 33"):
        Architecture.model_validate(content | {"num_layers": 33})
