"""The answer as text: a sentence, then tables. Numbers come from the report; nothing is computed here."""

from collections.abc import Iterable
from io import StringIO

from rich import box
from rich.console import Console
from rich.table import Table

from traces.base import Origin
from traces.report import ArmReport, Interval, RunReport

WIDTH = 118
_SHORT = {
    "accept_length": "accept length",
    "draft_verify_cost": "draft and verify cost",
    "tail_batches": "shrinking tail batches",
    "prefill_and_sync": "prefill and weight sync",
    "trainer_bound": "trainer-bound waiting",
    "staleness_stalls": "staleness stalls",
}


def answer(report: RunReport) -> str:
    """Return the best arm's end-to-end speedup, its interval and the main loss, in one sentence."""
    name = report.best_arm
    arm = report.arms[name]
    speedup = arm.end_to_end_speedup
    verb = "faster" if speedup.mean >= 1 else "as fast: slower"
    losses = [factor for factor in arm.waterfall[1:] if factor.factor < 0.995]
    lost = ""
    if losses:
        worst = min(losses, key=lambda factor: factor.factor)
        lost = f" The largest loss from an accept length of {arm.accept_length:.2f} is {_SHORT[worst.name]} "
        lost += f"(x{worst.factor:.2f})."
    return (
        f"With {name} (k = {arm.num_draft_tokens}) the run finishes {speedup.mean:.2f}x {verb} "
        f"({speedup.low:.2f} to {speedup.high:.2f}), generation {arm.rollout_speedup.mean:.2f}x.{lost}"
    )


def render(report: RunReport) -> str:
    """Return the whole answer as text of at most 118 columns, without colour."""
    out = StringIO()
    console = plain_console(out)
    console.print(f"{report.scenario}: {report.question}\n")
    console.print(answer(report) + "\n")
    for title, table in _tables(report):
        console.print(title)
        console.print(table)
    if report.warnings:
        console.print("Warnings")
        for warning in report.warnings:
            console.print(f"  - {warning}", soft_wrap=False)
    split = f"{report.num_rollout_gpus} rollout GPUs, {report.num_train_gpus} trainer GPUs"
    gpus = split if report.num_gpus > report.num_rollout_gpus else f"{report.num_gpus} GPUs for both sides"
    console.print(
        f"\n{report.policy}; {gpus}; "
        f"{report.num_steps} RL steps, {report.warmup_steps} of warm-up left out; {report.replications} replications, "
        f"seed {report.seed}. Intervals hold 90 % of runs whose inputs err as `uncertainty` says."
    )
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def plain_console(out: StringIO) -> Console:
    """Return a console that writes plain text of at most 118 columns."""
    return Console(file=out, width=WIDTH, color_system=None, highlight=False, markup=False, emoji=False)


def rendered(table: Table) -> str:
    """Return one table as text."""
    out = StringIO()
    plain_console(out).print(table)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _tables(report: RunReport) -> Iterable[tuple[str, Table]]:
    yield "Speedup over plain decoding", _arms(report)
    yield "Where the gain was lost: factors, and the speedup after each", _waterfall(report)
    yield (
        "Where the time goes: per cent of the rollout side, then of the trainer side; mean staleness in versions",
        _times(report),
    )
    if any(arm.lost.cells() for _, arm in _all(report)):
        yield "What was generated for nothing, or more than once", _lost(report)
    if report.measured:
        yield "Measured beside predicted", _measured(report)
    counts = {origin: sum(row.origin is origin for row in report.provenance) for origin in Origin}
    summary = ", ".join(f"{count} {origin.value}" for origin, count in counts.items() if count)
    yield f"Inputs: {summary}", _inputs(report)


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right")
    return table


def _arms(report: RunReport) -> Table:
    table = _table(
        "arm",
        "k",
        "end to end",
        "rollout",
        "bound",
        "accept length",
        "step s",
        "rollout s",
        "tokens/s/GPU",
        "GPU-hours",
    )
    for name, arm in _all(report):
        plain = name == "baseline"
        table.add_row(
            name,
            str(arm.num_draft_tokens),
            "1" if plain else _interval(arm.end_to_end_speedup),
            "1" if plain else _interval(arm.rollout_speedup),
            "" if plain else f"{arm.amdahl_bound:.2f}",
            f"{arm.accept_length:.3f}",
            f"{arm.step_s:.1f}",
            f"{arm.rollout_s:.1f}",
            f"{arm.tokens_per_s_per_gpu:.0f}",
            f"{arm.gpu_hours:.0f}",
        )
    return table


