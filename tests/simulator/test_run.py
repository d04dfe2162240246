"""A scenario in, a report out: the same bytes every time, factors that multiply, origins for everything."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from simulator.explain import MEANING
from simulator.report import interval
from simulator.run import simulate
from simulator.table import answer, render
from tests.simulator import made_up
from traces.base import Origin
from traces.latency import Operation
from traces.report import RunReport

ASYNC = 'policy={kind="fully_async", max_staleness=1}'
POLICIES = {
    "synchronous": 'policy={kind="synchronous", switch_s=0.5}',
    "one_step_off": 'policy={kind="one_step_off"}',
    "fully_async": ASYNC,
    "in_place": 'policy={kind="fully_async", max_staleness=2, in_flight="in_place"}',
    "wait": 'policy={kind="fully_async", max_staleness=1, in_flight="wait"}',
}
each_policy = pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES.keys())
ERRING = [f"uncertainty.{name}=0.1" for name in ("latency", "draft_and_verify", "accept_length", "trainer")]
LAW = 'arms.spec.acceptance={kind="law", recipe="to", fit="reasoning"}'


def report(folder: Path, *overrides: str, **options: Any) -> RunReport:
    return simulate(made_up.scenario(folder, *overrides, **options))


def without_times(content: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in content.items() if not key.endswith("_s")}


# ---------------------------------------------------------------- the same bytes


@each_policy
def test_the_same_scenario_and_seed_give_the_same_bytes(policy: str, tmp_path: Path) -> None:
    one = report(tmp_path, policy, *ERRING).to_json()
    assert report(tmp_path, policy, *ERRING).to_json() == one
    other = report(tmp_path, policy, *ERRING, "run.seed=1")
    assert other.seed == 1
    assert other.arms["spec"].end_to_end_speedup != json.loads(one)["arms"]["spec"]["end_to_end_speedup"]
    assert other.scenario_hash != json.loads(one)["scenario_hash"]


def test_the_answer_does_not_depend_on_the_number_of_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = []
    for cores in (1, 5):
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        texts.append(report(tmp_path, ASYNC, *ERRING, "run.replications=6").to_json())
    assert texts[0] == texts[1]


def test_the_answer_does_not_depend_on_the_process(tmp_path: Path) -> None:
    scenario = made_up.scenario(tmp_path, ASYNC, *ERRING, LAW, 'entropy={kind="constant", entropy_nats=0.4}')
    code = (
        "import sys; from simulator.config import Scenario; from simulator.run import simulate\n"
        "print(simulate(Scenario.model_validate_json(sys.stdin.read(), strict=True)).to_json())"
    )
    for hash_seed, language in (("1", "C"), ("2", "de_DE.UTF-8")):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "LC_ALL": language, "TZ": "Asia/Tokyo"}
        result = subprocess.run(
            [sys.executable, "-c", code],
            input=scenario.model_dump_json(),
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        assert result.stdout == simulate(scenario).to_json() + "\n"


def test_the_order_of_arms_and_another_arm_change_no_arm(tmp_path: Path) -> None:
    more = ["arms.a.k=1", 'arms.a.acceptance={kind="fixed", cumulative=[0.7]}']
    alone, both = report(tmp_path, ASYNC), report(tmp_path, ASYNC, *more)
    assert both.arms["spec"] == alone.arms["spec"]
    assert both.baseline == alone.baseline


@each_policy
@pytest.mark.parametrize("acceptance", ["", 'arms.plain.acceptance={kind="fixed", cumulative=[0.9]}'])
def test_an_arm_without_drafts_is_the_baseline_to_the_last_bit(policy: str, acceptance: str, tmp_path: Path) -> None:
    extra = ["arms.plain.k=0", *([acceptance, "arms.plain.dispersion=0.5"] if acceptance else [])]
    answered = report(tmp_path, policy, *ERRING, *extra)
    plain, base = (arm.model_dump() for arm in (answered.arms["plain"], answered.baseline))
    assert all(factor["factor"] == factor["speedup_after"] == 1.0 for factor in plain.pop("waterfall"))
    assert base.pop("waterfall") == ()
    if acceptance:
        plain["recipe"] = base["recipe"]
    assert plain == base
    assert base["end_to_end_speedup"] == {"mean": 1.0, "low": 1.0, "high": 1.0}


@each_policy
def test_twice_every_latency_is_twice_every_time_and_the_same_speedup(policy: str, tmp_path: Path) -> None:
    def doubled(operation: Operation, batch: int, context: int, tokens: int) -> float:
        return 2 * made_up.rising(operation, batch, context, tokens)

    slower = ["trainer.constant_s=2.0", "trainer.s_per_token=2e-5", "weight_sync.seconds=0.5"]
    if "switch" in policy:
        slower.append("policy.switch_s=1.0")
    one, two = report(tmp_path, policy), report(tmp_path, policy, *slower, seconds=doubled)
    for name in ("baseline", "spec"):
        mine, other = (r.baseline if name == "baseline" else r.arms[name] for r in (one, two))
        assert other.step_s == 2 * mine.step_s
        assert other.trajectory_s == 2 * mine.trajectory_s
        assert other.gpu_hours == pytest.approx(2 * mine.gpu_hours, rel=1e-15)
        assert [point.step_s for point in other.by_step] == [2 * point.step_s for point in mine.by_step]
        for field in (
            "end_to_end_speedup",
            "rollout_speedup",
            "accept_length",
            "waterfall",
            "rollout_time",
            "staleness",
        ):
            assert getattr(other, field) == getattr(mine, field), field


# ---------------------------------------------------------------- intervals and factors


@each_policy
def test_the_factors_multiply_from_accept_length_to_the_speedup(policy: str, tmp_path: Path) -> None:
    arm = report(tmp_path, policy, *ERRING, "run.replications=4").arms["spec"]
    assert [factor.name for factor in arm.waterfall] == list(MEANING)
    assert arm.waterfall[0].factor == arm.waterfall[0].speedup_after == pytest.approx(arm.accept_length, rel=1e-12)
    product = 1.0
    for factor in arm.waterfall:
        product *= factor.factor
        assert factor.speedup_after == pytest.approx(product, rel=1e-12)
    assert product == pytest.approx(arm.end_to_end_speedup.mean, rel=1e-12)
    assert arm.waterfall[1].factor < 1  # a speculative step costs more than a plain one


def test_effects_that_are_not_there_have_factor_1(tmp_path: Path) -> None:
    """No context costs anything here, no batch either: decoding is all that tails, prefill and sync could change."""
    free = ["trainer.constant_s=0.0", "trainer.s_per_token=0.0", "weight_sync.seconds=0.0", "policy.switch_s=0.0"]
    arm = report(tmp_path, *free, seconds=made_up.constant).arms["spec"]
    factors = {factor.name: factor.factor for factor in arm.waterfall}
    assert factors["trainer_bound"] == factors["staleness_stalls"] == 1.0
    assert factors["draft_verify_cost"] == pytest.approx(5.036 / 10.834, rel=0.05)  # ms, by hand; and the slowest tail
    assert arm.end_to_end_speedup.mean == pytest.approx(arm.rollout_speedup.mean, rel=1e-12)
    assert arm.amdahl_bound == pytest.approx(arm.rollout_speedup.mean, rel=1e-9)


def test_the_interval_of_known_ratios_by_hand() -> None:
    """Logs 0 and 2: mean 1, deviation sqrt(2), Student's t of 1 degree at 95 % 6.3138, and one more run to come."""
    low, high = 1 - 6.313752 * math.sqrt(2 * 1.5), 1 + 6.313752 * math.sqrt(2 * 1.5)
    found = interval([1.0, math.exp(2)])
    assert found.mean == pytest.approx(math.e)
    assert (found.low, found.high) == (pytest.approx(math.exp(low)), pytest.approx(math.exp(high)))
    same = interval([1.5, 1.5, 1.5])
    assert same.low == same.mean == same.high == pytest.approx(1.5)


