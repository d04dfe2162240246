"""Measured tables: what was read of a log, and what was said of it -> columns of Markdown cells, every text escaped."""

from collections import Counter

from dashboard.figures.forecast import TERM_NAMES
from dashboard.figures.step_difference import effect_name
from dashboard.tables import NOTHING, Table
from dashboard.words import escape_markdown, plain, seconds, times, unbroken
from simulator.calibration.report import CalibrationReport
from simulator.compare.result import Comparison, Term
from simulator.compare.steps import FACTS, TERMS
from simulator.compare.waterfall import REST_MEANS
from simulator.forecast.report import ForecastReport
from traces.measured import MeasuredRun, Quality

VERDICT_COLOURS = {"told": "green", "weakly told": "orange", "not told": "gray"}


def understood_table(run: MeasuredRun) -> Table:
    """Return canonical field, what it was read from, and how many steps have it."""
    understood = {} if run.account is None else run.account.understood
    return {
        "field": [escape_markdown(field) for field in understood],
        "read from": [escape_markdown(key) for key in understood.values()],
        "steps that have it": [_have(run, field) for field in understood],
    }


def ignored_table(run: MeasuredRun) -> Table:
    """Return what was left out of a log, and why."""
    ignored = {} if run.account is None else run.account.ignored
    return {
        "left out": [escape_markdown(what) for what in ignored],
        "why, and how often": [escape_markdown(why) for why in ignored.values()],
    }


def setup_table(run: MeasuredRun) -> Table:
    """Return what the log says of the run beside its steps."""
    facts = run.setup.model_dump(exclude_none=True)
    return {
        "fact": [escape_markdown(name) for name in facts],
        "value": [escape_markdown(str(value)) for value in facts.values()],
    }


def quality_words(run: MeasuredRun) -> str:
    """Return how many steps carry which mark, empty where none does."""
    counts = Counter(quality for step in run.steps for quality in step.quality)
    return ", ".join(f"{counts[quality]} {quality.value}" for quality in Quality if counts[quality])


def forecast_table(report: ForecastReport) -> Table:
    """Return the error of every term beside the naive baselines; percents as `bebop forecast` prints them."""
    terms = sorted(report.mape, key=lambda term: term != "step")
    return {
        "term": [f"**{TERM_NAMES.get(term, escape_markdown(term))}**" for term in terms],
        "mean error": [f"**{share(report.mape[term])}**" for term in terms],
        "line in mean length": [share(report.naive.linear_length[term]) for term in terms],
        "last value": [share(report.naive.last_value[term]) for term in terms],
        "80 % band holds": [share(report.coverage_by_term[term]) for term in terms],
    }


def forecast_sentence(report: ForecastReport) -> str:
    """Return the answer in one sentence."""
    term = "step" if "step" in report.mape else next(iter(report.mape))
    error, line = report.mape[term], report.naive.linear_length[term]
    verdict = "better" if error < line else "no better"
    start = ""
    if report.is_collapsed:
        start = f"The run has collapsed at step {report.collapsed_from_step}. Before that: "
    return (
        f"{start}**{TERM_NAMES.get(term, term).capitalize()} seconds** of the {report.num_later_steps} later steps are "
        f"met within **{share(error)}** on average, {verdict} than a line in the mean length ({share(line)}); "
        f"{share(report.coverage)} of the 80 % bands hold."
    )


def calibration_table(report: CalibrationReport) -> Table:
    """Return every open field with its interval and what the log tells of it."""
    fields = report.fields
    return {
        "field": [escape_markdown(one.path) for one in fields],
        "value": [f"**{escape_markdown(f'{one.value:.4g}')}**" for one in fields],
        "90 % interval": [
            "kept" if one.verdict == "not told" else escape_markdown(f"{one.low:.4g} to {one.high:.4g}")
            for one in fields
        ],
        "verdict": [f":{VERDICT_COLOURS[one.verdict]}-badge[{one.verdict}]" for one in fields],
    }


def calibration_sentence(report: CalibrationReport) -> str:
    """Return how many fields the log tells, and whether the calibrated scenario meets it."""
    told = sum(one.verdict != "not told" for one in report.fields)
    start = (
        f"**{told} of {len(report.fields)}** open fields of {escape_markdown(report.scenario)} are fitted to "
        f"{report.num_steps} steps. "
    )
    match = report.match
    if match is None:
        return start + "None of the steps that the scenario runs is in the log, so nothing can be compared."
    within = "inside the interval" if match.is_within else "**outside** the interval"
    return (
        f"{start}Its step takes **{seconds(match.predicted_step_s)}** ({plain(match.low_s)} to {plain(match.high_s)}), "
        f"the log's **{seconds(match.logged_step_s)}** over {match.num_steps} steps: {within}."
    )


def terms_table(found: Comparison) -> Table:
    """Return the seconds of a step by term on both sides."""
    rows = found.terms
    return {
        "term": [escape_markdown(_term_name(term)) for term in rows],
        "A": [unbroken(seconds(term.a_s)) for term in rows],
        "B": [unbroken(seconds(term.b_s)) for term in rows],
        "B minus A": [unbroken(f"**{_signed(term.difference.mean)} s**") for term in rows],
        "90 % of it": [
            f"{_signed(term.difference.low)} to {_signed(term.difference.high)} s"
            if term.difference.low < term.difference.high
            else NOTHING
            for term in rows
        ],
    }


def effects_table(found: Comparison) -> Table:
    """Return the waterfall in words."""
    return {
        "effect": [f"**{escape_markdown(effect_name(effect))}**" for effect in found.waterfall],
        "seconds": [f"{_signed(effect.seconds)} s" for effect in found.waterfall],
        "×": [NOTHING if effect.factor is None else f"{effect.factor:.3f}" for effect in found.waterfall],
        "meaning": [escape_markdown(effect.meaning) for effect in found.waterfall],
    }


def facts_table(found: Comparison) -> Table:
    """Return what else both runs logged: means over the steps compared."""
    return {
        "quantity": [escape_markdown(FACTS[fact.name]) for fact in found.facts],
        "A": [escape_markdown(f"{fact.a:.4g}") for fact in found.facts],
        "B": [escape_markdown(f"{fact.b:.4g}") for fact in found.facts],
        "B over A": [times(fact.b / fact.a) if fact.a > 0 else NOTHING for fact in found.facts],
    }


def share(fraction: float) -> str:
    """Return a share as `bebop forecast` prints it."""
    return f"{100 * fraction:.3g} %" if fraction < 10 else f"{100 * fraction:.0f} %"


def _have(run: MeasuredRun, field: str) -> str:
    if field not in type(run.steps[0]).model_fields:
        return NOTHING
    count = sum(getattr(step, field) is not None for step in run.steps)
    return "all" if count == len(run.steps) else f"{count} of {len(run.steps)}"


def _term_name(term: Term) -> str:
    name = TERMS.get(term.name, REST_MEANS.partition(":")[0])
    return name + (f" (logged by {term.only_in.upper()} only)" if term.only_in else "")


def _signed(value: float) -> str:
    shown = plain(abs(value))
    if shown == plain(0.0):
        return shown
    return f"{'+' if value > 0 else '−'}{shown}"
