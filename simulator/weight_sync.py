"""Weight sync: seconds to bring a policy from the trainer to all replicas. Does not know what it interrupts."""

from simulator.config import WeightSyncConfig
from simulator.memory import draft_head_bytes
from traces.architecture import Architecture


def weight_sync_s(
    config: WeightSyncConfig, architecture: Architecture, precision: str, *, syncs_with_head: float = 0.0
) -> float:
    """Return the duration: as stated, or latency + bytes of the policy over the effective bandwidth.

    A head that is trained during RL is moved too, by the share `syncs_with_head` of all syncs and spread evenly over
    them: its bytes over the bandwidth, or stated seconds in proportion to its bytes.
    """
    policy_bytes = architecture.weight_bytes(precision)
    head_bytes = syncs_with_head * draft_head_bytes(architecture, precision) if syncs_with_head else 0.0
    if config.kind == "seconds":
        return config.seconds * (1.0 + head_bytes / policy_bytes)
    return config.latency_s + (policy_bytes + head_bytes) / config.bytes_per_s
