"""`bebop compare A B`: read two runs, compare them, print."""

from collections.abc import Sequence
from pathlib import Path

from simulator.compare.comparison import compare
from simulator.compare.sides import BASELINE, Side, measured_side, predicted_side
from simulator.errors import ComparisonError
from traces.console import ExitCode, Parser
from traces.measured import MeasuredRun
from traces.report import RunReport
from traces.report_file import read_report
from traces.store import load_trace, write_atomically

_HEAD_BYTES = 4096
"""Enough to see what kind of file it is."""


def main(argv: list[str]) -> int:
    """Run `compare ...`; return the exit code."""
    parser = Parser(
        prog="bebop compare",
        description="Compare two runs, measured or predicted: what differs, and why. A speedup is A's time over B's.",
        epilog="A and B are each a measured run (.json or .parquet of `bebop import`), a report (`bebop simulate -o`), "
        "or a log of a framework.",
    )
    parser.add_argument("a", metavar="A", help="the run to start from")
    parser.add_argument("b", metavar="B", help="the run to compare it with")
    parser.add_argument(
        "--arm",
        action="append",
        default=[],
        metavar="NAME",
        help="arm of a report; once for B (or the only report), twice for A and B. Of two reports the default is A's "
        "baseline and B's best arm; beside a measured run, the best arm if the run drafts, else the baseline",
    )
    parser.add_argument("--json", action="store_true", help="print the comparison as one line of JSON")
    parser.add_argument(
        "-o", "--out", type=Path, metavar="FILE.json", help="also write the comparison's JSON to a file"
    )
    arguments = parser.parse_args(argv)
    if len(arguments.arm) > 2:
        raise ComparisonError(f"--arm given {len(arguments.arm)} times; there are two sides, give it at most twice")
    a, b = sides([read_run(arguments.a), read_run(arguments.b)], [arguments.a, arguments.b], arguments.arm)
    result = compare(a, b)
    if arguments.out is not None:
        write_atomically(arguments.out, (result.to_json() + "\n").encode())
    if arguments.json:
        print(result.to_json())
    else:
        from simulator.compare.table import render

        print(render(result))
    return ExitCode.OK


def read_run(path: str) -> MeasuredRun | RunReport:
    """Return the measured run or the report in a file; any other file is read as a log.

    Raises:
        TraceError: The file cannot be read, or is no run; one line.
        OSError: No such file.
    """
    file = Path(path)
    with file.open("rb") as opened:
        head = opened.read(_HEAD_BYTES)
    kind = "measured" if file.suffix == ".parquet" else _kind(head)
    if kind == "report":
        return read_report(file)
    if kind == "measured":
        return load_trace(file, MeasuredRun)
    if kind is not None:
        raise ComparisonError(f"{path}: is a {kind}, neither a measured run nor a report; give one of those, or a log")
    from traces.importers import read_log  # a parser for every framework: not needed for a report

    return read_log(file)


def sides(runs: Sequence[MeasuredRun | RunReport], names: Sequence[str], arms: Sequence[str]) -> tuple[Side, Side]:
    """Return both runs as sides, each report with the arm that was asked for, or the one that fits the other run.

    Raises:
        ComparisonError: An arm is asked for that is not there, or of a measured run.
    """
    reports = [index for index, run in enumerate(runs) if isinstance(run, RunReport)]
    if len(arms) > len(reports):
        raise ComparisonError(
            f"--arm given {len(arms)} times for {len(reports)} reports; a measured run has no arms, leave it out"
        )
    chosen = dict(zip(reports[-len(arms) :] if arms else [], arms, strict=True))
    made = []
    for index, run in enumerate(runs):
        name = Path(names[index]).stem if names[0] != names[1] else None
        if isinstance(run, RunReport):
            other = runs[1 - index]
            default = (
                _arm_like(run, other) if isinstance(other, MeasuredRun) else BASELINE if index == 0 else _best(run)
            )
            made.append(predicted_side(run, chosen.get(index, default), name))
        else:
            made.append(measured_side(run, name))
    return made[0], made[1]


def _arm_like(report: RunReport, run: MeasuredRun) -> str:
    """Return the arm that decodes as a measured run does: the best one if it drafts, else plain decoding."""
    drafts = bool(run.setup.num_draft_tokens) or any(step.speculation is not None for step in run.steps)
    return _best(report) if drafts else BASELINE


def _best(report: RunReport) -> str:
    return report.best_arm if report.arms else BASELINE


def _kind(head: bytes) -> str | None:
    """Return the `kind` that a file of ours states near its beginning; None if it is no such file."""
    text = head.lstrip()
    if not text.startswith(b"{"):
        return None
    for kind in ("report", "measured", "latency", "acceptance", "workload", "comparison"):
        for colon in (b":", b": "):
            if b'"kind"' + colon + b'"' + kind.encode() + b'"' in text:
                return kind
    return None
