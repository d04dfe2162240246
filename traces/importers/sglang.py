"""SGLang: its decode lines, the JSON of its serving benchmark, its gauges.

Keys from its scheduler's metrics. `accept len` counts the bonus token; `accept rate` is accepted over drafted, where
drafted is verify steps x k; there are no counters by position. 0.0 means that nothing was counted.
"""

import re
from typing import Any

from traces.importers.engines import per_gpu
from traces.importers.literals import number
from traces.importers.records import put
from traces.importers.rules import Context, Draft, Framework, Rule
from traces.importers.tally import Tally

_DECODE = re.compile(r"Decode batch[,.] (.*)")
_ITEM = re.compile(r"([#A-Za-z][A-Za-z#() /-]{1,60}): (\d[\d.]{0,30})(?:,|$)", re.ASCII)

RULES = (
    Rule(
        "speculation.accept_length",
        ("accept len", "accept_length", "sglang:spec_accept_length"),
        zero_is_missing=True,
        note="bonus token counted in",
    ),
    Rule("speculation.accept_rate", ("accept rate", "sglang:spec_accept_rate"), note="accepted / (verify steps x k)"),
)


def line_numbers(text: str) -> dict[str, float] | None:
    """Return the numbers of a decode line; None for other lines."""
    if "Decode batch" not in text or (match := _DECODE.search(text)) is None:
        return None
    numbers: dict[str, float] = {}
    tally = Tally()
    for name, value in _ITEM.findall(match.group(1)):
        if (found := number(value)) is not None:
            put(numbers, name.strip(), found, tally)
    return numbers or None


def is_bench(content: dict[str, Any]) -> bool:
    """Return whether a result of a serving benchmark is SGLang's: the keys are vLLM's, but for the accept length."""
    return "accept_length" in content or str(content.get("backend", "")).startswith("sglang")


def derive(drafts: list[Draft], context: Context) -> None:
    """A rate of 0.0 beside no length was not counted."""
    context.setup["engine"] = "sglang"
    per_gpu(drafts, ("gen throughput (token/s)", "output_throughput", "sglang:gen_throughput"), context)
    for draft in drafts:
        if draft.speculation.get("accept_rate") == 0.0 and "accept_length" not in draft.speculation:
            del draft.speculation["accept_rate"]


SGLANG = Framework(
    name="sglang",
    signature=("accept len", "gen throughput (token/s)", "accept_length", "sglang:"),
    rules=RULES,
    derive=derive,
    needed=(),
)
