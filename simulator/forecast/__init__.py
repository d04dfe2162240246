"""Forecast: what the later steps of a run take, from its first ones and the lengths of all."""

from simulator.errors import ForecastError
from simulator.forecast.forecast import Forecast, forecast
from simulator.forecast.report import ForecastReport, forecast_report

__all__ = ["Forecast", "ForecastError", "ForecastReport", "forecast", "forecast_report"]
