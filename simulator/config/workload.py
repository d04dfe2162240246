"""Workload: prompts, responses and turns; the entropy trajectory."""

import math
from statistics import NormalDist
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, model_validator

from simulator.config.limits import MAX_SEQUENCES_PER_STEP, MAX_TOKENS, Share, Tokens
from traces.base import Strict


class ConstantLength(Strict):
    """Always the same."""

    kind: Literal["constant"] = "constant"
    value: Annotated[float, Field(ge=0, le=MAX_TOKENS)]

    @property
    def mean_after_cut(self) -> float:
        """Mean of what is drawn."""
        return self.value


class LognormalLength(Strict):
    """Log-normal, cut to [minimum, maximum]; stated by its mean or by its median."""

    kind: Literal["lognormal"] = "lognormal"
    mean: Annotated[float, Field(gt=0, le=MAX_TOKENS)] | None = None
    """Mean before the cut."""
    median: Annotated[float, Field(gt=0, le=MAX_TOKENS)] | None = None
    """Median; the cut does not move it."""
    sigma: Annotated[float, Field(ge=0, le=5)]
    """Standard deviation of the logarithm."""
    minimum: NonNegativeFloat = 1.0
    maximum: Annotated[float, Field(gt=0, le=MAX_TOKENS)]

    @model_validator(mode="after")
    def _range_holds_centre(self) -> Self:
        if self.mean is not None and self.median is not None:
            raise ValueError(f"median: {self.median:g} stands beside mean {self.mean:g}; state only one of them")
        name, centre = ("median", self.median) if self.mean is None else ("mean", self.mean)
        if centre is None:
            raise ValueError("mean: missing, and median too; state one of them")
        if not self.minimum <= centre <= self.maximum:
            raise ValueError(
                f"{name}: {centre:g} must lie between minimum {self.minimum:g} and maximum {self.maximum:g}; "
                "change one of them"
            )
        return self

    @property
    def mean_after_cut(self) -> float:
        """Mean of what is drawn: that of a log-normal whose ends are collected at minimum and maximum."""
        log_median = math.log(self.median) if self.median is not None else math.log(self.mean or 0) - self.sigma**2 / 2
        if self.sigma == 0:
            return min(max(math.exp(log_median), self.minimum), self.maximum)
        below, above = (
            (math.log(end) - log_median) / self.sigma if end > 0 else -math.inf for end in (self.minimum, self.maximum)
        )
        cdf = NormalDist().cdf
        inside = math.exp(log_median + self.sigma**2 / 2) * (cdf(above - self.sigma) - cdf(below - self.sigma))
        return self.minimum * cdf(below) + inside + self.maximum * (1 - cdf(above))


class QuantilesLength(Strict):
    """As (probability, length) points say, straight lines in the logarithm of the length between them.

    A level end, [0.97, 8192] before [1.0, 8192], is the share that is cut at the longest length.
    """

    kind: Literal["quantiles"] = "quantiles"
    points: tuple[tuple[Share, Annotated[float, Field(gt=0, le=MAX_TOKENS)]], ...] = Field(
        min_length=2, max_length=1000
    )
    """[probability, length] from 0 to 1: the median stands at 0.5, the 99th percentile at 0.99."""

    @model_validator(mode="after")
    def _points_ascend(self) -> Self:
        shares, lengths = [share for share, _ in self.points], [length for _, length in self.points]
        if shares[0] != 0 or shares[-1] != 1:
            raise ValueError(
                f"points: probabilities go from {shares[0]:g} to {shares[-1]:g}, not from 0 to 1; add the shortest "
                "length at 0 and the longest at 1"
            )
        for before, after in zip(self.points, self.points[1:], strict=False):
            if after[0] <= before[0]:
                raise ValueError(f"points: probability {after[0]:g} does not ascend after {before[0]:g}; sort them")
            if after[1] < before[1]:
                raise ValueError(f"points: length {after[1]:g} falls after {before[1]:g}; a quantile never does")
        if lengths[0] == lengths[-1]:
            raise ValueError(f'points: every length is {lengths[0]:g}; use kind = "constant"')
        return self

    @property
    def mean_after_cut(self) -> float:
        """Mean of what is drawn; the mean of an exponential along each straight line."""
        total = 0.0
        for (start, low), (end, high) in zip(self.points, self.points[1:], strict=False):
            total += (end - start) * (low if low == high else (high - low) / math.log(high / low))
        return total


