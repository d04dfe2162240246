"""Ray runs the same points to the same bytes, on one node or several, and over the death of workers and nodes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from simulator.errors import SweepError
from simulator.sweep import Sweep, parse_design, run_sweep
from simulator.sweep.executor import Event
from simulator.sweep.point import Base, evaluate
from tests.simulator import made_up
from tests.simulator.sweep import tasks
from tests.simulator.sweep.clusters import HERE, kill_head, two_nodes
from tests.simulator.sweep.commands import begun, finished, stored, wait_for, write_scenario
from tests.simulator.sweep.in_process import InProcess
from traces.store import save_trace

pytest.importorskip("ray")

from simulator.sweep.on_ray import RayExecutor

pytestmark = [
    # Ray leaves sockets and log files to the garbage collector, and warns of versions to come.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def base(tmp_path: Path) -> Base:
    save_trace(made_up.trace(), tmp_path / "trace.json")
    return Base(made_up.SCENARIO.format(trace=str(tmp_path / "trace.json")), "made-up.toml")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with two_nodes() as nodes:
        yield nodes


def swept(base: Base, folder: Path, executor: Any, grid: tuple[str, ...] = ("run.seed=0..11",)) -> Sweep:
    return run_sweep(base, parse_design(grid), executor, folder)


def test_a_cluster_of_two_nodes_gives_the_bytes_of_one_process(base: Base, tmp_path: Path, cluster: Any) -> None:
    grid = ("arms.spec.k=0..3", "engine.max_running_seqs=4,8")
    executor = RayExecutor(cluster.address)
    assert executor.num_workers == 2
    spread = swept(base, tmp_path / "ray", executor, grid)
    alone = swept(base, tmp_path / "alone", InProcess(evaluate), grid)
    assert (spread.digest, spread.num_failed) == (alone.digest, 0)
    results = [(tmp_path / folder / "results.parquet").read_bytes() for folder in ("ray", "alone")]
    assert results[0] == results[1]


def test_poison_on_ray_fails_alone(base: Base, tmp_path: Path, cluster: Any) -> None:
    sweep = swept(base, tmp_path / "out", RayExecutor(cluster.address, function=tasks.poison))
    failed = {index: outcome for index, outcome in enumerate(sweep.outcomes) if outcome.status == "failed"}
    assert sorted(failed) == [3, 5, 7]
    assert failed[3].attempts == 2
    assert "its Ray worker was lost (WorkerCrashedError" in str(failed[3].reason)
    assert failed[5].reason == "run.seed: 5 is not welcome; take another"
    assert failed[7].reason == "ZeroDivisionError: seven"


def test_a_killed_worker_of_ray_costs_a_try_and_no_result(base: Base, tmp_path: Path, cluster: Any) -> None:
    fragile = Base(base.text, str(tmp_path / "mark"))
    sweep = swept(fragile, tmp_path / "out", RayExecutor(cluster.address, function=tasks.killed_once))
    assert (tmp_path / "mark").exists()
    assert sweep.num_failed == 0
    assert sweep.digest == swept(fragile, tmp_path / "calm", InProcess(tasks.fine)).digest


def test_a_hung_point_on_ray_fails_after_its_time(base: Base, tmp_path: Path, cluster: Any) -> None:
    sweep = swept(base, tmp_path / "out", RayExecutor(cluster.address, function=tasks.hung, timeout_s=3.0))
    failed = {index: outcome for index, outcome in enumerate(sweep.outcomes) if outcome.status == "failed"}
    assert {index: (outcome.reason, outcome.attempts) for index, outcome in failed.items()} == {
        3: ("no answer within 3 s; raise --timeout if it needs longer", 1)
    }


def test_a_point_without_memory_fails_alone_on_ray(base: Base, tmp_path: Path, cluster: Any) -> None:
    sweep = swept(base, tmp_path / "out", RayExecutor(cluster.address, function=tasks.hungry))
    failed = {index: outcome for index, outcome in enumerate(sweep.outcomes) if outcome.status == "failed"}
    assert {index: outcome.attempts for index, outcome in failed.items()} == {3: 2}
    assert str(failed[3].reason).startswith("out of memory")


def test_a_node_that_dies_costs_no_result(base: Base, tmp_path: Path, cluster: Any) -> None:
    doomed = cluster.add_node(num_cpus=1, node_ip_address=HERE)
    executor = RayExecutor(cluster.address, function=tasks.slow)

    class LosesANode:
        """Passes everything on, and kills a node after the first answers."""

        num_workers, submit, close = executor.num_workers, executor.submit, executor.close
        has_killed = False

        @property
        def num_free(self) -> int:
            return executor.num_free

        def wait(self, timeout_s: float) -> list[Event]:
            events = executor.wait(timeout_s)
            if events and not self.has_killed:
                self.has_killed = True
                cluster.remove_node(doomed, allow_graceful=False)
            return events

    sweep = swept(base, tmp_path / "out", LosesANode(), ("run.seed=0..29",))
    assert sweep.num_failed == 0
    assert sweep.digest == swept(base, tmp_path / "calm", InProcess(tasks.fine), ("run.seed=0..29",)).digest


def test_a_head_that_dies_ends_the_sweep_which_another_goes_on_with(tmp_path: Path) -> None:
    scenario, grid = write_scenario(tmp_path), "run.seed=0..119"  # not done when the first points are in the ledger
    with two_nodes() as doomed:
        address = doomed.address
        driver = begun(scenario, tmp_path / "out", "--executor", "ray", "--address", address, grid=grid)
        wait_for(lambda: stored(tmp_path / "out") > 0)
        kill_head(doomed)
        _, err = driver.communicate(timeout=60)
    assert driver.returncode == 5
    assert f"the Ray cluster at {address} has not answered for" in err
    assert "--resume goes on when it is back" in err
    resumed = finished(scenario, tmp_path / "out", grid)
    assert resumed.num_reused > 0
    assert resumed.digest == finished(scenario, tmp_path / "whole", grid).digest


def test_tasks_that_ray_ends_for_their_memory_are_not_tried_for_ever(tmp_path: Path) -> None:
    """Ray's monitor of a node's memory ends every task here: whatever the node holds is too much."""
    variables = {"RAY_memory_usage_threshold": "0.001", "RAY_memory_monitor_refresh_ms": "100"}
    arguments = [write_scenario(tmp_path), "--grid", "run.seed=0,1", "--executor", "ray", "--workers", "1"]
    found = subprocess.run(
        [sys.executable, "-m", "bebop", "sweep", *arguments, "--out", str(tmp_path / "out")],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert found.returncode == 3
    assert "2 points, 2 failed" in found.stdout
    assert found.stdout.count("failed 1x: out of memory: ") == 2


def test_no_cluster_at_the_address_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with pytest.raises(
        SweepError, match=r"--address 127.0.0.2:1: nothing answers there .*use --executor local"
    ) as refused:
        RayExecutor("127.0.0.2:1")
    assert "\n" not in str(refused.value)
    with pytest.raises(SweepError, match=r"10.1.2.3:6379: a Ray cluster beyond this machine .*RAY_AUTH_MODE=token"):
        RayExecutor("10.1.2.3:6379")
    with pytest.raises(SweepError, match=r"not of the form HOST:PORT"):
        RayExecutor("somewhere")
