"""Laws of a step: seconds of its phases from lengths alone. Does not know logs.

Generation. All responses of a step begin together, the engine makes one token of each per iteration, and an iteration
costs base + per sequence + per token of context. Summed to the last token,

    seconds = base (longest + S1 / doubling_batch + S2 / doubling_context) + constant

with S1 the tokens generated and S2 the context tokens read, both per replica: exact for a batch that thins out,
whatever the shape of its tail. `doubling_batch` sequences, or `doubling_context` tokens, make an iteration take twice
as long as an empty one; a cap on the running batch only makes the former smaller. Preemption and tools are not in it.

Passes over tokens (training, log-probabilities, values) are a slope and a constant. Both laws carry a bend, an exponent
near 1 about the middle of what was fitted: nobody expects it, but its error widens the band of what lies far away.
"""

from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from simulator.forecast.fit import Prior

F64 = NDArray[np.float64]

UNKNOWN_SD: Final = 10.0
"""Standard deviation of a logarithm that nothing is known about."""

TRACES_BATCH: Final = 170.0
TRACES_BATCH_SD: Final = 1.0
DOUBLING_CONTEXT_TOKENS: Final = 600_000.0
DOUBLING_CONTEXT_SD: Final = 0.8
"""Geometric means, and standard deviations of the logarithm, over the latency traces shipped in traces/data/latency (30
layouts of seven models on H100, H200 and B200); tests/simulator/forecast/test_laws.py computes them again."""
USUAL_CAP: Final = 256.0
"""Sequences that an engine runs at once: vLLM's `max_num_seqs` on most GPUs. Where others wait, tokens over cap
iterations are added, as a smaller doubling batch has it."""
DOUBLING_BATCH: Final = 1.0 / (1.0 / TRACES_BATCH + 1.0 / USUAL_CAP)
DOUBLING_BATCH_SD: Final = 1.5
"""Of both together; wider than that of the traces, because nobody says where the cap stands. Assumed."""
GENERATION_CONSTANT_S: Final = 3.0
"""Waking the engine, handing out prompts, collecting; assumed, within a factor of e."""
GENERATION_NOISE: Final = 0.05
OVERLAPPED_NOISE: Final = 0.25
"""Of generation that overlaps with training: a batch is then not what runs together. Assumed."""
PASS_NOISE: Final = 0.02
PASS_CONSTANT: Final = 0.02
"""Constant of a pass, as a share of its usual tokens; assumed, within a factor of e^1.5."""
GENERATION_BEND_SD: Final = 0.05
PASS_BEND_SD: Final = 0.02
"""Assumed: seconds of a pass grow with the power 0.98 to 1.02 of its tokens, as attention and utilisation pull."""


@dataclass(frozen=True, slots=True)
class GenerationLaw:
    """Parameters: log of base_s, doubling_batch, doubling_context and constant_s, and the bend."""

    middle: F64
    """[3]: features of a usual step among those fitted."""

    names: ClassVar[tuple[str, ...]] = ("base_s", "doubling_batch", "doubling_context_tokens", "constant_s", "bend")

    def __call__(self, parameters: F64, features: F64) -> F64:
        """Return seconds; features are [longest, tokens generated, context tokens read] per replica."""
        base, batch, context, constant = np.exp(parameters[:4])
        divisors = np.array([1.0, batch, context])
        shape, usual = (features / divisors).sum(axis=1), (self.middle / divisors).sum()
        seconds: F64 = base * usual * (shape / usual) ** (1.0 + parameters[4]) + constant
        return seconds


@dataclass(frozen=True, slots=True)
class PassLaw:
    """Parameters: log of s_per_token and of constant_tokens, and the bend."""

    middle: float
    """Tokens of a usual step among those fitted."""

    names: ClassVar[tuple[str, ...]] = ("s_per_token", "constant_tokens", "bend")

    def __call__(self, parameters: F64, features: F64) -> F64:
        """Return seconds; features are [tokens]."""
        slope, constant = np.exp(parameters[:2])
        usual = self.middle + constant
        seconds: F64 = slope * usual * ((features[:, 0] + constant) / usual) ** (1.0 + parameters[2])
        return seconds


@dataclass(frozen=True, slots=True)
class ConstantLaw:
    """Parameter: log of seconds."""

    names: ClassVar[tuple[str, ...]] = ("seconds",)

    def __call__(self, parameters: F64, features: F64) -> F64:
        """Return the same seconds for every step."""
        return np.full(len(features), float(np.exp(parameters[0])))


def generation(features: F64, seconds: F64, *, is_overlapped: bool = False) -> tuple[GenerationLaw, Prior]:
    """Return the law of generation, and what is believed of an engine before these steps are looked at."""
    law = GenerationLaw(np.median(features, axis=0))
    centre = np.array([0.0, *np.log([DOUBLING_BATCH, DOUBLING_CONTEXT_TOKENS, GENERATION_CONSTANT_S]), 0.0])
    constant = min(GENERATION_CONSTANT_S, 0.1 * float(np.median(seconds)))
    centre[3] = np.log(constant)
    centre[0] = np.log(np.median(np.maximum(seconds - constant, 0.1 * seconds) / (law(centre, features) - constant)))
    deviation = np.array([UNKNOWN_SD, DOUBLING_BATCH_SD, DOUBLING_CONTEXT_SD, 1.0, GENERATION_BEND_SD])
    return law, Prior(centre, deviation, OVERLAPPED_NOISE if is_overlapped else GENERATION_NOISE)


def token_pass(features: F64, seconds: F64) -> tuple[PassLaw, Prior]:
    """Return the law of a pass, and the belief that it is proportional to tokens but for a small constant."""
    tokens = features[:, 0]
    usual = float(np.median(tokens))
    centre = np.array([np.log(np.median(seconds / tokens)), np.log(PASS_CONSTANT * usual), 0.0])
    return PassLaw(usual), Prior(centre, np.array([UNKNOWN_SD, 1.5, PASS_BEND_SD]), PASS_NOISE)


def constant(seconds: F64) -> tuple[ConstantLaw, Prior]:
    """Return the law of a phase that lengths say nothing about."""
    return ConstantLaw(), Prior(np.array([np.log(np.median(seconds))]), np.array([UNKNOWN_SD]), GENERATION_NOISE)
