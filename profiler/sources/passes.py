"""Passes: the forward passes of a speculative step, composed from operators.

A verify pass is *not* a decode pass over k + 1 times the batch: its token operators see B(k + 1) tokens, but the KV
cache of a sequence is read once, and a recurrent state is read once and written k + 1 times. Does not know grids,
traces or where prices come from.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, floor

from profiler.errors import UnsupportedModelError
from profiler.sources.operators import (
    ATTENTION_KINDS,
    STATE_KINDS,
    TOKEN_KINDS,
    Operator,
    OperatorPrices,
    Overlap,
    Price,
    elementwise,
)

SAMPLER_PASSES = 6
"""Times the fp32 logits cross memory per sampling or verification: written, read and written by the softmax (its
maximum, its sum, its result: four in all), read by the draw. An assumption; fused kernels need fewer."""
LOGIT_BYTES = 4
"""Logits are fp32 in the samplers of vLLM and SGLang."""


@dataclass(frozen=True, slots=True)
class Passes:
    """Prices of the passes of one model on one replica."""

    decode_operators: tuple[Operator | Overlap, ...]
    prefill_operators: tuple[Operator | Overlap, ...]
    decode_prices: OperatorPrices
    prefill_prices: OperatorPrices
    hidden_size: int
    vocab_size: int
    tp_size: int

    def target(self, batch: int, context_tokens: int, tokens_per_seq: int) -> Price:
        """Return decode (one token per sequence) or verify (k + 1), lm_head at every position included."""
        return self._decoder(self.decode_operators, batch, context_tokens, tokens_per_seq)

    def draft(self, batch: int, context_tokens: int, tokens_per_seq: int) -> Price:
        """Return one pass of the MTP layer, lm_head excluded: k + 1 tokens per sequence in pass 0, one later."""
        return self._decoder(self.mtp_operators(), batch, context_tokens, tokens_per_seq)

    def lm_head(self, batch: int) -> Price:
        """Return the draft head's projection to the whole vocabulary, one row per sequence."""
        return self.decode_prices.price(self._only("logits_gemm"), batch, 1)

    def sample(self, batch: int, tokens_per_seq: int) -> Price:
        """Return sampling or verification of every position; every tensor-parallel rank does it all, as in vLLM."""
        logits = elementwise("sample", LOGIT_BYTES * self.vocab_size, count=SAMPLER_PASSES)
        return self.decode_prices.price(logits, batch * tokens_per_seq, 1)

    def prefill(self, new_tokens: int, cached_tokens: int) -> Price:
        """Return one forward pass over `new_tokens` of one sequence, `cached_tokens` in its KV cache."""
        return sum(
            (self.prefill_prices.price(step, 1, new_tokens, cached_tokens) for step in self.prefill_operators),
            Price(),
        )

    def mtp_operators(self) -> tuple[Operator | Overlap, ...]:
        """Return one MTP layer: embedding, two norms, projection of 2h to h, one full-attention decoder layer.

        DeepSeek-V3 (arXiv:2412.19437) section 2.2; vLLM splits the projection over the tensor-parallel ranks and
        gathers it, here charged as one all-reduce.
        """
        layers = self._attention().count
        steps = [step for step in self.decode_operators if self._is_in_mtp_layer(step, layers)]
        h = self.hidden_size
        concat = {**self._only("qkv_gemm").spec, "name": "mtp_concat_gemm", "n": h // self.tp_size, "k": 2 * h}
        gather = [op for op in self.decode_operators if isinstance(op, Operator) and op.name.endswith("embedding_ar")]
        extra = [
            elementwise("mtp_norms", 8 * h, count=2),
            Operator("Gemm", "mtp_concat_gemm", 1.0, concat),
            *(Operator(op.kind, "mtp_concat_gather", 1.0, {**op.spec, "name": "mtp_concat_gather"}) for op in gather),
        ]
        return (*extra, *(_once_per_layer(step, layers) for step in steps))

    def check(self) -> None:
        """Raise UnsupportedModelError where an operator of the model has no rule here."""
        for operator in _flat(self.decode_operators):
            if operator.kind not in ATTENTION_KINDS | STATE_KINDS | TOKEN_KINDS:
                raise UnsupportedModelError(
                    f"operator {operator.name} of kind {operator.kind} has no composition rule for verify passes; "
                    "choose a model with grouped-query attention (Qwen3, Qwen3.5, Llama-3)"
                )
        self._attention()

    def _decoder(
        self, steps: tuple[Operator | Overlap, ...], batch: int, context_tokens: int, tokens_per_seq: int
    ) -> Price:
        total = Price()
        for step in steps:
            if step_kind(step) in ATTENTION_KINDS:
                assert isinstance(step, Operator)
                seen = context_tokens + tokens_per_seq
                total += self.decode_prices.attention(step, batch, seen, tokens_per_seq)
            elif step_kind(step) in STATE_KINDS:
                total += self._state(step, batch, tokens_per_seq)
            else:
                total += self.decode_prices.price(step, batch * tokens_per_seq, 1)
        return total

    def _state(self, step: Operator | Overlap, batch: int, tokens_per_seq: int) -> Price:
        """Price a recurrent state at the batch that moves the same bytes.

        A verify pass reads a state once and stores one per token, 1 + q transfers where decode has 2: the traffic of
        (1 + q) / 2 = (k + 2) / 2 times the batch.
        """
        equal_batch = batch * (1 + tokens_per_seq) / 2
        low, high = floor(equal_batch), ceil(equal_batch)
        price = self.decode_prices.price(step, low, 1)
        if high > low:
            price = price.times(high - equal_batch) + self.decode_prices.price(step, high, 1).times(equal_batch - low)
        return price if tokens_per_seq == 1 else price.unmeasured()

    def _attention(self) -> Operator:
        found = [operator for operator in _flat(self.decode_operators) if operator.kind in ATTENTION_KINDS]
        if len(found) != 1:
            raise UnsupportedModelError(
                f"{len(found)} kinds of KV-reading operators, this source composes exactly one; "
                "choose a model with grouped-query attention in one shape (Qwen3, Qwen3.5, Llama-3)"
            )
        return found[0]

    def _only(self, suffix: str) -> Operator:
        (found,) = [operator for operator in _flat(self.decode_operators) if operator.name.endswith(suffix)]
        return found

    @staticmethod
    def _is_in_mtp_layer(step: Operator | Overlap, layers: float) -> bool:
        if "_gdn_" in step.name or step.name.endswith("logits_gemm"):
            return False
        counts = {operator.count for operator in _flat((step,))}
        return counts == {layers} or "embedding" in step.name


def step_kind(step: Operator | Overlap) -> str:
    """Return the operator's kind, `Overlap` for two streams (token operators only)."""
    return "Overlap" if isinstance(step, Overlap) else step.kind


def _flat(steps: tuple[Operator | Overlap, ...]) -> Iterator[Operator]:
    for step in steps:
        if isinstance(step, Overlap):
            yield from (operator for group in step.groups for operator in group)
        else:
            yield step


def _once_per_layer(step: Operator | Overlap, layers: float) -> Operator | Overlap:
    if isinstance(step, Overlap):
        first, second = (
            tuple(Operator(op.kind, op.name, op.count / layers, op.spec) for op in group) for group in step.groups
        )
        return Overlap(step.name, (first, second))
    if "embedding" in step.name:
        return step
    return Operator(step.kind, step.name, step.count / layers, step.spec)
