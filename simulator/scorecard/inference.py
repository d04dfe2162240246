"""Inference rows scored: each row's deployment and load, what had to be assumed, and the predicted numbers.

A row may hold two numbers: a time per token, and a speedup over plain decoding at the same configuration. Acceptance is
an input: the row's own, else one published for the same model and draft.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from simulator.engine_habits import EngineHabits, Software, load_habits
from simulator.scorecard.names import (
    Assumption,
    MissingFactError,
    drafts_by_name,
    find_draft,
    find_gpu,
    find_model,
    find_precision,
    find_software,
)
from simulator.scorecard.published_acceptance import published_accept_length
from simulator.scorecard.rows import InferenceRow
from simulator.scorecard.score import SERVING, SERVING_DRAFTS, SPEEDUP, Entry, Scored, Unpredictable, interval
from simulator.scorecard.serving import HOST_BYTES_PER_S, Deployment, Load, tpot_s
from traces.errors import TraceError
from traces.hardware import load_gpu

DEFAULT_GPU = "H100"
DEFAULT_CONTEXT_TOKENS = 512.0
MT_BENCH_QUESTIONS = 80
"""Of MT-bench (arXiv 2306.05685): a run at B at a time ends with a batch that is not full."""
LATENCY_SD = 0.18
"""Of an absolute time per token on a card and engine that are known; set so that nine of ten rows lie inside."""
RATIO_SD = 0.12
"""Of a speculative step over a plain one; likewise."""
STATED_ACCEPTANCE_SD = 0.03
PUBLISHED_ACCEPTANCE_SD = 0.12
ASSUMED_CARD_SD = 0.15

Habits = dict[Software, EngineHabits]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A row turned into inputs of a prediction."""

    row: InferenceRow
    deployment: Deployment
    load: Load
    software: Software | None
    accept_length: float
    sd_of_acceptance: float
    sd_of_card: float
    assumptions: tuple[Assumption, ...]

    def tpot_s(self) -> float:
        """Return the predicted seconds per output token as the row decodes."""
        return tpot_s(self.deployment, self.load, self.row.drafts, self.accept_length)

    def speedup(self) -> float:
        """Return the predicted speedup over plain decoding."""
        return tpot_s(self.deployment, self.load) / self.tpot_s()

    def under(self, habits: EngineHabits) -> "Prepared":
        """Return the same row under other habits."""
        return replace(self, deployment=replace(self.deployment, habits=habits))


def score_rows(
    rows: Sequence[InferenceRow],
    *,
    fitted: Callable[[InferenceRow], str | None] = lambda _row: None,
    habits: Habits | None = None,
) -> list[Entry]:
    """Return one entry per number of each row, or why there is none."""
    partners = _plain_partners(rows)
    entries: list[Entry] = []
    for row in rows:
        try:
            entries.extend(_score(row, partners, fitted(row), habits))
        except MissingFactError as missing:
            entries.append(Unpredictable(row.id, configuration(row), str(missing), row.source))
    return entries


def prepare(row: InferenceRow, habits: Habits | None = None, *, needs_card: bool = True) -> Prepared:
    """Return the inputs that predict a row.

    Raises:
        MissingFactError: The row lacks a fact that cannot be assumed.
    """
    if row.complaints:
        raise MissingFactError(row.complaints[0])
    if "simulat" in row.note.lower():
        raise MissingFactError("note: a simulation, not a measurement")
    if _misses_its_k(row):
        raise MissingFactError(f"k: blank, though {row.method[:40]} drafts; how many tokens a step?")
    software, said_of_engine = find_software(row.engine, row.source)
    architecture, said_of_model = find_model(row.model)
    assumptions = [*said_of_engine, *said_of_model]
    if row.hw or needs_card:
        gpu, num_gpus, _ = find_gpu(row.hw)
    else:
        gpu, num_gpus = load_gpu(DEFAULT_GPU), 1
        assumptions.append(Assumption("hw", DEFAULT_GPU, "blank; the commonest card of these rows, for a ratio only"))
    precision, said_of_precision = find_precision(row.precision, row.model, architecture, row.engine)
    assumptions.extend(said_of_precision)
    tp_size = int(row.tp or num_gpus)
    if row.tp is None and num_gpus > 1:
        assumptions.append(Assumption("tp", str(tp_size), "blank; all GPUs together"))
    uses_ep = architecture.is_moe and " EP" in f"{row.note} {row.source}"
    chosen = (habits or load_habits()).get(software, EngineHabits()) if software is not None else EngineHabits()
    deployment = Deployment(
        architecture=architecture,
        gpu=gpu,
        tp_size=tp_size,
        ep_size=tp_size if uses_ep else 1,
        precision=precision,
        draft=find_draft(row.method, row.drafts),
        habits=chosen,
    )
    if deployment.needs_host_experts:
        source = "weights exceed the card; two channels of DDR4-3200"
        assumptions.append(Assumption("experts on the host", f"{HOST_BYTES_PER_S / 1e9:g} GB/s", source))
    load, said_of_load = _load(row)
    accept_length, sd, said_of_acceptance = _acceptance(row, deployment)
    return Prepared(
        row=row,
        deployment=deployment,
        load=load,
        software=software,
        accept_length=accept_length,
        sd_of_acceptance=sd,
        sd_of_card=0.0 if row.hw and not deployment.needs_host_experts else ASSUMED_CARD_SD,
        assumptions=(*assumptions, *said_of_load, *said_of_acceptance),
    )


