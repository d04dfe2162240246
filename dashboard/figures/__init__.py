"""Figures: one file per figure of a report; `dashboard.plots` is their public face."""