@each_policy
def test_intervals_hold_the_mean_and_shrink_with_the_uncertainty(policy: str, tmp_path: Path) -> None:
    def width(*overrides: str) -> float:
        arm = report(tmp_path, policy, "run.replications=6", *overrides).arms["spec"]
        for found in (arm.end_to_end_speedup, arm.rollout_speedup, arm.trajectory_speedup):
            assert found.low <= found.mean <= found.high
        return arm.end_to_end_speedup.high / arm.end_to_end_speedup.low

    wide = width("uncertainty.draft_and_verify=0.4", "uncertainty.accept_length=0.3")
    narrow = width("uncertainty.draft_and_verify=0.004", "uncertainty.accept_length=0.003")
    assert wide > 1.3 * narrow
    assert narrow == pytest.approx(width(), rel=0.2)


def test_an_error_of_every_latency_alike_cancels_where_nothing_else_takes_time(tmp_path: Path) -> None:
    free = ["trainer.constant_s=0.0", "trainer.s_per_token=0.0", "weight_sync.seconds=0.0", "policy.switch_s=0.0"]
    sure, unsure = report(tmp_path, *free), report(tmp_path, *free, "uncertainty.latency=0.5")
    assert unsure.baseline.step_s != sure.baseline.step_s
    for side in ("mean", "low", "high"):
        speedups = (getattr(r.arms["spec"].end_to_end_speedup, side) for r in (sure, unsure))
        assert next(speedups) == pytest.approx(next(speedups), rel=1e-9)


