"""Ray clusters of several nodes on loopback."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

HERE = "127.0.0.2"
"""Loopback that Ray does not replace by the machine's address on its network."""


@contextmanager
def two_nodes(**head: Any) -> Iterator[Any]:
    """Run a cluster of a head and another node, a CPU each, in a folder of its own."""
    from ray.cluster_utils import Cluster

    with (
        tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder,
        pytest.MonkeyPatch.context() as set_,
    ):
        set_.setenv("RAY_TMPDIR", folder)  # where Ray notes the address of the last cluster
        set_.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
        (Path(folder) / "ray").mkdir()
        arguments = {"num_cpus": 1, "temp_dir": f"{folder}/ray", "node_ip_address": HERE, "include_dashboard": False}
        nodes = Cluster(initialize_head=True, head_node_args={**arguments, **head})
        nodes.add_node(num_cpus=1, node_ip_address=HERE)
        try:
            yield nodes
        finally:
            nodes.shutdown()


def kill_head(nodes: Any) -> None:
    """Kill every process of the head, as when its machine fails."""
    nodes.head_node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
