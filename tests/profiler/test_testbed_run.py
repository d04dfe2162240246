"""A run of the testbed keeps its policy's rules, in real processes, and survives those that die."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest

pytest.importorskip("torch")
if importlib.util.find_spec("ray") is None:  # not imported here: whoever starts it sets it up first
    pytest.skip("needs ray", allow_module_level=True)

from profiler.errors import RunError
from profiler.testbed.actors import ROLLOUT, TRAINER
from profiler.testbed.log import measured_steps
from profiler.testbed.run import Outcome, drive, run_logged
from tests.profiler.test_fleet import children, is_same
from tests.profiler.testbed_parts import BrokenParts, DyingParts, SteadyParts, config_of
from traces.importers import read_log
from traces.measured import MeasuredRun, MeasuredStep, Quality
from traces.store import load_trace
from traces.testbed import TestbedConfig as Config

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds actors in /proc")
SAMPLES_PER_STEP = 8


def kill(kind: str) -> None:
    (pid,) = [pid for pid, name in children(os.getpid()).items() if name.startswith(f"ray::{kind}")]
    os.kill(pid, signal.SIGKILL)


def driven(config: Config, parts: SteadyParts, at: dict[int, Callable[[], None]] | None = None) -> Outcome:
    """Run a config; do something after some of its steps."""
    outcome = Outcome()
    drive(config, parts, outcome, lambda: (at or {}).get(len(outcome.records), lambda: None)())
    return outcome


def check_times(steps: tuple[MeasuredStep, ...]) -> None:
    for step in steps:
        assert step.step_s is not None
        parts = (step.generation_wait_s, step.train_s, step.sync_s, step.logged["bebop/drain_s"])
        rest_s = step.step_s - sum(part or 0.0 for part in parts)
        assert rest_s == pytest.approx(step.logged["bebop/hand_over_s"])
        assert rest_s >= step.logged["bebop/checkpoint_s"] > 0
        assert step.logged["bebop/message_s"] > 0
    # From sync to sync the rollout actor steps, hands over or waits: no second is counted twice.
    own_s = [step.logged["bebop/busy_s"] + step.logged["bebop/message_s"] for step in steps[1:]]
    assert sum(own_s) <= 1.05 * sum(step.step_s or 0.0 for step in steps[1:])


def test_a_synchronous_run_has_fresh_samples_and_its_log_reads_back(tmp_path: Path) -> None:
    config = config_of("synchronous")
    outcome = run_logged(config, tmp_path, SteadyParts())
    run = load_trace(tmp_path / "measured.json", MeasuredRun)
    check_times(run.steps)
    assert [step.step for step in run.steps] == [1, 2, 3, 4, 5, 6]
    assert run.setup.is_asynchronous is False
    for step in run.steps:
        assert (step.staleness_max_versions, step.num_sequences, step.num_groups) == (0, SAMPLES_PER_STEP, 4)
        assert step.generation_s == step.generation_wait_s
        assert step.speculation is not None
        assert step.speculation.per_position == (1.0, 0.0)
        assert step.speculation.accept_length == 2.0
        assert (step.train_s or 0.0) >= SteadyParts().train_s
        # Everything generated between two syncs is trained on.
        assert step.logged["bebop/num_generated_tokens"] == SAMPLES_PER_STEP * (step.response_tokens_mean or 0.0)
    # Nothing overlaps; by step the engine's first tokens may come before the trainer hears that it is synced.
    assert sum(step.logged["bebop/busy_s"] + (step.train_s or 0.0) for step in run.steps) <= sum(
        step.step_s or 0.0 for step in run.steps
    )
    assert outcome.account["given_samples"] == 6 * SAMPLES_PER_STEP
    assert outcome.account["lost_samples"] == 0
    assert_reads_back(tmp_path / "verl.log", run)


def assert_reads_back(path: Path, run: MeasuredRun) -> None:
    """What verl's importer reads is what the run measured."""
    read = read_log(path)
    assert read.framework == "verl"
    assert read.setup.is_asynchronous == run.setup.is_asynchronous
    assert read.account is not None
    assert read.account.num_dropped == 0
    unknown_to_verl = {"num_groups", "response_tokens_median", "logged", "quality", "segment"}
    for ours, theirs in zip(run.steps, read.steps, strict=True):
        assert theirs.logged == ours.logged
        known = ours.model_dump(exclude=unknown_to_verl | {"speculation"})
        assert theirs.model_dump(include=set(known)) == known
        assert (ours.speculation is None) == (theirs.speculation is None)
        if ours.speculation is not None and theirs.speculation is not None:
            assert theirs.speculation.accept_length == ours.speculation.accept_length
            assert theirs.speculation.accept_rate == ours.speculation.accept_rate


