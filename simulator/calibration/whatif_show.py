"""A run with drafts as text: a sentence, the bound, steps, how well the scenario meets the log. Computes nothing."""

from collections.abc import Iterable

from simulator.calibration.show import wrapped
from simulator.calibration.whatif_report import WhatIfReport
from traces.report import Interval

_SHOWN = 12


def render(report: WhatIfReport) -> str:
    """Return the answer as text of at most 118 columns, without colour."""
    verdict = "faster" if report.end_to_end_speedup.mean >= 1 else "as fast: slower"
    lines = wrapped(
        f"{report.run} with k = {report.num_draft_tokens} ({report.acceptance}): steps "
        f"{_times(report.end_to_end_speedup)} {verdict}, generation {_times(report.generation_speedup)}, at a mean "
        f"accept length of {report.accept_length:.2f}."
    )
    lines += wrapped(
        f"Generation is {100 * report.rollout_share:.0f} % of a plain step, so that no drafts of this generation "
        f"speedup gain more than {report.amdahl_bound:.2f}x (1/(R/s+1-R)). The {len(report.steps)} steps below "
        f"take {report.drafted_hours:.2f} h instead of {report.plain_hours:.2f} h."
    )
    if report.logged_over_drafts is not None:
        lines += wrapped(
            "The log has drafts of its own: plain decoding is the counterfactual, and the run as logged takes "
            f"{report.logged_over_drafts:.2f}x the time of the run with these drafts."
        )
    lines += ["", *_steps(report)]
    match = report.calibration.match
    if match is not None:
        said = "within" if match.is_within else "outside"
        lines += ["", "How far to trust it"]
        lines += wrapped(
            f"the calibrated scenario's own step is {match.predicted_step_s:.1f} s ({match.low_s:.1f} to "
            f"{match.high_s:.1f}), the log's {match.logged_step_s:.1f} s: {said} its interval",
            "  - ",
        )
        for field in report.calibration.fields:
            if field.verdict == "not told":
                lines += wrapped(f"{field.path} is not told by the log: {field.why}", "  - ")
    if report.notes:
        lines += ["", "Notes", *(line for note in report.notes for line in wrapped(note, "  - "))]
    return "\n".join(lines)


def _steps(report: WhatIfReport) -> Iterable[str]:
    heads = (("step", 6), ("entropy", 10), ("accept length", 15), ("logged s", 11), ("plain s", 10), ("drafts s", 10))
    yield " " + "".join(f"{head:>{width}}" for head, width in (*heads, ("speedup", 10)))
    yield " " + "─" * 72
    stride = max(-(-len(report.steps) // _SHOWN), 1)
    for one in report.steps[::stride]:
        entropy = f"{one.entropy_nats:.3f}" if one.entropy_nats is not None else "-"
        length = f"{one.accept_length:.2f}" if one.accept_length is not None else "-"
        logged = f"{one.logged_s:.1f}" if one.logged_s is not None else "-"
        yield (
            f" {one.step:>6}{entropy:>10}{length:>15}{logged:>11}{one.plain_s:>10.1f}{one.drafted_s:>10.1f}"
            f"{one.speedup:>9.2f}x"
        )


def _times(interval: Interval) -> str:
    return f"{interval.mean:.2f}x ({interval.low:.2f} to {interval.high:.2f})"
