"""vLLM: its log lines, the JSON of `vllm bench serve`, its `/metrics`.

Keys from its `v1/spec_decode/metrics.py`, `v1/metrics/loggers.py`, `benchmarks/serve.py`. All is weighted by verify
steps; the length counts the bonus token; rates by position are unconditional; the bench prints its rate in percent.
"""

import math
import re
from typing import Any

from traces.importers.engines import differences, per_gpu
from traces.importers.literals import number
from traces.importers.records import put
from traces.importers.rules import Context, Draft, Framework, Rule, positions
from traces.importers.tally import Tally

_SPEC = re.compile(r"SpecDecoding metrics: (.*)")
_LOAD = re.compile(r"(Avg prompt throughput: .*)")
_ITEM = re.compile(r"([A-Z][A-Za-z -]{1,60}): (\d[\d.]{0,30})(%)?(?: |,|$)", re.ASCII)
_POSITIONS = re.compile(r"Per-position acceptance rate: ((?:\d[\d.]{0,20}(?:, )?){1,64})", re.ASCII)

BENCH_KEYS = ("output_throughput", "total_output_tokens", "spec_decode_acceptance_length")

RULES = (
    Rule(
        "speculation.accept_length", ("Mean acceptance length", "spec_decode_acceptance_length"), zero_is_missing=True
    ),
    Rule("speculation.accept_rate", ("Avg Draft acceptance rate",)),
    Rule("speculation.accept_rate", ("spec_decode_acceptance_rate",), scale=0.01, note="in percent"),
    Rule("speculation.num_draft_tokens", ("Drafted", "spec_decode_draft_tokens", "spec_decode_num_draft_tokens")),
    Rule(
        "speculation.num_accepted_tokens",
        ("Accepted", "spec_decode_accepted_tokens", "spec_decode_num_accepted_tokens"),
    ),
    Rule("speculation.num_drafts", ("spec_decode_num_drafts",)),
)


def line_numbers(text: str) -> dict[str, float] | None:
    """Return what a line of its log says of speculation or load, percentages as fractions; None for other lines."""
    if "metrics: Mean acceptance" not in text and "Avg prompt throughput" not in text:
        return None
    match = _SPEC.search(text) or _LOAD.search(text)
    if match is None:
        return None
    numbers: dict[str, float] = {}
    tally = Tally()
    for name, value, percent in _ITEM.findall(match.group(1)):
        found = number(value)
        if found is not None and name != "Per-position acceptance rate":
            put(numbers, name, found / (100.0 if percent else 1.0), tally)
    rates = _POSITIONS.search(match.group(1))
    for position, value in enumerate(rates.group(1).strip(", ").split(", ") if rates else ()):
        if (found := number(value)) is not None:
            put(numbers, f"Per-position acceptance rate/{position}", found, tally)
    return numbers or None


def bench_numbers(content: dict[str, Any], tally: Tally) -> dict[str, float] | None:
    """Return the numbers of a result of `vllm bench serve`; None for any other object."""
    if sum(key in content for key in BENCH_KEYS) < 2:
        return None
    numbers: dict[str, float] = {}
    for key, value in content.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            put(numbers, key, _float(value), tally)
    rates = content.get("spec_decode_per_position_acceptance_rates")
    for position, rate in enumerate(rates if isinstance(rates, list) else ()):
        if isinstance(rate, int | float):
            put(numbers, f"spec_decode_per_position_acceptance_rates/{position}", _float(rate), tally)
    return numbers


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer of hundreds of digits
        return math.inf


def derive(drafts: list[Draft], context: Context) -> None:
    """Take positions and counters, and the model that a bench names."""
    model = context.facts.get("model_id")
    context.setup.update({"engine": "vllm", "model": model if isinstance(model, str) else None})
    differences(drafts, context)
    per_gpu(drafts, ("Avg generation throughput", "output_throughput"), context)
    for draft in drafts:
        for key in ("Per-position acceptance rate/", "spec_decode_per_position_acceptance_rates/"):
            positions(draft, key, 0, context)
        _num_drafts(draft, context)


def _num_drafts(draft: Draft, context: Context) -> None:
    """Drafts = drafted tokens / positions, where that gives the length that was printed (to two decimals)."""
    known = draft.speculation
    k, drafted, accepted = (
        len(known.get("per_position", ())),
        known.get("num_draft_tokens"),
        known.get("num_accepted_tokens"),
    )
    if "num_drafts" in known or not k or not drafted or accepted is None or drafted % k:
        return
    if abs(1.0 + accepted * k / drafted - known.get("accept_length", 0.0)) < 0.006:
        known["num_drafts"] = drafted / k
        context.say("speculation.num_drafts", "Drafted / positions, which gives the printed length")


VLLM = Framework(
    name="vllm",
    signature=("Mean acceptance length", "Avg generation throughput", *BENCH_KEYS),
    rules=RULES,
    derive=derive,
    needed=(),
)