def test_one_step_off_trains_on_one_batch_while_the_next_is_generated() -> None:
    config = config_of("one_step_off")
    parts = SteadyParts(step_s=0.03, train_s=0.3)  # long beside what a crowded machine adds
    steps = measured_steps(driven(config, parts).records, config)
    check_times(steps)
    assert [step.staleness_mean_versions for step in steps] == [0, 1, 1, 1, 1, 1]
    overlaps = []
    for step in steps[1:]:
        generation_s, train_s, step_s = step.generation_s or 0.0, step.train_s or 0.0, step.step_s or 0.0
        assert max(generation_s, train_s) <= step_s
        overlaps.append(generation_s + train_s - step_s)
    assert median(overlaps) > 0.1


@pytest.mark.parametrize("in_flight", ["wait", "in_place"])
def test_a_fully_asynchronous_run_syncs_in_the_middle_of_generation(tmp_path: Path, in_flight: str) -> None:
    config = config_of("fully_async", steps=8, max_staleness=2, in_flight=in_flight)
    outcome = run_logged(config, tmp_path, SteadyParts(step_s=0.01, train_s=0.01))
    run = load_trace(tmp_path / "measured.json", MeasuredRun)
    check_times(run.steps)
    assert max(step.staleness_max_versions or 0 for step in run.steps) in (1, 2, 3)
    drains = [step.logged["bebop/drain_s"] for step in run.steps]
    assert max(drains) > 0.01 if in_flight == "wait" else median(drains) < 0.01
    # Where running sequences go on, responses have tokens of several policies.
    num_mixed = sum(step.logged["bebop/num_mixed_samples"] for step in run.steps)
    assert (num_mixed > 0) == (in_flight == "in_place")
    assert outcome.account["given_samples"] == 8 * SAMPLES_PER_STEP
    assert_reads_back(tmp_path / "verl.log", run)


@needs_proc
def test_a_run_goes_on_without_its_rollout_actor_and_counts_what_was_lost() -> None:
    config = config_of("fully_async", max_staleness=1, in_flight="abort_resume")
    outcome = driven(config, SteadyParts(step_s=0.01), {2: lambda: kill("RolloutActor")})
    assert outcome.num_deaths == {ROLLOUT: 1}
    check_times(steps := measured_steps(outcome.records, config))
    assert [step.step for step in steps] == [1, 2, 3, 4, 5, 6]
    lost = outcome.account["lost_samples"]
    assert 0 < lost <= 2 * SAMPLES_PER_STEP  # as far as it was ahead
    assert steps[-1].logged["bebop/num_lost_samples"] == lost
    # The buffer gives no sample out for two steps: all of these are different ones.
    assert outcome.account["given_samples"] == 6 * SAMPLES_PER_STEP
    # The weights came along: the engine of these parts refuses to sample with others than it says.
    assert all((step.staleness_max_versions or 0) <= 2 for step in steps)


