"""A forecast as text: a sentence, the errors by term beside the baselines, what was left out. Computes nothing."""

import textwrap
from collections.abc import Iterable

from simulator.forecast.report import ForecastReport

WIDTH = 118
_NAMES = {"log_prob": "log-prob"}


def render(report: ForecastReport) -> str:
    """Return the forecast as text of at most 118 columns, without colour."""
    lines = [*_wrapped(f"{report.run}: {_answer(report)}"), "", *_terms(report), ""]
    lines += _wrapped(
        f"Fitted on {report.num_fitted_steps} of the first {report.num_first_steps} steps; the "
        f"{report.num_later_steps} later ones are predicted from their lengths, and MAPE is over these. A band is to "
        f"hold {_percent(report.band)}."
    )
    for title, sentences in (("Left out", report.left_out), ("Notes", report.notes)):
        if sentences:
            lines += ["", title]
            lines += [line for sentence in sentences for line in _wrapped(sentence, "  - ")]
    lines += ["", "Fitted laws (80 % intervals; learned: share of the prior's width that the log took away)"]
    lines += list(_parameters(report))
    return "\n".join(lines)


def _wrapped(text: str, bullet: str = "") -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=bullet, subsequent_indent=" " * len(bullet))


def _answer(report: ForecastReport) -> str:
    term = "step" if "step" in report.mape else next(iter(report.mape))
    error, line = report.mape[term], report.naive.linear_length[term]
    verdict = "better" if error < line else "no better"
    said = (
        f"{_name(term)} seconds of later steps are met within {_percent(error)} on average, {verdict} than a line in "
        f"the mean length ({_percent(line)}); {_percent(report.coverage)} of the 80 % bands hold."
    )
    if report.is_collapsed:
        said = f"the run has collapsed at step {report.collapsed_from_step}; before that, {said}"
    return said


def _terms(report: ForecastReport) -> Iterable[str]:
    yield f" {'term':<12}{'MAPE':>10}{'linear in length':>20}{'last value':>14}{'80 % band holds':>18}"
    yield " " + "─" * 73
    for term, error in report.mape.items():
        linear, last = report.naive.linear_length[term], report.naive.last_value[term]
        yield (
            f" {_name(term):<12}{_percent(error):>10}{_percent(linear):>20}{_percent(last):>14}"
            f"{_percent(report.coverage_by_term[term]):>18}"
        )


def _parameters(report: ForecastReport) -> Iterable[str]:
    for term, parameters in report.parameters.items():
        for name, one in parameters.items():
            interval = f"{one.low:.3g} to {one.high:.3g}"
            yield f"  {_name(term):<12}{name:<26}{one.value:<12.4g}{interval:<26}learned {_percent(one.learned)}"


def _name(term: str) -> str:
    return _NAMES.get(term, term)


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %" if share < 10 else f"{100 * share:.0f} %"
