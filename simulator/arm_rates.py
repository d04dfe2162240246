"""Arm rates: c_1..c_k of one arm after so many RL steps: of its source, with its draft head, under its verifier."""

from collections.abc import Sequence
from dataclasses import dataclass

from simulator.acceptance import Acceptance, build_acceptance
from simulator.block_verification import lifted, most_gain, share_of_most
from simulator.config import ArmConfig
from simulator.draft_head import HeadDynamics, build_head
from simulator.errors import ScenarioError
from simulator.evidence import Evidence
from simulator.speculation import FloatArray
from traces.base import Origin
from traces.report import InputOrigin


@dataclass(frozen=True, slots=True)
class ArmRates:
    """Acceptance of an arm along a run."""

    arm: ArmConfig
    name: str
    source: Acceptance
    head: HeadDynamics | None
    first_step: int
    """RL step at which the run begins."""

    def cumulative(self, num_draft_tokens: int, version: int, entropy_nats: float | None) -> FloatArray:
        """Return c_1..c_k under the policy that so many RL steps of the run have made.

        Raises:
            TraceCoverageError: k is above what the source covers.
            ScenarioError: The source needs an entropy and gets none.
        """
        rates = self._token_wise(num_draft_tokens, version, entropy_nats)
        if self.arm.verify_rule is None:
            return rates
        # An error of the input may leave less room than the gain takes: then all of it is gained.
        return lifted(rates, min(self._block_share(version, entropy_nats), 1.0))

    def check(self, version: int, entropy_nats: float | None) -> None:
        """Raise ScenarioError if block verification cannot gain what is stated."""
        rule = self.arm.verify_rule
        rates = self._token_wise(self.arm.k, version, entropy_nats)
        if rule is not None and self._block_share(version, entropy_nats) > 1.0:
            raise ScenarioError(
                f"arms.{self.name}.verify_rule.accept_length_gain: {rule.accept_length_gain:g} is above "
                f"{most_gain(rates):.4g}, the most that block verification can add to these rates at k = {self.arm.k} "
                "(every c_j as large as c_1); lower it"
            )

    def _token_wise(self, num_draft_tokens: int, version: int, entropy_nats: float | None) -> FloatArray:
        rates = self.source.cumulative(num_draft_tokens, entropy_nats)
        if self.head is not None:
            rates = self.head.apply(rates, num_draft_tokens, version, self.first_step, entropy_nats)
        return rates

    def _block_share(self, version: int, entropy_nats: float | None) -> float:
        """Return the share of the greatest gain that is stated, at the arm's own k: it holds for shorter drafts too."""
        rule = self.arm.verify_rule
        gain = rule.accept_length_gain if rule is not None else 0.0
        return share_of_most(self._token_wise(self.arm.k, version, entropy_nats), gain)

    def evidence(self, num_draft_tokens: int, entropies: Sequence[float | None]) -> Evidence:
        """Return origins, and warnings for use outside the data, of a run with this entropy at each RL step."""
        parts = [self.source.evidence(num_draft_tokens, entropies)]
        if self.head is not None:
            parts.append(self.head.evidence(len(entropies), self.first_step))
        if self.arm.verify_rule is not None:
            parts.append(self._block_evidence(entropies))
        return Evidence(
            tuple(origin for part in parts for origin in part.origins),
            tuple(warning for part in parts for warning in part.warnings),
        )

    def _block_evidence(self, entropies: Sequence[float | None]) -> Evidence:
        shares = [self._block_share(version, entropy) for version, entropy in enumerate(entropies)]
        origin = InputOrigin(
            name=f"arms.{self.name}.verify_rule.bounds",
            value=f"block: c_j raised by {100 * min(shares):.0f} to {100 * max(shares):.0f} % of the way to c_1",
            origin=Origin.MODELLED,
            source="arXiv 2403.10444: c_1 stays, no c_j falls or rises above c_1; how far they rise is stated",
        )
        return Evidence((origin,))


def build_arm_rates(
    arm: ArmConfig, *, name: str, temperature: float, first_step: int, accept_length_shift: float = 0.0
) -> ArmRates | None:
    """Return the arm's rates; None for plain decoding.

    Args:
        arm: The arm.
        name: Its name, for messages.
        temperature: Sampling temperature of the workload.
        first_step: RL step at which the run begins.
        accept_length_shift: Tokens to add to the accept length of the source.

    Raises:
        ScenarioError: A trace has no such law or no such rows.
        TraceError: There is no such trace, or it is broken.
    """
    if arm.acceptance is None:
        return None
    shift = accept_length_shift
    source = build_acceptance(arm.acceptance, arm=name, temperature=temperature, accept_length_shift=shift)
    head = build_head(arm, name=name, temperature=temperature, accept_length_shift=shift)
    return ArmRates(arm, name, source, head, first_step)
