"""Comparison: what comparing two runs says. Numbers only, A before B; a speedup is A's time over B's."""

from typing import Annotated, Literal

from pydantic import Field

from traces.base import SCHEMA_VERSION, Strict
from traces.report import Interval

Count = Annotated[int, Field(ge=0)]


class SideOfComparison(Strict):
    """One of the two runs."""

    name: str
    kind: Literal["measured", "predicted"]
    about: str
    """What it is, in words."""
    num_steps: Count
    """RL steps that can be used, compared or not."""
    excluded: dict[str, Count]
    """Why steps were left out -> how many."""
    num_unpaired: Count
    """RL steps that the other side does not have."""


class Term(Strict):
    """Seconds per RL step of one part of the step; the parts add up to `step_s`."""

    name: str
    a_s: float
    b_s: float
    difference: Interval
    """B minus A; low and high equal the mean where no interval can be given."""
    only_in: Literal["a", "b"] | None = None
    """The side that logs it at all; the other counts as 0 s, and its rest holds whatever it spent."""


class Effect(Strict):
    """One step of the waterfall from A's step time to B's."""

    name: str
    seconds: float
    """What it adds to the step."""
    step_s_after: float
    factor: float | None
    """What it multiplies the speedup by; None where parts overlap so much that no step time is left between."""
    speedup_after: float | None
    meaning: str


class Fact(Strict):
    """Something beside time that may differ; means over the steps compared."""

    name: str
    a: float
    b: float


class StepPair(Strict):
    """One RL step on both sides."""

    rl_step: int
    a_s: float
    b_s: float


class Comparison(Strict):
    """Two runs side by side, over the RL steps that both have."""

    kind: Literal["comparison"] = "comparison"
    schema_version: Annotated[int, Field(ge=1)] = SCHEMA_VERSION
    verdict: str
    """The answer in one sentence."""
    a: SideOfComparison
    b: SideOfComparison
    num_steps: Annotated[int, Field(ge=1)]
    """RL steps compared, paired by number."""
    step_speedup: Interval
    interval: str | None
    """What the intervals are; None where none can be given."""
    rollout_speedup: float | None
    """A's generation time over B's: time that engines are busy where both say it, else time that the step waits."""
    generation_share_a: float | None
    """Share of A's step that waits for generation; the rest is trainer-bound."""
    generation_share_b: float | None
    speedup_bound: float | None
    """No change of the rollout alone gains more: Amdahl's law, with B's rollout where generation does not overlap."""
    token_ratio: float | None
    """B's response tokens per RL step over A's."""
    speedup_at_equal_tokens: float | None
    """A's step over B's, B's generation and training scaled to A's tokens."""
    mean_step_error: float | None
    """Mean over steps of |predicted / measured - 1|; None unless one side is measured and the other predicted."""
    terms: tuple[Term, ...]
    waterfall: tuple[Effect, ...]
    """In this order; seconds add up to the difference, factors multiply to the speedup."""
    rollout_waterfall: tuple[Effect, ...]
    """The same of the engines' busy time, where it overlaps with training; else it is in the waterfall itself."""
    facts: tuple[Fact, ...]
    steps: tuple[StepPair, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> str:
        """Return the comparison as one line of JSON."""
        return self.model_dump_json()
