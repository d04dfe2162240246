"""Point: one operation at one batch, context and number of new tokens; what is measured, stored and predicted."""

from dataclasses import dataclass

from traces.latency import Operation


@dataclass(frozen=True, slots=True, order=True)
class Point:
    """What is timed."""

    operation: Operation
    tokens_per_seq: int
    batch: int
    context_tokens: int = 0

    def __str__(self) -> str:
        return f"{self.operation.value}(batch {self.batch}, context {self.context_tokens}, q {self.tokens_per_seq})"
