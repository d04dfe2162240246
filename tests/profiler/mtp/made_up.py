"""Results that nobody measured, for tests of what is made of results."""

from profiler.mtp.acceptance import Acceptance
from profiler.mtp.estimates import STRATEGIES
from profiler.mtp.results import LOSSES_COMPARED, Cell, Results, RlPoint, Size

TINY = Size("tiny", 32, 1, 20_000, 8, 6, 3, 12, 12, 24, 4, 19, 4, 1, (0,))


def accepted(length: float, sd: float = 0.001, sigma: float = 0.0) -> Acceptance:
    c = (length - 1) / 3
    return Acceptance((c,) * 3, (c,) * 3, (sigma,) * 3, length, sd, 0.5, 0.8, 1000)


def made_up(lengths: dict[str, float], sd: float = 0.001, sigma: float = 0.0) -> Results:
    cells = [
        Cell("code", loss, rule, 1.0, 0, accepted(length, sd, sigma))
        for loss, length in lengths.items()
        for rule in ("rejection", "block", "greedy_draft")
    ]
    return Results(TINY, cells)


def along_rl(slopes: dict[str, float], per_step: float = 0.0) -> Results:
    """Return three seeds of a run in which entropy rises and comes back; every seed has a level of its own."""
    found = made_up(dict.fromkeys(LOSSES_COMPARED, 3.0))
    for seed in range(3):
        for step in range(13):
            entropy, noise = 0.1 + 0.05 * (6 - abs(step - 6)), 0.02 * (-1) ** (step // 2 + seed)
            level = 3.5 + 0.1 * seed + noise + per_step * step
            lengths = {name: accepted(level + slopes.get(name, -1.0) * entropy) for name in STRATEGIES}
            found.rl.append(RlPoint(seed, step, entropy, 0.5, 0.0, lengths))
    return found
