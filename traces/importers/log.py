"""A log of any known framework to one MeasuredRun: what `bebop import` and `traces.importers.read_log` do.

One pass over the files, in bounded memory: lines become records, records steps; then the keys tell the framework, whose
rules make canonical fields of them. Does not know any framework's keys.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from traces.base import Provenance
from traces.errors import TraceError, TraceFormatError
from traces.importers.formats import ENGINES, FRAMEWORKS, TRAINERS
from traces.importers.reading import Reading, read_file
from traces.importers.rules import Context, Draft, Framework, drafts_of, measured_step, setup_of, votes
from traces.importers.tally import MAX_SENTENCES, Tally, printable
from traces.measured import ImportAccount, MeasuredRun, MeasuredStep, Quality, Setup

MAX_FILES = 1000
"""Event files of one folder."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", re.ASCII)
COLLAPSED_TOKENS = 32
"""Responses this short on average are a collapse where the run began with ones of ten times the length."""
MIXED_FRACTION = 0.2
"""Share of a second framework's keys from which on a file counts as mixed."""


def read_log(
    paths: Path | str | Sequence[Path | str],
    format: str = "auto",  # noqa: A002
    setup: Setup | None = None,
    *,
    name: str | None = None,
) -> MeasuredRun:
    """Return the run that the files log.

    Args:
        paths: One file, or several of one run in their order (processes, or restarts); gzip is unpacked.
        format: Name of a framework; `auto` tells it by the keys.
        setup: What the user knows of the run; stands above what the log says.
        name: Name of the run; the first file's name otherwise.

    Raises:
        TraceError: A file cannot be read, or `format` is no name.
        TraceFormatError: Binary, mixed, no steps, or beyond a limit; one line, with value, limit and next step.
    """
    files = [Path(path) for path in ([paths] if isinstance(paths, Path | str) else paths)]
    if not files:
        raise TraceError("no file to import; name at least one log")
    if format != "auto" and format not in FRAMEWORKS:
        raise TraceError(f"format {format!r} is not known; the formats are auto, {', '.join(FRAMEWORKS)}")
    if name is not None and not NAME.fullmatch(name):
        raise TraceError(f"name {name[:60]!r} does not match {NAME.pattern}; give letters, digits, dots, dashes")
    reading = Reading()
    for path in _expanded(files):
        read_file(path, reading)
    where = ", ".join(printable(path.name) for path in files[:3]) + (", ..." if len(files) > 3 else "")
    engine = _engine(reading, format, where)
    if engine is not None:
        reading.take_engine(engine)
    if not len(reading.steps):
        raise _no_steps(where, reading.tally)
    framework = FRAMEWORKS[engine] if engine is not None else _framework(reading, format, where)
    return _run(reading, framework, files, setup, name)


def _expanded(files: Sequence[Path]) -> Iterator[Path]:
    """Yield the files, and for a folder the event files in it, in the order of their names: that of their time."""
    for path in files:
        if not path.is_dir():
            yield path
            continue
        found = sorted(path.rglob("*tfevents*"))[:MAX_FILES]
        if not found:
            raise TraceError(f"{path}: a folder without TensorBoard event files; name the log itself")
        yield from found


def _engine(reading: Reading, format_name: str, where: str) -> str | None:
    """Return the engine whose readings are the log: the one that is named, or the only one where no trainer logged."""
    found = {engine: len(steps) for engine, steps in reading.engines.steps.items()}
    if format_name in ENGINES:
        return format_name if format_name in found else None
    if format_name != "auto" or len(reading.steps) or not found:
        for engine, count in found.items():
            reading.tally.ignore(f"readings of {engine}", f"not the trainer's; --format {engine} reads them", count)
        return None
    if len(found) > 1:
        counts = " and ".join(f"{count} readings of {engine}" for engine, count in found.items())
        raise TraceFormatError(f"{where}: holds {counts}; give the log of one engine, or --format")
    return next(iter(found))


def _framework(reading: Reading, format_name: str, where: str) -> Framework:
    """Return the framework by its name, or the one whose keys the log holds."""
    if format_name != "auto":
        return FRAMEWORKS[format_name]
    keys: Counter[str] = Counter()
    for step in reading.steps:
        keys.update(step.numbers.keys())
    ranking = sorted(((votes(keys, each), each.name) for each in TRAINERS), reverse=True)
    (most, best), (second, other) = ranking[0], ranking[1]
    if most == 0:
        some = ", ".join(sorted(keys)[:3])
        raise TraceFormatError(
            f"{where}: {len(reading.steps)} steps with keys like {some}, which no known framework logs; "
            f"name one with --format ({', '.join(FRAMEWORKS)})"
        )
    if second >= MIXED_FRACTION * most:
        raise TraceFormatError(
            f"{where}: holds steps of {best} ({most} values) and of {other} ({second}); give one run's log, or --format"
        )
    return FRAMEWORKS[best]


