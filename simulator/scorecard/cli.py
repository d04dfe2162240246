"""`bebop scorecard`: score public rows, a table of one's own, or a folder of scenarios; print, store, compare."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from simulator.engine_habits import EngineHabits
from simulator.scorecard.fit import SOFTWARE, fit_of, leave_one_source_out
from simulator.scorecard.gate import TOLERANCE, UPDATE_COMMAND, load_stored, moves, predictions, write_stored
from simulator.scorecard.inference import score_rows
from simulator.scorecard.rows import published_rows, read_rows
from simulator.scorecard.score import Entry, Scored, Unpredictable, as_json, scored, summaries
from traces.console import ExitCode, Parser
from traces.errors import TraceError

NUM_WORST = 8


def main(argv: list[str]) -> int:
    """Run `scorecard ...`; return the exit code."""
    parser = Parser(prog="bebop scorecard", description="Predict every public measured row, and say how far off.")
    parser.add_argument("--json", action="store_true", help="print classes and rows as one line of JSON")
    parser.add_argument("--rows", type=Path, metavar="FILE.csv", help="score these inference rows instead")
    parser.add_argument(
        "--scenarios", type=Path, metavar="DIR", help="score the [[measured]] tables of DIR/*.toml instead"
    )
    parser.add_argument("--no-runs", action="store_true", help="leave out RL runs, which take most of the time")
    parser.add_argument("--check", action="store_true", help="exit 3 if a prediction differs from the stored one")
    parser.add_argument(
        "--write", type=Path, metavar="FILE.md", help="write the page, its figure and the stored predictions"
    )
    arguments = parser.parse_args(argv)
    own = arguments.rows is not None or arguments.scenarios is not None
    if own and (arguments.check or arguments.write):
        parser.error("--check and --write are about the shipped rows, not about --rows or --scenarios")
    if arguments.write and arguments.no_runs:
        parser.error("--write needs the RL runs too; leave out --no-runs")
    entries = _entries(arguments.rows, arguments.scenarios, with_runs=not arguments.no_runs)
    if arguments.write:
        _write(entries, arguments.write)
    if arguments.json:
        print(json.dumps(as_json(entries)))
    else:
        _print(entries)
    return _checked(entries, with_runs=not arguments.no_runs) if arguments.check else ExitCode.OK


def shipped_entries(*, with_runs: bool, progress: Callable[[float], None] | None = None) -> list[Entry]:
    """Return the entries of the shipped rows, with the RL runs, whose progress is told, or without."""
    entries = score_rows(published_rows(), fitted=fit_of)
    if with_runs:
        from simulator.scorecard.runs import score_runs

        entries.extend(score_runs(progress))
    return entries


def own_entries(rows: Path) -> list[Entry]:
    """Return the entries of a table of one's own.

    Raises:
        TraceError: It is no such table, or an empty one.
    """
    own = read_rows(rows)
    if not own:
        raise TraceError(f"{rows}: no rows below the header; add one row per measured configuration")
    return score_rows(own)


def _entries(rows: Path | None, scenarios: Path | None, *, with_runs: bool) -> list[Entry]:
    if rows is None and scenarios is None:
        return shipped_entries(with_runs=with_runs)
    entries: list[Entry] = []
    if rows is not None:
        entries.extend(own_entries(rows))
    if scenarios is not None:
        from simulator.scorecard.runs import score_scenarios

        entries.extend(score_scenarios(scenarios))
    return entries


def _checked(entries: Sequence[Entry], *, with_runs: bool) -> ExitCode:
    stored, now = load_stored(), predictions(entries)
    if not with_runs:
        stored = {key: value for key, value in stored.items() if not key.rpartition(", ")[2].startswith("speedup of")}
    moved = moves(stored, now)
    for move in moved:
        print(f"moved: {move}", file=sys.stderr)
    if moved:
        print(
            f"{len(moved)} predictions moved by over {TOLERANCE:.0%}; if meant, run `{UPDATE_COMMAND}`", file=sys.stderr
        )
        return ExitCode.PARTIAL
    print(f"{len(now)} predictions are as stored", file=sys.stderr)
    return ExitCode.OK


def _write(entries: Sequence[Entry], path: Path) -> None:
    from simulator.scorecard.figure import draw
    from simulator.scorecard.page import Extra, page
    from traces.store import write_atomically

    rows = published_rows()
    bare = score_rows(rows, fitted=fit_of, habits={software: EngineHabits() for software in SOFTWARE})
    figure = path.with_suffix(".svg")
    extra = Extra(summaries(bare), leave_one_source_out(rows), figure.name)
    write_atomically(path, page(entries, extra).encode())
    write_atomically(figure, draw([entry for entry in entries if isinstance(entry, Scored)]).encode())
    write_stored(entries)


def _print(entries: Sequence[Entry]) -> None:
    print(f"{'class':24}{'rows':>6}{'median':>9}{'p90':>9}{'sign':>8}{'inside':>9}")
    for kind, figures in summaries(entries).items():
        cells = [figures[name] for name in ("median_error", "p90_error", "sign_accuracy", "inside_interval")]
        shown = ["" if value is None else f"{value:.1%}" for value in cells]
        print(f"{kind:24}{figures['n']:6}{shown[0]:>9}{shown[1]:>9}{shown[2]:>8}{shown[3]:>9}")
    worst = sorted(scored(entries), key=lambda row: -abs(row.error))[:NUM_WORST]
    if worst:
        print("\nfurthest off:")
    for row in worst:
        wrong = "  wrong sign" if row.is_speedup and not row.has_right_sign else ""
        print(f"  {row.id:32}{row.quantity:22}{row.measured:10.4g}{row.predicted:10.4g}{row.error:+8.0%}{wrong}")
    without = [entry for entry in entries if isinstance(entry, Unpredictable)]
    if without:
        print("\nnot predictable:")
    for entry in without:
        print(f"  {entry.id:32}{entry.missing}")
