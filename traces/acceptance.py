"""AcceptanceTrace: how many draft tokens a verifier accepts, counted or as a fitted law.

Rates are unconditional: c_j = P(the first j draft tokens are all accepted), as vLLM counts them and as the
Bebop paper plots them. The conditional rate of position j is c_j / c_{j-1}.
"""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from traces.base import Origin, Strict, Trace

Fraction = Annotated[float, Field(ge=0, le=1)]


class VerifyRule(StrEnum):
    """How draft tokens are checked against the target distribution; all three are lossless."""

    GREEDY_DRAFT = "greedy_draft"
    """The draft is its own argmax, accepted with probability p(y): "target-only" (TO) in the paper, eq. 1."""
    REJECTION = "rejection"
    """The draft is sampled from q and accepted with min(1, p/q): eq. 2."""
    BLOCK = "block"
    """Rejection decided jointly over the block (Sun et al., arXiv 2403.10444)."""


class AcceptanceRow(Strict):
    """Acceptance by position under one set of conditions."""

    head: str = Field(default="mtp", min_length=1, max_length=50)
    """Draft head."""
    loss: str = Field(min_length=1, max_length=50)
    """Loss the head was trained with: `ce`, `kl`, `reverse_kl`, `tv`, `e2e_tv`."""
    verify_rule: VerifyRule
    temperature: Annotated[float, Field(ge=0, le=10)] = 1.0
    """Sampling temperature of the target."""
    entropy_nats: Annotated[float, Field(ge=0, le=20)] | None = None
    """Mean entropy of the target's next-token distribution, nats."""
    task: str | None = Field(default=None, max_length=100)
    rl_step: Annotated[int, Field(ge=0)] | None = None
    policy_age_versions: Annotated[int, Field(ge=0)] | None = None
    """Policy versions since the head was last trained."""
    from_token: Annotated[int, Field(ge=0)] | None = Field(default=None, exclude_if=lambda value: value is None)
    """Tokens of the response from which on the row counts, up to the next such row; None: all of the response."""
    cumulative: tuple[Fraction, ...] = Field(min_length=1, max_length=16)
    """c_1..c_k, never increasing."""
    num_steps: Annotated[int, Field(ge=1)] | None = None
    """Verify steps counted: the weight of the row and the base of its error."""
    origin: Origin = Origin.MEASURED

    @model_validator(mode="after")
    def _cumulative_never_increases(self) -> Self:
        for j in range(1, len(self.cumulative)):
            if self.cumulative[j] > self.cumulative[j - 1]:
                raise ValueError(
                    f"cumulative: position {j + 1} has {self.cumulative[j]:g}, above position {j}'s "
                    f"{self.cumulative[j - 1]:g}; give unconditional rates P(first j accepted), not conditional ones"
                )
        return self

    def conditional(self) -> tuple[float, ...]:
        """Return a_j = P(j accepted | j-1 accepted), 0 where position j is never reached."""
        previous = (1.0, *self.cumulative[:-1])
        return tuple(c / p if p > 0 else 0.0 for c, p in zip(self.cumulative, previous, strict=True))

    def accept_length(self) -> float:
        """Return tokens emitted per verify step, the bonus token included: 1 + sum of c_j."""
        return 1.0 + sum(self.cumulative)


class AcceptanceLaw(Strict):
    """Accept length as a linear function of policy entropy: AL(H) = intercept + slope H, at one k."""

    recipe: str = Field(min_length=1, max_length=50)
    """Verify rule and loss: `to`, `rs_ce`, `rs_tv`, `rs_e2e_tv`."""
    fit: str = Field(min_length=1, max_length=100)
    """Which runs it was fitted on, e.g. `reasoning`."""
    verify_rule: VerifyRule
    num_draft_tokens: Annotated[int, Field(ge=1, le=16)]
    """k at which the accept length was counted."""
    intercept: Annotated[float, Field(ge=0, le=17)]
    """Accept length (bonus included) at zero entropy."""
    slope_per_nat: Annotated[float, Field(ge=-100, le=100)]
    slope_sd_per_nat: Annotated[float, Field(ge=0)]
    """Standard error of the slope."""
    entropy_low_nats: Annotated[float, Field(ge=0)]
    entropy_high_nats: Annotated[float, Field(ge=0)]
    """The law holds inside this range only; outside, it is an extrapolation."""
    origin: Origin
    source: str = Field(min_length=1, max_length=1000)

    @model_validator(mode="after")
    def _range_is_a_range(self) -> Self:
        if self.entropy_high_nats <= self.entropy_low_nats:
            raise ValueError(
                f"entropy_high_nats: {self.entropy_high_nats:g} must be above entropy_low_nats "
                f"{self.entropy_low_nats:g}"
            )
        return self

    def accept_length(self, entropy_nats: float) -> float:
        """Return AL at this entropy, kept inside its possible range 1..k+1."""
        raw = self.intercept + self.slope_per_nat * entropy_nats
        return min(max(raw, 1.0), self.num_draft_tokens + 1.0)

    def covers(self, entropy_nats: float) -> bool:
        """Return whether the law was fitted at entropies around this one."""
        return self.entropy_low_nats <= entropy_nats <= self.entropy_high_nats


class AcceptanceTrace(Trace):
    """Counted acceptance rows, fitted laws, or both, of one model family."""

    kind: Literal["acceptance"] = "acceptance"
    model: str = Field(min_length=1, max_length=200)
    rows: tuple[AcceptanceRow, ...] = Field(default=(), max_length=200_000)
    laws: tuple[AcceptanceLaw, ...] = Field(default=(), max_length=1000)

    @model_validator(mode="after")
    def _holds_something(self) -> Self:
        if not self.rows and not self.laws:
            raise ValueError("rows and laws: both empty; an acceptance trace holds at least one of them")
        keys = [(law.recipe, law.fit) for law in self.laws]
        repeated = {key for key in keys if keys.count(key) > 1}
        if repeated:
            raise ValueError(f"laws: {sorted(repeated)} appear more than once; (recipe, fit) names one law")
        return self
