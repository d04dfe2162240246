"""docs/scorecard.md: the scorecard for readers, misses first. Text only; does not predict."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from simulator.engine_habits import load_habits
from simulator.scorecard.fit import FITS
from simulator.scorecard.score import (
    CLASSES,
    RL_SPEEDUP,
    SERVING,
    SERVING_DRAFTS,
    SPEEDUP,
    Entry,
    Scored,
    Unpredictable,
    scored,
    summaries,
    summary,
)
from simulator.scorecard.why import why

TITLES = {
    SERVING: "Plain decoding: time per token",
    SPEEDUP: "Speedup of inference by speculation",
    RL_SPEEDUP: "Speedup of RL steps and rollouts",
    SERVING_DRAFTS: "Speculative decoding: time per token",
}
MISS = 0.15
"""Relative error from which a row is a miss."""


@dataclass(frozen=True, slots=True)
class Extra:
    """What the page shows beside the scores."""

    without_habits: Mapping[str, Mapping[str, object]]
    """Summaries of the same rows with no engine habits at all."""
    left_out: Mapping[str, Sequence[Scored]]
    """Publication -> its rows predicted by fits that never saw it."""
    figure: str
    """Name of the figure's file beside the page."""


def page(entries: Sequence[Entry], extra: Extra) -> str:
    """Return the page as Markdown."""
    rows = scored(entries)
    parts = [
        "# Scorecard",
        "",
        "Every public measured row that states enough, predicted with no parameter fitted to it. Written by",
        "`bebop scorecard --write docs/scorecard.md`; do not edit. `bebop scorecard --rows FILE.csv` scores your own",
        "rows, `--scenarios DIR` your own scenarios with `[[measured]]` tables.",
        "",
        f"![Predicted against measured]({extra.figure})",
        "",
        *_classes(entries, extra),
        *_misses(rows),
        *_fits(entries, extra),
        *_tables(rows),
        *_fitted(entries),
        *_unpredictable(entries),
        *_assumptions(entries),
    ]
    return "\n".join(parts) + "\n"


def _classes(entries: Sequence[Entry], extra: Extra) -> Iterable[str]:
    yield "| class | rows | median error | p90 | sign right | inside the interval | median without engine habits |"
    yield "|---|---|---|---|---|---|---|"
    for kind, figures in summaries(entries).items():
        before = extra.without_habits.get(kind, {}).get("median_error")
        cells = [TITLES.get(kind, kind), str(figures["n"])]
        cells += [_percent(figures[name]) for name in ("median_error", "p90_error", "sign_accuracy", "inside_interval")]
        yield "| " + " | ".join([*cells, _percent(before)]) + " |"
    yield ""
    yield "Errors are |predicted / measured - 1|. A measured difference below 2 % has no sign. The interval should"
    yield "hold nine rows of ten: its width was set on these rows without gpt-oss-120b's, added later; of RL rows by"
    yield "what their scenarios call uncertain. The last column is the same rows before any of the fits below: no host"
    yield "work, kernels as the roofline of H200 kernels has them."
    yield ""
    yield "Rows may not be chosen by outcome. Those of gpt-oss-120b were once left out, for contexts not published,"
    yield "after they came out badly; what was found again of them is in, and misses."
    yield ""


def _misses(rows: Sequence[Scored]) -> Iterable[str]:
    missed = sorted((row for row in rows if abs(row.error) >= MISS), key=lambda row: -abs(row.error))
    wrong = [row for row in rows if row.is_speedup and not row.has_right_sign and row not in missed]
    yield "## Misses first"
    yield ""
    yield f"Rows that are off by {MISS:.0%} or more, or whose sign is wrong, and why as far as we know."
    yield ""
    yield "| row | class | measured | predicted | error | sign | why |"
    yield "|---|---|---|---|---|---|---|"
    for row in [*missed, *wrong]:
        numbers = f"{_value(row, row.measured)} | {_value(row, row.predicted)} | {row.error:+.0%}"
        yield f"| {_text(row.id)} | {row.kind} | {numbers} | {_sign(row)} | {why(row.id)} |"
    yield ""


