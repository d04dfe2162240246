"""Reports beside reports, and beside measured runs: whose terms, whose intervals, which arm."""

from pathlib import Path

import pytest

from simulator.compare import compare, measured_side, predicted_side
from simulator.compare.cli import sides
from simulator.errors import ComparisonError
from simulator.run import simulate
from simulator.scenario_file import load_scenario
from tests.simulator import made_up
from tests.simulator.compare.runs import run, step
from traces.measured import MeasuredRun, Setup, Speculation
from traces.report import ArmReport, RunReport

SHORT = ("run.num_steps=12", "run.replications=2")


@pytest.fixture(scope="module")
def synchronous(tmp_path_factory: pytest.TempPathFactory) -> RunReport:
    return simulate(made_up.scenario(tmp_path_factory.mktemp("made-up"), "run.num_steps=12", "uncertainty.latency=0.1"))


@pytest.fixture(scope="module")
def bundled() -> dict[str, RunReport]:
    return {name: simulate(load_scenario(name, SHORT)) for name in ("bebop-reasoning", "skyrl-qwen3.5-9b")}


def as_measured(report: RunReport, arm: ArmReport, *, slower: float = 1.0, train_s: float = 0.0) -> MeasuredRun:
    """Return the run that a report predicts, with generation `slower` times as long and training longer."""
    rest = arm.step_s - arm.exposed_generation_s - arm.train_s - arm.weight_sync_s
    steps = []
    for point in arm.by_step:
        generation = arm.exposed_generation_s * slower
        parts = {"generation_s": generation, "train_s": arm.train_s + train_s, "sync_s": arm.weight_sync_s}
        extra = point.step_s - arm.step_s
        steps.append(
            step(
                point.rl_step, **parts, step_s=sum(parts.values()) + rest + extra, num_sequences=None, entropy_nats=None
            )
        )
    return run(steps)


def test_an_arm_against_plain_decoding_has_the_reports_own_interval(synchronous: RunReport) -> None:
    result = compare(predicted_side(synchronous, "baseline"), predicted_side(synchronous, "spec"))
    arm = synchronous.arms["spec"]
    assert result.step_speedup.mean == pytest.approx(synchronous.baseline.step_s / arm.step_s)
    own = arm.end_to_end_speedup
    assert result.step_speedup.high / result.step_speedup.low == pytest.approx(own.high / own.low)
    assert "report's own interval" in (result.interval or "")
    assert [effect.name for effect in result.waterfall[:3]] == ["response_tokens", "accept_length", "verify_step"]
    assert result.token_ratio == 1
    assert result.a.excluded == result.b.excluded == ({"warm-up": synchronous.warmup_steps})
    terms = {term.name: term.b_s for term in result.terms}
    assert terms["exposed_s"] == pytest.approx(arm.exposed_generation_s)
    assert sum(terms.values()) == pytest.approx(arm.step_s)


def test_two_arms_have_the_intervals_of_both(synchronous: RunReport) -> None:
    result = compare(predicted_side(synchronous, "spec"), predicted_side(synchronous, "spec"))
    own = synchronous.arms["spec"].end_to_end_speedup
    assert result.step_speedup.mean == 1
    assert (result.step_speedup.high / result.step_speedup.low) ** 0.5 == pytest.approx(
        (own.high / own.low) ** 0.5**0.5
    )
    assert "as if their errors were independent" in (result.interval or "")


def test_plain_decoding_in_two_scenarios_has_no_interval(bundled: dict[str, RunReport]) -> None:
    first, second = bundled.values()
    result = compare(predicted_side(first, "baseline"), predicted_side(second, "baseline"))
    assert result.interval is None
    assert any(warning.startswith("different model: ") for warning in result.warnings)
    assert "not comparable as they stand" in result.verdict
    assert result.num_steps == len({p.rl_step for p in first.baseline.by_step if not p.is_warmup} & {
        p.rl_step for p in second.baseline.by_step if not p.is_warmup
    })  # fmt: skip


