"""A made-up latency trace and a made-up scenario on it: small, and every number known in closed form."""

from collections.abc import Callable, Sequence
from pathlib import Path

from simulator.config import Scenario
from simulator.scenario_file import parse_scenario
from traces.base import Origin, Provenance
from traces.latency import LatencyRow, LatencyTrace, Operation
from traces.store import save_trace

BATCHES = (1, 2, 4, 8, 16)
CONTEXTS = (128, 1024, 4096)
MAX_K = 4

Seconds = Callable[[Operation, int, int, int], float]
"""(operation, batch, context, tokens per sequence) -> latency."""

_BASE_S = {
    Operation.PREFILL: 3e-3,
    Operation.DECODE: 5e-3,
    Operation.VERIFY: 7e-3,
    Operation.DRAFT: 1.1e-3,
    Operation.LM_HEAD: 1.3e-4,
    Operation.SAMPLE: 1.7e-5,
    Operation.HOST_GAP: 1.9e-5,
}


def rising(operation: Operation, batch: int, context: int, tokens: int) -> float:
    """Return a latency that rises with everything, in a way of its own for every operation."""
    if operation is Operation.PREFILL:
        return 3e-3 + 2e-5 * tokens + 1e-9 * tokens * (context + tokens / 2)
    return _BASE_S[operation] * (1 + 0.1 * batch * tokens**0.5 + 1e-5 * batch * context)


def constant(operation: Operation, batch: int, context: int, tokens: int) -> float:
    """Return the same for every batch, context and number of tokens; see `_BASE_S`."""
    return _BASE_S[operation]


def rows(seconds: Seconds = rising, *, max_k: int = MAX_K, batches: Sequence[int] = BATCHES) -> list[LatencyRow]:
    points = [(Operation.PREFILL, 1, context, tokens) for context in (0, 1024, 4096) for tokens in (16, 256, 2048)]
    for batch in batches:
        for context in CONTEXTS:
            points.append((Operation.DECODE, batch, context, 1))
            points.append((Operation.DRAFT, batch, context, 1))
            for width in range(2, max_k + 2):
                points += [(Operation.VERIFY, batch, context, width), (Operation.DRAFT, batch, context, width)]
        points += [(Operation.LM_HEAD, batch, 0, 1), (Operation.HOST_GAP, batch, 0, 1)]
        points += [(Operation.SAMPLE, batch, 0, width) for width in range(1, max_k + 2)]
    return [
        LatencyRow(
            operation=operation,
            batch=batch,
            context_tokens=context,
            tokens_per_seq=tokens,
            latency_s=seconds(operation, batch, context, tokens),
            origin=Origin.ASSUMED,
        )
        for operation, batch, context, tokens in points
    ]


def trace(made: Sequence[LatencyRow] | None = None, *, graphs: tuple[int, ...] | None = None) -> LatencyTrace:
    return LatencyTrace(
        name="made-up",
        provenance=Provenance(source="a test", created="2026-01-01"),
        gpu="H200",
        model="Qwen3-8B",
        precision="bf16",
        engine="none",
        graph_batch_sizes=graphs,
        rows=tuple(rows() if made is None else made),
    )


SCENARIO = """
name = "made-up"
question = "How much faster is a run whose numbers are all known?"
model = {{ name = "Qwen3-8B" }}
cluster = {{ gpu = "H200", num_rollout_gpus = 2, num_train_gpus = 2 }}
policy = {{ kind = "synchronous", switch_s = 0.5 }}
engine = {{ max_running_seqs = 16 }}
latency = {{ kind = "trace", trace = {trace!r} }}
trainer = {{ kind = "linear", constant_s = 1.0, s_per_token = 1e-5 }}
weight_sync = {{ kind = "seconds", seconds = 0.25 }}
run = {{ num_steps = 5, replications = 2 }}

[workload]
kind = "synthetic"
prompts_per_step = 4
group_size = 2
prompt_tokens = {{ kind = "constant", value = 100 }}
response_tokens = {{ kind = "lognormal", mean = 300, sigma = 0.6, maximum = 2000 }}

[arms.spec]
k = 3
acceptance = {{ kind = "fixed", cumulative = [0.8, 0.6, 0.4] }}
"""


def scenario(folder: Path, *overrides: str, seconds: Seconds = rising) -> Scenario:
    """Return the scenario, its trace lying in `folder`."""
    path = folder / f"{seconds.__name__}.json"
    if not path.exists():
        save_trace(trace(rows(seconds)), path)
    return parse_scenario(SCENARIO.format(trace=str(path)), "made-up.toml", overrides)
