"""`bebop testbed profile`: what the parts of a config cost and accept, measured apart from any run that is predicted.

A folder with profile.json, latency-alone.json, latency-beside.json (where the policy overlaps rollout and training) and
acceptance.json. Timed on the cores, with the threads and through the code of a run. Does not know predictions.
"""

import datetime
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from profiler.result import own_version
from profiler.testbed.counting import NUM_RESPONSES, count
from profiler.testbed.neighbour import take_core, training_beside
from profiler.testbed.parts import PreparedParts
from profiler.testbed.prepared import prepare
from profiler.testbed.run import Outcome, drive
from profiler.testbed.step_trace import NUM_SWEEPS, latency_trace, time_engine
from profiler.testbed.task import PROMPT_TOKENS
from profiler.testbed.train_times import TrainTimes, fit
from traces.base import Provenance
from traces.latency import LatencyRow, LatencyTrace, Operation
from traces.store import save_trace
from traces.testbed import PhaseCost, TestbedConfig, TestbedPolicy, TestbedProfile

LATENCY_ALONE, LATENCY_BESIDE, ACCEPTANCE = "latency-alone.json", "latency-beside.json", "acceptance.json"
SYSTEM_STEPS = 8
"""RL steps of the short run without drafts; the first two are left out."""
NUM_WARM = 2


def main(config: TestbedConfig, output: Path, num_sweeps: int = NUM_SWEEPS) -> int:
    """Measure the parts of a config, each engine step in so many sweeps; write the profile into a folder."""
    began_s = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began_s:6.1f} s  {text}", file=sys.stderr, flush=True)

    profile = measure(config, output, say, num_sweeps)
    save_trace(profile, output / "profile.json")
    say("done")
    print(summary(profile, output))
    return 0