def _waterfall(report: RunReport) -> Table:
    arms = list(report.arms.items())
    table = _table("effect", *(name for name, _ in arms))
    for index, factor in enumerate(arms[0][1].waterfall):
        cells = [arm.waterfall[index] for _, arm in arms]
        table.add_row(_SHORT[factor.name], *(f"x{cell.factor:.3f} = {cell.speedup_after:.3f}" for cell in cells))
    return table


def _times(report: RunReport) -> Table:
    table = _table(
        "arm",
        "generating",
        "sync",
        "stalled",
        "idle",
        "training",
        "sync",
        "waiting",
        "idle",
        "exposed s",
        "train s",
        "staleness",
    )
    for name, arm in _all(report):
        rollout, trainer = arm.rollout_time, arm.trainer_time
        shares = (
            rollout.generating,
            rollout.weight_sync,
            rollout.staleness_stall,
            rollout.other_idle,
            trainer.training,
            trainer.weight_sync,
            trainer.waiting,
            trainer.other_idle,
        )
        staleness = f"{sum(bin_.versions * bin_.fraction for bin_ in arm.staleness):.2f}"
        table.add_row(
            name,
            *(f"{100 * share:.0f}" for share in shares),
            f"{arm.exposed_generation_s:.1f}",
            f"{arm.train_s:.1f}",
            staleness,
        )
    return table


def _lost(report: RunReport) -> Table:
    cells = {name: {**arm.lost.cells(), **_time_failed(arm)} for name, arm in _all(report)}
    titles = dict.fromkeys(title for row in cells.values() for title in row)
    table = _table("loss", *cells)
    for title in titles:
        table.add_row(title, *(row.get(title, "-") for row in cells.values()))
    return table


def _time_failed(arm: ArmReport) -> dict[str, str]:
    """Return the shares of each side's time that failures took, by title, where there were any."""
    shares = {
        "trainer's time lost": arm.trainer_time.lost,
        "and down": arm.trainer_time.down,
        "replicas' time down": arm.rollout_time.down,
    }
    return {title: f"{100 * share:.1f} %" for title, share in shares.items() if share > 0}


def _measured(report: RunReport) -> Table:
    table = _table("arm", "quantity", "measured", "predicted", "error", "source")
    for row in report.measured:
        measured = f"{row.measured_speedup:.2f}x" if row.measured_speedup is not None else f"{row.measured_arm:g}"
        speedup = row.predicted_speedup if row.measured_speedup is not None else None
        predicted = _interval(speedup) + "x" if speedup is not None else f"{row.predicted_arm:.3f}"
        against = f" against {row.baseline_setup}" if row.baseline_setup is not None else ""
        table.add_row(
            row.arm + against, row.quantity, measured, predicted, f"{100 * row.relative_error:+.0f} %", row.source
        )
        if row.measured_baseline is not None and row.measured_arm is not None and row.predicted_baseline is not None:
            table.add_row(
                "",
                "",
                f"{row.measured_baseline:g} -> {row.measured_arm:g} s",
                f"{row.predicted_baseline:.0f} -> {row.predicted_arm:.0f} s",
                "",
                "",
            )
    return table


def _inputs(report: RunReport) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("origin", no_wrap=True)
    table.add_column("input = value", ratio=1)
    table.add_column("source", ratio=1)
    order = list(Origin)
    groups: dict[tuple[int, str], list[str]] = {}
    for row in report.provenance:
        groups.setdefault((order.index(row.origin), row.source), []).append(f"{row.name} = {row.value}")
    for (origin, source), lines in sorted(groups.items(), key=lambda item: item[0][0]):
        table.add_row(order[origin].value, "\n".join(lines), source)
    return table


def _all(report: RunReport) -> list[tuple[str, ArmReport]]:
    return [("baseline", report.baseline), *report.arms.items()]


def _interval(interval: Interval) -> str:
    return f"{interval.mean:.2f} ({interval.low:.2f}-{interval.high:.2f})"
