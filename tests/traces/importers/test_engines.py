"""Readings of engines: every definition of acceptance brought to one, and none mixed up with an RL step."""

import json
from pathlib import Path

import pytest

from tests.traces.importers.logs import read_text, verl_line
from traces import TraceFormatError
from traces.importers import read_log
from traces.measured import Setup, Speculation

VLLM_SPEC = (
    "(APIServer pid=1) INFO 06-01 22:00:52 [metrics.py:101] SpecDecoding metrics: Mean acceptance length: 2.71, "
    "Accepted throughput: 0.68 tokens/s, Drafted throughput: 0.80 tokens/s, Accepted: 169 tokens, Drafted: 198 tokens, "
    "Per-position acceptance rate: 0.919, 0.788, Avg Draft acceptance rate: 85.4%"
)
VLLM_LOAD = (
    "(APIServer pid=1) INFO 06-01 22:00:52 [loggers.py:271] Engine 000: Avg prompt throughput: 908.0 tokens/s, Avg "
    "generation throughput: 26.9 tokens/s, Running: 1 reqs, Waiting: 0 reqs, GPU KV cache usage: 0.4%, Prefix cache "
    "hit rate: 31.9%"
)
SGLANG = (
    "[2026-05-23 07:41:14 TP0] Decode batch, #running-req: 12, #token: 178, token usage: 0.01, accept len: {length}, "
    "accept rate: {rate}, cuda graph: True, gen throughput (token/s): 91.33, #queue-req: 0"
)
LLAMA = (
    "slot print_timing: id  0 | task {task} | draft acceptance = 0.57092 (  322 accepted /   564 generated), "
    "mean len =  2.71\nslot print_timing: id  0 | task {other} |      acc per pos = (0.800, 0.580, 0.330)"
)


def speculation(folder: Path, text: str) -> Speculation:
    found = read_text(folder, text).steps[0].speculation
    assert found is not None
    return found


def test_a_line_of_vllm_gives_counts_length_and_positions(tmp_path: Path) -> None:
    found = speculation(tmp_path, VLLM_SPEC)
    assert (found.num_accepted_tokens, found.num_draft_tokens, found.num_drafts) == (169, 198, 99)
    assert (found.accept_length, found.accept_rate) == (2.71, pytest.approx(0.854))
    assert found.per_position == (0.919, 0.788)  # of all drafts: 1 + 0.919 + 0.788 = 2.707
    assert not found.is_request_weighted


def test_throughput_is_per_gpu_once_the_user_says_how_many(tmp_path: Path) -> None:
    assert read_text(tmp_path, VLLM_LOAD).steps[0].tokens_per_s_per_gpu is None
    run = read_text(tmp_path, VLLM_LOAD, setup=Setup(num_gpus=2))
    assert run.steps[0].tokens_per_s_per_gpu == pytest.approx(13.45)
    assert run.steps[0].logged["Prefix cache hit rate"] == pytest.approx(0.319)


def test_each_line_is_a_reading_of_its_own(tmp_path: Path) -> None:
    run = read_text(tmp_path, f"{VLLM_LOAD}\n{VLLM_SPEC}\n{VLLM_LOAD}\n")
    assert [step.step for step in run.steps] == [0, 1, 2]
    assert [step.speculation is None for step in run.steps] == [True, False, True]


def test_the_rate_of_a_vllm_bench_is_in_percent(tmp_path: Path) -> None:
    result = {"backend": "vllm", "model_id": "Qwen/Qwen3-8B", "total_output_tokens": 23, "output_throughput": 434.4}
    result |= {"spec_decode_acceptance_rate": 50.0, "spec_decode_acceptance_length": 2.8, "spec_decode_num_drafts": 5}
    result |= {"spec_decode_draft_tokens": 18, "spec_decode_accepted_tokens": 9, "itls": [[0.1, 0.2]]}
    result |= {"spec_decode_per_position_acceptance_rates": [1.0, 0.6, 0.2]}
    run = read_text(tmp_path, json.dumps(result))
    found = run.steps[0].speculation
    assert found is not None
    assert (run.framework, run.setup.model) == ("vllm", "Qwen/Qwen3-8B")
    assert (found.accept_rate, found.accept_length, found.num_drafts) == (0.5, 2.8, 5)
    assert found.per_position == (1.0, 0.6, 0.2)


METRICS = """\
# HELP {name}num_drafts_total drafts
# TYPE {name}num_drafts_total counter
{name}num_drafts_total{{engine="0"}} {drafts}
{name}num_drafts_total{{engine="1"}} 10.0
{name}num_draft_tokens_total{{engine="0"}} {drafted}
{name}num_draft_tokens_total{{engine="1"}} 20.0
{name}num_accepted_tokens_total{{engine="0"}} {accepted}
{name}num_accepted_tokens_total{{engine="1"}} 15.0
{name}num_accepted_tokens_per_pos_total{{engine="0",position="0"}} {first}
{name}num_accepted_tokens_per_pos_total{{engine="1",position="0"}} 9.0
{name}num_accepted_tokens_per_pos_total{{engine="0",position="1"}} {second}
{name}num_accepted_tokens_per_pos_total{{engine="1",position="1"}} 6.0
"""


