"""Compare two runs, measured or predicted, and say why their step times differ."""

from simulator.compare.comparison import compare
from simulator.compare.result import Comparison
from simulator.compare.sides import Side, measured_side, predicted_side

__all__ = ["Comparison", "Side", "compare", "measured_side", "predicted_side"]
