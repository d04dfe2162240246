"""Policies: when the trainer trains, when weights are synced, what may be generated meanwhile."""

from simulator.policies.run import run_cluster

__all__ = ["run_cluster"]
