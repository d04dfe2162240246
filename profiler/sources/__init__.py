"""Origins of a LatencyTrace other than a GPU in this machine."""
