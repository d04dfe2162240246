"""Made-up measured runs whose every second is known."""

from collections.abc import Callable
from typing import Any

from traces.base import Provenance
from traces.measured import MeasuredRun, MeasuredStep, Setup, Speculation

TRAIN_S, SYNC_S, REST_S = 60.0, 6.0, 4.0


def step(number: int, **changes: Any) -> MeasuredStep:
    """Return a synchronous step of 170 s, 100 of them generation: 64 responses of 1,000 tokens and up to 5,000."""
    said: dict[str, Any] = {
        "generation_s": 100.0,
        "train_s": TRAIN_S,
        "sync_s": SYNC_S,
        "num_sequences": 64,
        "response_tokens_mean": 1000.0,
        "response_tokens_max": 5000.0,
        "entropy_nats": 0.4,
    }
    said |= changes
    parts = said.get("generation_wait_s", said["generation_s"]), said["train_s"], said["sync_s"]
    said.setdefault("step_s", sum(part or 0.0 for part in parts) + REST_S)
    return MeasuredStep(step=number, **{name: value for name, value in said.items() if value is not None})


def run(
    steps: list[MeasuredStep] | None = None, *, name: str = "run", setup: Setup | None = None, framework: str = "verl"
) -> MeasuredRun:
    return MeasuredRun(
        name=name,
        provenance=Provenance(source="made up for a test", created="2026-01-31"),
        framework=framework,
        setup=setup or Setup(),
        steps=tuple(steps if steps is not None else [step(number) for number in range(1, 21)]),
    )


def changed(by: Callable[[int], dict[str, Any]], count: int = 20, **options: Any) -> MeasuredRun:
    """Return a run whose steps 1..count differ from `step` as `by` says."""
    return run([step(number, **by(number)) for number in range(1, count + 1)], **options)


def drafting(length: float, generation_s: float) -> dict[str, Any]:
    return {"generation_s": generation_s, "speculation": Speculation(accept_length=length)}