def test_one_replication_gives_no_interval_and_says_so(tmp_path: Path) -> None:
    answered = report(tmp_path, "run.replications=1")
    found = answered.arms["spec"].end_to_end_speedup
    assert found.low == found.mean == found.high
    assert "run.replications: one replication gives no interval; raise run.replications" in answered.warnings


def test_a_scenario_without_uncertainty_says_so(tmp_path: Path) -> None:
    line = "uncertainty: none stated, so intervals show only how much runs differ, not how wrong the inputs may be"
    assert line in report(tmp_path).warnings
    assert line not in report(tmp_path, ERRING[0]).warnings


@each_policy
def test_more_acceptance_is_never_slower(policy: str, tmp_path: Path) -> None:
    rates = {"none": 0.0, "some": 0.3, "more": 0.6, "most": 0.9, "zall": 1.0}
    arms = [
        f'arms.{name}={{k=3, acceptance={{kind="fixed", cumulative=[{c}, {c * c}, {c**3}]}}}}'
        for name, c in rates.items()
    ]
    answered = report(tmp_path, policy, *arms)
    speedups = [answered.arms[name].end_to_end_speedup.mean for name in rates]
    assert speedups == sorted(speedups)
    lengths = [answered.arms[name].accept_length for name in rates]
    assert lengths[0] == 1.0
    assert lengths == sorted(lengths)


def test_many_cut_responses_are_in_the_warnings(tmp_path: Path) -> None:
    def cut(*overrides: str) -> list[str]:
        return [line for line in report(tmp_path, *overrides).warnings if "are cut" in line]

    assert cut() == cut("workload.response_tokens.maximum=600") == []
    (line,) = cut("workload.response_tokens.maximum=400")
    assert line.startswith("workload.response_tokens: 33 % of responses are cut at the longest length, above 20 %, ")


def test_a_law_outside_its_entropy_range_is_in_the_warnings(tmp_path: Path) -> None:
    points = 'entropy={kind="piecewise", points=[[0, 0.4], [4, 0.6]]}'
    answered = report(tmp_path, LAW, points)
    assert answered.warnings[0] == (
        "arms.spec.acceptance: law to/reasoning is fitted for entropy 0.337..0.452, the run reaches 0.6; "
        "extrapolated at 3 of 5 steps"
    )
    (row,) = (row for row in answered.provenance if row.name == "arms.spec.acceptance")
    assert row.origin is Origin.EXTRAPOLATED


# ---------------------------------------------------------------- what the report holds


@each_policy
def test_the_report_is_complete(policy: str, tmp_path: Path) -> None:
    answered = report(tmp_path, policy, "run.first_step=7", 'entropy={kind="constant", entropy_nats=0.4}')
    content = json.loads(answered.to_json())
    assert RunReport.model_validate_json(answered.to_json(), strict=True) == answered
    for arm in (content["baseline"], *content["arms"].values()):
        for name in ("end_to_end_speedup", "rollout_speedup", "trajectory_speedup"):
            assert set(arm[name]) == {"mean", "low", "high"}
        for name in ("rollout_time", "trainer_time"):
            assert math.fsum(arm[name].values()) == pytest.approx(1.0, abs=1e-9)
        assert math.fsum(row["fraction"] for row in arm["staleness"]) == pytest.approx(1.0)
        assert arm["accept_length"] >= 1.0
        assert arm["step_s"] > 0
        steps = arm["by_step"]
        assert [point["rl_step"] for point in steps] == [7, 8, 9, 10, 11]
        assert sum(point["is_warmup"] for point in steps) == content["warmup_steps"]
        assert math.fsum(p["step_s"] for p in steps if not p["is_warmup"]) / (
            5 - content["warmup_steps"]
        ) == pytest.approx(arm["step_s"])
        assert arm["gpu_hours"] == pytest.approx(
            math.fsum(point["step_s"] for point in steps) * content["num_gpus"] / 3600
        )
    assert content["num_gpus"] == (2 if "switch_s" in policy else 4)
    assert content["warnings"]
    assert content["provenance"]
    assert list(content["arms"]) == ["spec"]
    assert content["arms"]["spec"]["num_draft_tokens"] == 3


def leaves(content: Any, path: str = "") -> list[str]:
    if not isinstance(content, dict):
        return [path]
    return [leaf for key, value in content.items() for leaf in leaves(value, f"{path}.{key}" if path else key)]


