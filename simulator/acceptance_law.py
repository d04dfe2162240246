"""Fitted laws: accept length as a line in entropy, scaled by the effect of temperature, split into positions."""

from collections.abc import Sequence
from dataclasses import dataclass

from simulator import temperature as temperature_effect
from simulator.config import LawAcceptance
from simulator.errors import ScenarioError
from simulator.evidence import Evidence, excess
from simulator.positions import CE_DECAY, TV_DECAY, PositionDecay, split_accept_length
from simulator.speculation import FloatArray
from traces.acceptance import AcceptanceLaw, AcceptanceTrace
from traces.base import Origin
from traces.report import InputOrigin

DECAY_OF_RECIPE = {"to": CE_DECAY, "rs_ce": CE_DECAY, "rs_tv": TV_DECAY, "rs_e2e_tv": TV_DECAY}
"""The paper shows no positions under TO: the CE ones stand in, as all losses are within 0.3 % of each other there."""


def find_law(trace: AcceptanceTrace, config: LawAcceptance, arm: str) -> AcceptanceLaw:
    """Return the law of this recipe and fit; ScenarioError if there is none, with those there are."""
    of_recipe = [law for law in trace.laws if law.recipe == config.recipe]
    for law in of_recipe:
        if law.fit == config.fit:
            return law
    if not of_recipe:
        known = ", ".join(sorted({law.recipe for law in trace.laws})) or "none"
        raise ScenarioError(
            f"arms.{arm}.acceptance.recipe: trace {trace.name} has no law {config.recipe!r}; its recipes are: {known}"
        )
    raise ScenarioError(
        f"arms.{arm}.acceptance.fit: trace {trace.name} has no fit {config.fit!r} of {config.recipe}; "
        f"its fits are: {', '.join(law.fit for law in of_recipe)}"
    )


@dataclass(frozen=True, slots=True)
class FittedLaw:
    """Accept length by a law of entropy, scaled by the effect of temperature, split into positions."""

    arm: str
    law: AcceptanceLaw
    decay: PositionDecay
    temperature: float
    accept_length_shift: float = 0.0

    def accept_length(self, entropy_nats: float) -> float:
        """Return the accept length at the law's own k, temperature and shift included."""
        ratio = temperature_effect.accepted_drafts_ratio(self.law.verify_rule, self.temperature)
        raw = 1.0 + ratio * (self.law.accept_length(entropy_nats) - 1.0) + self.accept_length_shift
        return min(max(raw, 1.0), self.law.num_draft_tokens + 1.0)

    def cumulative(self, num_draft_tokens: int, entropy_nats: float | None) -> FloatArray:
        """Return c_1..c_k at this entropy; any k."""
        if entropy_nats is None:
            raise ScenarioError(
                f"entropy: missing, but arms.{self.arm}.acceptance is a law of entropy; give a trajectory"
            )
        length = self.accept_length(entropy_nats)
        return split_accept_length(length, self.law.num_draft_tokens, num_draft_tokens, self.decay)

    def evidence(self, num_draft_tokens: int, entropies: Sequence[float | None]) -> Evidence:
        """Return law, positions and temperature effect, with warnings for each used beyond its data."""
        parts = [self._law_evidence(entropies), self._position_evidence(num_draft_tokens)]
        if self.temperature != 1.0:
            parts.append(self._temperature_evidence())
        return Evidence(
            tuple(origin for part in parts for origin in part.origins),
            tuple(warning for part in parts for warning in part.warnings),
        )

    @property
    def _path(self) -> str:
        return f"arms.{self.arm}.acceptance"

    @property
    def _name(self) -> str:
        return f"{self.law.recipe}/{self.law.fit}"

    def _law_evidence(self, entropies: Sequence[float | None]) -> Evidence:
        law, low, high = self.law, self.law.entropy_low_nats, self.law.entropy_high_nats
        outside = excess([h for h in entropies if h is not None], low, high)
        origin = InputOrigin(
            name=self._path,
            value=f"law {self._name}: {law.intercept:g} {law.slope_per_nat:+g} H tokens at k = {law.num_draft_tokens}",
            origin=Origin.EXTRAPOLATED if outside else law.origin,
            source=law.source,
        )
        if outside is None:
            return Evidence((origin,))
        warning = (
            f"{self._path}: law {self._name} is fitted for entropy {low:g}..{high:g}, the run reaches "
            f"{outside.reaches}; extrapolated at {outside.num_outside} of {outside.num_steps} steps"
        )
        return Evidence((origin,), (warning,))

    def _position_evidence(self, num_draft_tokens: int) -> Evidence:
        counted_at = self.law.num_draft_tokens
        longer = num_draft_tokens > counted_at
        origin = InputOrigin(
            name=f"{self._path}.positions",
            value=f"log-odds fall by {self.decay.drop:g} (1 - {self.decay.rho:g}^(j - 1))",
            origin=Origin.EXTRAPOLATED if longer else Origin.MODELLED,
            source=self.decay.source,
        )
        if num_draft_tokens == counted_at:
            return Evidence((origin,))
        warning = (
            f"arms.{self.arm}.k: {num_draft_tokens} differs from the {counted_at} of law {self._name}; positions "
            f"{'extended' if longer else 'cut'} by the decay fitted on the paper's per-position curves"
        )
        return Evidence((origin,), (warning,))

    def _temperature_evidence(self) -> Evidence:
        covered = temperature_effect.covers(self.temperature)
        ratio = temperature_effect.accepted_drafts_ratio(self.law.verify_rule, self.temperature)
        origin = InputOrigin(
            name=f"{self._path}.temperature",
            value=f"accepted drafts x {ratio:.4g} at temperature {self.temperature:g}",
            origin=Origin.INTERPOLATED if covered else Origin.EXTRAPOLATED,
            source=temperature_effect.SOURCE,
        )
        if covered:
            return Evidence((origin,))
        low, high = temperature_effect.LOWEST, temperature_effect.HIGHEST
        warning = (
            f"{self._path}: temperature {self.temperature:g} is outside the data {low:g}..{high:g}; "
            f"the effect at {min(max(self.temperature, low), high):g} is used"
        )
        return Evidence((origin,), (warning,))
