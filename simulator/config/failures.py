"""Failures: what breaks, how often, and how long it is down."""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from traces.base import Strict


class FailuresConfig(Strict):
    """What breaks in the run; nothing does that is not stated here."""

    replica_mtbf_s: Annotated[PositiveFloat, Field(le=1e12)] | None = None
    """Mean seconds between two crashes of one rollout replica (exponential); None: none."""
    replica_restart_s: NonNegativeFloat | None = None
    """From a crash of a replica until it generates again, with the current weights."""
    replica_lost: Literal["restart", "resume"] | None = None
    """What becomes of its responses: others begin them again from their prompt; others go on with the tokens emitted so
    far, where a client keeps them (AReaL). None: restart."""
    trainer_mtbf_s: Annotated[PositiveFloat, Field(le=1e12)] | None = None
    """Mean seconds in which the trainer works or waits between two of its failures (exponential); None: none."""
    trainer_restart_s: NonNegativeFloat | None = None
    """From a failure of the trainer until it works again."""
    checkpoint_every_steps: PositiveInt | None = None
    """RL steps between two checkpoints; those since the last one are trained again, on fresh samples. The seconds that
    a checkpoint takes are one of `trainer.stalls`."""

    @model_validator(mode="after")
    def _what_fails_comes_back(self) -> Self:
        for name in ("trainer_restart_s", "checkpoint_every_steps"):
            if self.trainer_mtbf_s is not None and getattr(self, name) is None:
                raise ValueError(f"{name}: missing, though the trainer fails every {self.trainer_mtbf_s:g} s; state it")
        if self.replica_mtbf_s is not None and self.replica_restart_s is None:
            raise ValueError(
                f"replica_restart_s: missing, though a replica crashes every {self.replica_mtbf_s:g} s; state it"
            )
        return self
