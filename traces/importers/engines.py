"""Counters of serving engines: what all three share. Each line, or file of metrics, is one reading with its own number.

Readings are numbered in the order of the log and joined with nothing: an engine knows no RL step. Engine lines inside a
trainer's log are kept apart, and left out unless the engine is named as the format. Does not know any engine.
"""

from itertools import pairwise

from traces.importers.records import Record, Steps, put
from traces.importers.rules import Context, Draft
from traces.importers.tally import Tally
from traces.prometheus import MetricsText, parse_metrics

COUNTERS = ("num_drafts", "num_draft_tokens", "num_accepted_tokens")
PER_POSITION = "num_accepted_tokens_per_pos"
GAUGES = ("sglang:spec_accept_length", "sglang:spec_accept_rate", "sglang:gen_throughput")
GENERATED = ("generation_tokens_total", "tokens_predicted_total")
PREFIXES = {
    "vllm:": "vllm",
    "ray_vllm:": "vllm",
    "ray_vllm_": "vllm",
    "sglang:": "sglang",
    "sglang_": "sglang",
    "llamacpp:": "llama_cpp",
}
"""Beginning of a metric's name -> engine; Ray puts its own before, and replaces the colon."""


class Readings:
    """Readings of every engine whose lines a log holds."""

    def __init__(self) -> None:
        self.tallies: dict[str, Tally] = {}
        self.steps: dict[str, Steps] = {}

    def add(self, engine: str, numbers: dict[str, float], where: str) -> None:
        """Take the next reading of an engine."""
        tally = self.tallies.setdefault(engine, Tally())
        steps = self.steps.setdefault(engine, Steps(tally))
        steps.add(Record(tally.num_step_lines, numbers, where, part="reading"))


def metrics_reading(text: bytes, where: str, tally: Tally) -> tuple[str, dict[str, float]] | None:
    """Return the engine whose `/metrics` this is and its numbers; None where no known metric is in it.

    Counters are summed over engines and ranks, gauges averaged. Raises TraceFormatError for what is no Prometheus text.
    """
    metrics = parse_metrics(text, where)
    names = {sample.name for sample in metrics.samples}
    for prefix, engine in PREFIXES.items():
        if any(name.startswith(prefix) for name in names):
            return engine, _numbers(metrics, prefix, tally)
    return None


def _numbers(metrics: MetricsText, prefix: str, tally: Tally) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for name in COUNTERS:
        value = metrics.total(f"{prefix}spec_decode_{name}_total", f"{prefix}spec_decode_{name}")
        if value is not None:
            put(numbers, f"spec_decode_{name}_total", value, tally)
    for suffix in ("_total", ""):
        for sample in metrics.of(f"{prefix}spec_decode_{PER_POSITION}{suffix}"):
            key = f"spec_decode_{PER_POSITION}_total/{sample.labels.get('position', '')}"
            put(numbers, key, numbers.get(key, 0.0) + sample.value, tally)
    for name in GENERATED:
        value = metrics.total(f"{prefix}{name}")
        if value is not None:
            put(numbers, name, value, tally)
    for gauge in GAUGES:
        samples = [sample for sample in metrics.of(prefix + gauge.removeprefix("sglang:")) if prefix[:6] == "sglang"]
        samples = [sample for sample in samples if sample.labels.get("engine_type") != "draft"]
        if samples:
            put(numbers, gauge, sum(sample.value for sample in samples) / len(samples), tally)
    return numbers


def differences(drafts: list[Draft], context: Context) -> None:
    """Take acceptance from counters: since the reading before, or since the start where there is one reading only."""
    counted = [draft for draft in drafts if draft.of("spec_decode_num_drafts_total") is not None]
    if len(counted) == 1:
        _count(counted[0], None, context)
    for before, after in pairwise(counted):
        restarted = _counter(after, "num_drafts") < _counter(before, "num_drafts")
        _count(after, None if restarted else before, context)


def _count(draft: Draft, before: Draft | None, context: Context) -> None:
    counts = {name: _counter(draft, name) - (_counter(before, name) if before else 0.0) for name in COUNTERS}
    num_drafts = counts["num_drafts"]
    if num_drafts <= 0:
        return
    draft.speculation.update({name: round(value) for name, value in counts.items()})
    draft.speculation["accept_length"] = 1.0 + counts["num_accepted_tokens"] / num_drafts
    if counts["num_draft_tokens"] > 0:
        draft.speculation["accept_rate"] = counts["num_accepted_tokens"] / counts["num_draft_tokens"]
    rates: list[float] = []
    while draft.of(key := f"spec_decode_{PER_POSITION}_total/{len(rates)}") is not None:
        total = draft.raw.numbers[key] - ((before.of(key) or 0.0) if before else 0.0)
        rates.append(total / num_drafts)
    draft.speculation["per_position"] = tuple(rates)
    context.used.update(draft.raw.numbers)
    since = "since the reading before" if before else "since the engine's start"
    context.say("speculation", f"counters {since}: length = 1 + accepted / drafts, bonus token counted in")


def _counter(draft: Draft, name: str) -> float:
    return draft.of(f"spec_decode_{name}_total") or 0.0


def per_gpu(drafts: list[Draft], keys: tuple[str, ...], context: Context) -> None:
    """Divide a logged throughput by the GPUs that the user states; without them it stays in `logged`."""
    num_gpus = context.stated.get("num_rollout_gpus") or context.stated.get("num_gpus")
    for draft in drafts:
        key = next((key for key in keys if key in draft.raw.numbers), None)
        if key is not None and num_gpus:
            draft.values["tokens_per_s_per_gpu"] = draft.raw.numbers[key] / num_gpus
            context.used.add(key)
            context.say("tokens_per_s_per_gpu", f"{key} / stated GPUs")
