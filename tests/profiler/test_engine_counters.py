"""What engines count, and what two readings say together."""

import pytest

from profiler.errors import EngineError
from profiler.sources.engine.counters import Counters, read_counters
from traces.prometheus import parse_metrics

LLAMA_CPP = """\
# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed, excluding cached tokens
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 5
llamacpp:tokens_predicted_total 8
llamacpp:n_decode_total 4
llamacpp:spec_decode_num_draft_tokens_total 5
llamacpp:spec_decode_num_accepted_tokens_total 5
llamacpp:spec_decode_num_drafts_total 2
llamacpp:predicted_tokens_seconds 2574.48
llamacpp:requests_processing 0
llamacpp:requests_deferred 0
# HELP llamacpp:spec_decode_num_accepted_tokens_per_pos_total Accepted tokens per draft position
# TYPE llamacpp:spec_decode_num_accepted_tokens_per_pos_total counter
llamacpp:spec_decode_num_accepted_tokens_per_pos_total{position="0"} 2
llamacpp:spec_decode_num_accepted_tokens_per_pos_total{position="1"} 2
llamacpp:spec_decode_num_accepted_tokens_per_pos_total{position="2"} 1
"""
"""Recorded from llama.cpp (xllamacpp 2026.10.11549) after a response of 8 tokens: 1 + 4 + 3."""


def read(text: str, engine: str) -> Counters:
    return read_counters(parse_metrics(text, "metrics"), engine)


def test_a_recorded_reading_of_llama_cpp() -> None:
    found = read(LLAMA_CPP, "llama.cpp")
    assert (found.generated_tokens, found.drafts, found.draft_tokens, found.accepted_tokens) == (8, 2, 5, 5)
    assert found.accepted_by_position == (2, 2, 1)
    assert found.num_busy == 0
    emitted_by_steps = 8 - 1  # the first token is the prefill's
    assert emitted_by_steps == found.accepted_tokens + found.drafts


@pytest.mark.parametrize("suffix", ["", "_total"])
def test_vllms_counters_are_known_with_and_without_the_clients_suffix(suffix: str) -> None:
    labels = 'engine="0",model_name="m"'
    text = f"""\
process_start_time_seconds 1.79e9
vllm:num_requests_running{{{labels}}} 2
vllm:num_requests_waiting{{{labels}}} 1
vllm:generation_tokens{suffix}{{{labels}}} 100
vllm:generation_tokens_created{{{labels}}} 1.7e9
vllm:spec_decode_num_drafts{suffix}{{{labels}}} 40
vllm:spec_decode_num_draft_tokens{suffix}{{{labels}}} 80
vllm:spec_decode_num_accepted_tokens{suffix}{{{labels}}} 60
vllm:spec_decode_num_accepted_tokens_per_pos{suffix}{{{labels},position="1"}} 25
vllm:spec_decode_num_accepted_tokens_per_pos{suffix}{{{labels},position="0"}} 35
vllm:spec_decode_num_accepted_tokens_per_pos{suffix}{{{labels},position="-1"}} 9
"""
    assert read(text, "vllm") == Counters(100, 40, 80, 60, (35, 25), 3, 1.79e9)


def test_ranks_of_sglang_repeat_a_gauge_and_its_counters_come_with_the_first_request() -> None:
    idle = read('sglang:num_running_reqs{pp_rank="0"} 4\nsglang:num_running_reqs{pp_rank="1"} 4\n', "sglang")
    assert (idle.num_busy, idle.drafts, idle.generated_tokens) == (4, None, None)
    later = read(
        'sglang:num_running_reqs{pp_rank="0"} 0\nsglang:spec_accept_length{pp_rank="0"} 0.0\n'
        'sglang:generation_tokens_total{is_streaming="true"} 70\n'
        'sglang:generation_tokens_total{is_streaming="false"} 30\n'
        "sglang:spec_verify_calls_total 40\n",
        "sglang",
    )
    counted = later.since(idle)
    assert (counted.generated_tokens, counted.drafts, counted.accepted_tokens) == (100, 40, None)


@pytest.mark.parametrize("label", ["engine", "dp_rank"])
def test_several_engines_behind_one_port_are_refused(label: str) -> None:
    engine, name = ("vllm", "vllm:num_requests_running") if label == "engine" else ("sglang", "sglang:num_running_reqs")
    with pytest.raises(EngineError, match="2 engines share this port"):
        read(f'{name}{{{label}="0"}} 0\n{name}{{{label}="1"}} 0\n', engine)


def test_counters_that_go_back_are_a_restart() -> None:
    before = Counters(100, 40, 80, 60, (35, 25), 0, 1.0)
    assert before.since(before).drafts == 0
    for after in (
        Counters(5, 40, 80, 60, (35, 25), 0, 1.0),
        Counters(100, 40, 80, 60, (35, 20), 0, 1.0),
        Counters(200, 50, 90, 70, (40, 30), 0, 2.0),
    ):
        with pytest.raises(EngineError, match="the server restarted"):
            after.since(before)
