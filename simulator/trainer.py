"""Trainer cost: seconds of one RL step from the tokens it trains on. Does not know where samples come from."""

from dataclasses import dataclass

from simulator.config import ClusterConfig, TrainerConfig, TrainerStall
from traces.architecture import Architecture
from traces.hardware import Gpu


@dataclass(frozen=True, slots=True)
class TrainerCost:
    """Seconds = constant + tokens x slope; tokens are prompts and responses."""

    constant_s: float
    s_per_token: float
    """Training, log-prob, reference and critic passes together."""
    stalls: tuple[TrainerStall, ...] = ()
    """What keeps the trainer busy after some RL steps."""
    while_generating: "TrainerCost | None" = None
    """The cost while engines generate on the same machine; None: the same."""

    def step_s(self, tokens: float) -> float:
        """Return the duration of one RL step's training phase."""
        return self.constant_s + self.s_per_token * tokens

    def piece_s(self, tokens: float, *, is_last: bool) -> float:
        """Return the duration of training on a piece of an RL step, whose constant falls on the last one."""
        return self.step_s(tokens) if is_last else self.s_per_token * tokens

    def stall_s(self, num_steps: int) -> float:
        """Return the seconds of validation, checkpoints and the like that follow RL step number `num_steps`."""
        return sum((stall.seconds for stall in self.stalls if num_steps % stall.every_steps == 0), 0.0)

    def scaled(self, factor: float) -> "TrainerCost":
        """Return a trainer that trains `factor` times as long; its stalls stay."""
        beside = self.while_generating.scaled(factor) if self.while_generating else None
        return TrainerCost(self.constant_s * factor, self.s_per_token * factor, self.stalls, beside)


def trainer_cost(config: TrainerConfig, cluster: ClusterConfig, architecture: Architecture, gpu: Gpu) -> TrainerCost:
    """Return the cost that the scenario states, or that follows from FLOPs.

    FLOPs per token: 6 N for forward and backward, 2 N for a forward-only pass, N = active parameters of what is
    trained or run: a critic has its own 2 N for values and 6 N for its update, on the same GPUs one after the other
    (Kaplan et al., arXiv 2001.08361, sec. 2.1; attention over the context is left out).
    """
    if config.kind == "linear":
        slope = config.s_per_token + config.log_prob_s_per_token + config.reference_s_per_token
        slope += config.critic_s_per_token or 0.0
        beside = config.while_generating
        shared = None if beside is None else TrainerCost(beside.constant_s, beside.s_per_token)
        return TrainerCost(config.constant_s, slope, config.stalls or (), shared)
    passes = 6 + 2 * config.log_prob_pass + 2 * config.reference_pass + 8 * (config.critic_size or 0)
    flops_per_s = cluster.num_train_gpus * gpu.bf16_flops * config.mfu
    slope = passes * architecture.active_params / flops_per_s
    return TrainerCost(config.constant_s, slope, config.stalls or ())
