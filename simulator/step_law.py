"""How many verify steps a response needs: S = min{n : A_1 + ... + A_n >= tokens}, A_i tokens emitted per step.

Drawn exactly, in about half a dozen draws whatever the length: the distribution of the sum of 2**m steps is tabulated
for m = 0..10; while more than 2**m (k + 1) tokens remain, a block of 2**m steps cannot overshoot and is drawn at once;
the last few tokens are drawn from a table of S itself. Does not know time, batches or replicas.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulator.compiled import compiled, inlined
from simulator.rng import uniform

MAX_LEVEL = 10
"""Blocks reach 2**10 steps: longer responses take several of them."""
LAST_TOKENS = 64
"""At most this many tokens are finished by one draw from the table of S."""
PARTIAL_DRAWS = 3
_GUIDE = 256
_LAST_GUIDE = 32
_TAIL = 1e-18
"""Probability below which a tail of a table is cut; a 53-bit uniform cannot resolve it."""

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]


class StepLaw(NamedTuple):
    """Tables for one or more classes of requests; read by the kernels, made by `build_step_law`.

    An engine that chooses k by its live batch has one level for each k it may choose: its classes are those of the
    first level, then those of the second, and so on; laws of fewer drafts have zero probability beyond their k + 1.
    Where acceptance changes along the response, a level has the classes of its first piece, of its second, and so on.
    """

    num_draft_tokens: int
    pmf: F64
    """[num_classes, k + 1]: P(emit 1 .. k + 1 tokens)."""
    emit_cdf: F64
    """[num_classes, k]: P(emit at most 1 .. k tokens)."""
    mean: F64
    """[num_classes]: tokens per step."""
    variance: F64
    """[num_classes]: variance of tokens per step."""
    block_cdf: F64
    """All block tables, one after the other."""
    block_offset: I64
    """[num_classes, levels]: where each table begins."""
    block_low: I64
    """[num_classes, levels]: tokens beyond one per step at a table's first entry."""
    block_guide: I64
    """[num_classes, levels, 256]: first entry worth looking at for each 256th of the unit interval."""
    last_cdf: F64
    """[num_classes, LAST_TOKENS + 1, LAST_TOKENS + 1]: P(S <= n | tokens left)."""
    last_guide: I64
    """[num_classes, LAST_TOKENS + 1, 32]."""
    level_of_batch: I64
    """[batches]: level at each live batch; its last entry holds for all larger ones."""


ONE_LEVEL: Final = np.zeros(1, np.int64)


def build_step_law(pmf: F64, max_tokens: int, level_of_batch: I64 = ONE_LEVEL) -> StepLaw:
    """Return the tables for laws pmf[num_classes, k + 1] and responses up to max_tokens."""
    num_classes, width = pmf.shape
    levels = 1
    while levels <= MAX_LEVEL and (1 << levels) * width < max_tokens:
        levels += 1
    tables: list[F64] = []
    offset = np.zeros((num_classes, levels), np.int64)
    low = np.zeros((num_classes, levels), np.int64)
    guide = np.zeros((num_classes, levels, _GUIDE), np.int64)
    last_cdf = np.zeros((num_classes, LAST_TOKENS + 1, LAST_TOKENS + 1))
    last_guide = np.zeros((num_classes, LAST_TOKENS + 1, _LAST_GUIDE), np.int64)
    position = 0
    for c in range(num_classes):
        density, first = pmf[c].astype(np.float64), 0
        for level in range(levels):
            if level:
                density, first = np.convolve(density, density), 2 * first
            density, first = _cut_tails(density, first)
            cdf = np.cumsum(density) / density.sum()
            cdf[-1] = 1.0
            offset[c, level], low[c, level] = position, first
            guide[c, level] = np.searchsorted(cdf, np.arange(_GUIDE) / _GUIDE, side="right")
            tables.append(cdf)
            position += len(cdf)
        _fill_last_steps(pmf[c], last_cdf[c], last_guide[c])
    emitted = np.arange(1, width + 1)
    mean = pmf @ emitted
    variance = pmf @ emitted**2 - mean**2
    return StepLaw(
        width - 1,
        pmf,
        np.ascontiguousarray(np.cumsum(pmf, axis=1)[:, :-1]),
        mean,
        np.maximum(variance, 0.0),
        np.concatenate(tables),
        offset,
        low,
        guide,
        last_cdf,
        last_guide,
        level_of_batch,
    )


def _cut_tails(density: F64, first: int) -> tuple[F64, int]:
    kept = np.flatnonzero(density > _TAIL)
    return np.ascontiguousarray(density[kept[0] : kept[-1] + 1]), first + int(kept[0])


