"""What a caller hears while a run goes on: how far it is, and the answer before its waterfall."""

from pathlib import Path

import pytest

from simulator.explain import STAGES
from simulator.run import MAX_THREADS, simulate
from tests.simulator import made_up
from traces.report import RunReport


def test_progress_rises_to_1(tmp_path: Path) -> None:
    seen: list[float] = []
    simulate(made_up.scenario(tmp_path), progress=seen.append)
    num_runs = 2 * 2 * (1 + len(STAGES))  # of two arms, twice, and of what explains each
    assert seen == [(done + 1) / num_runs for done in range(num_runs)]


@pytest.mark.parametrize("num_replications", [2, MAX_THREADS + 1])
def test_the_answer_comes_before_its_waterfall_and_no_other_number_changes(
    num_replications: int, tmp_path: Path
) -> None:
    seen: list[RunReport] = []
    scenario = made_up.scenario(tmp_path, f"run.replications={num_replications}")
    whole = simulate(scenario, answered=seen.append)
    (early,) = seen
    assert early == simulate(scenario, with_waterfall=False)
    assert whole.arms["spec"].waterfall
    bare = {name: arm.model_copy(update={"waterfall": ()}) for name, arm in whole.arms.items()}
    assert whole.model_copy(update={"arms": bare}) == early
