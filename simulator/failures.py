"""Failures of the trainer and of rollout replicas: when they strike. Does not know what they cost (`cluster`)."""

import math
from dataclasses import dataclass

import numpy as np

from simulator.config import FailuresConfig
from simulator.rng import stream_key, uniform


class TrainerFailureError(Exception):
    """The trainer fails now. Raised and caught inside a run, so not one of the simulator's errors."""


@dataclass(frozen=True, slots=True)
class TrainerFailures:
    """Failures after exponential times of work, the same ones for every arm."""

    mtbf_s: float
    restart_s: float
    checkpoint_every_steps: int
    stream: np.uint64

    def gap_s(self, number: int) -> float:
        """Return the seconds of working and waiting from failure `number` - 1 to failure `number`, counted from 0."""
        return -self.mtbf_s * math.log1p(-float(uniform(self.stream, number)))


def trainer_failures(config: FailuresConfig | None, *seed: str | int) -> TrainerFailures | None:
    """Return the failures of one replication; None where the trainer never fails."""
    if config is None or config.trainer_mtbf_s is None:
        return None
    assert config.trainer_restart_s is not None
    assert config.checkpoint_every_steps is not None
    stream = stream_key(*seed, "trainer_failures")
    return TrainerFailures(config.trainer_mtbf_s, config.trainer_restart_s, config.checkpoint_every_steps, stream)


@dataclass(frozen=True, slots=True)
class ReplicaFailures:
    """Crashes of replicas, the same ones for every arm."""

    mtbf_s: float
    """Of one replica."""
    restart_s: float
    loses_tokens: bool
    """Whether responses begin again from their prompt."""
    stream: np.uint64

    def gap_s(self, number: int, num_replicas: int) -> float:
        """Return the seconds from crash `number` - 1 of any replica to crash `number`, counted from 0."""
        return -self.mtbf_s / num_replicas * math.log1p(-float(uniform(self.stream, 2 * number)))

    def replica(self, number: int, num_replicas: int) -> int:
        """Return which replica it strikes."""
        return int(uniform(self.stream, 2 * number + 1) * num_replicas)


def replica_failures(config: FailuresConfig | None, *seed: str | int) -> ReplicaFailures | None:
    """Return the crashes of one replication; None where no replica ever crashes."""
    if config is None or config.replica_mtbf_s is None:
        return None
    assert config.replica_restart_s is not None
    stream = stream_key(*seed, "replica_failures")
    return ReplicaFailures(config.replica_mtbf_s, config.replica_restart_s, config.replica_lost != "resume", stream)
