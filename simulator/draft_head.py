"""Draft heads during RL: how old a head is at each RL step, and what its age costs in acceptance.

The paper splits the drift of acceptance into an entropy part, which the laws of entropy hold, and a mismatch part, the
policy moving away from the head (arXiv 2606.12370, eq. 16). Here the mismatch takes the same share of every
conditional rate per RL step of age: c_j falls by (1 - drift)^(j age). So rates stay in 0..1 and never increase, and
cumulative rates fall in proportion to their position, as the paper's do along SWE RL (by 1.2, 2.6 and 3.5 % at
positions 1, 2 and 3; a shift of log-odds would make it 1 : 2.8 : 5.2, a shift of accept length 1 : 1 : 1).

Fitted on: the mismatch part of each recipe at the end of SWE RL, one number each, spread evenly over its RL steps.
Checked on: the curves of Reasoning RL, the published shares by position, and a head that was frozen over 36 RL steps
(tests/simulator/test_draft_head.py). Laws were fitted along runs whose head aged, so they hold about half a run's
mismatch already: at most 0.014 tokens at k = 3. Does not know what a head's training costs the run (`inputs`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from simulator.acceptance import Acceptance, build_acceptance
from simulator.acceptance_law import DECAY_OF_RECIPE
from simulator.config import TV_RECIPES, AcceptanceConfig, ArmConfig, FrozenHead, HeadConfig, OnlineHead
from simulator.evidence import Evidence
from simulator.memory import draft_head_params
from simulator.positions import split_accept_length
from simulator.speculation import FloatArray
from traces.architecture import Architecture
from traces.base import Origin
from traces.head_drift import HeadDrift, load_head_drift
from traces.report import InputOrigin

ONLINE_STEPS_SHOWN = 200
"""RL steps over which the paper shows heads that are trained online (arXiv 2606.12370, fig. 9a)."""

TRAINED_BYTES_PER_PARAM = 16
"""Weights and gradients in bf16; weights, momentum and variance in fp32."""


def build_head(
    arm: ArmConfig, *, name: str, temperature: float, accept_length_shift: float = 0.0
) -> "HeadDynamics | None":
    """Return what happens to the arm's head; None where the scenario does not say.

    Raises:
        ScenarioError: A TV head is trained with CE, and its trace has no law of CE heads under the same fit.
        TraceError: There is no such trace, or it is broken.
    """
    head, acceptance = arm.head, arm.acceptance
    if head is None or acceptance is None:
        return None
    drift = _drift(head, acceptance)
    end = None
    if isinstance(head, OnlineHead) and head.convergence_steps is not None:
        assert acceptance.kind == "law"
        to = acceptance.model_copy(update={"recipe": "rs_ce"})
        end = build_acceptance(to, arm=name, temperature=temperature, accept_length_shift=accept_length_shift)
    return HeadDynamics(name, head, drift, end)


def drift_per_step(row: HeadDrift) -> float:
    """Return the share of every conditional rate lost per RL step: the row's mismatch part is lost at its end."""
    k = row.num_draft_tokens
    rates = split_accept_length(row.accept_length, k, k, DECAY_OF_RECIPE[row.recipe])
    power, left = np.arange(1, k + 1), float(rates.sum()) + row.mismatch_part
    lost = brentq(lambda x: float(rates @ np.exp(-x * power)) - left, 0.0, 10.0, xtol=1e-15)
    return -math.expm1(-lost / row.num_rl_steps)


def syncs_with_head(head: HeadConfig | None, syncs_per_step: float) -> float:
    """Return the share of weight syncs that move the head too."""
    if head is None or isinstance(head, FrozenHead):
        return 0.0
    return 1.0 if isinstance(head, OnlineHead) else min(1.0 / (head.every_steps * syncs_per_step), 1.0)


def head_evidence(arm: ArmConfig, name: str, architecture: Architecture) -> Evidence:
    """Return what the head is and costs beyond its acceptance, as far as the scenario leaves it unsaid."""
    head, params, warnings = arm.head, draft_head_params(architecture), []
    if architecture.num_mtp_layers == 0:
        warnings.append(
            f"model.name: {architecture.name} was released without an MTP layer; drafts are those of one layer of its "
            f"shape, {params / 1e9:.2g} B parameters, in memory too"
        )
    if head is None or isinstance(head, FrozenHead):
        return Evidence((), tuple(warnings))
    if isinstance(head, OnlineHead) and arm.train_overhead == 0.0:
        warnings.append(
            f"arms.{name}.train_overhead: 0, though the head is trained online; SkyRL measured 0.07, VeOmni 0.015"
        )
    memory = InputOrigin(
        name=f"arms.{name}.head.trainer_memory",
        value=f"{TRAINED_BYTES_PER_PARAM * params / 1e9:.2g} GB for {params / 1e9:.2g} B parameters; not checked "
        "against the trainer GPUs",
        origin=Origin.MODELLED,
        source=f"{TRAINED_BYTES_PER_PARAM} bytes per parameter, mixed precision with Adam (arXiv 1910.02054, sec. 3.1)",
    )
    return Evidence((memory,), tuple(warnings))


