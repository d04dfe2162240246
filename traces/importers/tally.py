"""Tally: what a reader met on its way, in bounded memory; becomes the ImportAccount. Does not know any format."""

from collections import Counter
from dataclasses import dataclass, field

MAX_SENTENCES = 1000
"""Sentences about dropped lines that are kept; all are counted."""
MAX_KINDS = 500
"""Kinds of ignored things told apart; the rest are counted together."""
THE_REST = "everything else"


@dataclass(slots=True)
class Tally:
    """Counts of one import."""

    num_lines: int = 0
    num_step_lines: int = 0
    dropped: list[str] = field(default_factory=list)
    num_dropped: int = 0
    ignored: Counter[str] = field(default_factory=Counter)
    """Kind of thing -> times."""
    reasons: dict[str, str] = field(default_factory=dict)
    """Kind of thing -> why it was left out."""

    def drop(self, where: str, why: str) -> None:
        """Count a step line that is not taken, and say why."""
        self.num_dropped += 1
        if len(self.dropped) < MAX_SENTENCES:
            self.dropped.append(f"{where}: {why}")

    def ignore(self, what: str, why: str, times: int = 1) -> None:
        """Count something that is no step line, or a value that is not taken."""
        what = what[:200]
        if what not in self.ignored and len(self.ignored) >= MAX_KINDS:
            what, why = THE_REST, f"more than {MAX_KINDS} kinds"
        self.ignored[what] += times
        self.reasons.setdefault(what, why)

    def ignored_sentences(self) -> dict[str, str]:
        """Return what was ignored, with why and how often."""
        return {what: f"{self.reasons[what]}; {_times(count)}" for what, count in sorted(self.ignored.items())}


def printable(text: str) -> str:
    """Return a text with what no terminal should be sent replaced."""
    return text if text.isprintable() else "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
