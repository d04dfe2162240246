"""WorkloadTrace: what the rollout side is asked to generate, and the policy's entropy along the run."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from traces.base import Strict, Trace

Tokens = Annotated[int, Field(ge=0, le=10_000_000)]


class Turn(Strict):
    """One request to the engine: tokens in, tokens out, and the wait before it."""

    input_tokens: Tokens
    """New tokens to prefill: the prompt in turn 0, the observation later."""
    output_tokens: Annotated[int, Field(ge=1, le=10_000_000)]
    """Tokens generated."""
    delay_s: Annotated[float, Field(ge=0, le=1_000_000)] = 0.0
    """Tool or environment time between the previous turn's last token and this request."""


class SequenceRow(Strict):
    """One response (or multi-turn trajectory) of one group."""

    rl_step: Annotated[int, Field(ge=0)]
    """Training batch the group was sampled for."""
    group: Annotated[int, Field(ge=0)]
    """Group inside the RL step: all responses to one prompt."""
    turns: tuple[Turn, ...] = Field(min_length=1, max_length=10_000)


class EntropyPoint(Strict):
    """Mean policy entropy at one RL step."""

    rl_step: Annotated[int, Field(ge=0)]
    entropy_nats: Annotated[float, Field(ge=0, le=20)]


class WorkloadTrace(Trace):
    """Sequences, an entropy trajectory, or both."""

    kind: Literal["workload"] = "workload"
    model: str | None = Field(default=None, max_length=200)
    sequences: tuple[SequenceRow, ...] = Field(default=(), max_length=1_000_000)
    entropy: tuple[EntropyPoint, ...] = Field(default=(), max_length=100_000)
    """Ascending in rl_step."""

    @model_validator(mode="after")
    def _holds_something_in_order(self) -> Self:
        if not self.sequences and not self.entropy:
            raise ValueError("sequences and entropy: both empty; a workload trace holds at least one of them")
        steps = [point.rl_step for point in self.entropy]
        if steps != sorted(set(steps)):
            raise ValueError("entropy: rl_step must ascend without repeats")
        return self
