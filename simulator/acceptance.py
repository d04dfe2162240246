"""Acceptance: c_1..c_k of one arm at an entropy, from a fitted law, from fixed rates, or from counted rows.

Does not know what follows from the rates (`speculation`), nor how laws and rows are read (`acceptance_law`,
`acceptance_rows`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from simulator.acceptance_law import DECAY_OF_RECIPE, FittedLaw, find_law
from simulator.acceptance_rows import CountedRows, find_rows
from simulator.config import AcceptanceConfig, FixedAcceptance, LawAcceptance
from simulator.errors import ScenarioError
from simulator.evidence import Evidence
from simulator.speculation import FloatArray, shifted_accept_length
from traces.acceptance import AcceptanceTrace
from traces.base import Origin
from traces.report import InputOrigin
from traces.store import load_named


class Acceptance(Protocol):
    """Where an arm's acceptance comes from."""

    def cumulative(self, num_draft_tokens: int, entropy_nats: float | None) -> FloatArray:
        """Return c_1..c_k, c_j = P(the first j drafts are all accepted); empty for k = 0.

        Raises:
            TraceCoverageError: k is above what the source covers.
            ScenarioError: The source needs an entropy and gets none.
        """
        ...

    def evidence(self, num_draft_tokens: int, entropies: Sequence[float | None]) -> Evidence:
        """Return origins, and warnings for use outside the data, of a run with this entropy at each RL step."""
        ...


def build_acceptance(
    config: AcceptanceConfig, *, arm: str, temperature: float, accept_length_shift: float = 0.0
) -> Acceptance:
    """Return the source that the scenario asks for.

    Args:
        config: The arm's `acceptance`.
        arm: Name of the arm, for messages.
        temperature: Sampling temperature of the workload.
        accept_length_shift: Tokens to add to the accept length, kept inside 1..k+1: the input's uncertainty. A law is
            shifted at its own k, other sources at the k that is asked for.

    Raises:
        ScenarioError: The trace has no such law or no such rows.
        TraceError: There is no such trace, or it is broken.
    """
    if isinstance(config, FixedAcceptance):
        return FixedRates(arm, np.array(config.cumulative), accept_length_shift)
    trace = load_named(config.trace, AcceptanceTrace)
    if isinstance(config, LawAcceptance):
        law = find_law(trace, config, arm)
        return FittedLaw(arm, law, DECAY_OF_RECIPE[config.recipe], temperature, accept_length_shift)
    return CountedRows(arm, trace.name, find_rows(trace, config, arm, temperature), accept_length_shift)


@dataclass(frozen=True, slots=True)
class FixedRates:
    """Rates written in the scenario, the same at any entropy and temperature."""

    arm: str
    rates: FloatArray
    accept_length_shift: float = 0.0

    def cumulative(self, num_draft_tokens: int, entropy_nats: float | None) -> FloatArray:  # noqa: ARG002
        """Return the first k rates."""
        if num_draft_tokens > len(self.rates):
            raise ScenarioError(
                f"arms.{self.arm}.k: {num_draft_tokens} is above the {len(self.rates)} rates of "
                f"arms.{self.arm}.acceptance.cumulative; lower k or give more rates"
            )
        return shifted_accept_length(self.rates[:num_draft_tokens], self.accept_length_shift)

    def evidence(self, num_draft_tokens: int, entropies: Sequence[float | None]) -> Evidence:  # noqa: ARG002
        """Return the rates, assumed unless the scenario's `origins` says better."""
        shown = ", ".join(f"{rate:g}" for rate in self.rates[:num_draft_tokens])
        return Evidence(
            (
                InputOrigin(
                    name=f"arms.{self.arm}.acceptance",
                    value=f"cumulative {shown}",
                    origin=Origin.ASSUMED,
                    source="the scenario, same at every entropy",
                ),
            )
        )
