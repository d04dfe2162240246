"""A comparison as text: the verdict, then tables. Numbers come from the comparison; nothing is computed here."""

from io import StringIO

from rich import box
from rich.console import Console
from rich.table import Table

from simulator.compare.result import Comparison, Effect, SideOfComparison, Term
from simulator.compare.steps import FACTS, TERMS
from simulator.compare.verdict import WORDS
from simulator.compare.waterfall import REST_MEANS
from simulator.table import WIDTH


def render(result: Comparison) -> str:
    """Return the whole comparison as text of at most 118 columns, without colour."""
    out = StringIO()
    console = Console(file=out, width=WIDTH, color_system=None, highlight=False, markup=False, emoji=False)
    console.print(result.verdict + ".\n")
    console.print(f"A  {_side(result.a)}\nB  {_side(result.b)}\n{result.num_steps} RL steps compared, paired by number")
    if result.generation_share_a is not None and result.generation_share_b is not None:
        console.print(
            f"The step waits for generation {100 * result.generation_share_a:.0f} % of the time in A, "
            f"{100 * result.generation_share_b:.0f} % in B\n"
        )
    console.print("Seconds per RL step")
    console.print(_terms(result))
    console.print(
        "The waterfall of the difference, in this order: B against A, step time and speedup after each effect"
    )
    console.print(_waterfall(result.waterfall))
    if result.rollout_waterfall:
        console.print("The same of the seconds that engines are busy for an RL step; training overlaps with them")
        console.print(_waterfall(result.rollout_waterfall))
    if result.facts:
        console.print("What else was logged on both sides: means over these steps")
        console.print(_facts(result))
    console.print(f"Intervals: {result.interval or 'none; too few steps, or reports that hold none for these arms'}")
    if result.warnings:
        console.print("\nWarnings")
        for warning in result.warnings:
            console.print(f"  - {warning}", soft_wrap=False)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _side(side: SideOfComparison) -> str:
    text = f"{side.name}: {side.about}; {side.num_steps} RL steps"
    left_out = [f"{count} {reason}" for reason, count in side.excluded.items()]
    if left_out:
        text += f"; left out: {', '.join(left_out)}"
    if side.num_unpaired:
        text += f"; {side.num_unpaired} that the other does not have"
    return text


def _table(*columns: str, left: int = 1) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < left else "right")
    return table


def _terms(result: Comparison) -> Table:
    has_intervals = any(term.difference.low < term.difference.high for term in result.terms)
    table = _table("term", "A", "B", "B / A", "B - A", "90 % of it" if has_intervals else "")
    for term in result.terms:
        table.add_row(_term_name(term), *_times(term))
    a_s, b_s = (sum(getattr(term, side) for term in result.terms) for side in ("a_s", "b_s"))
    table.add_row("step", f"{a_s:.1f}", f"{b_s:.1f}", f"{b_s / a_s:.2f}", f"{_zero(b_s - a_s):+.1f}", "")
    return table


def _term_name(term: Term) -> str:
    meaning = TERMS.get(term.name, REST_MEANS.split(":")[0])
    return meaning + (f" (logged by {term.only_in.upper()} only)" if term.only_in else "")


def _times(term: Term) -> tuple[str, str, str, str, str]:
    difference = term.difference
    has_interval = difference.low < difference.high
    return (
        f"{_zero(term.a_s):.1f}",
        f"{_zero(term.b_s):.1f}",
        f"{term.b_s / term.a_s:.2f}" if min(term.a_s, term.b_s) > 1e-6 else "",
        f"{_zero(difference.mean):+.1f}",
        f"{_zero(difference.low):+.1f} to {_zero(difference.high):+.1f}" if has_interval else "",
    )


def _waterfall(effects: tuple[Effect, ...]) -> Table:
    table = _table("effect", "seconds", "factor", "s after", "speedup", "meaning")
    table.columns[-1].justify = "left"
    table.columns[-1].ratio = 1
    for effect in effects:
        table.add_row(
            WORDS.get(effect.name, effect.name),
            f"{_zero(effect.seconds):+.1f}",
            "" if effect.factor is None else f"x{effect.factor:.3f}",
            f"{effect.step_s_after:.1f}",
            "" if effect.speedup_after is None else f"{effect.speedup_after:.3f}",
            effect.meaning,
        )
    return table


def _facts(result: Comparison) -> Table:
    table = _table("quantity", "A", "B", "B / A")
    for fact in result.facts:
        ratio = f"{fact.b / fact.a:.2f}" if fact.a > 0 else ""
        table.add_row(FACTS[fact.name], f"{fact.a:.4g}", f"{fact.b:.4g}", ratio)
    return table


def _zero(value: float) -> float:
    """Return the value without the rounding error of a sum, and never -0."""
    return 0.0 if abs(value) < 0.05 else value