@pytest.mark.parametrize("name", ["vllm:spec_decode_", "ray_vllm_spec_decode_", "llamacpp:spec_decode_"])
def test_counters_are_summed_over_engines_and_counted_from_reading_to_reading(name: str, tmp_path: Path) -> None:
    readings = [(90, 180, 150, 85, 65), (190, 380, 300, 175, 125)]
    for number, reading in enumerate(readings):
        keys = ("drafts", "drafted", "accepted", "first", "second")
        text = METRICS.format(name=name, **dict(zip(keys, reading, strict=True)))
        (tmp_path / f"{number}.prom").write_text(text)
    one = read_log(tmp_path / "0.prom").steps[0].speculation
    assert one is not None
    assert (one.num_drafts, one.num_accepted_tokens, one.per_position) == (100, 165, (0.94, 0.71))
    assert one.accept_length == pytest.approx(2.65)
    first, second = read_log([tmp_path / "0.prom", tmp_path / "1.prom"]).steps
    assert first.speculation is None  # nothing before it to count from
    assert second.speculation is not None
    assert (second.speculation.num_drafts, second.speculation.per_position) == (100, (0.9, 0.6))
    assert second.speculation.accept_rate == 0.75


def test_counters_that_went_back_are_those_of_a_new_server(tmp_path: Path) -> None:
    for number, drafts in enumerate((500, 90)):
        text = METRICS.format(name="vllm:spec_decode_", drafts=drafts, drafted=180, accepted=150, first=85, second=65)
        (tmp_path / f"{number}.prom").write_text(text)
    found = read_log([tmp_path / "0.prom", tmp_path / "1.prom"]).steps[1].speculation
    assert found is not None
    assert found.num_drafts == 100


def test_the_length_of_sglang_counts_the_bonus_token_and_its_rate_divides_by_k(tmp_path: Path) -> None:
    found = speculation(tmp_path, SGLANG.format(length="2.80", rate="0.60"))
    assert (found.accept_length, found.accept_rate) == (2.8, 0.6)
    k = 3
    assert found.accept_length == pytest.approx(1 + k * found.accept_rate)


def test_nothing_counted_by_sglang_is_missing(tmp_path: Path) -> None:
    assert read_text(tmp_path, SGLANG.format(length="0.00", rate="0.00")).steps[0].speculation is None


def test_gauges_of_sglang_are_averaged_over_ranks_and_leave_out_the_drafter(tmp_path: Path) -> None:
    text = "".join(
        f'sglang:spec_accept_length{{engine_type="{kind}",tp_rank="{rank}"}} {value}\n'
        for kind, rank, value in (("draft", 0, 9.0), ("unified", 0, 2.75), ("unified", 1, 2.85))
    )
    assert speculation(tmp_path, text).accept_length == pytest.approx(2.8)


def test_the_two_lines_of_a_request_of_llama_cpp_are_joined_by_its_task(tmp_path: Path) -> None:
    found = speculation(tmp_path, LLAMA.format(task=7, other=7))
    assert (found.num_accepted_tokens, found.num_draft_tokens, found.accept_length) == (322, 564, 2.71)
    assert found.per_position == (0.8, 0.58, 0.33)
    assert speculation(tmp_path, LLAMA.format(task=7, other=8)).per_position == ()


def test_engine_lines_in_the_log_of_a_trainer_are_not_its_steps(tmp_path: Path) -> None:
    text = f"{VLLM_SPEC}\n{verl_line(1)}\n{VLLM_SPEC}\n"
    run = read_text(tmp_path, text)
    assert (run.framework, len(run.steps)) == ("verl", 1)
    assert run.steps[0].speculation is None
    assert run.account is not None
    assert run.account.ignored["readings of vllm"] == "not the trainer's; --format vllm reads them; 2 times"
    engine = read_text(tmp_path, text, format="vllm")
    assert (engine.framework, len(engine.steps)) == ("vllm", 2)


def test_lines_of_two_engines_are_not_one_log(tmp_path: Path) -> None:
    with pytest.raises(TraceFormatError, match="holds 1 readings of vllm and 1 readings of sglang"):
        read_text(tmp_path, VLLM_SPEC + "\n" + SGLANG.format(length="2.80", rate="0.60"))


def test_metrics_of_an_unknown_server_say_so(tmp_path: Path) -> None:
    with pytest.raises(TraceFormatError, match="metrics of no known engine"):
        read_text(tmp_path, "# HELP python_info x\npython_info 1.0\n")


def test_what_an_engine_answers_that_is_no_number_is_counted(tmp_path: Path) -> None:
    result = {"total_output_tokens": 23, "output_throughput": 4.5, "mean_tpot_ms": float("nan"), "big": 10**400}
    for text in (json.dumps(result), "sglang:spec_accept_rate NaN\nsglang:spec_accept_length 2.5\n"):
        run = read_text(tmp_path, text)
        assert run.account is not None
        assert "NaN or infinite; once" in run.account.ignored.values()


def test_a_thousand_sentences_are_kept_and_all_dropped_lines_are_counted(tmp_path: Path) -> None:
    run = read_text(tmp_path, (verl_line(1) + "\n") * 1500)
    assert run.account is not None
    assert (len(run.account.dropped), run.account.num_dropped) == (1000, 1499)
