"""One offline HTML file: the answer, why, from what, and what else could be done. Asks no other machine for anything.

Every text of a user is escaped, and a content security policy lets nothing run but the scripts of this file. Numbers
come from what it is given; none is made here.
"""

import base64
import datetime
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from dashboard.figures.heat_map import heat_map
from dashboard.figures.pareto import pareto
from dashboard.figures.timeline import timeline_figure
from dashboard.figures.tornado import tornado
from dashboard.plots import measured_vs_predicted, speedup_by_step, staleness_histogram, step_breakdown, waterfall
from dashboard.report.tables import Cells, arms_cells, measured_cells, origin_cells, runs_cells
from dashboard.words import between, biggest_loss, factor_name, times
from simulator.optimize import PlanReport
from simulator.sensitivity import Sensitivity
from simulator.what_if import SpeedupMap
from traces.report import RunReport
from traces.timeline import Timeline


@dataclass(frozen=True, slots=True)
class Section:
    """One run, and what else is known of its scenario."""

    report: RunReport
    timeline: Timeline | None = None
    what_if: SpeedupMap | None = None
    plans: PlanReport | None = None
    sensitivity: Sensitivity | None = None


def page(sections: Sequence[Section]) -> str:
    """Return the whole file as text: with no runs, one run, or many, which are then compared first."""
    figures: list[str] = []
    bodies = [_section(section, figures, is_open=len(sections) < 3) for section in sections]
    plotly_js = get_plotlyjs() if figures else ""
    scripts = [text for text in (plotly_js, _draw(figures) if figures else "") if text]
    title = sections[0].report.scenario if len(sections) == 1 else f"{len(sections)} runs"
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    policy = f"default-src 'none'; script-src {hashes or chr(39) + 'none' + chr(39)}; style-src 'unsafe-inline'; "
    policy += "img-src data: blob:; base-uri 'none'; form-action 'none'"
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>Bebop: {escape(title)}</title><style>{_STYLE}</style></head><body><main>",
            f"<header><h1>{escape(title)}</h1><p class=quiet>{_made()}</p></header>",
            _comparison(sections),
            *bodies,
            "</main>",
            *(f"<script>{script}</script>" for script in scripts),
            "</body></html>\n",
        ]
    )


def _comparison(sections: Sequence[Section]) -> str:
    if not sections:
        return "<p>No runs were given. <code>bebop simulate NAME -o run.json</code> writes one.</p>"
    if len(sections) == 1:
        return ""
    return f"<h2>All runs</h2>{_table(runs_cells([section.report for section in sections]))}"


def _section(section: Section, figures: list[str], *, is_open: bool) -> str:
    report = section.report
    best = report.best_arm if report.arms else None
    parts = [f"<p class=question>{escape(report.question)}</p>"]
    if best is not None:
        parts += [f"<p class=answer>{answer(report, best)}</p>", _table(arms_cells(report))]
        parts += [
            "<h3>Where the gain was lost</h3>",
            f"<p class=quiet>Arm {escape(best)}: factors that multiply to the end-to-end speedup.</p>",
            _figure(waterfall(report, best), figures),
            "<h3>Where the time goes</h3>",
            _figure(step_breakdown(report), figures),
            "<h3>Along the run</h3>",
            _figure(speedup_by_step(report), figures),
            "<h3>Staleness</h3>",
            _figure(staleness_histogram(report), figures),
        ]
    parts += _more(section, figures)
    if report.measured:
        parts += ["<h3>Measured and predicted</h3>", _figure(measured_vs_predicted(report), figures)]
        parts.append(_table(measured_cells(report)))
    parts += ["<h3>What it rests on</h3>", _assumptions(report), _table(origin_cells(report))]
    if report.warnings:
        parts.append(
            "<h3>Warnings</h3><ul>" + "".join(f"<li>{escape(each)}</li>" for each in report.warnings) + "</ul>"
        )
    parts.append(f"<p class=quiet>{_how(report)}</p>")
    state = " open" if is_open else ""
    return f"<details{state}><summary><h2>{escape(report.scenario)}</h2></summary>{''.join(parts)}</details>"


def _more(section: Section, figures: list[str]) -> Iterable[str]:
    if section.what_if is not None:
        yield "<h3>What if</h3><p class=quiet>End-to-end speedup of arm "
        yield f"{escape(section.what_if.arm)}, each cell one short run with inputs as stated.</p>"
        yield _figure(heat_map(section.what_if), figures)
    if section.plans is not None:
        best = section.plans.recommended
        yield "<h3>Plans</h3>"
        yield f"<p>Recommended on at most {section.plans.max_gpus} GPUs: <strong>{escape(best.plan.words())}</strong>, "
        yield f"{best.hours.mean:.3g} hours ({escape(section.plans.reason)}).</p>"
        yield _figure(pareto(section.plans), figures)
    if section.sensitivity is not None:
        first = section.sensitivity.factors[0]
        yield f"<h3>What to measure first</h3><p>{escape(first.meaning[:1].upper() + first.meaning[1:])}.</p>"
        yield _figure(tornado(section.sensitivity), figures)
    if section.timeline is not None:
        shown = section.timeline
        yield f"<h3>Timeline</h3><p class=quiet>Arm {escape(shown.arm)}, the first {shown.end_s:,.0f} s; "
        yield f"replicas are looked at every {shown.sample_s:.3g} s.</p>"
        yield _figure(timeline_figure(shown), figures)