def _run(
    reading: Reading, framework: Framework, files: Sequence[Path], setup: Setup | None, name: str | None
) -> MeasuredRun:
    tally = reading.tally
    context = Context(tally, facts=reading.facts, stated=setup.model_dump(exclude_none=True) if setup else {})
    drafts = _keep(drafts_of(reading.steps, framework, context), framework, tally)
    if not drafts:
        raise _no_steps(printable(files[0].name), tally)
    _mark(drafts, tally)
    steps = tuple(measured_step(draft, tally) for draft in drafts)
    return MeasuredRun(
        name=name or _name(files[0]),
        provenance=Provenance(
            source=f"log of {framework.name}: {', '.join(printable(path.name) for path in files)}"[:2000],
            created=datetime.now(UTC).date().isoformat(),
            command=f"bebop import {' '.join(printable(path.name) for path in files)}"[:2000],
        ),
        framework=framework.name,
        setup=setup_of(context.setup, setup, tally),
        account=_account(steps, context),
        steps=steps,
    )


def _keep(drafts: list[Draft], framework: Framework, tally: Tally) -> list[Draft]:
    """Return the steps that say something of the run; others are counted as dropped."""
    kept = []
    for draft in drafts:
        if not framework.needed or draft.values.keys() & set(framework.needed) or draft.speculation:
            kept.append(draft)
        elif Quality.VALIDATION in draft.quality:
            cut = ": the rest of its line was cut off" if draft.raw.is_cut else ""
            tally.drop(draft.raw.where, f"step {draft.raw.step} holds validation numbers only{cut}")
        else:
            tally.drop(draft.raw.where, f"step {draft.raw.step} holds no time and no length")
    return kept


def _mark(drafts: list[Draft], tally: Tally) -> None:
    """Mark restarts, steps that lack what most have, and the collapse of a run."""
    with_time = sum("step_s" in draft.values for draft in drafts)
    with_train = sum("train_s" in draft.values for draft in drafts)
    segment = 0
    for draft in drafts:
        if draft.raw.segment != segment:
            segment = draft.raw.segment
            draft.quality.add(Quality.RESTARTED)
        lacks_time = "step_s" not in draft.values and 2 * with_time > len(drafts)
        lacks_train = "train_s" not in draft.values and 2 * with_train > len(drafts)
        if lacks_time or lacks_train:
            draft.quality.add(Quality.PARTIAL)
            tally.ignore("steps marked partial", "they lack times that other steps have")
    lengths = [length for draft in drafts if (length := draft.values.get("response_tokens_mean")) is not None]
    healthy = median(lengths[:5]) if lengths else 0.0
    for draft in drafts:
        length = draft.values.get("response_tokens_mean")
        if length is not None and length < min(COLLAPSED_TOKENS, 0.1 * healthy):
            draft.quality.add(Quality.COLLAPSED)


def _account(steps: Iterable[MeasuredStep], context: Context) -> ImportAccount:
    tally = context.tally
    seen: Counter[str] = Counter()
    has: set[str] = set()
    for step in steps:
        seen.update(step.logged.keys() - context.used)
        has.update(name for name in _CANONICAL if getattr(step, name) is not None)
    groups: dict[str, list[str]] = {}
    for key in seen:
        groups.setdefault(key.partition("/")[0] + "/" if "/" in key else key, []).append(key)
    for group, keys in groups.items():
        label = keys[0] if len(keys) == 1 else f"{group}* ({len(keys)} keys)"
        tally.ignore(label, "no canonical field, kept in `logged`", sum(seen[key] for key in keys))
    return ImportAccount(
        num_lines=tally.num_lines,
        num_step_lines=tally.num_step_lines,
        understood=dict(sorted(context.understood.items())),
        missing=tuple(name for name in _CANONICAL if name not in has),
        ignored=tally.ignored_sentences(),
        dropped=tuple(tally.dropped[:MAX_SENTENCES]),
        num_dropped=tally.num_dropped,
    )


_CANONICAL = tuple(
    name
    for name in MeasuredStep.model_fields
    if name not in ("step", "segment", "num_aggregated", "quality", "time_s", "logged")
)


def _no_steps(where: str, tally: Tally) -> TraceFormatError:
    if tally.num_lines == 0:
        return TraceFormatError(f"{where}: is empty; give the log of a run")
    dropped = f"; {tally.num_dropped} lines were dropped, the first: {tally.dropped[0]}" if tally.dropped else ""
    return TraceFormatError(
        f"{where}: no step of any known framework in {tally.num_lines} lines{dropped}; "
        f"formats are {', '.join(FRAMEWORKS)} (docs/importing.md)"
    )


def _name(path: Path) -> str:
    """Return the file's name as a trace may bear it."""
    stem = re.sub(r"(?:\.(?:gz|log|out|txt|jsonl?|prom|metrics))+$", "", path.name)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")[:200]
    return name or "run"
