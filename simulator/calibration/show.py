"""A calibration as text: what the log tells of each field, and whether the scenario meets it. Computes nothing."""

import textwrap

from simulator.calibration.report import CalibrationReport, MatchReport

WIDTH = 118


def render(report: CalibrationReport) -> str:
    """Return the calibration as text of at most 118 columns, without colour."""
    told = sum(one.verdict != "not told" for one in report.fields)
    lines = wrapped(
        f"{report.scenario}: {told} of {len(report.fields)} open fields are fitted to {report.num_steps} steps of "
        f"{report.run}. {_match(report.match)}"
    )
    lines += ["", f" {'field':<36}{'value':>12}{'90 % interval':>28}   verdict", " " + "─" * 92]
    for one in report.fields:
        between = f"{one.low:.4g} to {one.high:.4g}" if one.verdict != "not told" else "kept"
        lines.append(f" {one.path:<36}{one.value:>12.4g}{between:>28}   {one.verdict}")
    lines += ["", "Why"]
    for one in report.fields:
        lines += wrapped(f"{one.path}: {one.why}", "  - ")
    if report.notes:
        lines += ["", "Notes"]
        lines += [line for note in report.notes for line in wrapped(note, "  - ")]
    return "\n".join(lines)


def wrapped(text: str, bullet: str = "") -> list[str]:
    """Return lines of at most 118 columns."""
    return textwrap.wrap(text, WIDTH, initial_indent=bullet, subsequent_indent=" " * len(bullet))


def _match(match: MatchReport | None) -> str:
    if match is None:
        return "None of the steps that the scenario runs is in the log, so that nothing can be compared."
    return (
        f"Its step takes {match.predicted_step_s:.1f} s ({match.low_s:.1f} to {match.high_s:.1f}), the log's "
        f"{match.logged_step_s:.1f} s over the {match.num_steps} steps that the scenario runs"
        + ("." if match.is_within else ": outside the interval.")
    )
