"""KV capacity: what weights, draft head and recurrent states leave."""

from pathlib import Path

import pytest

from simulator.errors import ScenarioError
from simulator.memory import kv_capacity_tokens
from tests.simulator import made_up
from traces.architecture import load_architecture
from traces.hardware import load_gpu


def capacity(folder: Path, k: int, *overrides: str) -> int:
    scenario = made_up.scenario(folder, *overrides)
    return kv_capacity_tokens(
        scenario, load_architecture(scenario.model.name), load_gpu(scenario.cluster.gpu), num_draft_tokens=k
    )


def test_a_dense_model_by_hand(tmp_path: Path) -> None:
    """Qwen3-8B in bf16: 36 layers x 2 x 8 heads x 128 x 2 bytes = 147,456 bytes of KV per token."""
    left = 0.9 * load_gpu("H200").memory_bytes - load_architecture("Qwen3-8B").weight_bytes("bf16")
    assert capacity(tmp_path, 0, "engine.kv_block_tokens=1") == int(left / 147_456)
    assert capacity(tmp_path, 0) == int(left / 147_456) // 16 * 16
    assert capacity(tmp_path, 0, "engine.kv_block_tokens=528") == int(left / 147_456) // 528 * 528


def test_tensor_parallel_gpus_add_their_memory_and_hold_the_weights_once(tmp_path: Path) -> None:
    memory, weights = load_gpu("H200").memory_bytes, load_architecture("Qwen3-8B").weight_bytes("bf16")
    assert capacity(tmp_path, 0, "cluster.tp_size=2") == int((1.8 * memory - weights) / 147_456) // 16 * 16


def test_drafting_costs_the_mtp_layer_and_its_kv(tmp_path: Path) -> None:
    architecture, model = load_architecture("MiMo-7B-RL"), "model.name=MiMo-7B-RL"
    left = 0.9 * load_gpu("H200").memory_bytes - architecture.weight_bytes() - architecture.mtp_weight_bytes()
    per_token = architecture.kv_bytes_per_token() + architecture.mtp_kv_bytes_per_token()
    assert capacity(tmp_path, 1, model) == capacity(tmp_path, 4, model) == int(left / per_token) // 16 * 16
    assert capacity(tmp_path, 1, model) < capacity(tmp_path, 0, model)


def test_a_model_without_an_mtp_layer_drafts_with_one_of_its_shape(tmp_path: Path) -> None:
    architecture = load_architecture("Qwen3-8B")
    left = 0.9 * load_gpu("H200").memory_bytes - architecture.weight_bytes() - 2 * architecture.mtp_layer_params
    assert capacity(tmp_path, 3) == int(left / (147_456 * 37 / 36)) // 16 * 16


def test_recurrent_states_take_one_slot_and_one_more_per_draft(tmp_path: Path) -> None:
    architecture = load_architecture("Qwen3.5-9B")
    per_token = architecture.kv_bytes_per_token() + architecture.mtp_kv_bytes_per_token()
    for seqs in (32, 64):
        said = ("model.name=Qwen3.5-9B", "engine.kv_block_tokens=1", f"engine.max_running_seqs={seqs}")
        with_k = [capacity(tmp_path, k, *said) for k in (1, 3)]
        assert with_k[0] - with_k[1] == pytest.approx(2 * seqs * architecture.state_bytes_per_seq / per_token, abs=1)


def test_a_stated_capacity_is_taken_in_whole_blocks(tmp_path: Path) -> None:
    assert capacity(tmp_path, 0, "engine.kv_cache_tokens=12345") == 12_336
    assert capacity(tmp_path, 3, "engine.kv_cache_tokens=12345", "engine.kv_block_tokens=1") == 12_345


def test_half_the_bytes_give_more_than_twice_the_tokens(tmp_path: Path) -> None:
    assert capacity(tmp_path, 0, "model.precision=fp8") > 2 * capacity(tmp_path, 0)


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError) as error:
        capacity(tmp_path, 0, "model.name=DeepSeek-V3")
    assert str(error.value) == (
        "engine.max_running_seqs: 16 sequences of DeepSeek-V3 need 1342 GB of weights and 0 GB of states, but 1 x H200 "
        "at engine.gpu_memory_utilization 0.9 give 127 GB; raise cluster.tp_size or engine.gpu_memory_utilization, or "
        "lower engine.max_running_seqs"
    )


def test_states_of_a_batch_that_no_gpu_holds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError) as error:
        capacity(tmp_path, 3, "model.name=Qwen3.5-9B", "engine.max_running_seqs=8192")
    assert str(error.value).startswith("engine.max_running_seqs: 8192 sequences of Qwen3.5-9B need 18 GB of weights")
