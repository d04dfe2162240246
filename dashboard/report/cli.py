"""`bebop report`: turns runs into one file: HTML for people, CSV, Parquet, JSON for programs, PNG, SVG for slides."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from simulator.errors import ScenarioError
from simulator.scenario_file import list_scenarios, load_scenario
from traces.console import ExitCode, Parser
from traces.errors import TraceError
from traces.report import RunReport
from traces.report_file import read_report
from traces.store import write_atomically

if TYPE_CHECKING:
    from dashboard.report.page import Section

SUFFIXES = (".html", ".csv", ".parquet", ".json", ".png", ".svg")
PICTURE_WIDTH_PX = 1080


def main(argv: list[str]) -> int:
    """Write the file; return the exit code."""
    parser = Parser(
        prog="bebop report",
        description="Write one file about one run or many. The suffix says what: .html is a page that needs no "
        "network, .csv, .parquet and .json are for programs, .png and .svg are the waterfall of the first run.",
    )
    parser.add_argument("runs", nargs="*", metavar="RUN", help="JSON of `bebop simulate -o`, or a scenario")
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("report.html"), metavar="FILE", help="default report.html"
    )
    parser.add_argument(
        "--full", action="store_true", help="of scenarios also what-if map, plans, sensitivity and timeline (minutes)"
    )
    parser.add_argument("--json", action="store_true", help="answer with one line of JSON")
    arguments = parser.parse_args(argv)
    suffix = arguments.out.suffix
    if suffix not in SUFFIXES:
        raise ScenarioError(f"-o {arguments.out}: the suffix names the form; end it in {', '.join(SUFFIXES)}")
    sections = [_section(run, full=arguments.full and suffix == ".html") for run in arguments.runs]
    if suffix in (".png", ".svg"):
        _draw([section.report for section in sections], arguments.out)
    else:
        write_atomically(arguments.out, _content(sections, suffix))
    num_bytes = arguments.out.stat().st_size
    about = {"path": str(arguments.out), "runs": len(sections), "bytes": num_bytes}
    print(json.dumps(about) if arguments.json else f"{arguments.out}: {len(sections)} runs, {num_bytes:,} bytes")
    return ExitCode.OK


def _section(run: str, *, full: bool) -> "Section":
    from dashboard.report.page import Section

    if run.endswith(".json"):
        path = Path(run)
        if not path.is_file():
            raise TraceError(f"{run}: no such file; `bebop simulate NAME -o {run}` writes one")
        return Section(read_report(path))
    if not run.endswith(".toml") and run not in dict(list_scenarios()):
        names = ", ".join(name for name, _ in list_scenarios())
        raise TraceError(f"{run}: neither a .json report nor a scenario; bundled ones are {names}")
    return _simulated(run, full=full)


def _simulated(run: str, *, full: bool) -> "Section":
    from dashboard.report.page import Section
    from simulator.run import simulate

    scenario = load_scenario(run)
    print(f"simulating {scenario.name}", file=sys.stderr)
    report = simulate(scenario)
    if not full or not report.arms:
        return Section(report)
    from simulator.optimize import optimize
    from simulator.sensitivity import analyse
    from simulator.timeline import watch
    from simulator.what_if import drafts_by_batch, speedup_map
    from traces.prices import load_prices

    arm = report.best_arm
    print(f"{scenario.name}: timeline, what-if, sensitivity, plans", file=sys.stderr)
    drafts = scenario.arms[arm].k > 0
    return Section(
        report,
        timeline=watch(scenario, arm, num_steps=min(scenario.warmup_steps + 4, scenario.run.num_steps)),
        what_if=speedup_map(scenario, arm, *drafts_by_batch(scenario, arm)) if drafts else None,
        plans=optimize(scenario, arm, price=load_prices().get(scenario.cluster.gpu)) if drafts else None,
        sensitivity=analyse(scenario, arm, num_samples=0),
    )


def _content(sections: "list[Section]", suffix: str) -> bytes:
    reports = [section.report for section in sections]
    if suffix == ".html":
        from dashboard.report.page import page

        return page(sections).encode()
    from dashboard.report.export import as_csv, as_json, as_parquet

    if suffix == ".parquet":
        return as_parquet(reports)
    return (as_csv(reports) if suffix == ".csv" else as_json(reports)).encode()


def _draw(reports: list[RunReport], path: Path) -> None:
    """Draw the waterfall of the first run."""
    from dashboard.picture import write_picture
    from dashboard.plots import waterfall

    if not reports or not reports[0].arms:
        raise ScenarioError("a picture needs a run with an arm; name one")
    figure = waterfall(reports[0], reports[0].best_arm).update_layout(paper_bgcolor="#FFFFFF")
    write_picture(figure, path, PICTURE_WIDTH_PX)
