"""Bench: a model on a device, and the inputs that its operations are measured on."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from profiler.models.decoder import Decoder
from profiler.models.weights import WeightMaker
from profiler.mtp.rejection import VERIFIERS, Verifier
from profiler.timing import Work

TEMPERATURE = 1.0
"""Of sampling in RL rollouts; its value does not change the cost."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What every operation needs."""

    model: Decoder
    verify_rule: str = "rejection"
    """A key of VERIFIERS."""
    sync_to: str = "device"
    """Where a weight sync copies to: `device` or `host`."""

    @property
    def maker(self) -> WeightMaker:
        """Makes inputs on the model's device."""
        return self.model.maker

    @property
    def verifier(self) -> Verifier:
        """The rule that checks drafts."""
        return VERIFIERS[self.verify_rule]

    @property
    def hidden_size(self) -> int:
        """Width of the residual stream."""
        return self.model.rank.local.hidden_size

    @property
    def vocab_size(self) -> int:
        """Rows of the whole vocabulary: every GPU of a replica samples from all of it, as in vLLM."""
        return self.model.rank.whole.vocab_size

    def tokens(self, batch: int, tokens_per_seq: int) -> Tensor:
        """Return token ids [batch, tokens_per_seq] of this GPU's part of the vocabulary."""
        return self.maker.tokens(batch, tokens_per_seq, below=self.model.rank.local.vocab_size)


Prepare = Callable[[Bench, int, int, int], Work]
"""(bench, batch, context_tokens, tokens_per_seq) -> the work to time."""
