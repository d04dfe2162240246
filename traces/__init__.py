"""The contract: every file format that the profiler, the simulator and the dashboard share."""
