"""The targets that the forecast was built for, on logs that are not part of the repository."""

from functools import cache
from statistics import median

import pytest

from simulator.forecast import Forecast, forecast
from tests.traces.importers.logs import PUBLISHED, needs_published_logs
from traces.importers import read_log

pytestmark = needs_published_logs


@cache
def forecasts(fraction: float) -> dict[str, Forecast]:
    """Return the forecast of every verl log that has not collapsed."""
    runs = [read_log(path) for path in sorted((PUBLISHED / "verl").glob("*.log"))]
    done = {run.name: forecast(run, fraction) for run in runs}
    return {name: one for name, one in done.items() if one.logged.num_collapsed < len(one.logged.run.steps) / 2}


def errors(term: str, fraction: float = 0.2) -> list[float]:
    return [done.scores[term].mape for done in forecasts(fraction).values()]


def test_the_one_collapsed_run_is_found() -> None:
    assert len(forecasts(0.2)) == 6


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.3, 0.5])
def test_generation_is_met_better_than_by_a_line_in_length(fraction: float) -> None:
    better = [
        done.scores["generation"].mape < done.scores["generation"].linear_length
        for done in forecasts(fraction).values()
    ]
    assert sum(better) >= 4
    assert median(errors("generation", fraction)) <= 0.08


def test_all_targets_of_the_first_fifth_are_met() -> None:
    assert median(errors("generation")) <= 0.08
    assert median(errors("train")) <= 0.03
    assert sum(error <= 0.03 for error in errors("train")) >= 5  # the sixth trains on responses it does not count
    assert max(errors("step")) <= 0.07


def test_four_fifths_of_all_steps_lie_inside_their_bands() -> None:
    inside = sum(score.coverage * score.num_steps for done in forecasts(0.2).values() for score in done.scores.values())
    total = sum(score.num_steps for done in forecasts(0.2).values() for score in done.scores.values())
    assert 0.7 <= inside / total <= 0.9