def _fits(entries: Sequence[Entry], extra: Extra) -> Iterable[str]:
    yield "## What was fitted, and on which rows"
    yield ""
    yield "Engines add host work between passes to their kernels, and a few kernels of theirs differ. Each number below"
    yield "was decided by the rows named beside it and by no other (`simulator/scorecard/fit.py`); those rows are in no"
    yield "figure above."
    yield ""
    yield "| fit | rows | decides |"
    yield "|---|---|---|"
    for fit in FITS:
        count = sum(isinstance(entry, Scored) and entry.fitted == fit.name for entry in entries)
        yield f"| {fit.name} | {count} numbers: {_text(fit.rule)} | {', '.join(f'`{name}`' for name in fit.start)} |"
    yield ""
    yield "| engine | " + " | ".join(f"`{name}`" for name in _HABIT_NAMES) + " |"
    yield "|---|" + "---|" * len(_HABIT_NAMES)
    for software, habits in load_habits().items():
        yield f"| {software} | " + " | ".join(_habit(name, getattr(habits, name)) for name in _HABIT_NAMES) + " |"
    yield ""
    yield "Leave one publication out: the same fits without a publication's rows, and the error on all rows of it."
    yield ""
    yield "| publication left out | class | rows | median error | p90 | sign right |"
    yield "|---|---|---|---|---|---|"
    for publication, rows in extra.left_out.items():
        for kind in CLASSES:
            of_kind = [row for row in rows if row.kind == kind]
            if of_kind:
                figures = summary(of_kind)
                cells = [_percent(figures[name]) for name in ("median_error", "p90_error", "sign_accuracy")]
                yield f"| {_text(publication)} | {kind} | {figures['n']} | " + " | ".join(cells) + " |"
    yield ""
    yield "An engine of which no other publication has rows is then predicted without its host work: what an unknown"
    yield "engine costs."
    yield ""


def _tables(rows: Sequence[Scored]) -> Iterable[str]:
    for kind in CLASSES:
        of_kind = [row for row in rows if row.kind == kind]
        if not of_kind:
            continue
        yield f"## {TITLES.get(kind, kind)}"
        yield ""
        yield from _rows(of_kind)


def _fitted(entries: Sequence[Entry]) -> Iterable[str]:
    fitted = [entry for entry in entries if isinstance(entry, Scored) and entry.fitted is not None]
    yield "## Rows that decided a fit"
    yield ""
    yield "Shown for completeness: how well the few parameters describe the rows that they come from."
    yield ""
    yield from _rows(fitted)


def _rows(rows: Sequence[Scored]) -> Iterable[str]:
    yield "| row | configuration | measured | predicted | interval | error | sign | assumed | source |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for row in rows:
        assumed = ", ".join(dict.fromkeys(entry.name for entry in row.assumptions))
        if row.kind == RL_SPEEDUP:
            assumed = f"{len(row.assumptions)} inputs of the scenario"
        interval = f"{_number(row, row.low)} - {_number(row, row.high)}"
        numbers = f"{_value(row, row.measured)} | {_value(row, row.predicted)} | {interval} | {row.error:+.1%}"
        words = f"{_sign(row)} | {_text(assumed)} | {_text(row.source)}"
        yield f"| {_text(row.id)} | {_text(row.configuration)} | {numbers} | {words} |"
    yield ""


def _unpredictable(entries: Sequence[Entry]) -> Iterable[str]:
    yield "## Rows that cannot be predicted"
    yield ""
    yield "| row | configuration | missing fact | source |"
    yield "|---|---|---|---|"
    for entry in entries:
        if isinstance(entry, Unpredictable):
            cells = (entry.id, entry.configuration, entry.missing, entry.source)
            yield "| " + " | ".join(_text(cell) for cell in cells) + " |"
    yield ""


def _assumptions(entries: Sequence[Entry]) -> Iterable[str]:
    found: dict[tuple[str, str, str], list[str]] = {}
    for entry in entries:
        if isinstance(entry, Scored) and entry.kind != RL_SPEEDUP:
            for assumption in entry.assumptions:
                found.setdefault((assumption.name, assumption.value, assumption.source), []).append(entry.id)
    yield "## Assumed inputs"
    yield ""
    yield "Of the inference rows; those of an RL row are its scenario's (`bebop simulate NAME` prints them)."
    yield ""
    yield "| input | value | source | rows |"
    yield "|---|---|---|---|"
    for (name, value, source), ids in found.items():
        unique = list(dict.fromkeys(ids))
        shown = ", ".join(unique[:4]) + (f" and {len(unique) - 4} more" if len(unique) > 4 else "")
        yield f"| {_text(name)} | {_text(value)} | {_text(source)} | {_text(shown)} |"


_HABIT_NAMES = (
    "step_s",
    "step_s_per_seq",
    "speculative_step_s",
    "speculative_step_s_per_seq",
    "draft_launch_s",
    "recurrence_efficiency",
    "fp8_bandwidth_factor",
    "draft_expert_reuse",
)


def _habit(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if name in _SHARES else f"{value * 1e6:.3g} us"


_SHARES = ("recurrence_efficiency", "fp8_bandwidth_factor", "draft_expert_reuse")


def _sign(row: Scored) -> str:
    return ("right" if row.has_right_sign else "**wrong**") if row.is_speedup else ""


def _number(row: Scored, value: float) -> str:
    return f"{value:.2f}" if row.is_speedup else f"{value * 1e3:.3g}"


def _value(row: Scored, value: float) -> str:
    return f"{value:.2f}x" if row.is_speedup else f"{value * 1e3:.3g} ms"


def _percent(value: object) -> str:
    return f"{value:.1%}" if isinstance(value, float) else ""


def _text(text: str) -> str:
    """Return a cell of a Markdown table."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
