"""A watched run: what the timeline says must be what the run's own log says."""

from itertools import pairwise

import pytest

from simulator.config import Scenario
from simulator.errors import ScenarioError
from simulator.inputs import make_noise, make_parts, make_workload, resolve
from simulator.policies import run_cluster
from simulator.scenario_file import list_scenarios, load_scenario
from simulator.timeline import watch
from traces.timeline import Timeline

NAMES = [name for name, _ in list_scenarios()]


def small(name: str) -> Scenario:
    return load_scenario(name, ["run.num_steps=6", "run.warmup_steps=1", "run.replications=1"])


def seconds(timeline: Timeline, track: str, name: str) -> float:
    return sum(span.end_s - span.begin_s for span in timeline.spans if (span.track, span.name) == (track, name))


@pytest.mark.parametrize("name", NAMES)
def test_the_trainers_spans_are_those_of_the_log(name: str) -> None:
    scenario = small(name)
    arm = next(iter(scenario.arms))
    inputs = resolve(scenario)
    parts, _ = make_parts(inputs, arm, make_workload(inputs, 0), make_noise(inputs, 0), 0)
    log = run_cluster(parts)
    timeline = watch(scenario, arm, num_samples=50)
    assert timeline.end_s == pytest.approx(log.steps[-1].end_s)
    assert seconds(timeline, "trainer", "training") >= sum(step.train_s for step in log.steps) * (1 - 1e-9)
    assert seconds(timeline, "trainer", "waiting for samples") == pytest.approx(sum(step.wait_s for step in log.steps))
    assert seconds(timeline, "trainer", "weight sync") == pytest.approx(sum(step.sync_s for step in log.steps))
    drained_s = seconds(timeline, "trainer", "waiting for replicas to stop")
    assert drained_s == pytest.approx(sum(step.drain_s for step in log.steps))


@pytest.mark.parametrize("name", NAMES)
def test_spans_of_one_track_do_not_overlap(name: str) -> None:
    timeline = watch(small(name), num_samples=200)
    for track in {span.track for span in timeline.spans} - {"weight sync"}:
        spans = sorted((span.begin_s, span.end_s) for span in timeline.spans if span.track == track)
        assert all(end <= begin * (1 + 1e-12) for (_, end), (begin, _) in pairwise(spans)), track


def test_replicas_generate_and_stand_still_as_long_as_the_log_says() -> None:
    scenario = small("areal")
    arm = next(iter(scenario.arms))
    inputs = resolve(scenario)
    parts, _ = make_parts(inputs, arm, make_workload(inputs, 0), make_noise(inputs, 0), 0)
    totals = run_cluster(parts).steps[-1].totals
    timeline = watch(scenario, arm, num_samples=4000)
    whole_s = timeline.end_s * timeline.num_shown
    for state, known_s in (("generating", totals.busy_s), ("weight sync", totals.sync_s)):
        found_s = sum(seconds(timeline, f"replica {i}", state) for i in range(timeline.num_shown))
        assert found_s / whole_s == pytest.approx(known_s / whole_s, abs=0.01)


def test_the_last_version_is_the_number_of_weight_syncs() -> None:
    timeline = watch(small("areal"), num_samples=50)
    versions = next(counter for counter in timeline.counters if counter.name == "policy version")
    assert versions.values[-1] == sum(span.track == "weight sync" for span in timeline.spans)


def test_the_first_steps_are_the_beginning_of_the_whole_run() -> None:
    whole, part = watch(small("areal"), num_samples=50), watch(small("areal"), num_steps=2, num_samples=50)
    trainer = [span for span in part.spans if span.track == "trainer"]
    assert trainer == [span for span in whole.spans if span.track == "trainer"][: len(trainer)]
    assert {span.rl_step for span in trainer} == {0, 1}


def test_an_unknown_arm_names_those_there_are() -> None:
    with pytest.raises(ScenarioError, match=r"^no arm 'mtp'; the arms are baseline, "):
        watch(small("areal"), "mtp")


@pytest.mark.parametrize("steps", [0, 7])
def test_steps_outside_the_run_are_refused(steps: int) -> None:
    with pytest.raises(ScenarioError, match=rf"^{steps} RL steps are outside 1\.\.6"):
        watch(small("areal"), num_steps=steps)
