"""Request: what is asked of a running engine, how much load that is, and what its ledger must agree on."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiler.errors import UsageError
from profiler.point import Point
from profiler.sources.engine.facts import Facts
from traces.latency import Operation

MIN_PROMPT_TOKENS = 8
MIN_STEPS = 12
"""Steps of a steady part below which its mean is not trusted."""
MAX_DOUBLINGS = 2
"""Times that the requests of a batch are made twice as long where they do not overlap."""


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """What to measure."""

    url: str
    gpu: str
    batches: tuple[int, ...]
    contexts_tokens: tuple[int, ...]
    prefill_tokens: tuple[int, ...]
    num_tokens: int
    """Tokens that one request generates."""
    num_sweeps: int
    num_held_out: int
    budget_s: float
    timeout_s: float
    temperature: float
    seed: int
    tp_size: int = 1
    """For servers that do not tell it, as SGLang does."""
    ep_size: int = 1
    model: str | None = None
    precision: str | None = None
    num_draft_tokens: int | None = None
    """k as the user says it; None asks the server."""
    vocab_size: int | None = None
    """Token ids of prompts lie below it."""
    verify_rule: str = "rejection"
    plain: Path | None = None
    command: str = "bebop profile --source engine"

    def identity(self, facts: Facts, num_draft_tokens: int) -> dict[str, Any]:
        """Return what a ledger must agree on: what runs there, and what one sample is."""
        return {
            "source": "engine",
            "url": self.url,
            "engine": [facts.engine, facts.version, facts.model_id, num_draft_tokens],
            "num_tokens": self.num_tokens,
            "temperature": self.temperature,
            "seed": self.seed,
            "gpu": self.gpu,
        }

    def points(self, num_draft_tokens: int) -> list[Point]:
        """Return the points that are measured.

        Raises:
            UsageError: A context is shorter than what a request generates into it.
        """
        operation = Operation.VERIFY if num_draft_tokens else Operation.DECODE
        least = MIN_PROMPT_TOKENS + (num_draft_tokens + 1) * MIN_STEPS
        if min(self.contexts_tokens) < least:
            raise UsageError(
                f"--contexts {min(self.contexts_tokens)}: at k = {num_draft_tokens} the shortest that can be measured "
                f"is {least} tokens; choose longer ones"
            )
        steps = [
            Point(operation, num_draft_tokens + 1, batch, context)
            for batch in self.batches
            for context in self.contexts_tokens
        ]
        return steps + [Point(Operation.PREFILL, new, 1) for new in self.prefill_tokens]

    def tokens_into(self, context_tokens: int, num_tokens: int) -> tuple[int, int]:
        """Return prompt and generated tokens, between whose ends the context is `context_tokens` on average."""
        generated = min(num_tokens, 2 * (context_tokens - MIN_PROMPT_TOKENS))
        return context_tokens - generated // 2, generated


@dataclass(frozen=True, slots=True)
class Load:
    """What a server is asked to bear."""

    num_requests: int
    prompt_tokens: int
    generated_tokens: int


def load_of(request: EngineRequest, samples: Iterable[Point]) -> Load:
    """Return the requests and tokens of these samples; each batch is sent twice, first to fill the prefix cache."""
    num_requests = prompts = generated = 0
    for point in samples:
        if point.operation is Operation.PREFILL:
            num_requests, prompts, generated = num_requests + 1, prompts + point.tokens_per_seq, generated + 1
            continue
        prompt, tokens = request.tokens_into(point.context_tokens, request.num_tokens)
        num_requests += 2 * point.batch
        prompts += 2 * point.batch * prompt
        generated += point.batch * (tokens + 1)
    return Load(num_requests, prompts, generated)
