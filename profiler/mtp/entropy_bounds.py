"""Bounds: how probable the likeliest token can be when only the entropy is known. Needs no torch."""

import math

from scipy import optimize


def least_top_probability(entropy_nats: float) -> float:
    """Return exp(-H): the likeliest of any tokens with entropy H has at least this probability."""
    return math.exp(-entropy_nats)


def largest_top_probability(entropy_nats: float, vocab_size: int) -> float:
    """Return the probability that the likeliest of V tokens with entropy H has at most (Fano).

    Solves H = h2(p) + (1 - p) ln(V - 1) for p >= 1 / V: all else spread evenly.
    """
    if not 0 <= entropy_nats <= math.log(vocab_size):
        raise ValueError(f"entropy: {entropy_nats:g} nats is outside 0..ln V = {math.log(vocab_size):g}; correct it")

    def excess(p: float) -> float:
        spread = -p * math.log(p) - (1 - p) * math.log(max(1 - p, 1e-300)) if p < 1 else 0.0
        return spread + (1 - p) * math.log(vocab_size - 1) - entropy_nats

    if excess(1.0) >= 0:
        return 1.0
    return float(optimize.brentq(excess, 1 / vocab_size, 1.0)) if excess(1 / vocab_size) > 0 else 1 / vocab_size