def test_every_field_and_every_trace_has_an_origin_exactly_once(tmp_path: Path) -> None:
    extra = [LAW, 'entropy={kind="trace", trace="bebop-reasoning"}', "run.first_step=5"]
    extra += ["arms.fixed.k=1", 'arms.fixed.acceptance={kind="fixed", cumulative=[0.5]}']
    scenario = made_up.scenario(tmp_path, *extra)
    rows = simulate(scenario).provenance
    names = [row.name for row in rows]
    assert len(set(names)) == len(names)
    content = scenario.model_dump(mode="json", exclude_none=True)
    for part in ("schema_version", "name", "question", "run", "measured", "origins", "latency", "entropy"):
        del content[part]
    for arm in content["arms"].values():
        del arm["acceptance"]
    of_traces = {"latency", "entropy", "architecture", "gpu", "arms.spec.acceptance", "arms.fixed.acceptance"}
    assert set(names) == {*leaves(content), *of_traces, "arms.spec.acceptance.positions"}
    assert all(row.value and row.source for row in rows)
    assert [row.source for row in rows if "latency trace made-up" in row.source] == ["latency trace made-up: a test"]
    assert len([row for row in rows if "workload trace bebop-reasoning" in row.source]) == 1


def test_the_scenario_says_where_its_numbers_come_from(tmp_path: Path) -> None:
    said = {
        "cluster": "a paper",
        "cluster.gpu": "another paper",
        "policy": "a blog",
        "arms.spec": "a log",
        "entropy.entropy_nats": "a plot",
    }
    entries = [f'origins."{path}"={{origin="stated", source="{source}"}}' for path, source in said.items()]
    extra = ['policy={kind="one_step_off"}', 'entropy={kind="constant", entropy_nats=0.4}']
    rows = {row.name: row for row in report(tmp_path, *extra, *entries).provenance}
    for name, source in {
        "cluster.num_rollout_gpus": "a paper",
        "cluster.gpu": "another paper",
        "policy.kind": "a blog",
        "arms.spec.k": "a log",
        "arms.spec.acceptance": "a log",
        "entropy": "a plot",
    }.items():
        assert (rows[name].origin, rows[name].source) == (Origin.STATED, source)
    assert rows["engine.max_running_seqs"].origin is Origin.ASSUMED
    assert rows["engine.max_running_seqs"].source == "the scenario gives no source"
    assert rows["latency"].source == "latency trace made-up: a test"


def test_measured_numbers_are_shown_and_never_used(tmp_path: Path) -> None:
    source = 'arm="spec", source="a log"'
    rows = [
        f'{{{source}, quantity="step_s", baseline=20.0, with_spec=10.0}}',
        f'{{{source}, quantity="rollout_s", speedup=1.7}}',
        f'{{{source}, quantity="train_s", with_spec=8.0}}',
        f'{{{source}, quantity="accept_length", with_spec=2.5}}',
    ]
    plain, beside = report(tmp_path), report(tmp_path, f"measured=[{', '.join(rows)}]")
    untouched = {"measured": (), "scenario_hash": ""}
    assert beside.model_copy(update=untouched) == plain.model_copy(update=untouched)
    step, rollout, train, length = beside.measured
    arm, base = plain.arms["spec"], plain.baseline
    assert step.measured_speedup == 2.0
    assert (step.predicted_baseline, step.predicted_arm) == (base.step_s, arm.step_s)
    assert step.predicted_speedup == arm.end_to_end_speedup
    assert step.relative_error == pytest.approx(arm.end_to_end_speedup.mean / 2.0 - 1)
    assert rollout.relative_error == pytest.approx(arm.rollout_speedup.mean / 1.7 - 1)
    assert train.measured_speedup is None
    assert train.relative_error == pytest.approx(arm.train_s / 8.0 - 1)
    assert (length.measured_speedup, length.predicted_speedup) == (None, None)
    assert length.relative_error == pytest.approx(sum([arm.accept_length]) / 2.5 - 1, abs=1e-3)
    lines = [line for line in render(beside).splitlines() if "a log" in line]
    assert [line.split()[1:3] for line in lines] == [
        ["step_s", "2.00x"],
        ["rollout_s", "1.70x"],
        ["train_s", "8"],
        ["accept_length", "2.5"],
    ]


@each_policy
def test_the_answer_is_a_sentence_with_the_interval(policy: str, tmp_path: Path) -> None:
    answered = report(tmp_path, policy, *ERRING)
    found = answered.arms["spec"].end_to_end_speedup
    assert answer(answered).startswith(f"With spec (k = 3) the run finishes {found.mean:.2f}x ")
    assert f"({found.low:.2f} to {found.high:.2f})" in answer(answered)
    text = render(answered)
    assert answer(answered) in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 118
    assert "\x1b" not in text
