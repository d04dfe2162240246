"""The knobs of the fully asynchronous policy: what each does to the run, in closed form where there is one."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from simulator.cluster import Run
from simulator.config import FullyAsyncPolicy, LognormalLength
from simulator.errors import ScenarioError
from simulator.inputs import resolve
from simulator.policies import run_cluster
from simulator.policies.fully_async import fully_async as life_of
from simulator.rollout_state import JUMP, PER_STEP
from simulator.run import simulate
from tests.simulator import made_up
from tests.simulator.small_parts import PREFILL_S, PROMPT, RESPONSE, SPREAD, STEP_S, Small, fully_async
from traces.report import LostWork

each_mode = pytest.mark.parametrize("mode", [JUMP, PER_STEP], ids=["jump", "per_step"])
ACCEPTS = (0.2, 0.2, 0.2, 0.4)
GENERATION_S = PREFILL_S + (RESPONSE - 1) * STEP_S
PIECE_S = 0.5
"""Training time of one sequence in `one_by_one`."""


def one_by_one(**policy: object) -> Small:
    """4 groups of one response per RL step, generated one after the other by one replica."""
    return Small(
        fully_async(0, "in_place", **policy),
        group_size=1,
        num_replicas=1,
        max_running=1,
        train_s=0.0,
        train_s_per_token=PIECE_S / (PROMPT + RESPONSE),
    )


def live(small: Small, mode: int = JUMP) -> Iterator[Run]:
    """Run, and stop after every event of the trainer's side."""
    run = Run(small.parts(), mode=mode)
    life = run.env.process(life_of(run))
    while not life.triggered:
        run.env.step()
        yield run


# ---------------------------------------------------------------- fetch size and sync interval


@each_mode
def test_weights_are_synced_after_so_many_fetches(mode: int) -> None:
    """verl `trigger_parameter_sync_step`, slime `update_weights_interval`."""
    log = run_cluster(Small(fully_async(2, "in_place", fetches_per_sync=3), train_s=20.0).parts(), mode=mode)
    assert [step.sync_s for step in log.steps] == [0.0, 0.0, 0.5, 0.0, 0.0, 0.5]
    durations = [later.end_s - step.end_s for step, later in itertools.pairwise(log.steps)]
    assert durations == pytest.approx([20.0, 20.5, 20.0, 20.0, 20.5], rel=1e-12)


def test_staleness_0_generates_a_whole_sync_period_on_policy() -> None:
    """Two waves of one batch each; the second is generated while the first is trained on."""
    log = run_cluster(Small(fully_async(0, "wait", fetches_per_sync=2)).parts())
    ends = [step.end_s for step in log.steps]
    period = GENERATION_S + 2 * 2.0 + 0.5
    assert ends[1::2] == pytest.approx([period, 2 * period, 3 * period], rel=1e-12)
    assert ends[0] == pytest.approx(GENERATION_S + 2.0)
    assert all(len(step.staleness) == 1 for step in log.steps)


@each_mode
def test_small_fetches_train_while_the_rest_is_generated(mode: int) -> None:
    """verl `require_batches`: only the last piece is left to train when the last sequence ends."""
    whole = one_by_one().outcome(mode=mode)
    assert whole.step_s == pytest.approx(4 * GENERATION_S + 4 * PIECE_S + 0.5, rel=1e-12)
    halves = one_by_one(fetch_groups=2, fetches_per_sync=2).outcome(mode=mode)
    assert halves.step_s == pytest.approx(4 * GENERATION_S + 2 * PIECE_S + 0.5, rel=1e-12)
    single = one_by_one(fetch_groups=1, fetches_per_sync=4).outcome(mode=mode)
    assert single.step_s == pytest.approx(4 * GENERATION_S + PIECE_S + 0.5, rel=1e-12)
    assert single.exposed_generation_s == pytest.approx(4 * GENERATION_S - 3 * PIECE_S, rel=1e-12)
    for outcome in (whole, halves, single):
        assert outcome.train_s == pytest.approx(4 * PIECE_S)
        assert outcome.weight_sync_s == pytest.approx(0.5)
        assert outcome.staleness.tolist() == [1.0]


def test_the_constant_of_training_is_paid_once_per_rl_step() -> None:
    small = one_by_one(fetch_groups=1, fetches_per_sync=4).but(train_s=3.0)
    assert small.outcome().train_s == pytest.approx(3.0 + 4 * PIECE_S)
    assert small.outcome().step_s == pytest.approx(4 * GENERATION_S + PIECE_S + 3.0 + 0.5)