def answer(report: RunReport, arm: str) -> str:
    """Return the answer for one arm as one sentence of HTML, user text escaped."""
    chosen = report.arms[arm]
    speedup = chosen.end_to_end_speedup
    verdict = f"finishes <strong>{times(speedup.mean)} faster</strong> ({between(speedup)})"
    if speedup.low <= 1 <= speedup.high:
        verdict = f"finishes about as fast as without: <strong>{times(speedup.mean)}</strong> ({between(speedup)})"
    elif speedup.mean < 1:
        verdict = f"gets slower, <strong>{times(speedup.mean)}</strong> the speed ({between(speedup)})"
    loss = biggest_loss(chosen)
    lost = f" The largest loss is {escape(factor_name(loss.name))} (×{loss.factor:.2f})." if loss else ""
    rollout = f"rollout alone is {times(chosen.rollout_speedup.mean)} as fast"
    drafts = f"With <strong>{escape(arm)}</strong> (k = {chosen.num_draft_tokens})"
    return f"{drafts} the run {verdict}; {rollout}.{lost}"


def _assumptions(report: RunReport) -> str:
    counts: dict[str, int] = {}
    for row in report.provenance:
        counts[row.origin.value] = counts.get(row.origin.value, 0) + 1
    said = ", ".join(f'<span class="origin {name}">{count} {name}</span>' for name, count in sorted(counts.items()))
    return f"<p>{len(report.provenance)} inputs: {said}.</p>"


def _how(report: RunReport) -> str:
    return (
        f"{escape(report.policy)}; {report.num_gpus} GPUs; {report.num_steps} RL steps, {report.warmup_steps} of "
        f"warm-up left out; {report.replications} replications, seed {report.seed}; model version "
        f"{escape(report.model_version)}, scenario {escape(report.scenario_hash[:12])}. Intervals hold 90 % of runs "
        "whose inputs err as the scenario says."
    )


def _table(table: Cells) -> str:
    head = "".join(f"<th>{escape(title)}</th>" for title in table.titles)
    rows = "".join(
        "<tr>" + "".join(f'<td class="{kind}">{escape(text)}</td>' for text, kind in row) + "</tr>"
        for row in table.rows
    )
    return f"<div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"


def _figure(figure: go.Figure, figures: list[str]) -> str:
    """Return the place of a figure, and add the figure to those that are drawn there."""
    figures.append(figure.to_json())
    return f'<div class=figure id="figure-{len(figures) - 1}" style="min-height:{figure.layout.height}px"></div>'


def _draw(figures: Sequence[str]) -> str:
    """Return the script that draws all figures; `<` is written so that no text of a figure can end the script."""
    content = f"[{','.join(figures)}]".replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return (
        f"const figures = {content};\n"
        "figures.forEach((figure, i) => Plotly.newPlot('figure-' + i, figure.data, figure.layout,"
        " {responsive: true, displaylogo: false, modeBarButtonsToRemove: ['sendDataToCloud']}));\n"
        "document.querySelectorAll('details').forEach(each => each.addEventListener('toggle', () =>"
        " each.querySelectorAll('.figure').forEach(figure => Plotly.Plots.resize(figure))));"
    )


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _made() -> str:
    return (
        f"Bebop, {datetime.datetime.now(tz=datetime.UTC).date().isoformat()}. This file asks the network for nothing."
    )


_STYLE = """
:root { color-scheme: light; --ink: #2F2D2B; --muted: #6B6763; --line: #E6E3DF; }
body { font: 16px/1.5 "Source Sans Pro", "Source Sans 3", Helvetica, Arial, sans-serif; color: var(--ink); margin: 0; }
main { max-width: 1080px; margin: 0 auto; padding: 24px 20px 64px; }
h1 { font-size: 1.7rem; margin: 0; } h2 { font-size: 1.35rem; display: inline; } h3 { margin: 2rem 0 .3rem; }
.question { color: var(--muted); } .quiet { color: var(--muted); font-size: .9rem; margin: .2rem 0; }
.answer { font-size: 1.2rem; border-left: 4px solid #0072B2; padding-left: 14px; }
summary { cursor: pointer; padding: 10px 0; border-top: 1px solid var(--line); margin-top: 20px; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; margin: .6rem 0; }
th, td { text-align: left; padding: 5px 14px 5px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--muted); font-weight: 600; } td.number { text-align: right; white-space: nowrap; }
.origin, td.assumed, td.extrapolated { font-weight: 600; }
.assumed { color: #8A5A00; } .extrapolated { color: #B23A00; }
.measured { color: #00684A; } .modelled, .interpolated { color: #00598C; }
@media print { summary { break-after: avoid; } .figure { break-inside: avoid; } }
"""
