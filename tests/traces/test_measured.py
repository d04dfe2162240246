import pytest
from pydantic import ValidationError

from tests.traces.examples import PROVENANCE
from traces import MeasuredRun, MeasuredStep


def run_of(*steps: MeasuredStep) -> MeasuredRun:
    return MeasuredRun(name="run", provenance=PROVENANCE, framework="verl", steps=steps)


def test_a_restarted_run_may_log_a_step_twice() -> None:
    assert len(run_of(MeasuredStep(step=4), MeasuredStep(step=3, segment=1)).steps) == 2


@pytest.mark.parametrize("second", [3, 4], ids=["an earlier step", "the same step"])
def test_steps_of_one_segment_ascend(second: int) -> None:
    with pytest.raises(ValidationError, match=r"\(segment, step\) \(0, \d\) comes after \(0, 4\)"):
        run_of(MeasuredStep(step=4), MeasuredStep(step=second))


def test_what_a_log_does_not_say_is_none_and_not_zero() -> None:
    assert {value for name, value in MeasuredStep(step=0) if name.endswith("_s")} == {None}
