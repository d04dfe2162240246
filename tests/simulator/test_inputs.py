"""Inputs: names looked up, what does not fit refused in one line, parts that arms share."""

from pathlib import Path

import numpy as np
import pytest

from simulator.errors import ScenarioError, TraceCoverageError
from simulator.inputs import BASELINE, Noise, make_noise, make_parts, make_workload, resolve, unbounded_staleness
from simulator.parts import Parts
from simulator.provenance import check_origins
from simulator.run import simulate
from tests.simulator import made_up
from traces.base import Provenance
from traces.store import save_trace
from traces.workload import SequenceRow, Turn, WorkloadTrace

LAW = 'arms.spec.acceptance={kind="law", recipe="to", fit="reasoning"}'
ENTROPY = 'entropy={kind="constant", entropy_nats=0.4}'


def refusal(folder: Path, *overrides: str) -> str:
    """Return the complaint of the whole command; made before anything is simulated."""
    scenario = made_up.scenario(folder, *overrides)
    with pytest.raises(ScenarioError) as error:
        simulate(scenario, progress=lambda _: pytest.fail("work was done before the complaint"))
    assert "\n" not in str(error.value)
    return str(error.value)


def parts_of(folder: Path, name: str, *overrides: str, noise: Noise | None = None, replication: int = 0) -> Parts:
    inputs = resolve(made_up.scenario(folder, *overrides))
    return make_parts(inputs, name, make_workload(inputs, replication), noise or Noise(), replication)[0]


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["model.name=Qwen3-8C"], "model.name: no architecture named 'Qwen3-8C': did you mean Qwen3-8B,"),
        (["cluster.gpu=H201"], "cluster.gpu: no GPU named 'H201': did you mean H20, H200"),
        (
            ["cluster.gpu=H100"],
            "cluster.gpu: H100 is not H200, for which latency trace made-up was made; choose a match",
        ),
        (
            ["model.name=Qwen3-32B"],
            "model.name: Qwen3-32B is not Qwen3-8B, for which latency trace made-up was made; ch",
        ),
        (
            ["model.precision=fp8"],
            "model.precision: fp8 is not bf16, for which latency trace made-up was made; choose a",
        ),
        (
            ["latency.trace=qwen3-8b-h200-tp3"],
            "latency.trace: latency trace 'qwen3-8b-h200-tp3' is neither shipped nor a ",
        ),
        (
            ["latency.trace=nowhere.json"],
            "latency.trace: nowhere.json: no such file; give the path of a latency trace or",
        ),
        (
            ['entropy={kind="trace", trace="bebop-swee"}'],
            "entropy.trace: workload trace 'bebop-swee' is neither shipped",
        ),
        (
            ['workload={kind="trace", trace="no-such-one"}'],
            "workload.trace: workload trace 'no-such-one' is neither ship",
        ),
        (
            [LAW, ENTROPY, "arms.spec.acceptance.trace=bebop-papr"],
            "arms.spec.acceptance.trace: acceptance trace 'bebop-papr' is neither shipped nor a .json or .parquet "
            "file; did you mean bebop-paper",
        ),
        (
            [LAW, ENTROPY, "arms.spec.acceptance.fit=reason"],
            "arms.spec.acceptance.fit: trace bebop-paper has no fit 'reason' of to; its fits are: ",
        ),
        (
            ["arms.spec.k=4"],
            "arms.spec.k: 4 is above the 3 rates of arms.spec.acceptance.cumulative; lower k or give more rates",
        ),
        (
            [LAW, ENTROPY, "arms.spec.k=5"],
            "arms.spec.k: 5 needs verify at 6 tokens per sequence, but latency trace made-up covers k up to 4; lowe",
        ),
        (
            ["cluster.tp_size=2"],
            "cluster.tp_size, cluster.ep_size: (2, 1) is not in latency trace made-up, which has [(1, 1)]; choose o",
        ),
        (
            ["engine.max_running_seqs=64", "workload.prompts_per_step=100"],
            "engine.max_running_seqs: 64 is above 16, the largest batch of latency trace made-up; lower it or profi",
        ),
        (
            ["workload.response_tokens.maximum=90000", "workload.response_tokens.mean=9000"],
            "workload: contexts reach ",
        ),
        (
            ["engine.kv_cache_tokens=500"],
            "engine.kv_cache_tokens: the KV cache of a replica holds 496 tokens (arm baseline), but the longest seq",
        ),
        (
            ["engine.gpu_memory_utilization=0.001"],
            "engine.max_running_seqs: 16 sequences of Qwen3-8B need 16 GB of weights and 0 GB of states, but 1 x H200 "
            "at engine.gpu_memory_utilization 0.001 give 0 GB; raise cluster.tp_size or engine.gpu_mem",
        ),
        (
            ["engine.gpu_memory_utilization=0.1169"],
            "engine.max_running_seqs: the KV cache of a replica holds ",
        ),
        (
            ['origins."cluster.gpus".origin="stated"', 'origins."cluster.gpus".source="x"'],
            "origins: 'cluster.gpus' is no field that this scenario sets; did you mean 'cluster.gpu'?",
        ),
        (
            ['origins.zzz.origin="stated"', 'origins.zzz.source="x"'],
            "origins: 'zzz' is no field that this scenario sets; remove it or correct the path",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(overrides: list[str], line: str, tmp_path: Path) -> None:
    assert refusal(tmp_path, *overrides).startswith(line)


def test_an_arm_that_cannot_run_is_refused_before_another_runs(tmp_path: Path) -> None:
    late = ["arms.z.k=4", 'arms.z.acceptance={kind="fixed", cumulative=[0.5, 0.5]}']
    assert refusal(tmp_path, *late).startswith("arms.z.k: 4 is above the 2 rates")
    layout = ["arms.z.k=6", 'arms.z.acceptance={kind="fixed", cumulative=[0.5, 0.5, 0.5, 0.5, 0.5, 0.5]}']
    assert refusal(tmp_path, *layout).startswith("arms.z.k: 6 needs verify at 7 tokens per sequence, but latency")


def test_a_broken_trace_is_named_with_its_field(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text('{"kind": "latency", "rows": []')
    line = refusal(tmp_path, f"latency.trace={tmp_path}/broken.json")
    assert line.startswith(f"latency.trace: {tmp_path}/broken.json: ")
    (tmp_path / "other.json").write_text('{"kind": "workload"}')
    line = refusal(tmp_path, f"latency.trace={tmp_path}/other.json")
    assert line.endswith("kind is 'workload', expected latency; give another file or see `bebop schema`")


def test_a_mismatched_trace_is_used_when_allowed(tmp_path: Path) -> None:
    inputs = resolve(made_up.scenario(tmp_path, "cluster.gpu=H100", "latency.allow_mismatch=true"))
    assert inputs.gpu.name == "H100"
    assert inputs.latency.trace.gpu == "H200"


@pytest.mark.parametrize("path", ["cluster", "cluster.gpu", "policy", "entropy.entropy_nats", "arms", "arms.spec.k"])
def test_an_origin_may_speak_of_a_field_or_of_all_inside_it(path: str, tmp_path: Path) -> None:
    entry = [f'origins."{path}".origin="stated"', f'origins."{path}".source="x"']
    for policy in ('policy={kind="synchronous"}', 'policy={kind="one_step_off"}'):
        check_origins(made_up.scenario(tmp_path, ENTROPY, policy, *entry))


# ---------------------------------------------------------------- parts


def test_arms_share_workload_and_stream_and_differ_in_steps(tmp_path: Path) -> None:
    inputs = resolve(made_up.scenario(tmp_path))
    workload = make_workload(inputs, 0)
    plain, spec = (make_parts(inputs, name, workload, Noise(), 0)[0] for name in (BASELINE, "spec"))
    assert plain.workload is spec.workload
    assert plain.stream == spec.stream
    assert (plain.num_draft_tokens, spec.num_draft_tokens) == (0, 3)
    assert np.all(spec.table.step_s[1:] > plain.table.step_s[1:])
    assert spec.law_of(0).mean == pytest.approx([2.8])
    assert plain.law_of(0).mean == pytest.approx([1.0])


def test_replications_and_seeds_draw_other_workloads(tmp_path: Path) -> None:
    def lengths(replication: int, *overrides: str) -> list[int]:
        inputs = resolve(made_up.scenario(tmp_path, *overrides))
        return [int(n) for n in make_workload(inputs, replication).output_tokens]

    assert lengths(0) == lengths(0)
    assert lengths(0) != lengths(1)
    assert lengths(0) != lengths(0, "run.seed=1")
    more = lengths(0, "run.num_steps=9")
    assert more[: len(lengths(0))] == lengths(0)


def test_lengths_drift_with_the_rl_steps_of_the_run(tmp_path: Path) -> None:
    drift = "workload.length_drift=[[100, 1.0], [102, 3.0]]"
    constant = 'workload.response_tokens={kind="constant", value=200}'
    workload = make_workload(resolve(made_up.scenario(tmp_path, drift, constant, "run.first_step=99")), 0)
    assert workload.output_tokens[:: 4 * 2].tolist() == [200, 200, 400] + [600] * (workload.num_groups // 4 - 3)


def test_noise_is_the_same_for_all_arms_and_none_without_uncertainty(tmp_path: Path) -> None:
    assert make_noise(resolve(made_up.scenario(tmp_path)), 0) == Noise()
    inputs = resolve(made_up.scenario(tmp_path, "uncertainty.latency=0.1", "uncertainty.trainer=0.2"))
    noises = [make_noise(inputs, replication) for replication in range(400)]
    assert {noise.weight_sync for noise in noises} == {1.0}
    assert np.std([np.log(noise.latency) for noise in noises]) == pytest.approx(0.1, rel=0.15)
    assert np.std([np.log(noise.trainer) for noise in noises]) == pytest.approx(0.2, rel=0.15)
    correlation = np.corrcoef([noise.latency for noise in noises], [noise.trainer for noise in noises])[0, 1]
    assert abs(correlation) < 0.2


def test_noise_scales_what_it_names(tmp_path: Path) -> None:
    noise = Noise(latency=2.0, draft_and_verify=4.0, trainer=8.0, weight_sync=16.0)
    for name, steps in ((BASELINE, 2.0), ("spec", 8.0)):
        plain, noisy = parts_of(tmp_path, name), parts_of(tmp_path, name, noise=noise)
        assert np.array_equal(noisy.table.step_s, plain.table.step_s * steps)
        assert np.array_equal(noisy.table.prefill_s, plain.table.prefill_s * 2.0)
        assert noisy.table.attention_s_per_token2 == plain.table.attention_s_per_token2 * 2.0
        assert noisy.trainer.step_s(1e5) == plain.trainer.step_s(1e5) * 8.0
        assert noisy.sync_s == plain.sync_s * 16.0


def test_training_the_head_makes_the_trainer_slower(tmp_path: Path) -> None:
    plain, slower = parts_of(tmp_path, "spec"), parts_of(tmp_path, "spec", "arms.spec.train_overhead=0.07")
    assert slower.trainer.step_s(1e5) == pytest.approx(1.07 * plain.trainer.step_s(1e5))


def test_the_accept_length_errs_by_tokens_and_only_for_drafting_arms(tmp_path: Path) -> None:
    means = [
        float(parts_of(tmp_path, "spec", "uncertainty.accept_length=0.1", replication=i).law_of(0).mean[0])
        for i in range(60)
    ]
    assert np.mean(means) == pytest.approx(2.8, abs=0.05)
    assert np.std(means) == pytest.approx(0.1, rel=0.3)
    assert parts_of(tmp_path, BASELINE, "uncertainty.accept_length=0.1").law_of(0).mean.tolist() == [1.0]


def test_the_law_follows_the_entropy_of_the_policy_version(tmp_path: Path) -> None:
    points = 'entropy={kind="piecewise", points=[[10, 0.44], [12, 0.36]]}'
    law_of = parts_of(tmp_path, "spec", LAW, points, "run.first_step=10").law_of
    means = [float(law_of(version).mean[0]) for version in range(5)]
    assert means[0] < means[1] < means[2] == means[3] == means[4]
    assert law_of(3) is law_of(2)


def test_dispersion_keeps_as_many_classes_when_rates_become_certain(tmp_path: Path) -> None:
    """At 20 nats the law accepts nothing: one class is left, and sequences still belong to eight."""
    points = 'entropy={kind="piecewise", points=[[0, 0.4], [2, 20.0]]}'
    for first in (0, 2):
        spread = ["arms.spec.dispersion=0.5", f"run.first_step={first}"]
        parts = parts_of(tmp_path, "spec", LAW, points, *spread)
        assert parts.num_classes == 8
        assert {len(parts.law_of(version).mean) for version in range(4)} == {8}
    assert parts_of(tmp_path, BASELINE, LAW, points, "arms.spec.dispersion=0.5").num_classes == 1


def test_unbounded_staleness_leaves_room_for_two_clusters_of_work(tmp_path: Path) -> None:
    inputs = resolve(made_up.scenario(tmp_path, 'policy={kind="fully_async", max_staleness=1}'))
    assert unbounded_staleness(inputs) == 6  # 2 replicas x 16 places / 8 sequences a step, and 2
    assert make_workload(inputs, 0).num_groups == (5 + 6 + 1) * 4


def test_an_overhead_per_layer_counts_every_layer_of_the_target_and_one_of_the_draft(tmp_path: Path) -> None:
    for name, passes in ((BASELINE, 36), ("spec", 36 + 3)):
        plain = parts_of(tmp_path, name).table.step_s
        slower = parts_of(tmp_path, name, "engine.layer_overhead_s=0.001").table.step_s
        assert slower[1:] - plain[1:] == pytest.approx(np.full_like(plain[1:], passes * 1e-3))


def test_a_roofline_needs_no_trace_and_extrapolates(tmp_path: Path) -> None:
    scenario = made_up.scenario(tmp_path, 'latency={kind="roofline"}', "engine.max_running_seqs=600")
    inputs = resolve(scenario)
    parts, _ = make_parts(inputs, "spec", make_workload(inputs, 0), Noise(), 0)
    assert parts.table.step_s[1:].min() > 0


# ---------------------------------------------------------------- hash


def test_the_hash_changes_with_the_scenario_and_with_every_trace(tmp_path: Path) -> None:
    def hash_of(*overrides: str) -> str:
        return resolve(made_up.scenario(tmp_path, *overrides)).content_hash()

    def save_lengths(output_tokens: int) -> None:
        row = SequenceRow(rl_step=0, group=0, turns=(Turn(input_tokens=9, output_tokens=output_tokens),))
        points = [{"rl_step": 0, "entropy_nats": output_tokens / 1000}]
        content = {"name": "lengths", "provenance": Provenance(source="a test", created="2026-01-01")}
        save_trace(WorkloadTrace(**content, sequences=(row,), entropy=points), path)

    path = tmp_path / "lengths.json"
    uses = ['workload={kind="trace", trace="%s"}', 'entropy={kind="trace", trace="%s"}']
    assert hash_of() == hash_of()
    assert len({hash_of(), hash_of("run.seed=1"), hash_of(LAW, ENTROPY), hash_of("question=why?")}) == 4
    for use in uses:
        save_lengths(400)
        before = hash_of(use % path)
        save_lengths(401)
        assert hash_of(use % path) != before
    before = hash_of()
    save_trace(made_up.trace(made_up.rows(made_up.constant)), tmp_path / "rising.json")
    assert hash_of() != before


def test_coverage_errors_are_scenario_errors() -> None:
    assert issubclass(TraceCoverageError, ScenarioError)