def measure(
    config: TestbedConfig, output: Path, say: Callable[[str], None], num_sweeps: int = NUM_SWEEPS
) -> TestbedProfile:
    """Return the profile; the traces that it names are written.

    Engine and trainer are timed in the same minutes, in turn or side by side: a machine that is slower for a while is
    so for both, and their ratio is what a speedup depends on.
    """
    prepare(config, say)
    say("messages and weight syncs: a short run without drafts")
    sync, hand_over, message_s = system_costs(config)
    take_core("rollout")
    say("acceptance, lengths and entropy of the policy before RL")
    counted = count(config, NUM_RESPONSES * num_sweeps // NUM_SWEEPS)  # a quicker profile is so in all of it
    if counted.acceptance is not None:
        save_trace(counted.acceptance, output / ACCEPTANCE)
    say("steps of the engine and of the trainer, in turn")
    train = TrainTimes(config, counted.finished)

    def train_in_turn() -> None:
        take_core("trainer")
        train.take()
        take_core("rollout")

    _save_latency(config, output / LATENCY_ALONE, "Nothing else ran.", message_s, num_sweeps, train_in_turn)
    train_alone, train_beside = train.cost(), None
    overlaps = config.policy.kind != "synchronous"
    if overlaps:
        say("steps of the engine and of the trainer, side by side")
        with training_beside(config, counted.finished) as beside:
            notes = "A trainer computed on another core meanwhile."
            _save_latency(config, output / LATENCY_BESIDE, notes, message_s, num_sweeps, lambda: None)
        train_beside = fit(beside.tokens, beside.seconds)
    return TestbedProfile(
        name=config.name,
        config=config,
        latency_alone=LATENCY_ALONE,
        latency_beside=LATENCY_BESIDE if overlaps else None,
        acceptance=ACCEPTANCE if counted.acceptance is not None else None,
        train_alone=train_alone,
        train_beside=train_beside,
        sync=sync,
        hand_over=hand_over,
        prompt_tokens=PROMPT_TOKENS,
        response_tokens=counted.response_tokens,
        group_correlation=counted.group_correlation,
        entropy_nats=counted.entropy_nats,
        provenance=Provenance(
            source="parts of the testbed, timed and counted apart from any run",
            created=datetime.datetime.now(datetime.UTC).date().isoformat(),
            command=_command(config),
            versions={"bebop-rollout": own_version(), "torch": torch.__version__},
        ),
    )


def system_costs(config: TestbedConfig) -> tuple[PhaseCost, PhaseCost, float]:
    """Return what weight sync and hand-over cost, and the messages of a response: a short run of the real actors.

    It is synchronous and without drafts. Messages are seconds of the rollout actor between steps of its engine, per
    response. Hand-over is what is left of an RL step without these, the engine's busy time, training and sync.
    """
    short = config.model_copy(
        update={
            "policy": TestbedPolicy(kind="synchronous"),
            "k": 0,
            "forced_acceptance": None,
            "head_update": "frozen",
            "num_steps": SYSTEM_STEPS,
        }
    )
    outcome = Outcome()
    drive(short, PreparedParts(), outcome, lambda: None)
    records = outcome.records
    ends = [record.end_s for record in records]
    spans = [end - begin for begin, end in pairwise(ends)]
    rest = [
        max(span - record.train_s - record.sync_s - record.counters.busy_s - record.message_s, 0.0)
        for span, record in zip(spans, records[1:], strict=True)
    ]
    warm = records[NUM_WARM:]
    message_s = statistics.median(record.message_s / len(record.response_tokens) for record in warm)
    return _constant([record.sync_s for record in warm]), _constant(rest[NUM_WARM - 1 :]), message_s


def _constant(seconds: Sequence[float]) -> PhaseCost:
    middle = statistics.median(seconds)
    low, high = np.quantile(seconds, (0.1, 0.9)).tolist()
    error = max(high - middle, middle - low) / middle if middle > 0 else 0.0
    return PhaseCost(constant_s=middle, relative_error=error, num_calls=len(seconds))


def _save_latency(
    config: TestbedConfig, path: Path, notes: str, message_s: float, num_sweeps: int, between: Callable[[], None]
) -> None:
    trace = with_messages(_latency(config, path.stem, notes, num_sweeps, between), config.max_running_seqs, message_s)
    save_trace(trace, path)
    print(f"{'':10}{path.name}: {errors_of(trace)}", file=sys.stderr, flush=True)


def with_messages(trace: LatencyTrace, most_prompts: int, message_s: float) -> LatencyTrace:
    """Return a trace whose prefills of up to so many fresh prompts hold as many responses' messages, seconds each."""

    def num_responses(row: LatencyRow) -> float:
        prompts = row.tokens_per_seq / PROMPT_TOKENS
        return prompts if row.operation is Operation.PREFILL and prompts <= most_prompts else 0.0

    rows = [row.model_copy(update={"latency_s": row.latency_s + num_responses(row) * message_s}) for row in trace.rows]
    notes = f"{trace.provenance.notes} Prefills of prompts hold {1e3 * message_s:.3g} ms of messages per response."
    provenance = trace.provenance.model_copy(update={"notes": notes})
    return trace.model_copy(update={"rows": tuple(rows), "provenance": provenance})


def _latency(
    config: TestbedConfig, name: str, notes: str, num_sweeps: int, between: Callable[[], None]
) -> LatencyTrace:
    """Return the trace of the config's engine; `between` is called between sweeps."""
    if config.engine == "llamacpp":
        from profiler.testbed import llamacpp_steps

        return llamacpp_steps.latency_trace(config, name, _command(config), notes, num_sweeps, between)
    return latency_trace(config, time_engine(config, num_sweeps, between=between), name, _command(config), notes)


def errors_of(trace: LatencyTrace) -> str:
    """Return what a trace says of itself."""
    found = trace.measurement
    assert found is not None
    text = f"{found.num_noisy} points with a spread above {found.noisy_spread:.0%}"
    if found.held_out is None:
        return text
    return f"{text}; held-out steps {found.held_out.median:.1%} median, {found.held_out.worst:.1%} worst"


def summary(profile: TestbedProfile, output: Path) -> str:
    """Return the profile in a line."""
    train = profile.train_alone
    return (
        f"{output / 'profile.json'}: training {train.constant_s:.3f} s + {1e6 * train.s_per_token:.0f} us per token, "
        f"sync {profile.sync.constant_s:.3f} s, hand-over {profile.hand_over.constant_s:.3f} s, "
        f"entropy {profile.entropy_nats:.2f} nats"
    )


def _command(config: TestbedConfig) -> str:
    return f"bebop testbed profile {config.name}.toml"
