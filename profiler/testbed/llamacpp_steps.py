"""LatencyTrace of llama.cpp as the testbed runs it: the rows of `bebop profile --source llamacpp`, on the run's server.

Slots, context, weights and the way that drafts are drawn are those of the run, and so is the core, other processes'
time on it left out. Prompts are timed as they arrive in a run, several at once, with drafts and without. Does not know
what the times are for.
"""

import os
import random
import statistics
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from profiler.grid import GridRequest
from profiler.ledger import Ledger
from profiler.point import Point
from profiler.request import ProfileRequest
from profiler.sources.llamacpp.profile import EngineProfile, this_machine
from profiler.sources.llamacpp.session import FIRST_WORD, Call, EngineSettings
from profiler.sources.llamacpp.steps import REQUEST_TOKENS, forced
from profiler.sources.llamacpp.trace import compose_trace
from profiler.sources.llamacpp.worker import Engine, EngineWorker
from profiler.testbed.actors import all_cores
from profiler.testbed.llamacpp_engine import settings_of, shape
from profiler.testbed.neighbour import CORE_OF
from profiler.testbed.step_trace import MOST_DRAFTS, batches_of
from profiler.testbed.task import PROMPT_TOKENS
from traces.latency import MIN_LATENCY_S, LatencyRow, LatencyTrace, Operation
from traces.testbed import TestbedConfig

NEAR_TOKENS = 64
"""The shortest context that is timed: steps that accept all drafts need so much room."""
NUM_SWEEPS = 3
NUM_HELD_OUT = 4
BUDGET_S = 240.0
PREFILL_REPEATS = 9
FIXED_SHARE = 0.5
"""Of drafts accepted in the steps of the trace: one profile serves configs of several forced rates."""


def latency_trace(config: TestbedConfig, name: str, command: str, notes: str) -> LatencyTrace:
    """Return what was timed on this process's cores, now.

    Raises:
        DeviceError: llama.cpp does not load the weights, or dies on everything.
    """
    most = max(config.k, MOST_DRAFTS)
    settings = replace(settings_of(config), num_draft_tokens=0, acceptance=None)
    request = ProfileRequest(
        name,
        shape(),
        "cpu",
        "fp32",
        GridRequest(
            tuple(batches_of(config.max_running_seqs)),
            (NEAR_TOKENS, max(PROMPT_TOKENS + config.max_response_tokens, 2 * NEAR_TOKENS)),
            most,
            (PROMPT_TOKENS,),
            (0,),
        ),
        num_threads=settings.num_threads,
        num_sweeps=NUM_SWEEPS,
        num_held_out=NUM_HELD_OUT,
        budget_s=BUDGET_S,
        seed=config.seed,
        command=command,
    )
    with TemporaryDirectory(prefix="bebop-testbed-") as folder, _engine() as engine:
        ledger = Ledger.open(Path(folder) / "samples.jsonl", request.identity())
        EngineProfile(request, engine, settings, ledger).run()
        prefills = prefill_rows(engine, settings, most, config.seed)
    trace = compose_trace(request, this_machine(1), ledger, FIXED_SHARE)
    told = trace.provenance.notes
    return trace.model_copy(
        update={
            "rows": (*(row for row in trace.rows if row.operation is not Operation.PREFILL), *prefills),
            "provenance": trace.provenance.model_copy(update={"notes": f"{notes} {told}"}),
        }
    )


def _engine() -> EngineWorker:
    """Return an engine on the core of the rollout actor; this process itself may wait on any."""
    if not hasattr(os, "sched_setaffinity"):
        return EngineWorker()
    known = all_cores()
    os.sched_setaffinity(0, known)
    return EngineWorker((known[CORE_OF["rollout"]],))


def prefill_rows(engine: Engine, settings: EngineSettings, num_draft_tokens: int, seed: int) -> list[LatencyRow]:
    """Return what prompts take that arrive together, by their tokens, and what the MTP layer adds to it."""
    rows, longest_s = [], 0.0
    for num in range(1, settings.num_slots + 1):
        plain_s, drafting_s = (
            prompts_s(engine, replace(settings, num_draft_tokens=k, acceptance=forced(k, 0)), num, seed)
            for k in (0, num_draft_tokens)
        )
        longest_s = max(longest_s, drafting_s - plain_s)
        for operation, seconds in ((Operation.PREFILL, plain_s), (Operation.DRAFT_PREFILL, longest_s)):
            point = Point(operation, num * PROMPT_TOKENS, 1)
            rows.append(
                LatencyRow(
                    operation=point.operation,
                    batch=point.batch,
                    context_tokens=point.context_tokens,
                    tokens_per_seq=point.tokens_per_seq,
                    latency_s=max(seconds, MIN_LATENCY_S),
                )
            )
    return rows


def prompts_s(engine: Engine, settings: EngineSettings, num: int, seed: int) -> float:
    """Return what so many requests take beyond their decode steps: prompts, and the server's work on each of them.

    Raises:
        DeviceError: The engine dies or refuses.
    """
    words = random.Random(f"{seed} {num} prompts")
    seconds = []
    for _ in range(PREFILL_REPEATS):
        prompts = [tuple(words.randrange(FIRST_WORD) for _ in range(PROMPT_TOKENS)) for _ in range(num)]
        calls = [Call(prompt, REQUEST_TOKENS, slot, words.randrange(1 << 31)) for slot, prompt in enumerate(prompts)]
        batch = engine.complete(settings, calls)
        own = batch.on_core_share(settings.num_threads)
        seconds.append(own * (batch.wall_s - statistics.fmean(answer.decode_s for answer in batch.answers)))
    return statistics.median(seconds)
