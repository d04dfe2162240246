"""Sweep: many scenarios at once, in processes of this machine or on Ray; resumable, and the same bytes every time."""

from simulator.sweep.design import Design, parse_design
from simulator.sweep.driver import Sweep, run_sweep
from simulator.sweep.local import LocalExecutor
from simulator.sweep.results import Outcome

__all__ = ["Design", "LocalExecutor", "Outcome", "Sweep", "parse_design", "run_sweep"]
