"""Rollout engine of the testbed: what goes in, what comes out, and what it counts. Does not know any engine.

Every prefill samples one token, every step of a running sequence one more than it accepts drafts; what a block has
beyond the end of a response is cut. So, exactly, and also while responses are under way:

    num_tokens + num_cut_tokens = num_prefills + num_seq_steps + sum(accepted_at)
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Request:
    """A response that is asked for."""

    sample_id: int
    group_id: int
    prompt: tuple[int, ...]
    generated: tuple[int, ...] = ()
    """What an aborted response had already: read again with the prompt, and kept."""
    num_tokens: int | None = None
    """Imposed length of the whole response; None: the policy ends it."""
    versions: tuple[int, ...] = ()
    """Policy version that sampled each token of `generated`."""
    log_probs: tuple[float, ...] = ()
    """Of each token of `generated`, under the policy that sampled it."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A whole response."""

    request: Request
    """As submitted."""
    tokens: tuple[int, ...]
    """What was generated before an abort included."""
    versions: tuple[int, ...]
    """Policy version that sampled each token."""
    log_probs: tuple[float, ...]
    """Of each token under the policy that sampled it, at the temperature of sampling, nats; empty where the engine
    reports none."""
    started_s: float
    """When its prefill began, `time.perf_counter()`."""
    finished_s: float


@dataclass(slots=True)
class Counters:
    """What an engine did since they were last taken."""

    busy_s: float = 0.0
    """Wall time of steps in which anything ran, prefills included."""
    prefill_s: float = 0.0
    """Of it, admission and prefills."""
    num_prefills: int = 0
    num_prefill_tokens: int = 0
    """Tokens read by prefills: prompts, and what aborted responses had."""
    num_steps: int = 0
    """Steps of the engine, whatever their batch."""
    num_seq_steps: int = 0
    """Verify steps of sequences (plain steps where k is 0): batches added up over steps."""
    num_draft_tokens: int = 0
    accepted_at: list[int] = field(default_factory=list)
    """By position 1..k: verify steps that accepted at least so many drafts; also where a response ends inside."""
    num_tokens: int = 0
    """Emitted and kept."""
    num_cut_tokens: int = 0
    """Emitted beyond the end of their response."""
    entropy_sum_nats: float = 0.0
    """Of the policy at every token that was kept, at the temperature of sampling; 0 where the engine reports none."""

    @property
    def accept_length(self) -> float:
        """Tokens per verify step, the bonus token included; 1 where k is 0 or nothing ran."""
        return 1.0 + sum(self.accepted_at) / max(self.num_seq_steps, 1)

    @property
    def entropy_nats(self) -> float:
        """Mean policy entropy at the tokens that were kept."""
        return self.entropy_sum_nats / max(self.num_tokens, 1)


class RolloutEngine(Protocol):
    """Continuous batching with drafts. One thread calls it; nothing happens between calls."""

    version: int
    """Of the policy that samples."""

    @property
    def num_running(self) -> int:
        """Sequences that hold a slot."""

    @property
    def num_waiting(self) -> int:
        """Requests that hold none yet."""

    def submit(self, requests: Sequence[Request]) -> None:
        """Queue requests: first come, first served.

        Raises:
            ValueError: A request that no slot can hold.
        """

    def step(self) -> list[Finished]:
        """Admit and prefill what has room, then make one step of all running sequences; [] where nothing runs."""

    def abort(self) -> list[Request]:
        """Return everything running and waiting, with what it has, in the order of submission; nothing runs then."""

    def set_weights(self, weights: "Sequence[Tensor]", version: int) -> None:
        """Copy new weights in place; running sequences go on, on a KV cache of mixed policies."""

    def take_counters(self) -> Counters:
        """Return the counters, and begin new ones."""
