"""Entropy along the run."""

from pathlib import Path

import pytest

from simulator.config import ConstantEntropy, PiecewiseEntropy, TraceEntropy
from simulator.entropy import build_entropy
from simulator.errors import ScenarioError
from traces.base import Origin, Provenance
from traces.store import save_trace
from traces.workload import SequenceRow, Turn, WorkloadTrace


def test_no_entropy_is_unknown_everywhere() -> None:
    entropy = build_entropy(None)
    assert entropy.at(0) is None
    assert entropy.at(1000) is None
    assert entropy.evidence([0, 1]).origins == ()


def test_constant_entropy_never_changes_and_never_ends() -> None:
    entropy = build_entropy(ConstantEntropy(entropy_nats=0.3))
    assert [entropy.at(step) for step in (0, 7, 99_999)] == [0.3, 0.3, 0.3]
    evidence = entropy.evidence([0, 99_999])
    assert evidence.warnings == ()
    assert evidence.origins[0].value == "0.3 nats at every step"
    assert evidence.origins[0].origin is Origin.ASSUMED


def test_piecewise_entropy_is_straight_between_points_and_flat_beyond() -> None:
    entropy = build_entropy(PiecewiseEntropy(points=((10, 0.4), (20, 0.2), (40, 0.3))))
    assert entropy.at(15) == pytest.approx(0.3)
    assert entropy.at(30) == pytest.approx(0.25)
    assert [entropy.at(step) for step in (0, 10, 20, 40, 99)] == [0.4, 0.4, 0.2, 0.3, 0.3]


def test_a_run_beyond_the_trajectory_says_so() -> None:
    entropy = build_entropy(PiecewiseEntropy(points=((10, 0.4), (20, 0.2))))
    assert entropy.evidence(range(10, 21)).warnings == ()
    evidence = entropy.evidence(range(5, 25))
    assert evidence.warnings == (
        "entropy: the trajectory covers RL steps 10..20, the run reaches 5 and 24; held at its end at 9 of 20 steps",
    )
    assert evidence.origins[0].origin is Origin.EXTRAPOLATED
    assert evidence.origins[0].value == "0.4 nats at step 10 to 0.2 at step 20"


def test_a_trajectory_of_the_paper_names_its_source() -> None:
    entropy = build_entropy(TraceEntropy(trace="bebop-swe"))
    assert entropy.at(5) == 0.187
    assert entropy.at(115) == 0.227
    origin = entropy.evidence([5, 115]).origins[0]
    assert origin.origin is Origin.MODELLED
    assert origin.source.startswith("workload trace bebop-swe: inferred from arXiv 2606.12370 fig. 6b")


def test_a_workload_without_entropy_is_refused(tmp_path: Path) -> None:
    rows = (SequenceRow(rl_step=0, group=0, turns=(Turn(input_tokens=1, output_tokens=1),)),)
    path = str(tmp_path / "lengths.json")
    provenance = Provenance(source="a test", created="2026-01-01")
    save_trace(WorkloadTrace(name="lengths", provenance=provenance, sequences=rows), path)
    with pytest.raises(ScenarioError) as error:
        build_entropy(TraceEntropy(trace=path))
    assert str(error.value) == ("entropy.trace: lengths holds no entropy; give a workload trace with entropy points")