@each_mode
def test_a_fetch_may_be_a_sync_period_of_its_own(mode: int) -> None:
    small = one_by_one(fetch_groups=1)
    *_, run = live(small, mode)
    assert run.version == 4 * small.num_steps
    assert [step.sync_s for step in run.log.steps] == [4 * 0.5] * small.num_steps
    assert small.outcome(mode=mode).step_s == pytest.approx(4 * (GENERATION_S + PIECE_S + 0.5), rel=1e-12)


@pytest.mark.parametrize("in_flight", ["wait", "abort_resume", "in_place"])
def test_stating_the_defaults_changes_nothing(in_flight: str) -> None:
    small = Small(fully_async(2, in_flight), SPREAD, pmf=ACCEPTS, train_s=0.3)
    stated = small.but(policy=fully_async(2, in_flight, fetch_groups=4, fetches_per_sync=1))
    one, two = run_cluster(small.parts()), run_cluster(stated.parts())
    assert [step.totals for step in one.steps] == [step.totals for step in two.steps]
    assert [step.end_s for step in one.steps] == [step.end_s for step in two.steps]


def test_a_fetch_divides_an_rl_step(tmp_path: Path) -> None:
    policy = 'policy={kind="fully_async", max_staleness=1, fetch_groups=3}'
    with pytest.raises(
        ScenarioError, match=r"^policy\.fetch_groups: 3 does not divide the 4 groups of an RL step .*; choose a divisor"
    ):
        resolve(made_up.scenario(tmp_path, policy, "workload.prompts_per_step=4"))


# ---------------------------------------------------------------- staleness in both units


@each_mode
@pytest.mark.parametrize(
    ("fraction", "fields", "ahead"),
    [
        (0.0, {}, 4),
        (0.5, {}, 6),
        (0.5, {"fetches_per_sync": 2}, 12),
        (0.5, {"fetch_groups": 2}, 3),
        (1.25, {"fetches_per_sync": 3}, 27),
        (0.1, {"fetch_groups": 2, "fetches_per_sync": 5}, 11),
    ],
)
def test_admission_keeps_to_verls_rule(fraction: float, fields: dict[str, int], ahead: int, mode: int) -> None:
    """(1 + staleness_threshold) x trigger x samples per fetch, less what is left from before."""
    policy = fully_async(None, "in_place", staleness_fraction=fraction, **fields)
    small = Small(policy, SPREAD, pmf=ACCEPTS, num_steps=8, train_s=0.3, max_running=16)
    version, trained, reached = 0, 0, 0
    for run in live(small, mode):
        if run.version > version:
            version, trained = run.version, run.num_taken
        admitted = int(run.side.state.counters[0]["submitted"]) // small.group_size
        assert admitted <= trained + ahead
        reached = max(reached, admitted - trained)
    assert reached == ahead


@pytest.mark.parametrize("whole", [0, 1, 3])
def test_a_whole_fraction_is_as_many_versions(whole: int) -> None:
    small = Small(fully_async(whole, fetches_per_sync=2), SPREAD, pmf=ACCEPTS, train_s=0.3)
    fraction = small.but(policy=fully_async(None, staleness_fraction=whole, fetches_per_sync=2))
    one, two = run_cluster(small.parts()), run_cluster(fraction.parts())
    assert [step.totals for step in one.steps] == [step.totals for step in two.steps]


def test_half_a_period_of_staleness_makes_half_the_samples_one_version_old() -> None:
    policy = fully_async(None, "in_place", staleness_fraction=0.5)
    outcome = Small(policy, num_steps=12, train_s=30.0).outcome(warmup_steps=4)
    assert outcome.staleness.tolist() == [0.5, 0.5]


def test_staleness_is_stated_once() -> None:
    with pytest.raises(ValidationError, match="max_staleness and staleness_fraction: neither stated; give one, in"):
        FullyAsyncPolicy()
    with pytest.raises(ValidationError, match="max_staleness and staleness_fraction: both stated; give one"):
        FullyAsyncPolicy(max_staleness=1, staleness_fraction=0.5)


@pytest.mark.parametrize(
    ("fields", "max_staleness", "warmup"),
    [
        ("max_staleness=1, fetches_per_sync=4", 1, 8),
        ("staleness_fraction=0.5", 1, 2),
        ("staleness_fraction=0.0, fetches_per_sync=3", 0, 3),
        ("max_staleness=3, fetch_groups=1", 3, 2),
    ],
)
def test_warm_up_is_counted_in_sync_periods(fields: str, max_staleness: int, warmup: int, tmp_path: Path) -> None:
    scenario = made_up.scenario(
        tmp_path, f'policy={{kind="fully_async", {fields}}}', "workload.prompts_per_step=2", "run.num_steps=20"
    )
    assert (scenario.max_staleness, scenario.warmup_steps) == (max_staleness, warmup)


