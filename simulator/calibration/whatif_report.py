"""What `bebop whatif` answers: this run with drafts, per step and overall. Computes nothing new."""

from simulator.calibration.report import CalibrationReport, calibration_report
from simulator.calibration.whatif import WhatIf
from traces.base import Strict
from traces.report import Interval


class WhatIfStep(Strict):
    """One logged step, without drafts and with them."""

    step: int
    entropy_nats: float | None
    accept_length: float | None
    logged_s: float | None
    plain_s: float
    drafted_s: float
    speedup: float


class WhatIfReport(Strict):
    """A logged run, with drafts."""

    run: str
    num_draft_tokens: int
    acceptance: str
    """As stated on the command line."""
    end_to_end_speedup: Interval
    """Plain decoding over drafts, of whole steps; 90 % interval."""
    generation_speedup: Interval
    rollout_share: float
    """Share R of a plain step in which it generates."""
    amdahl_bound: float
    """1 / (R / s + 1 - R)."""
    accept_length: float
    """Mean over the steps."""
    logged_over_drafts: float | None
    """The logged run over the one with these drafts, where the log has drafts of its own."""
    plain_hours: float
    drafted_hours: float
    """Of the steps below."""
    steps: tuple[WhatIfStep, ...]
    notes: tuple[str, ...]
    calibration: CalibrationReport


def whatif_report(done: WhatIf, acceptance: str) -> WhatIfReport:
    """Return the answer as a document."""
    return WhatIfReport(
        run=done.calibration.logged.run.name,
        num_draft_tokens=done.arm.k,
        acceptance=acceptance,
        end_to_end_speedup=done.end_to_end,
        generation_speedup=done.generation,
        rollout_share=done.rollout_share,
        amdahl_bound=done.amdahl_bound,
        accept_length=done.accept_length,
        logged_over_drafts=done.over_logged,
        plain_hours=sum(one.plain_s for one in done.steps) / 3600,
        drafted_hours=sum(one.drafted_s for one in done.steps) / 3600,
        steps=tuple(
            WhatIfStep(
                step=one.step,
                entropy_nats=one.entropy_nats,
                accept_length=one.accept_length,
                logged_s=one.logged_s,
                plain_s=one.plain_s,
                drafted_s=one.drafted_s,
                speedup=one.speedup,
            )
            for one in done.steps
        ),
        notes=done.notes,
        calibration=calibration_report(done.calibration),
    )
