"""Failures: what breaks, how often, and how long it is down."""

from typing import Annotated, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from traces.base import Strict


class FailuresConfig(Strict):
    """What breaks in the run; nothing does that is not stated here."""

    trainer_mtbf_s: Annotated[PositiveFloat, Field(le=1e12)] | None = None
    """Mean seconds in which the trainer works or waits between two of its failures (exponential); None: none."""
    trainer_restart_s: NonNegativeFloat | None = None
    """From a failure of the trainer until it works again."""
    checkpoint_every_steps: PositiveInt | None = None
    """RL steps between two checkpoints; those since the last one are trained again, on fresh samples. The seconds that
    a checkpoint takes are one of `trainer.stalls`."""

    @model_validator(mode="after")
    def _a_failing_trainer_comes_back(self) -> Self:
        for name in ("trainer_restart_s", "checkpoint_every_steps"):
            if self.trainer_mtbf_s is not None and getattr(self, name) is None:
                raise ValueError(f"{name}: missing, though the trainer fails every {self.trainer_mtbf_s:g} s; state it")
        return self