def configuration(row: InferenceRow) -> str:
    """Return a row's configuration in one line."""
    lengths = f"{row.isl:g}+{row.osl:g} tokens" if row.isl is not None and row.osl is not None else ""
    draft = f"{row.method or 'drafts'} k={row.drafts}" if row.drafts else "plain"
    batch = f"batch {row.concurrency:g}" if row.concurrency else ""
    parts = (row.model, row.hw, f"tp {row.tp:g}" if row.tp else "", row.precision, row.engine, draft, batch, lengths)
    return ", ".join(part for part in parts if part)


def _score(
    row: InferenceRow, partners: dict[tuple[object, ...], InferenceRow], fitted: str | None, habits: Habits | None
) -> Iterable[Entry]:
    measured_s, speedup = row.measured_tpot_s, row.speedup
    partner = partners.get(_key(row))
    if row.drafts and speedup is None and measured_s is not None and partner is not None:
        partner_s = partner.measured_tpot_s
        speedup = partner_s / measured_s if partner_s is not None else None
    if measured_s is None and (speedup is None or row.drafts == 0) and not _misses_its_k(row):
        raise MissingFactError(
            row.complaints[0]
            if row.complaints
            else "tpot_ms, tok_s_out, speedup_vs_AR: all blank, nothing was measured"
        )
    has_ratio = row.drafts > 0 and speedup is not None
    ready = _checked(row, habits, needs_card=not has_ratio)
    entries: list[Entry] = []
    where = (row.source, ready.assumptions, fitted)
    if measured_s is not None and (row.hw or not has_ratio):
        predicted = _predicted(ready.tpot_s)
        low, high = interval(predicted, LATENCY_SD, ready.sd_of_acceptance, ready.sd_of_card)
        kind = SERVING_DRAFTS if row.drafts else SERVING
        entries.append(
            Scored(row.id, kind, configuration(row), "s per token", measured_s, predicted, low, high, *where)
        )
    if has_ratio:
        assert speedup is not None
        predicted = _predicted(ready.speedup)
        low, high = interval(predicted, RATIO_SD, ready.sd_of_acceptance, ready.sd_of_card)
        entries.append(Scored(row.id, SPEEDUP, configuration(row), "speedup", speedup, predicted, low, high, *where))
    return entries


def _checked(row: InferenceRow, habits: Habits | None, *, needs_card: bool) -> Prepared:
    return prepare(row, habits, needs_card=needs_card)


def _predicted(predict: Callable[[], float]) -> float:
    """Return a prediction; what the model refuses is a missing fact."""
    try:
        return predict()
    except (ValueError, TraceError) as error:
        raise MissingFactError(str(error).splitlines()[0]) from None


def _load(row: InferenceRow) -> tuple[Load, list[Assumption]]:
    assumptions = []
    concurrency = int(row.concurrency or 1)
    if row.concurrency is None:
        assumptions.append(Assumption("concurrency", "1", "blank; one request at a time"))
    if concurrency > 1 and "mt-bench" in row.source.lower():
        rounds = -(-MT_BENCH_QUESTIONS // concurrency)
        running = max(1, MT_BENCH_QUESTIONS // rounds)
        source = f"MT-bench has {MT_BENCH_QUESTIONS} questions, {rounds} rounds of at most {concurrency}"
        assumptions.append(Assumption("requests running", str(running), source))
        concurrency = running
    if row.isl is None or row.osl is None:
        context = (row.isl or 0.0) + (row.osl or 0.0) / 2 or DEFAULT_CONTEXT_TOKENS
        assumptions.append(Assumption("context", f"{context:g} tokens", "prompt or response length is blank; a chat"))
        return Load(concurrency, context_tokens=context), assumptions
    return Load(concurrency, row.isl, row.osl, row.isl + row.osl / 2), assumptions


def _acceptance(row: InferenceRow, deployment: Deployment) -> tuple[float, float, list[Assumption]]:
    if row.drafts == 0:
        return 1.0, 0.0, []
    if row.accept_len is not None:
        if row.accept_len > row.drafts + 1:
            raise MissingFactError(f"accept_len: {row.accept_len:g} is above k + 1 = {row.drafts + 1}")
        return row.accept_len, STATED_ACCEPTANCE_SD, []
    if row.per_position:
        return 1 + sum(row.per_position[: row.drafts]), STATED_ACCEPTANCE_SD, []
    found = published_accept_length(deployment.architecture.name, deployment.draft, row.drafts)
    if found is None:
        raise MissingFactError(
            f"accept_len, per_pos_uncond: both blank, and none is published for {deployment.draft} on "
            f"{deployment.architecture.name}"
        )
    length, source = found
    return length, PUBLISHED_ACCEPTANCE_SD, [Assumption("accept_len", f"{length:.3g}", source)]


def _plain_partners(rows: Sequence[InferenceRow]) -> dict[tuple[object, ...], InferenceRow]:
    """Return the plain row of each configuration."""
    plain = (row for row in rows if row.drafts == 0 and not _misses_its_k(row))
    return {_key(row): row for row in plain if row.measured_tpot_s is not None}


def _misses_its_k(row: InferenceRow) -> bool:
    return row.k is None and drafts_by_name(row.method)


def _key(row: InferenceRow) -> tuple[object, ...]:
    return (row.source, row.engine, row.hw, row.model, row.precision, row.tp, row.isl, row.osl, row.concurrency)