Length = Annotated[ConstantLength | LognormalLength | QuantilesLength, Field(discriminator="kind")]


class TurnsConfig(Strict):
    """Multi-turn trajectories: generate, wait for a tool, read its answer, generate again."""

    num_turns: Length
    """Turns of a trajectory; the response is split evenly among them."""
    observation_tokens: Length
    """Tokens that the tool's answer adds to the context."""
    delay_s: Length
    """Seconds of tool or environment time between two turns."""
    max_context_tokens: Tokens
    """A trajectory ends before the turn that would exceed this context."""


LengthDrift = Annotated[
    tuple[tuple[NonNegativeInt, Annotated[float, Field(gt=0, le=100)]], ...], Field(min_length=1, max_length=1000)
]


class SyntheticWorkload(Strict):
    """Drawn prompts and responses."""

    kind: Literal["synthetic"] = "synthetic"
    prompts_per_step: Annotated[int, Field(ge=1, le=MAX_SEQUENCES_PER_STEP)]
    """Groups consumed by one RL step."""
    group_size: Annotated[int, Field(ge=1, le=4096)]
    """Responses per prompt."""
    prompt_tokens: Length
    response_tokens: Length
    """Generated tokens of a response, all turns together."""
    group_correlation: Share | None = None
    """Share of the variance of log length that responses to one prompt have in common (Gaussian copula); None: 0."""
    length_drift: LengthDrift | None = None
    """(rl_step, factor on the length of responses), straight lines between, flat beyond the ends; None: 1."""
    turns: TurnsConfig | None = None
    useful_fraction: Annotated[float, Field(ge=0.01, le=1)] | None = None
    """Share of groups whose responses differ in reward, and that a dynamic-sampling filter therefore keeps (DAPO,
    arXiv 2503.14476, sec. 3.2); others are generated, filtered out and replaced. None: no filter."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0

    @model_validator(mode="after")
    def _drift_steps_ascend(self) -> Self:
        steps = [step for step, _ in self.length_drift or ()]
        if steps != sorted(set(steps)):
            raise ValueError(f"length_drift: rl_step must ascend without repeats, got {steps}; sort the points")
        return self


class TraceWorkload(Strict):
    """Prompts and responses from a WorkloadTrace, its RL steps repeated in order."""

    kind: Literal["trace"] = "trace"
    trace: str
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0


WorkloadConfig = Annotated[SyntheticWorkload | TraceWorkload, Field(discriminator="kind")]


class ConstantEntropy(Strict):
    """Policy entropy stays."""

    kind: Literal["constant"] = "constant"
    entropy_nats: Annotated[float, Field(ge=0, le=20)]


class PiecewiseEntropy(Strict):
    """Straight lines between (rl_step, entropy in nats) points; flat beyond the ends."""

    kind: Literal["piecewise"] = "piecewise"
    points: tuple[tuple[NonNegativeInt, Annotated[float, Field(ge=0, le=20)]], ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _steps_ascend(self) -> Self:
        steps = [step for step, _ in self.points]
        if steps != sorted(set(steps)):
            raise ValueError(f"points: rl_step must ascend without repeats, got {steps}")
        return self


class TraceEntropy(Strict):
    """The entropy trajectory of a WorkloadTrace, e.g. of one of the paper's runs."""

    kind: Literal["trace"] = "trace"
    trace: str


EntropyConfig = Annotated[ConstantEntropy | PiecewiseEntropy | TraceEntropy, Field(discriminator="kind")]