def test_the_asynchronous_run_of_the_paper_is_split_on_both_sides(bundled: dict[str, RunReport]) -> None:
    report = bundled["bebop-reasoning"]
    a, b = sides([report, report], ["x.json", "x.json"], [])
    result = compare(a, b)
    assert (a.arm, b.arm) == ("baseline", report.best_arm)
    assert [effect.name for effect in result.rollout_waterfall] == ["response_tokens", "accept_length", "verify_step"]
    arm = report.arms[report.best_arm]
    assert result.rollout_waterfall[-1].speedup_after == pytest.approx(report.baseline.rollout_s / arm.rollout_s)
    assert result.rollout_waterfall[1].factor == pytest.approx(arm.accept_length, rel=0.02)


@pytest.mark.parametrize("is_swapped", [False, True])
def test_the_term_that_a_prediction_misses_is_named(synchronous: RunReport, is_swapped: bool) -> None:
    log = as_measured(synchronous, synchronous.baseline, train_s=3.0)
    pair = [measured_side(log, "log"), predicted_side(synchronous, "baseline", "forecast")]
    result = compare(*(reversed(pair) if is_swapped else pair))
    off = {term.name: term.difference.mean * (-1 if is_swapped else 1) for term in result.terms}
    assert off["train_s"] == pytest.approx(-3)
    assert off["exposed_s"] == pytest.approx(0)
    measured_s = synchronous.baseline.step_s + 3
    assert result.verdict == (
        f"forecast (baseline) against log: a step of {synchronous.baseline.step_s:.1f} s predicted, {measured_s:.1f} s "
        f"measured, {100 * 3 / measured_s:.0f} % too short; {100 * (result.mean_step_error or 0):.0f} % off per step; "
        "most off is training (-3.0 s)"
    )


def test_a_log_of_some_steps_says_so_beside_a_report(synchronous: RunReport) -> None:
    log = as_measured(synchronous, synchronous.baseline)
    last = max(log.steps, key=lambda each: each.step_s or 0.0)
    result = compare(measured_side(run([last]), "log"), predicted_side(synchronous, "baseline", "forecast"))
    assert result.num_steps == 1
    assert result.b.num_unpaired == len([p for p in synchronous.baseline.by_step if not p.is_warmup]) - 1
    assert result.step_speedup.mean == pytest.approx(1)
    assert any("terms are means over its" in warning for warning in result.warnings)


def test_log_probability_passes_count_as_training_beside_a_report(synchronous: RunReport) -> None:
    steps = [each.model_copy(update={"train_s": (each.train_s or 0) - 1, "log_prob_s": 1.0}) for each in
             as_measured(synchronous, synchronous.baseline).steps]  # fmt: skip
    result = compare(measured_side(run(steps)), predicted_side(synchronous, "baseline"))
    training = {term.name: term.difference.mean for term in result.terms}
    assert training["train_s"] == pytest.approx(0)
    assert "log_prob_s" not in training


def test_beside_a_measured_run_stands_the_arm_that_decodes_like_it(synchronous: RunReport) -> None:
    def arm_beside(log: MeasuredRun) -> str | None:
        return sides([log, synchronous], ["a", "b"], [])[1].arm

    drafts = [step(1, speculation=Speculation(accept_length=2.0))]
    assert arm_beside(run()) == "baseline"
    assert arm_beside(run(drafts)) == arm_beside(run(setup=Setup(num_draft_tokens=3))) == "spec"


def test_arms_are_chosen_by_name(synchronous: RunReport) -> None:
    both, names = [synchronous, synchronous], ["a", "b"]
    assert [side.arm for side in sides(both, names, ["spec"])] == ["baseline", "spec"]
    assert [side.arm for side in sides(both, names, ["spec", "baseline"])] == ["spec", "baseline"]
    assert sides([run(), synchronous], names, ["spec"])[1].arm == "spec"
    with pytest.raises(ComparisonError, match="no arm 'mtp'; its arms are baseline, spec: choose one with --arm"):
        sides(both, names, ["mtp"])
    with pytest.raises(ComparisonError, match="--arm given 1 times for 0 reports; a measured run has no arms"):
        sides([run(), run()], names, ["spec"])


def test_reports_are_what_they_were_after_a_file(synchronous: RunReport, tmp_path: Path) -> None:
    from simulator.compare.cli import read_run

    path = tmp_path / "report"
    path.write_text(synchronous.to_json())
    assert read_run(str(path)) == synchronous
