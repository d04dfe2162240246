"""Our replica and simulators that are not ours agree about the same serving workload."""

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("peer")


def test_no_peer_differs_by_more_than_two_percent(
    peer: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["peer.py", "--quick", "--json"])
    assert peer.main() == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report) == ["throughput_error", "p50_error", "p99_error", "speed_ratio"]
    assert max(report["throughput_error"], report["p50_error"], report["p99_error"]) < 0.02
    assert report["speed_ratio"] > 1.0


def test_a_rollout_in_waves_ends_as_when_every_iteration_is_made_response_by_response(peer: ModuleType) -> None:
    rollouts = [made for made in peer.comparisons(0.3) if made.name.startswith(("a rollout in waves", "4 replicas"))]
    assert [made.peer for made in rollouts] == ["Ciw", "iterations"]
    for made in rollouts:
        ours, _ = peer.serve(made)
        theirs, _ = made.ask_peer()
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


def test_the_table_shows_both_sides_of_every_workload(peer: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    results = [peer.compare(made) for made in peer.comparisons(0.05)]
    peer.print_table(results)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(results) + 2
    assert all(result.name in line and result.peer in line for result, line in zip(results, lines[1:-1], strict=True))
