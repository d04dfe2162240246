"""Arms: ways of decoding, with their acceptance and draft length."""

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from simulator.config.head import HeadConfig
from simulator.config.limits import MAX_DRAFT_TOKENS, Share
from traces.acceptance import VerifyRule
from traces.base import Strict


class LawAcceptance(Strict):
    """Accept length from policy entropy by a fitted law, split into positions."""

    kind: Literal["law"] = "law"
    recipe: Literal["to", "rs_ce", "rs_tv", "rs_e2e_tv"]
    """Verify rule and loss of the head: TO = greedy draft."""
    fit: str = Field(min_length=1, max_length=100)
    """Which runs the law was fitted on."""
    trace: str = "bebop-paper"


class FixedAcceptance(Strict):
    """Known acceptance by position: c_j = P(the first j drafts are all accepted), as engines count it."""

    kind: Literal["fixed"] = "fixed"
    cumulative: tuple[Share, ...] = Field(min_length=1, max_length=MAX_DRAFT_TOKENS)

    @model_validator(mode="after")
    def _never_increases(self) -> Self:
        if any(b > a for a, b in zip(self.cumulative, self.cumulative[1:], strict=False)):
            raise ValueError(
                f"cumulative: {list(self.cumulative)} increases; give P(first j accepted), not conditional rates"
            )
        return self


class TraceAcceptance(Strict):
    """Counted acceptance rows of an AcceptanceTrace, interpolated over entropy."""

    kind: Literal["trace"] = "trace"
    trace: str
    loss: str
    verify_rule: VerifyRule = VerifyRule.REJECTION
    task: str | None = None


AcceptanceConfig = Annotated[LawAcceptance | FixedAcceptance | TraceAcceptance, Field(discriminator="kind")]

TV_RECIPES = ("rs_tv", "rs_e2e_tv")
"""Recipes whose head was trained with a TV loss."""


class DraftLengthByBatch(Strict):
    """k from a table over the engine's live batch (vLLM `num_speculative_tokens_per_batch_size`)."""

    kind: Literal["by_batch"] = "by_batch"
    table: tuple[tuple[PositiveInt, PositiveInt, NonNegativeInt], ...] = Field(min_length=1, max_length=100)
    """[first batch, last batch, k] rows, ascending and without gaps; the last row holds for larger batches too.

    At k = 0 one draft pass still runs, which keeps the draft head's KV cache whole.
    """

    @model_validator(mode="after")
    def _rows_follow_each_other(self) -> Self:
        expected = 1
        for first, last, _ in self.table:
            if first != expected or last < first:
                raise ValueError(
                    f"table: row [{first}, {last}, ...] does not begin at batch {expected} and end after it; rows "
                    "ascend without gaps from batch 1"
                )
            expected = last + 1
        return self


class AdaptiveDraftLength(Strict):
    """The k, from 0 to the arm's, that emits most tokens per second at the live batch under the current acceptance."""

    kind: Literal["adaptive"] = "adaptive"


DraftLength = Annotated[DraftLengthByBatch | AdaptiveDraftLength, Field(discriminator="kind")]


PositionShifts = Annotated[
    tuple[tuple[NonNegativeInt, Annotated[float, Field(ge=-5, le=5)]], ...], Field(min_length=1, max_length=4)
]


class BlockVerification(Strict):
    """Rejection decided over the whole drafted block (arXiv 2403.10444), for rates that were counted token by token.

    Rates counted with block verification need none of this: they are used as they are.
    """

    kind: Literal["block"] = "block"
    accept_length_gain: Annotated[float, Field(ge=0, le=MAX_DRAFT_TOKENS)]
    """Tokens that it adds to the accept length at the arm's k: stated, because token-wise rates do not determine it."""


