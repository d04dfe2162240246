"""The Ray cluster under a service dies and comes back: the service stays, says so, and no finished point is lost."""

from pathlib import Path
from typing import Any

import pytest

from tests.simulator.service.serving import body, outside, wait_for
from tests.simulator.sweep.clusters import HERE, kill_head, two_nodes
from tests.simulator.sweep.commands import stored

pytest.importorskip("ray")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray leaves sockets and files to the garbage collector
]

POINTS = 300
"""Not done before the head is, however late it is killed."""
SWEEP: dict[str, Any] = {"scenario": body("run.num_steps=60"), "grid": [f"run.seed=0..{POINTS - 1}"]}


def test_a_service_outlives_its_cluster_and_goes_on_with_the_next(tmp_path: Path) -> None:
    with two_nodes() as nodes:
        port = int(nodes.address.rpartition(":")[2])
        service = outside(tmp_path / "data", "--workers", "1", "--ray", nodes.address)
        with service as found:
            found.wait_until_ready()
            client = found.client
            job = client.submit("sweep", SWEEP)
            ledger = tmp_path / "data" / "sweeps" / job.id
            wait_for(lambda: stored(ledger) > 0, 120)
            kill_head(nodes)
            wait_for(lambda: client.job("sweep", job.id).status == "failed", 120)  # F4
            problem = found.ask(f"/v1/sweeps/{job.id}")[1]["problem"]
            assert (problem["status"], problem["type"]) == (503, "urn:bebop:problem:no-cluster")
            assert "has not answered for" in problem["detail"]

            assert found.ask("/healthz")[0] == 200
            status, said = found.ask("/readyz")
            assert (status, said["type"]) == (503, "urn:bebop:problem:no-cluster")
            assert client.wait(client.submit("run", body())).status == "done"

            kept = stored(ledger)
            nodes.shutdown()
            with two_nodes(gcs_server_port=port) as again:
                assert again.address == f"{HERE}:{port}"
                found.wait_until_ready(30)
                done = client.wait(client.submit("sweep", SWEEP), timeout_s=240)
                assert (done.answer["points"], done.answer["failed"]) == (POINTS, 0)
                assert 0 < kept < POINTS
