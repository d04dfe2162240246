"""Logs of runs whose laws are known: lengths drawn, seconds computed from them, and noise."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from traces.base import Provenance
from traces.measured import MeasuredRun, MeasuredStep, Setup

EXCERPT = Path(__file__).parent / "data" / "aopd-38rf6xe8.json"
"""Sixteen steps of a real synchronous verl run, with their provenance."""


@dataclass(frozen=True)
class Engine:
    """What a made-up run costs."""

    base_s: float = 8e-3
    doubling_batch: float = 240.0
    doubling_context: float = 400_000.0
    constant_s: float = 3.0
    s_per_token: float = 50e-6
    log_prob_s_per_token: float = 14e-6
    sync_s: float = 4.0
    rest_s: float = 1.0


def made_up_run(
    num_steps: int = 60,
    *,
    engine: Engine = Engine(),
    growth: float = 4.0,
    noise: float = 0.02,
    count: int = 256,
    cap: int = 8192,
    kept: float = 1.0,
    seed: int = 0,
    setup: Setup | None = None,
) -> MeasuredRun:
    """Return a synchronous run whose responses grow by a factor, `kept` of them trained on."""
    source = np.random.default_rng(seed)
    steps = []
    for i in range(num_steps):
        median = 500.0 * growth ** (i / max(num_steps - 1, 1))
        lengths = np.minimum(np.rint(median * np.exp(0.9 * source.standard_normal(count))), cap)
        prompts = source.integers(200, 400, count)
        mean = lengths.mean()
        read = float((lengths * prompts + lengths**2 / 2).sum())
        generation = engine.base_s * (
            lengths.max() + lengths.sum() / engine.doubling_batch + read / engine.doubling_context
        )
        num_kept = round(count * kept * source.uniform(0.85, 1.0) / 4) * 4 if kept < 1 else count
        trained = slice(0, num_kept)
        tokens = float((lengths + prompts).sum())
        blur = np.exp(noise * source.standard_normal(5))
        parts = {
            "generation_s": (generation + engine.constant_s) * blur[0],
            "train_s": engine.s_per_token * float((lengths + prompts)[trained].sum()) * blur[1],
            "log_prob_s": engine.log_prob_s_per_token * tokens * blur[2],
            "sync_s": engine.sync_s * blur[3],
        }
        steps.append(
            MeasuredStep(
                step=i + 1,
                step_s=sum(parts.values()) + engine.rest_s * blur[4],
                **parts,
                response_tokens_mean=float(np.float32(lengths[trained].mean() if kept < 1 else mean)),
                response_tokens_max=float(lengths.max()),
                response_tokens_min=float(lengths.min()),
                clipped_fraction=float(
                    np.float32((lengths >= cap).mean() if kept == 1 else (lengths[trained] >= cap).mean())
                ),
                prompt_tokens_mean=float(np.float32(prompts[trained].mean())),
                total_tokens=tokens,
                entropy_nats=0.5,
            )
        )
    return run_of(steps, setup)


def run_of(steps: list[MeasuredStep], setup: Setup | None = None) -> MeasuredRun:
    """Return a run of these steps."""
    return MeasuredRun(
        name="made-up",
        framework="bebop",
        provenance=Provenance(source="made up for tests", created="2026-11-22"),
        setup=setup or Setup(),
        steps=tuple(steps),
    )
