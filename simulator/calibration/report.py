"""What `bebop calibrate` answers: every fitted field with its interval, and the calibrated step beside the log's."""

from typing import Literal

from simulator.calibration.calibrate import Calibration
from traces.base import Strict


class FieldReport(Strict):
    """One field that physics leaves open."""

    path: str
    value: float
    low: float
    high: float
    """Ends of the 90 % interval."""
    verdict: Literal["told", "weakly told", "not told"]
    why: str


class MatchReport(Strict):
    """The calibrated scenario's step beside the logged one, seconds."""

    predicted_step_s: float
    low_s: float
    high_s: float
    logged_step_s: float
    num_steps: int
    """Logged steps that the scenario runs; the mean is over these."""
    is_within: bool


class CalibrationReport(Strict):
    """What a log tells of a scenario."""

    run: str
    framework: str
    scenario: str
    num_steps: int
    """Usable steps of the log."""
    fields: tuple[FieldReport, ...]
    match: MatchReport | None
    notes: tuple[str, ...]


def calibration_report(done: Calibration) -> CalibrationReport:
    """Return a calibration as a document."""
    match = done.match
    return CalibrationReport(
        run=done.logged.run.name,
        framework=done.logged.run.framework,
        scenario=done.scenario.name,
        num_steps=len(done.logged),
        fields=tuple(
            FieldReport(path=one.path, value=one.value, low=one.low, high=one.high, verdict=one.verdict, why=one.why)
            for one in done.values
        ),
        match=None
        if match is None
        else MatchReport(
            predicted_step_s=match.predicted_s,
            low_s=match.low_s,
            high_s=match.high_s,
            logged_step_s=match.logged_s,
            num_steps=match.num_steps,
            is_within=match.low_s <= match.logged_s <= match.high_s,
        ),
        notes=done.notes,
    )
