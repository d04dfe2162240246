"""llama.cpp: what its server prints of each request, and its `/metrics`.

Keys from its `tools/server/server-context.cpp`. One line is one request; `mean len` counts the bonus token; rates by
position are unconditional, and come on a line of their own that is joined by the number of the task.
"""

import re

from traces.importers.engines import differences
from traces.importers.literals import number
from traces.importers.records import put
from traces.importers.rules import Context, Draft, Framework, Rule, positions
from traces.importers.tally import Tally

_ACCEPTANCE = re.compile(
    r"draft acceptance(?: rate)? = +(\d[\d.]{0,20}) +\( *(\d{1,18}) accepted / +(\d{1,18}) generated\)"
    r"(?:, mean len = +(\d[\d.]{0,20}))?",
    re.ASCII,
)
_POSITIONS = re.compile(r"acc per pos = \(([\d., ]{1,1000})\)", re.ASCII)
_TASK = re.compile(r"\| task (\d{1,15}) \|", re.ASCII)

RULES = (
    Rule("speculation.accept_rate", ("draft acceptance",)),
    Rule("speculation.num_accepted_tokens", ("accepted",)),
    Rule("speculation.num_draft_tokens", ("generated",)),
    Rule("speculation.accept_length", ("mean len",), zero_is_missing=True, note="bonus token counted in"),
)


class Requests:
    """Lines of requests, the two of one task joined."""

    def __init__(self) -> None:
        self._task: str | None = None
        self._numbers: dict[str, float] | None = None

    def feed(self, text: str) -> dict[str, float] | None:
        """Take a line; return the request before when another begins."""
        if "draft acceptance" not in text and "acc per pos" not in text:
            return None
        task = _TASK.search(text)
        if (match := _ACCEPTANCE.search(text)) is not None:
            before = self.finish()
            names = ("draft acceptance", "accepted", "generated", "mean len")
            self._task, self._numbers = task.group(1) if task else None, {}
            for name, value in zip(names, match.groups(), strict=True):
                if value is not None and (found := number(value)) is not None:
                    put(self._numbers, name, found, Tally())
            return before
        rates = _POSITIONS.search(text)
        if rates and self._numbers is not None and task is not None and task.group(1) == self._task:
            for position, value in enumerate(rates.group(1).split(",")[:64]):
                if (found := number(value.strip())) is not None:
                    put(self._numbers, f"acc per pos/{position}", found, Tally())
        return None

    def finish(self) -> dict[str, float] | None:
        """Return the last request, if there is one."""
        numbers, self._numbers, self._task = self._numbers, None, None
        return numbers


def derive(drafts: list[Draft], context: Context) -> None:
    """Take counters and positions."""
    context.setup["engine"] = "llama.cpp"
    differences(drafts, context)
    for draft in drafts:
        positions(draft, "acc per pos/", 0, context)


LLAMA_CPP = Framework(
    name="llama_cpp",
    signature=("draft acceptance", "acc per pos/", "mean len"),
    rules=RULES,
    derive=derive,
    needed=(),
)
