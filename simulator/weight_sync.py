"""Weight sync: seconds to bring a policy from the trainer to all replicas. Does not know what it interrupts."""

from simulator.config import WeightSyncConfig
from traces.architecture import Architecture


def weight_sync_s(config: WeightSyncConfig, architecture: Architecture, precision: str) -> float:
    """Return the duration: as stated, or latency + bytes of the policy over the effective bandwidth."""
    if config.kind == "seconds":
        return config.seconds
    return config.latency_s + architecture.weight_bytes(precision) / config.bytes_per_s
