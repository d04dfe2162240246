"""Decoders of real shapes with random weights, built from an architecture."""
