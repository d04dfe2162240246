"""Plots: RunReport -> Plotly figure. Does not know Streamlit, and computes no number of the answer."""

from dashboard.figures.breakdown import step_breakdown
from dashboard.figures.comparison import measured_vs_predicted
from dashboard.figures.staleness import staleness_histogram
from dashboard.figures.steps import speedup_by_step
from dashboard.figures.waterfall import waterfall

__all__ = ["measured_vs_predicted", "speedup_by_step", "staleness_histogram", "step_breakdown", "waterfall"]
