"""Draft heads: what happens to an arm's head while the policy is trained."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from traces.base import Strict

DriftPerStep = Annotated[float, Field(ge=0, le=0.1)]


class FrozenHead(Strict):
    """Trained before RL, then left as it is: with every RL step the policy is one step farther away from it.

    What the Bebop paper recommends for a head trained with e2e TV (arXiv 2606.12370, fig. 9a).
    """

    kind: Literal["frozen"] = "frozen"
    drift_per_step: DriftPerStep | None = None
    """Share of every conditional rate lost per RL step of age; None: as published for the recipe of the arm's law."""


class OnlineHead(Strict):
    """Trained in every RL step together with the policy, so it is one step old whatever the length of the run.

    State what its training costs as `train_overhead`; every weight sync carries it too.
    """

    kind: Literal["online"] = "online"
    loss: Literal["ce", "tv"]
    convergence_steps: PositiveFloat | None = None
    """Only for a TV head trained with CE, which decays to the curve of CE heads: RL steps in which it loses all but 1/e
    of the difference. The paper shows where it ends, not how fast."""
    drift_per_step: DriftPerStep | None = None
    """As of a frozen head; at an age of one step it hardly matters."""


class RefitHead(Strict):
    """Trained again every n RL steps on what the policy has generated since, with the loss it was trained with before.

    The head is fresh when the run starts.
    """

    kind: Literal["refit"] = "refit"
    every_steps: PositiveInt
    """It follows every n-th RL step of the run."""
    seconds: NonNegativeFloat
    """Of one refit."""
    overlapped: bool = False
    """Whether it runs beside the rollout on GPUs that would idle and is published one RL step later (verl-SpeCo);
    otherwise the trainer stands still for it."""
    drift_per_step: DriftPerStep | None = None
    """As of a frozen head."""


HeadConfig = Annotated[FrozenHead | OnlineHead | RefitHead, Field(discriminator="kind")]
