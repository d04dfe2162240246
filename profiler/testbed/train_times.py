"""Times of GRPO steps by their tokens, and the line through them. Does not know what runs beside them."""

import statistics
import time
from collections.abc import Sequence

import numpy as np

from profiler.testbed.engine import Finished
from profiler.testbed.parts import PreparedParts
from profiler.testbed.trainer import Example
from traces.testbed import PhaseCost, TestbedConfig

SHARES_TRAINED = (0.25, 0.5, 1.0)
"""Of an RL step's responses, in the steps that training is fitted to."""


class TrainTimes:
    """A learner, real responses to train it on, and how long it took."""

    def __init__(self, config: TestbedConfig, finished: Sequence[Finished]) -> None:
        self._learner, self._examples = PreparedParts().learner(config), examples_of(finished, config)
        self._sizes = sorted({max(1, round(share * len(self._examples))) for share in SHARES_TRAINED})
        self._learner.train(self._examples[: self._sizes[0]])
        self.tokens: list[int] = []
        self.seconds: list[float] = []

    def take(self) -> None:
        """Train once at every size."""
        for size in self._sizes:
            examples = self._examples[:size]
            began_s = time.perf_counter()
            self._learner.train(examples)
            self.seconds.append(time.perf_counter() - began_s)
            self.tokens.append(sum(example.num_tokens for example in examples))

    def cost(self) -> PhaseCost:
        """Return the line through what was timed."""
        return fit(self.tokens, self.seconds)


def examples_of(finished: Sequence[Finished], config: TestbedConfig) -> list[Example]:
    """Return one RL step's worth of responses to train on, every second of them praised."""
    num = config.prompts_per_step * config.group_size
    chosen = [finished[index % len(finished)] for index in range(num)]
    return [
        Example(one.request.prompt, one.tokens, one.log_probs, 1.0 if index % 2 else -1.0)
        for index, one in enumerate(chosen)
    ]


def fit(tokens: Sequence[int], seconds: Sequence[float]) -> PhaseCost:
    """Return the line through timed calls, through the medians of those with equally many tokens; never falling."""
    known = sorted(set(tokens))
    medians = [statistics.median([s for t, s in zip(tokens, seconds, strict=True) if t == one]) for one in known]
    slope, constant = 0.0, statistics.fmean(medians)
    if len(known) > 1:
        # Relative errors count: the largest step is as important as the smallest.
        slope, constant = np.polyfit(known, medians, 1, w=1 / np.array(medians)).tolist()
        if constant < 0 or slope < 0:
            slope = max(float(np.dot(known, medians) / np.dot(known, known)), 0.0) if slope > 0 else 0.0
            constant = 0.0 if slope > 0 else statistics.fmean(medians)
    errors = [abs((constant + slope * t) / s - 1) for t, s in zip(tokens, seconds, strict=True)]
    return PhaseCost(
        constant_s=constant, s_per_token=slope, relative_error=float(np.quantile(errors, 0.95)), num_calls=len(seconds)
    )
