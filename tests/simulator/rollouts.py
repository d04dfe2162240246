"""Small rollouts for the tests of the kernels: a case says what happens, `play` makes it happen."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from simulator.config import ConstantLength, LognormalLength, SyntheticWorkload, TurnsConfig
from simulator.kernels import advance, busy_seconds, idle_seconds, submit, weight_sync
from simulator.rng import stream_key
from simulator.rollout_state import (
    ABORT,
    JUMP,
    KEEP,
    LEAST_IN_FLIGHT,
    PER_STEP,
    RECOMPUTE,
    RESTART,
    RolloutState,
    new_state,
)
from simulator.step_law import StepLaw, build_step_law
from simulator.step_table import StepTable, build_step_table
from simulator.workload import Workload, draw_workload

ALL = 1 << 40
AT_SYNC = {"in_place": KEEP, "abort": ABORT, "restart": RESTART, "recompute": RECOMPUTE}
MAX_TOKENS = 900
KNOTS = np.array([16.0, 64.0, 128.0, 256.0, 512.0, 1024.0])
PMF = {0: [1.0], 1: [0.4, 0.6], 3: [0.095, 0.126, 0.127, 0.652], 7: [0.2, 0.15, 0.1, 0.1, 0.1, 0.1, 0.05, 0.2]}
ALPHA = 1e-4
"""Level of every statistical test, chosen beforehand; their seeds are fixed."""
MODES = pytest.mark.parametrize("mode", [JUMP, PER_STEP], ids=["jump", "per_step"])


@dataclass(frozen=True)
class Case:
    """A rollout of 96 sequences of about 150 tokens."""

    k: int = 3
    num_replicas: int = 2
    max_running: int = 8
    max_live: int = 8
    kv_tokens: float = 1e9
    block_tokens: int = 1
    chunk_tokens: int = 0
    num_classes: int = 1
    piece_from: tuple[int, ...] = (0,)
    """Tokens of a response at which acceptance changes."""
    turns: bool = False
    keep_prefix: bool = True
    share_prompts: bool = False
    router: int = LEAST_IN_FLIGHT
    pieces: int = 1
    """Times at which sequences are submitted."""
    sync: str = ""
    """Six weight syncs: "abort", "restart", "in_place" or "recompute" with another law after each, or none."""
    padding: int = 4
    bend: float = 0.8
    """Cost grows with context ** bend; 1 makes it a straight line."""
    scale: float = 1.0
    """Factor of every latency, delay and time."""


def workload_of(case: Case, seed: int) -> Workload:
    turns = TurnsConfig(
        num_turns=ConstantLength(value=4.0),
        observation_tokens=LognormalLength(mean=20.0, sigma=0.5, maximum=60.0),
        delay_s=LognormalLength(mean=0.05, sigma=1.0, minimum=0.001, maximum=2.0),
        max_context_tokens=100_000,
    )
    config = SyntheticWorkload(
        prompts_per_step=24,
        group_size=4,
        prompt_tokens=LognormalLength(mean=40.0, sigma=0.5, minimum=20.0, maximum=100.0),
        response_tokens=LognormalLength(mean=150.0, sigma=0.8, maximum=float(MAX_TOKENS)),
        turns=turns if case.turns else None,
    )
    workload = draw_workload(config, 24, "kernels", seed)
    return replace(workload, delay_s=workload.delay_s * np.float32(case.scale))


def workload_from(inputs: list[int], outputs: list[int]) -> Workload:
    """Return single-turn sequences, each a group of its own."""
    count = len(inputs)
    tokens = np.array(outputs, np.int64)
    return Workload(
        first_turn=np.arange(count + 1, dtype=np.int64),
        input_tokens=np.array(inputs, np.int32),
        output_tokens=np.array(outputs, np.int32),
        delay_s=np.zeros(count, np.float32),
        group_of=np.arange(count, dtype=np.int32),
        group_size=np.ones(count, np.int32),
        group_tokens=tokens + np.array(inputs),
        group_output_tokens=tokens,
    )


def two_turns() -> Workload:
    """Return one trajectory: 10 tokens read, 5 emitted, 100 s at a tool, 20 read, 10 emitted."""
    return replace(
        workload_from([10], [15]),
        first_turn=np.array([0, 2]),
        input_tokens=np.array([10, 20], np.int32),
        output_tokens=np.array([5, 10], np.int32),
        delay_s=np.array([0.0, 100.0], np.float32),
    )


def table_of(case: Case) -> StepTable:
    padded = np.ceil(np.arange(case.max_running + 1)[:, None] / case.padding) * case.padding
    step_s = 1e-3 + 2e-4 * padded + 1e-6 * padded * KNOTS**case.bend
    step_s[0] = 0.0
    prefill = np.array([0.0, 64.0, 1024.0])
    return build_step_table(
        KNOTS, case.scale * step_s, prefill, case.scale * np.array([1e-3, 2e-3, 1.5e-2]), case.scale * 1e-8
    )


def flat_table(step_s: float, prefill_s: float, max_batch: int = 64) -> StepTable:
    """Return a table in which every step and every prefill takes the same time."""
    steps = np.full((max_batch + 1, 2), step_s)
    return build_step_table(np.array([1.0, 1e6]), steps, np.array([0.0, 1e9]), np.array([prefill_s, prefill_s]), 0.0)


def laws_of(case: Case) -> tuple[StepLaw, StepLaw]:
    """Return a law, and the one in force after a sync: the same tokens in reverse order of likelihood."""
    pmf = np.array([PMF[case.k]])
    if case.num_classes > 1:
        powers = pmf ** np.linspace(0.3, 2.0, case.num_classes)[:, None]
        pmf = powers / powers.sum(axis=1, keepdims=True)
    if len(case.piece_from) > 1:
        powers = np.concatenate([pmf ** (1.0 + 0.8 * piece) for piece in range(len(case.piece_from))])
        pmf = powers / powers.sum(axis=1, keepdims=True)
    return build_step_law(pmf, MAX_TOKENS), build_step_law(np.ascontiguousarray(pmf[:, ::-1]), MAX_TOKENS)


def state_of(case: Case, workload: Workload, mode: int, seed: str | int = 0) -> RolloutState:
    return new_state(
        workload,
        num_replicas=case.num_replicas,
        max_running=case.max_running,
        max_live=case.max_live,
        kv_tokens=case.kv_tokens,
        block_tokens=case.block_tokens,
        num_draft_tokens=case.k,
        num_classes=case.num_classes,
        stream=stream_key("rollouts", seed),
        chunk_tokens=case.chunk_tokens,
        keep_prefix=case.keep_prefix,
        share_prompts=case.share_prompts,
        router=case.router,
        mode=mode,
        record_finish=True,
        piece_from=case.piece_from,
    )


class Play:
    """A case in progress; `checkpoint` is called between what happens to it."""

    def __init__(self, case: Case, seed: int, mode: int = JUMP, *, draws: str | int = "same", cuts: int = 1) -> None:
        """cuts: into how many calls each advance is split."""
        self.case, self.cuts = case, cuts
        self.workload = workload_of(case, seed)
        self.state = state_of(case, self.workload, mode, f"{seed} {draws}")
        self.table = table_of(case)
        self.laws = laws_of(case)
        self.now_s = 0.0

    def checkpoint(self) -> None:
        """Look at the state; a test overrides this."""

    def run(self) -> "Play":
        """Play to the end."""
        case, state, table = self.case, self.state, self.table
        law, other = self.laws
        for piece in range(case.pieces):
            submit(state, table, law, self.workload.num_sequences * (piece + 1) // case.pieces, self.now_s)
            self.checkpoint()
            if case.pieces > 1:
                self.advance(law, self.now_s + 0.15 * case.scale)
        for _ in range(6 if case.sync else 0):
            self.advance(law, self.now_s + 0.26 * case.scale)
            rule = AT_SYNC[case.sync]
            if rule in (ABORT, RESTART):
                other = law
            until_s = self.now_s + 0.05 * case.scale
            weight_sync(state, table, law, other, self.now_s, self.now_s, until_s, rule, law is not other)
            self.now_s = until_s
            law, other = other, law
            self.checkpoint()
        self.advance(law, 40.0 * case.scale)
        return self

    def advance(self, law: StepLaw, until_s: float) -> None:
        for cut in range(1, self.cuts):
            advance(self.state, self.table, law, self.now_s + (until_s - self.now_s) * cut / self.cuts, ALL)
            self.checkpoint()
        advance(self.state, self.table, law, until_s, ALL)
        self.now_s = until_s
        self.checkpoint()


def play(case: Case, seed: int, mode: int = JUMP, *, draws: str | int = "same", cuts: int = 1) -> RolloutState:
    return Play(case, seed, mode, draws=draws, cuts=cuts).run().state


def single(inputs: list[int], outputs: list[int], case: Case, mode: int, *, table_s: float = 0.25) -> RolloutState:
    """Every step takes `table_s`, every prefill a second."""
    state = state_of(case, workload_from(inputs, outputs), mode)
    table, law = flat_table(table_s, 1.0), build_step_law(np.array([PMF[case.k]]), 1000)
    submit(state, table, law, len(inputs), 0.0)
    advance(state, table, law, np.inf, ALL)
    return state


def total(state: RolloutState, *names: str) -> float:
    return float(sum(state.replicas[name].sum() for name in names))


def accounted_seconds(state: RolloutState, now_s: float) -> np.ndarray:
    """Return busy + starved + tool + sync of each replica up to now; `busy_seconds` and `idle_seconds` sum them."""
    r = state.replicas
    busy = r["busy_s"] - np.maximum(r["time_s"] - now_s, 0.0)
    busy = busy + np.where(r["idle"] == 0, np.maximum(now_s - r["time_s"], 0.0), 0.0)
    idle = r["starved_s"] + r["tool_s"]
    idle = idle + np.where(r["idle"] == 1, np.maximum(now_s - r["idle_since_s"], 0.0), 0.0)
    np.testing.assert_allclose(busy_seconds(state.replicas, now_s), busy.sum(), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(
        sum(idle_seconds(state.replicas, 0, len(state.replicas), now_s)), idle.sum(), rtol=1e-12, atol=1e-12
    )
    accounted: np.ndarray = busy + idle + r["sync_s"]
    return accounted


def bytes_of(state: RolloutState) -> bytes:
    return b"".join(np.ascontiguousarray(array).tobytes() for array in state)
