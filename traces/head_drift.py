"""Head drift: what a frozen draft head lost during a published RL run, as a shipped table of facts.

The paper splits the change of accept length into b (H_t - H_0), the entropy part, and the rest, the mismatch between a
head that stays and a policy that moves (arXiv 2606.12370, eq. 16). Does not say how the rest spreads over RL steps.
"""

from functools import cache
from typing import Annotated

from pydantic import Field, NonPositiveFloat, PositiveInt, ValidationError

from traces.base import Strict
from traces.errors import TraceFormatError
from traces.fact_table import FactTable

_TABLE = "head_drift.csv"


class HeadDrift(Strict):
    """One recipe's row: tokens of accept length, bonus token included."""

    recipe: str = Field(min_length=1, max_length=50)
    num_draft_tokens: PositiveInt
    num_rl_steps: PositiveInt
    """RL steps over which it was lost, as the paper says it: about."""
    accept_length: Annotated[float, Field(ge=1, le=17)]
    """At the first RL step."""
    entropy_part: NonPositiveFloat
    """Tokens lost because entropy rose."""
    mismatch_part: NonPositiveFloat
    """Tokens lost because the policy moved away from the head."""
    source: str = Field(min_length=1, max_length=1000)

    @property
    def name(self) -> str:
        """The key of the table."""
        return self.recipe


def load_head_drift(recipe: str) -> HeadDrift:
    """Return what the paper shows for heads of this recipe; TraceFormatError where it shows nothing."""
    return _facts().find(recipe)


@cache
def _facts() -> FactTable[HeadDrift]:
    return FactTable("drift of a head", "published", _TABLE, _parse_row)


def _parse_row(line: int, row: dict[str, str]) -> HeadDrift:
    try:
        return HeadDrift.model_validate(row)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "row"
        raise TraceFormatError(f"{_TABLE}: line {line}, {row['recipe']}, {where}: {first['msg']}") from None
