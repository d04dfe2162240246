"""Ray runs the same points to the same bytes, on one node or several, and over the death of workers and nodes."""

import tempfile
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
from tests.simulator.sweep.in_process import InProcess
from traces.store import save_trace

ray = pytest.importorskip("ray")

from ray.cluster_utils import Cluster  # noqa: E402

from simulator.sweep.on_ray import RayExecutor  # noqa: E402

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
    """Return a cluster of a head and another node, on loopback, in a folder of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder,
        pytest.MonkeyPatch.context() as set_,
    ):
        set_.setenv("RAY_TMPDIR", folder)  # where Ray notes the address of the last cluster
        set_.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
        (Path(folder) / "ray").mkdir()
        head = {"num_cpus": 1, "temp_dir": f"{folder}/ray", "node_ip_address": HERE, "include_dashboard": False}
        nodes = Cluster(initialize_head=True, head_node_args=head)
        nodes.add_node(num_cpus=1, node_ip_address=HERE)
        try:
            yield nodes
        finally:
            nodes.shutdown()


HERE = "127.0.0.2"
"""Loopback that Ray does not replace by the machine's address on its network."""


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
