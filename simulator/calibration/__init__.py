"""Calibration: a scenario's open parameters from a log, and what drafts would change in the logged run."""

from simulator.calibration.calibrate import Calibration, calibrate

__all__ = ["Calibration", "calibrate"]
