"""Measures latencies and acceptance; the only package that may import torch."""
