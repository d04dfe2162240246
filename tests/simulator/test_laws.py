"""Draft length by batch: the engine's choice of k decides cost and acceptance together."""

from dataclasses import replace

import numpy as np
import pytest

from simulator.inputs import Inputs, Noise, make_parts, make_workload, resolve
from simulator.laws import draft_lengths
from simulator.metrics import Outcome, measure
from simulator.parts import Parts
from simulator.policies import run_cluster
from simulator.rollout_state import JUMP, PER_STEP
from simulator.run import simulate
from simulator.scenario_file import ScenarioError, load_scenario
from tests.simulator.small_scenario import SMALL

ADAPTIVE = "arms.to.draft_length={kind='adaptive'}"


def by_batch(*rows: tuple[int, int, int]) -> str:
    table = ", ".join(f"[{first}, {last}, {k}]" for first, last, k in rows)
    return f"arms.to.draft_length={{kind='by_batch', table=[{table}]}}"


def inputs_of(*overrides: str, policy: str = "synchronous") -> Inputs:
    kind = {"synchronous": "policy={kind='synchronous'}"}.get(policy, "policy.max_staleness=1")
    return resolve(load_scenario("bebop-reasoning", [*SMALL, kind, *overrides]))


def parts_of(inputs: Inputs, replication: int = 0) -> Parts:
    return make_parts(inputs, "to", make_workload(inputs, replication), Noise(), replication)[0]


def run_once(parts: Parts, mode: int = JUMP) -> Outcome:
    return measure(run_cluster(parts, mode=mode), parts, 1)


def test_one_row_for_all_batches_is_the_fixed_draft_length_to_the_last_bit() -> None:
    fixed, table = run_once(parts_of(inputs_of())), run_once(parts_of(inputs_of(by_batch((1, 512, 3)))))
    np.testing.assert_array_equal(table.step_series_s, fixed.step_series_s)
    assert table.accept_length == fixed.accept_length


@pytest.mark.parametrize("policy", ["synchronous", "fully_async"])
@pytest.mark.parametrize("overrides", [(by_batch((1, 4, 3), (5, 12, 1), (13, 512, 0)),), (ADAPTIVE,)])
def test_jump_and_reference_agree_when_k_follows_the_batch(policy: str, overrides: tuple[str, ...]) -> None:
    inputs = inputs_of(*overrides, policy=policy)
    differences = []
    for replication in range(24):
        parts = parts_of(inputs, replication)
        jump, steps = (run_once(parts, mode) for mode in (JUMP, PER_STEP))
        differences.append((jump.step_s / steps.step_s - 1, jump.accept_length / steps.accept_length - 1))
    mean, spread = np.mean(differences, axis=0), np.std(differences, axis=0, ddof=1) / np.sqrt(len(differences))
    assert np.all(np.abs(mean) < 3.9 * spread)  # alpha 1e-4
    assert np.all(np.abs(mean) < 0.02)


def test_speculation_is_off_above_a_batch() -> None:
    inputs = inputs_of(by_batch((1, 4, 3), (5, 512, 0)))
    parts = parts_of(inputs)
    law = parts.law_of(0)
    assert draft_lengths(inputs.arm("to")) == [0, 3]
    assert list(law.level_of_batch[1:7]) == [1, 1, 1, 1, 0, 0]
    np.testing.assert_array_equal(law.pmf[0], [1, 0, 0, 0])
    plain, off = run_once(parts_of(inputs_of("arms.to.k=0"))), run_once(parts)
    always = run_once(parts_of(inputs_of()))
    assert 1.0 < off.accept_length < always.accept_length
    assert plain.accept_length == 1.0


def test_a_step_without_drafts_keeps_the_draft_cache_at_the_price_of_one_pass() -> None:
    parts = parts_of(inputs_of(by_batch((1, 4, 3), (5, 512, 0))))
    plain = parts_of(inputs_of("arms.to.k=0"))
    rows = plain.table.rows_per_level
    extra = parts.table.step_s[5:rows] - plain.table.step_s[5:]
    assert np.all(extra > 0)
    assert np.all(extra < 0.3 * plain.table.step_s[5:])


def test_the_adaptive_choice_has_the_largest_goodput_of_all_draft_lengths() -> None:
    inputs = inputs_of(ADAPTIVE)
    parts = parts_of(inputs)
    law, table = parts.law_of(0), parts.table
    context = parts.workload.mean_context_tokens
    emitted = law.pmf @ np.arange(1, 5)
    for batch in (1, 4, 16, 32):
        seconds = [np.interp(context, table.knots, table.step_s[k * table.rows_per_level + batch]) for k in range(4)]
        assert law.level_of_batch[batch] == np.argmax(emitted / seconds)


def test_adaptive_drafting_never_loses_to_the_fixed_lengths_by_more_than_chance() -> None:
    adaptive = np.mean([run_once(parts_of(inputs_of(ADAPTIVE), i)).rollout_s for i in range(4)])
    for k in (1, 2, 3):
        fixed = np.mean([run_once(parts_of(inputs_of(f"arms.to.k={k}"), i)).rollout_s for i in range(4)])
        assert adaptive < 1.02 * fixed


def test_factors_multiply_to_the_speedup_when_k_follows_the_batch() -> None:
    overrides = [*SMALL, by_batch((1, 8, 3), (9, 512, 1))]
    arm = simulate(load_scenario("bebop-reasoning", overrides)).arms["to"]
    product = np.prod([factor.factor for factor in arm.waterfall])
    assert product == pytest.approx(arm.end_to_end_speedup.mean, rel=1e-12)


def test_requests_that_differ_keep_their_class_at_every_draft_length() -> None:
    parts = parts_of(inputs_of(by_batch((1, 8, 3), (9, 512, 1)), "arms.to.dispersion=0.5"))
    law = parts.law_of(0)
    assert law.pmf.shape == (2 * parts.num_classes, 4)
    assert np.all(np.diff(law.mean[: parts.num_classes]) * np.diff(law.mean[parts.num_classes :]) > 0)
    assert run_once(parts).step_s > 0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (by_batch((2, 4, 3)), "does not begin at batch 1"),
        (by_batch((1, 4, 3), (6, 9, 1)), "row [6, 9, ...] does not begin at batch 5"),
        (by_batch((1, 512, 2)), "k: 3 is not the largest k of draft_length.table, 2; make them equal"),
    ],
)
def test_a_table_with_gaps_is_refused(override: str, message: str) -> None:
    with pytest.raises(ScenarioError) as error:
        inputs_of(override)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_laws_are_shared_between_versions_of_equal_acceptance() -> None:
    parts = parts_of(inputs_of("entropy={kind='constant', entropy_nats=0.4}"))
    assert parts.law_of(0) is parts.law_of(3)
    assert replace(parts, num_steps=1).law_of(1) is parts.law_of(0)