@compiled
def _fill_last_steps(pmf: F64, cdf: F64, guide: I64) -> None:
    """Fill cdf[r, n] = P(S <= n | r tokens left) by conditioning on the first step, and its guide."""
    cdf[0, :] = 1.0
    for r in range(1, cdf.shape[0]):
        for n in range(1, cdf.shape[1]):
            total = 0.0
            for a in range(pmf.shape[0]):
                total += pmf[a] * cdf[max(r - a - 1, 0), n - 1]
            cdf[r, n] = total
        for n in range(r, cdf.shape[1]):
            cdf[r, n] = 1.0  # every step emits a token
        n = 0
        for i in range(guide.shape[1]):
            while cdf[r, n] <= i / guide.shape[1]:
                n += 1
            guide[r, i] = n


@inlined
def _draw_block(law: StepLaw, cls: int, level: int, u: float) -> int:
    """Return the tokens that 2**level steps emit, from a uniform number."""
    i = law.block_guide[cls, level, int(u * _GUIDE)]
    start = law.block_offset[cls, level]
    while law.block_cdf[start + i] <= u:
        i += 1
    return (1 << level) + law.block_low[cls, level] + i


@inlined
def draw_steps(law: StepLaw, cls: int, key: np.uint64, counter: int, tokens: int) -> tuple[int, int]:
    """Return (steps that `tokens` tokens need, next unused counter); exact in law."""
    if law.num_draft_tokens == 0:
        return tokens, counter
    width = law.num_draft_tokens + 1
    top = law.block_offset.shape[1] - 1
    steps = 0
    left = tokens
    while left > LAST_TOKENS:
        level = top
        while (width << level) >= left:
            level -= 1
        block_tokens = _draw_block(law, cls, level, uniform(key, counter))
        counter += 1
        steps += 1 << level
        left -= block_tokens
    u = uniform(key, counter)
    n = law.last_guide[cls, left, int(u * _LAST_GUIDE)]
    while law.last_cdf[cls, left, n] <= u:
        n += 1
    return steps + n, counter + 1


@inlined
def draw_until(law: StepLaw, cls: int, key: np.uint64, counter: int, tokens: int) -> tuple[int, int, int]:
    """Return (steps until `tokens` tokens are out, tokens that are out then, next unused counter); exact in law.

    Unlike `draw_steps` it says by how much the last step goes beyond: about two dozen draws for any number of tokens.
    """
    if law.num_draft_tokens == 0:
        return tokens, tokens, counter
    width = law.num_draft_tokens + 1
    level = law.block_offset.shape[1] - 1
    steps, emitted = 0, 0
    while emitted < tokens:
        while level > 0 and (width << level) >= tokens - emitted:
            level -= 1
        block_tokens = _draw_block(law, cls, level, uniform(key, counter))
        counter += 1
        steps += 1 << level
        emitted += block_tokens
    return steps, emitted, counter


@inlined
def draw_partial_tokens(
    law: StepLaw, cls: int, key: np.uint64, counter: int, tokens: int, steps: int, steps_done: int
) -> int:
    """Return tokens emitted in the first `steps_done` of `steps` steps that together emit `tokens`.

    A normal bridge from no tokens to those before the last step, kept inside what is possible (every step emits 1 to
    k + 1 tokens) and rounded, neither of which moves its mean: that is right to a fraction of a token. Uses the
    `PARTIAL_DRAWS` draws from `counter` on.
    """
    if law.num_draft_tokens == 0 or steps_done <= 0:
        return max(steps_done, 0)
    left = steps - steps_done
    if left <= 0:
        return tokens
    width = law.num_draft_tokens + 1
    # The last step may be cut short by the end of the response, the others not.
    low = max(steps_done, tokens - left * width)
    high = min(steps_done * width, tokens - left)
    # The last step emits the residual life of a renewal process: E[R] = E[A (A + 1)] / 2 E[A].
    mean = law.mean[cls]
    residual = min(0.5 * (mean + 1.0 + law.variance[cls] / mean), tokens - steps + 1.0)
    middle = min(max((tokens - residual) * (steps_done / (steps - 1.0)), low), high)
    deviation = np.sqrt(law.variance[cls] * steps_done * left / steps)
    radius = np.sqrt(-2.0 * np.log(1.0 - uniform(key, counter)))
    normal = radius * np.cos(2.0 * np.pi * uniform(key, counter + 1))
    reach = min(middle - low, high - middle)  # the same to both sides
    done = middle + min(max(deviation * normal, -reach), reach)
    return min(int(np.floor(done + uniform(key, counter + 2))), high)
