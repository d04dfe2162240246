"""Write what the README shows: the default scenario's answer, word for word, its figure, and what was measured.

python benchmarks/readme.py            # rewrites README.md and docs/waterfall.png
python benchmarks/readme.py --check    # exit 1 if README.md differs from what the command prints
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from simulator.run import simulate
from simulator.scenario_file import DEFAULT_SCENARIO, list_scenarios, load_scenario
from simulator.table import render
from traces.report import RunReport

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
FIGURE = ROOT / "docs" / "waterfall.png"
INPUTS = "Inputs:"


def main() -> int:
    """Rewrite the README's blocks, or say whether they are up to date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing")
    check = parser.parse_args().check
    scenarios = [load_scenario(name) for name, _ in list_scenarios()]
    shown = [scenario for scenario in scenarios if scenario.measured or scenario.name == DEFAULT_SCENARIO]
    reports = {scenario.name: simulate(scenario) for scenario in shown}
    report = reports[DEFAULT_SCENARIO]
    old = README.read_text(encoding="utf-8")
    new = with_scenarios(with_answer(old, render(report)), list(reports.values()))
    if check:
        print("README.md is up to date" if old == new else "README.md differs; run python benchmarks/readme.py")
        return int(old != new)
    README.write_text(new, encoding="utf-8")
    from dashboard.plots import waterfall  # needs the dashboard extra, and a browser to draw with

    waterfall(report, report.best_arm).write_image(FIGURE, width=1100, height=480, scale=2)
    return 0


def with_answer(readme: str, printed: str) -> str:
    """Return the README with the command's output in its two blocks: the answer, and the inputs."""
    head, tail = printed.split(f"\n{INPUTS}", 1)
    readme = _replaced(readme, "answer", f"```text\n{head.rstrip()}\n```\n")
    return _replaced(readme, "inputs", f"```text\n{INPUTS}{tail.rstrip()}\n```\n")


def with_scenarios(readme: str, reports: Sequence[RunReport]) -> str:
    """Return the README with one row per measured number of the bundled scenarios."""
    rows = ["| scenario | arm and quantity | measured | predicted | error |", "|---|---|---|---|---|"]
    for report in reports:
        for row in report.measured:
            speedup = row.predicted_speedup
            if speedup is not None and row.measured_speedup is not None:
                against = f" against `{row.baseline_setup}`" if row.baseline_setup is not None else ""
                rows.append(
                    f"| `{report.scenario}` | `{row.arm}`{against}, `{row.quantity}` | {row.measured_speedup:.2f}x | "
                    f"{speedup.mean:.2f}x ({speedup.low:.2f} to {speedup.high:.2f}) | "
                    f"{100 * row.relative_error:+.0f} % |"
                )
    return _replaced(readme, "scenarios", "\n".join(rows) + "\n")


def _replaced(readme: str, mark: str, block: str) -> str:
    begin, end = f"<!-- {mark} -->\n", f"<!-- /{mark} -->"
    before, rest = readme.split(begin, 1)
    return before + begin + block + end + rest.split(end, 1)[1]


if __name__ == "__main__":
    sys.exit(main())
