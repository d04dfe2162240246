"""`bebop sensitivity`: prints which input a speedup depends on most."""

from typing import TYPE_CHECKING

from rich.table import Table

from simulator.progress_bar import progress_bar
from simulator.scenario_file import DEFAULT_SCENARIO, load_scenario
from simulator.table import rendered
from traces.console import ExitCode, Parser

if TYPE_CHECKING:
    from simulator.sensitivity import FactorResult, Sensitivity


def main(argv: list[str]) -> int:
    """Print the factors, the most important first; return the exit code."""
    parser = Parser(
        prog="bebop sensitivity",
        description="Vary what a scenario does not know exactly, one input at a time and all together, and say which "
        "one the speedup depends on most: that is what to measure first.",
    )
    parser.add_argument("scenario", nargs="?", default=DEFAULT_SCENARIO, help="bundled name or TOML file")
    parser.add_argument("--arm", metavar="NAME", help="whose speedup (default the first arm)")
    parser.add_argument(
        "--vary", action="append", default=[], metavar="PATH=LOW..HIGH", help="one more input, or its range; repeatable"
    )
    parser.add_argument(
        "--samples",
        type=int,
        default=64,
        metavar="N",
        help="base samples of the Sobol indices, a power of two; 0: none",
    )
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="override a field, repeatable")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    arguments = parser.parse_args(argv)
    scenario = load_scenario(arguments.scenario, arguments.set)

    from simulator.sensitivity import analyse  # compiled kernels: slow to import

    with progress_bar(f"{scenario.name}: trials") as advance:
        found = analyse(scenario, arguments.arm, ranges=arguments.vary, num_samples=arguments.samples, progress=advance)
    print(found.to_json() if arguments.json else _text(found))
    return ExitCode.OK


def _text(found: "Sensitivity") -> str:
    """Return the answer in a sentence, then a row per input."""
    first = found.factors[0]
    head = f"{found.scenario}, arm {found.arm}: {found.speedup:.2f}x"
    if found.low is not None:
        head += f", {found.low:.2f}-{found.high:.2f}x (90 %) when all inputs vary"
    explained = f", which explains {first.total:.0%} of that range" if first.total is not None else ""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("input", "low", "high", "speedup at low", "at high", "explains", "range"):
        table.add_column(title, justify="left" if title in ("input", "range") else "right")
    for factor in found.factors:
        table.add_row(*_cells(factor))
    sources = sorted({factor.source for factor in found.factors if not factor.name.startswith("uncertainty.")})
    notes = "".join(f"\n- {source}" for source in sources)
    return (
        f"{head}.\nMeasure first: {first.meaning}{explained}.\n\n{rendered(table)}\n\n"
        f"{found.num_trials} trials with the same random numbers. `explains` is the "
        f"share of the variance that would stay if only this input were unknown (total Sobol index).{notes}"
    )


def _cells(factor: "FactorResult") -> tuple[str, ...]:
    explains = "" if factor.total is None else f"{factor.total:.0%} +-{factor.total_error:.0%}"
    is_stated = factor.name.startswith("uncertainty.")
    return (
        factor.meaning,
        f"{factor.low:.4g}",
        f"{factor.high:.4g}",
        f"{factor.speedup_at_low:.3f}x",
        f"{factor.speedup_at_high:.3f}x",
        explains,
        factor.name if is_stated else "assumed" if "assumed" in factor.source else "--vary",
    )