class ArmConfig(Strict):
    """One way of decoding, compared with plain decoding."""

    k: Annotated[int, Field(ge=0, le=MAX_DRAFT_TOKENS)]
    """Draft tokens per step, the most where `draft_length` chooses; 0 is plain decoding."""
    draft_length: DraftLength | None = None
    """How the engine chooses k at its live batch; None: always k."""
    acceptance: AcceptanceConfig | None = None
    """Needed when k > 0."""
    verify_rule: BlockVerification | None = None
    """How drafts are verified where that is not how the acceptance was counted."""
    dispersion: Annotated[float, Field(ge=0, le=3)] = 0.0
    """Standard deviation between requests of the log-odds of acceptance."""
    acceptance_by_position: PositionShifts | None = None
    """[tokens of the response from which on, shift of the log-odds of acceptance] rows, ascending.

    Before the first row acceptance is as stated. The position counts what a response has generated over all its turns.
    """
    train_overhead: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Extra training time as a share, e.g. 0.07 for online MTP training."""
    head: HeadConfig | None = None
    """What happens to the draft head during RL; None: acceptance depends on entropy alone, and nothing is paid."""

    @model_validator(mode="after")
    def _speculation_has_acceptance(self) -> Self:
        if self.k > 0 and self.acceptance is None:
            raise ValueError(f"acceptance: missing, though k is {self.k}; give a law, a trace or fixed rates")
        if self.draft_length is not None and self.draft_length.kind == "by_batch":
            most = max(k for _, _, k in self.draft_length.table)
            if most != self.k:
                raise ValueError(f"k: {self.k} is not the largest k of draft_length.table, {most}; make them equal")
        return self

    @model_validator(mode="after")
    def _positions_ascend(self) -> Self:
        rows = self.acceptance_by_position
        if rows is None:
            return self
        if self.k == 0:
            raise ValueError("acceptance_by_position: given, though the arm drafts nothing; remove it or raise k")
        first = [tokens for tokens, _ in rows]
        if any(later <= earlier for earlier, later in pairwise(first)):
            raise ValueError(f"acceptance_by_position: its rows begin at {first}; let them ascend")
        return self

    @model_validator(mode="after")
    def _block_verification_has_something_to_add(self) -> Self:
        acceptance = self.acceptance
        if self.verify_rule is None:
            return self
        if acceptance is None or self.k == 0:
            raise ValueError("verify_rule: given, though the arm drafts nothing; remove it or raise k")
        if acceptance.kind == "trace" and acceptance.verify_rule is VerifyRule.BLOCK:
            raise ValueError(
                "verify_rule: block, but acceptance.verify_rule is block too; such rows are used as they are, remove it"
            )
        if (acceptance.kind == "law" and acceptance.recipe == "to") or (
            acceptance.kind == "trace" and acceptance.verify_rule is VerifyRule.GREEDY_DRAFT
        ):
            raise ValueError(
                "verify_rule: block, but the drafts are greedy: a block accepts no more of them; remove it"
            )
        return self

    @model_validator(mode="after")
    def _head_fits_its_acceptance(self) -> Self:
        head, law = self.head, self.acceptance
        if head is None:
            return self
        if law is None or self.k == 0:
            raise ValueError("head: given, though the arm drafts nothing; remove it or raise k")
        if law.kind != "law" and head.drift_per_step is None:
            raise ValueError(
                f"head.drift_per_step: missing; the paper shows it for its own recipes, not for acceptance of kind "
                f"{law.kind!r}; state one, 0 for none"
            )
        if head.kind == "online":
            decays = head.loss == "ce" and law.kind == "law" and law.recipe in TV_RECIPES
            if decays and head.convergence_steps is None:
                raise ValueError(
                    "head.convergence_steps: missing; a TV head trained online with CE decays to the curve of CE "
                    "heads (arXiv 2606.12370, fig. 9a), the paper does not say how fast; state it in RL steps"
                )
            if not decays and head.convergence_steps is not None:
                raise ValueError(
                    f"head.convergence_steps: {head.convergence_steps:g}, but only a law of TV heads trained online "
                    "with CE converges to another curve; remove it"
                )
        return self
