"""`bebop plan`: prints how to lay a run out on so many GPUs."""

import datetime
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from simulator.errors import ScenarioError
from simulator.progress_bar import progress_bar
from simulator.scenario_file import DEFAULT_SCENARIO, load_scenario
from simulator.table import rendered
from traces.console import ExitCode, Parser
from traces.prices import Price, load_prices

if TYPE_CHECKING:
    from simulator.break_even import BreakEven
    from simulator.optimize import PlanReport, Scored

MAX_PLANS = 10_000


def main(argv: list[str]) -> int:
    """Print the recommended plan and the front; return the exit code."""
    parser = Parser(
        prog="bebop plan",
        description="Search for the split of the GPUs, the layout, the draft length or its schedule, the batch, the "
        "staleness and the sync interval that make a run fast, cheap and fresh.",
    )
    parser.add_argument("scenario", nargs="?", default=DEFAULT_SCENARIO, help="bundled name or TOML file")
    parser.add_argument("--gpus", type=int, metavar="N", help="budget, both sides together (default: the scenario's)")
    parser.add_argument("--arm", metavar="NAME", help="whose acceptance to draft with (default the first that drafts)")
    parser.add_argument(
        "--max-staleness", type=int, default=8, metavar="N", help="policy versions that are acceptable (default 8)"
    )
    parser.add_argument("--max-draft-tokens", type=int, metavar="K", help="also k at which nobody counted acceptance")
    parser.add_argument("--plans", type=int, default=160, metavar="N", help="plans to try (default 160)")
    parser.add_argument("--prices", type=Path, metavar="FILE", help="CSV with the columns of the shipped table")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="override a field, repeatable")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    arguments = parser.parse_args(argv)
    ranges = (
        ("--gpus", arguments.gpus or 1, 100_000),
        ("--max-draft-tokens", arguments.max_draft_tokens or 1, 16),
        ("--plans", arguments.plans, MAX_PLANS),
    )
    for flag, value, high in ranges:
        if not 1 <= value <= high:
            raise ScenarioError(f"{flag} {value} is outside 1..{high}; choose a value inside")
    if arguments.max_staleness < 0:
        raise ScenarioError(f"--max-staleness {arguments.max_staleness} is below 0; choose 0 or more")
    scenario = load_scenario(arguments.scenario, arguments.set)
    prices = load_prices(arguments.prices)
    price = prices.get(scenario.cluster.gpu)
    if price is None:
        print(f"no price for {scenario.cluster.gpu}, so no cost; --prices FILE states one", file=sys.stderr)

    from simulator.optimize import optimize  # compiled kernels: slow to import

    with progress_bar(f"{scenario.name}: plans") as advance:
        report = optimize(
            scenario,
            arguments.arm,
            max_gpus=arguments.gpus,
            max_staleness=arguments.max_staleness,
            max_draft_tokens=arguments.max_draft_tokens,
            num_plans=arguments.plans,
            price=price,
            progress=advance,
        )
    print(report.to_json() if arguments.json else _text(report, price))
    return ExitCode.OK


def _text(report: "PlanReport", price: Price | None) -> str:
    best, today = report.recommended, report.today
    lines = [
        f"{report.scenario}, arm {report.arm}, at most {report.max_gpus} GPUs and staleness {report.max_staleness}.",
        f"Recommended: {best.plan.words()}: {_hours(best)}, {report.reason}; "
        f"{today.hours.mean / best.hours.mean:.2f}x as fast as the scenario as it stands ({_hours(today)}).",
        f"Drafting makes it {best.speedup.mean:.2f}x as fast ({best.speedup.low:.2f} to {best.speedup.high:.2f}).",
    ]
    if report.break_even is not None:
        lines.append(_break_even(report.break_even))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("plan", "hours", "GPU hours", "USD", "kWh", "staleness", "drafting"):
        table.add_column(title, justify="left" if title == "plan" else "right")
    for scored in report.front if today in report.front else (*report.front, today):
        table.add_row(*_cells(scored, is_today=scored is today))
    lines += ["", "No other plan tried beats these in time, cost and staleness at once:", rendered(table), ""]
    why = ", ".join(f"{name} {count}" for name, count in report.why_infeasible.items())
    if report.recommended.plan.k > report.counted_drafts:
        lines.append(f"Beyond k = {report.counted_drafts} acceptance was not counted but extrapolated.")
    lines.append(
        f"{report.num_plans} plans: {report.num_infeasible} cannot run{f' ({why})' if why else ''}, "
        f"{report.num_pruned} dropped after one short run."
    )
    if price is not None:
        age = (datetime.datetime.now(tz=datetime.UTC).date() - price.date).days
        old = f"; that is {age} days ago" if age > 90 else ""
        lines.append(
            f"Price: {price.usd_per_gpu_hour:g} USD per GPU hour on {price.date}{old}; power: {price.power_w:g} W, the "
            f"most that the GPU draws ({price.source})."
        )
    return "\n".join(lines)


def _hours(scored: "Scored") -> str:
    return f"{scored.hours.mean:.3g} h ({scored.hours.low:.3g} to {scored.hours.high:.3g})"


def _break_even(found: "BreakEven") -> str:
    if found.pays_at_any:
        said = "Drafting costs nothing here even if no draft is accepted: the run does not wait for generation."
    elif found.acceptance is None:
        said = "Drafting does not pay here at any acceptance."
    else:
        said = (
            f"It pays above an acceptance of {found.acceptance:.2f} per draft, an accept length of "
            f"{found.accept_length:.2f}; now it is {found.accept_length_now:.2f}."
        )
    if found.off_above_batch is None:
        return f"{said} No batch of a replica is too large for it."
    return f"{said} From a batch of {found.off_above_batch} on (context {found.context_tokens:.0f}) it should be off."


def _cells(scored: "Scored", *, is_today: bool) -> tuple[str, ...]:
    return (
        scored.plan.words() + (" (as it stands)" if is_today else ""),
        f"{scored.hours.mean:.3g}",
        f"{scored.hours.mean * scored.plan.num_gpus:.3g}",
        "" if scored.usd is None else f"{scored.usd:.0f}",
        "" if scored.kwh is None else f"{scored.kwh:.0f}",
        f"{scored.staleness_versions:.2f}",
        f"{scored.speedup.mean:.2f}x",
    )
