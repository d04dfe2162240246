"""Arm rates: c_1..c_k of one arm after so many RL steps, from all that bears on them: its source and its draft head."""

from collections.abc import Sequence
from dataclasses import dataclass

from simulator.acceptance import Acceptance, build_acceptance
from simulator.config import ArmConfig
from simulator.draft_head import HeadDynamics, build_head
from simulator.evidence import Evidence
from simulator.speculation import FloatArray


@dataclass(frozen=True, slots=True)
class ArmRates:
    """Acceptance of an arm along a run."""

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
        rates = self.source.cumulative(num_draft_tokens, entropy_nats)
        if self.head is not None:
            rates = self.head.apply(rates, num_draft_tokens, version, self.first_step, entropy_nats)
        return rates

    def evidence(self, num_draft_tokens: int, entropies: Sequence[float | None]) -> Evidence:
        """Return origins, and warnings for use outside the data, of a run with this entropy at each RL step."""
        parts = [self.source.evidence(num_draft_tokens, entropies)]
        if self.head is not None:
            parts.append(self.head.evidence(len(entropies), self.first_step))
        return Evidence(
            tuple(origin for part in parts for origin in part.origins),
            tuple(warning for part in parts for warning in part.warnings),
        )


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
    return ArmRates(source, head, first_step)
