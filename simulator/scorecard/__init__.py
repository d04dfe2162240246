"""Scorecard: every public measured row, predicted with no parameter fitted to it, and how far off that was."""