def test_the_report_says_the_rule_in_words(tmp_path: Path) -> None:
    policy = 'policy={kind="fully_async", staleness_fraction=0.5, fetch_groups=2, fetches_per_sync=4}'
    report = simulate(made_up.scenario(tmp_path, policy, "workload.prompts_per_step=4", "run.num_steps=12"))
    assert report.policy == (
        "fully asynchronous, staleness at most 0.5 of a sync period (policy versions: 1), abort_resume at weight sync, "
        "2 groups per fetch, 4 fetches per weight sync"
    )
    assert {"policy.staleness_fraction", "policy.fetch_groups"} <= {row.name for row in report.provenance}


# ---------------------------------------------------------------- what is too old

HEAVY = LognormalLength(mean=60, sigma=1.6, maximum=3000)
"""Some responses outlive many policy versions."""


@each_mode
@pytest.mark.parametrize("max_staleness", [1, 2, 3])
def test_dropping_keeps_staleness_within_its_limit(max_staleness: int, mode: int) -> None:
    small = Small(fully_async(max_staleness, "in_place"), HEAVY, pmf=ACCEPTS, num_steps=40, train_s=0.05, sync_s=0.1)
    kept, dropped = small.outcome(mode=mode), small.but(policy=fully_async(max_staleness, "in_place", overdue="drop"))
    assert kept.staleness[max_staleness + 1 :].sum() > 0
    assert (kept.num_dropped, kept.wasted_fraction) == (0, 0.0)
    outcome = dropped.outcome(mode=mode)
    assert len(outcome.staleness) <= max_staleness + 1
    assert outcome.num_dropped > 0
    assert outcome.lost == LostWork(dropped_groups=outcome.lost.dropped_groups)
    assert 0 < outcome.lost.dropped_groups <= outcome.num_dropped / (small.num_steps - 2)
    assert 0 < outcome.wasted_fraction < 1


@each_mode
@pytest.mark.parametrize("fields", [{}, {"fetch_groups": 2}, {"fetches_per_sync": 2}], ids=str)
def test_a_dropped_group_is_replaced(fields: dict[str, int], mode: int) -> None:
    small = Small(fully_async(1, "in_place", overdue="drop", **fields), HEAVY, num_steps=40, train_s=0.05, sync_s=0.1)
    *_, run = live(small, mode)
    assert run.num_dropped > 0
    assert run.num_taken == 40 * 4
    groups = run.side.ready_groups(0, run.num_taken + run.num_dropped)
    assert len(set(groups.tolist())) == len(groups)
    ahead = 2 * small.parts().policy.groups_per_sync(4)  # type: ignore[union-attr]
    submitted = int(run.side.state.counters[0]["submitted"]) // small.group_size
    assert submitted == min(run.num_taken + run.num_dropped + ahead, run.parts.workload.num_groups)
    tokens = run.parts.workload.group_output_tokens[groups].sum()
    dropped_tokens = run.log.steps[-1].dropped_tokens - PROMPT * small.group_size * run.num_dropped
    assert tokens == sum(step.output_tokens for step in run.log.steps) + dropped_tokens


def test_nothing_too_old_nothing_dropped() -> None:
    small = Small(fully_async(2), SPREAD, pmf=ACCEPTS, train_s=3.0)
    dropping = small.but(policy=fully_async(2, overdue="drop"))
    one, two = run_cluster(small.parts()), run_cluster(dropping.parts())
    assert two.steps[-1].num_dropped == 0
    assert [step.totals for step in one.steps] == [step.totals for step in two.steps]


def test_dropping_needs_an_age_in_versions() -> None:
    with pytest.raises(ValidationError, match="overdue: drop needs an age in policy versions; state max_staleness"):
        FullyAsyncPolicy(staleness_fraction=0.5, overdue="drop")


def test_the_report_says_how_many_groups_were_dropped(tmp_path: Path) -> None:
    policy = 'policy={kind="fully_async", max_staleness=1, overdue="drop"}'
    report = simulate(
        made_up.scenario(
            tmp_path,
            policy,
            'workload.response_tokens={kind="lognormal", mean=300, sigma=1.5, maximum=3900}',
            "trainer.constant_s=0.1",
            "run.num_steps=30",
        )
    )
    assert report.policy.endswith("abort_resume at weight sync, drop what is older")
    (said,) = [warning for warning in report.warnings if "dropped" in warning]
    assert "older than 1 when fetched: baseline " in said
    assert not any("above 1" in warning for warning in report.warnings)
    assert report.baseline.wasted_tokens_fraction > 0