@dataclass(frozen=True, slots=True)
class Drift:
    """What a head loses with age, and where that is known from."""

    per_step: float
    origin: Origin
    source: str
    num_steps_shown: int | None = None
    """Greatest age in the data; None: nobody measured any."""


@dataclass(frozen=True, slots=True)
class HeadDynamics:
    """One arm's head along a run."""

    arm: str
    config: HeadConfig
    drift: Drift
    end: Acceptance | None
    """The curve that a TV head decays to when it is trained with CE."""

    def age(self, version: int, first_step: int) -> int:
        """Return the RL steps since the head in use was trained.

        Args:
            version: RL steps that the run has trained, and published.
            first_step: RL step at which the run began; a frozen head was trained before step 0.
        """
        head = self.config
        if isinstance(head, FrozenHead):
            return first_step + version
        if isinstance(head, OnlineHead):
            return min(first_step + version, 1)
        # A refit learns from samples of the version before; an overlapped one is published a step later.
        num_refits = max(version - head.overlapped, 0) // head.every_steps
        return version - num_refits * head.every_steps + 1 if num_refits else version

    def apply(
        self, cumulative: FloatArray, num_draft_tokens: int, version: int, first_step: int, entropy_nats: float | None
    ) -> FloatArray:
        """Return the source's c_1..c_k as they are with this head."""
        if isinstance(self.config, OnlineHead) and self.end is not None and self.config.convergence_steps:
            kept = math.exp(-(first_step + version) / self.config.convergence_steps)
            cumulative = kept * cumulative + (1.0 - kept) * self.end.cumulative(num_draft_tokens, entropy_nats)
        per_step, age = self.drift.per_step, self.age(version, first_step)
        if per_step == 0.0 or age == 0:
            return cumulative
        faded: FloatArray = cumulative * (1.0 - per_step) ** (age * np.arange(1.0, len(cumulative) + 1.0))
        return faded

    def evidence(self, num_steps: int, first_step: int) -> Evidence:
        """Return strategy and drift with their origins, and warnings for ages that nobody measured."""
        ages = [self.age(version, first_step) for version in range(num_steps)]
        drift, path = self.drift, f"arms.{self.arm}.head"
        beyond = drift.num_steps_shown is not None and max(ages) > drift.num_steps_shown
        warnings = [
            f"{path}: the drift of heads is known for {drift.num_steps_shown} RL steps, this one gets {max(ages)} old; "
            "extrapolated at the same rate"
        ] * beyond
        warnings += self._online_warnings(first_step + num_steps - 1)
        origin = InputOrigin(
            name=path,
            value=f"{self.config.kind}, {min(ages)} to {max(ages)} RL steps old; conditional rates fall by "
            f"{drift.per_step:.3g} of themselves per step",
            origin=Origin.EXTRAPOLATED if beyond else drift.origin,
            source=drift.source,
        )
        return Evidence((origin, *self._end_origins()), tuple(warnings))

    def _end_origins(self) -> Sequence[InputOrigin]:
        if self.end is None or not isinstance(self.config, OnlineHead):
            return ()
        return [
            InputOrigin(
                name=f"arms.{self.arm}.head.end",
                value="decays to the law of rs_ce heads",
                origin=Origin.STATED,
                source="arXiv 2606.12370 fig. 9a: a TV head trained online with CE",
            )
        ]

    def _online_warnings(self, last_step: int) -> list[str]:
        head, path = self.config, f"arms.{self.arm}.head"
        if not isinstance(head, OnlineHead):
            return []
        warnings = []
        if last_step > ONLINE_STEPS_SHOWN:
            warnings.append(
                f"{path}: heads trained online are shown for {ONLINE_STEPS_SHOWN} RL steps (arXiv 2606.12370, fig. "
                f"9a), the run reaches {last_step}"
            )
        if head.loss == "ce" and self.end is None:
            warnings.append(
                f"{path}: a CE head trained online with CE ends below the frozen curve in arXiv 2606.12370, fig. 9a, "
                "which does not say by how much; nothing is taken off here"
            )
        return warnings


def _drift(head: HeadConfig, acceptance: AcceptanceConfig) -> Drift:
    """Return what the scenario states, else what is published for the recipe."""
    if head.drift_per_step is not None:
        return Drift(head.drift_per_step, Origin.ASSUMED, "the scenario")
    assert acceptance.kind == "law"
    # Per-step TV heads have no published drift; the other TV heads' stands in.
    borrowed = acceptance.recipe == "rs_tv"
    row = load_head_drift(TV_RECIPES[-1] if borrowed else acceptance.recipe)
    source = f"{row.source}: {row.mismatch_part:g} tokens of mismatch in about {row.num_rl_steps} RL steps"
    if borrowed:
        return Drift(drift_per_step(row), Origin.ASSUMED, f"{source}, of e2e-TV heads", row.num_rl_steps)
    return Drift(drift_per_step(row), Origin.MODELLED, source, row.num_rl_steps)