def test_a_trainer_that_dies_goes_on_from_its_checkpoint_without_losing_or_doubling_a_version(tmp_path: Path) -> None:
    config = config_of("fully_async", steps=7, max_staleness=1, in_flight="in_place")
    outcome = driven(config, DyingParts(folder=tmp_path))
    assert outcome.num_deaths == {TRAINER: 2}
    steps = measured_steps(outcome.records, config)
    assert [(step.step, step.segment) for step in steps] == [(1, 0), (2, 0), (3, 1), (4, 1), (5, 2), (6, 2), (7, 2)]
    assert [step.step for step in steps if Quality.RESTARTED in step.quality] == [3, 5]
    # The batch of the third step is trained on after all; that of the fifth was, and is not asked for again.
    assert outcome.account["batches_given_again"] == 1
    assert outcome.account["given_samples"] == 7 * SAMPLES_PER_STEP
    assert outcome.account["lost_samples"] == 0
    assert all(step.train_s for step in steps)


def test_an_engine_that_cannot_be_made_ends_the_run_with_its_complaint() -> None:
    with pytest.raises(RunError, match=r"an actor could not start: .*no such engine; take another"):
        driven(config_of("synchronous"), BrokenParts())


def start(folder: Path, config: Config) -> "subprocess.Popen[str]":
    code = (
        "import sys; from pathlib import Path; from traces.console import run_command;"
        "from traces.testbed import TestbedConfig; from profiler.testbed.run import run_logged;"
        "from tests.profiler.testbed_parts import SteadyParts;"
        "config = TestbedConfig.model_validate_json(sys.argv[1]);"
        "sys.exit(run_command(lambda: run_logged(config, Path(sys.argv[2]), SteadyParts()) and None))"
    )
    folder.mkdir()
    argv = [sys.executable, "-c", code, config.model_dump_json(), str(folder)]
    return subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def started() -> Iterator[Callable[..., Any]]:
    found: list[subprocess.Popen[str]] = []

    def begin(folder: Path, config: Config) -> "subprocess.Popen[str]":
        found.append(start(folder, config))
        return found[-1]

    yield begin
    for process in found:
        with process:  # closes its pipe
            process.kill()


def wait_for_steps(folder: Path, count: int, process: "subprocess.Popen[str]") -> None:
    log, deadline = folder / "verl.log", time.monotonic() + 120
    while not log.exists() or len(log.read_text().splitlines()) < count:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def gone(offspring: dict[int, str], within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while any(is_same(pid, name) for pid, name in offspring.items()):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@needs_proc
def test_two_testbeds_at_once_one_is_interrupted_and_the_other_knows_nothing_of_it(
    tmp_path: Path, started: Callable[..., Any]
) -> None:
    endless = config_of("fully_async", steps=100_000, max_staleness=1, in_flight="in_place")
    stopped, whole = started(tmp_path / "stopped", endless), started(tmp_path / "whole", config_of("synchronous"))
    wait_for_steps(tmp_path / "stopped", 3, stopped)
    offspring = children(stopped.pid)
    stopped.send_signal(signal.SIGINT)
    assert gone(offspring, 5.0)
    _, err = stopped.communicate(timeout=60)
    assert (stopped.returncode, err.splitlines()[-1]) == (130, "bebop: interrupted")
    run = load_trace(tmp_path / "stopped" / "measured.json", MeasuredRun)
    assert len(run.steps) >= 3
    assert_reads_back(tmp_path / "stopped" / "verl.log", run)
    assert whole.wait(timeout=60) == 0
    assert len(load_trace(tmp_path / "whole" / "measured.json", MeasuredRun).steps) == 6


@needs_proc
def test_a_killed_driver_leaves_no_process(tmp_path: Path, started: Callable[..., Any]) -> None:
    killed = started(tmp_path / "killed", config_of("one_step_off", steps=100_000))
    wait_for_steps(tmp_path / "killed", 2, killed)
    offspring = children(killed.pid)
    assert sum(name.startswith("ray::") for name in offspring.values()) >= 3
    killed.kill()
    assert gone(offspring, 5.0)
    assert len(read_log(tmp_path / "killed" / "verl.log").steps) >= 2
