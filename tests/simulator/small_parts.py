"""Parts of small runs in which every duration is known: steps and prefills cost the same whatever their batch."""

from dataclasses import dataclass, field, replace

import numpy as np

from simulator.cluster import Run
from simulator.config import (
    ConstantLength,
    FullyAsyncPolicy,
    Length,
    LognormalLength,
    PolicyConfig,
    Router,
    SynchronousPolicy,
    SyncMode,
    SyntheticWorkload,
)
from simulator.metrics import Outcome, measure
from simulator.parts import Parts
from simulator.policies import run_cluster
from simulator.policies.run import TRAINER_LIFE
from simulator.rng import stream_key
from simulator.rollout_state import JUMP
from simulator.step_law import StepLaw, build_step_law
from simulator.step_table import StepTable, build_step_table
from simulator.trainer import TrainerCost
from simulator.workload import draw_workload

PROMPT, RESPONSE = 100, 61
STEP_S, PREFILL_S = 0.01, 0.25
SPREAD = LognormalLength(mean=80, sigma=0.7, maximum=600)


def flat_table(step_s: float, prefill_s: float, max_running: int) -> StepTable:
    steps = np.full((max_running + 1, 2), step_s)
    return build_step_table(np.array([1.0, 1e6]), steps, np.array([0.0, 1e9]), np.full(2, prefill_s), 0.0)


@dataclass(frozen=True)
class Small:
    """2 replicas, 4 groups of 2 responses per RL step: 4 sequences per replica, all of the same length."""

    policy: PolicyConfig = field(default_factory=SynchronousPolicy)
    response: Length = field(default_factory=lambda: ConstantLength(value=RESPONSE))
    prompts_per_step: int = 4
    group_size: int = 2
    num_replicas: int = 2
    max_running: int = 4
    num_steps: int = 6
    step_s: float = STEP_S
    prefill_s: float = PREFILL_S
    train_s: float = 2.0
    train_s_per_token: float = 0.0
    sync_s: float = 0.5
    pmf: tuple[float, ...] = (1.0,)
    """P(a step emits 1, 2, .. tokens)."""
    kv_tokens: float = 1e9
    share_prompts: bool = False
    router: Router = "least_in_flight"
    useful_fraction: float | None = None
    sync_mode: SyncMode = "blocking"
    swap_s: float = 0.0
    num_helpers: int = 0
    switch_s: float = 0.0
    kv_block_tokens: int = 1
    seed: int = 0

    def parts(self) -> Parts:
        workload = draw_workload(
            SyntheticWorkload(
                prompts_per_step=self.prompts_per_step,
                group_size=self.group_size,
                prompt_tokens=ConstantLength(value=PROMPT),
                response_tokens=self.response,
                useful_fraction=self.useful_fraction,
            ),
            round((2 * self.num_steps + 12) * self.prompts_per_step * 3 / (self.useful_fraction or 3)),
            "small",
            self.seed,
        )
        law: StepLaw = build_step_law(np.array([self.pmf]), workload.max_output_tokens)
        return Parts(
            workload=workload,
            num_steps=self.num_steps,
            groups_per_step=self.prompts_per_step,
            policy=self.policy,
            num_replicas=self.num_replicas,
            max_running=self.max_running,
            max_live=self.max_running,
            kv_tokens=self.kv_tokens,
            chunk_tokens=0,
            keep_prefix=True,
            table=flat_table(self.step_s, self.prefill_s, self.max_running),
            num_draft_tokens=len(self.pmf) - 1,
            num_classes=1,
            law_of=lambda _: law,
            trainer=TrainerCost(self.train_s, self.train_s_per_token),
            sync_s=self.sync_s,
            kv_block_tokens=self.kv_block_tokens,
            share_prompts=self.share_prompts,
            router=self.router,
            stream=stream_key("small", self.seed),
            sync_mode=self.sync_mode,
            swap_s=self.swap_s,
            num_helpers=self.num_helpers,
            switch_s=self.switch_s,
        )

    def but(self, **changes: object) -> "Small":
        return replace(self, **changes)  # type: ignore[arg-type]

    def outcome(self, *, warmup_steps: int = 2, mode: int = JUMP) -> Outcome:
        parts = self.parts()
        return measure(run_cluster(parts, mode=mode), parts, warmup_steps)


def finished(small: Small, mode: int = JUMP) -> Run:
    """Run to the end, and keep everything of the run."""
    run = Run(small.parts(), mode=mode)
    run.env.run(until=run.env.process(TRAINER_LIFE[small.policy.kind](run)))
    return run


def fully_async(max_staleness: int | None = 1, in_flight: str = "abort_resume", **fields: object) -> FullyAsyncPolicy:
    return FullyAsyncPolicy(max_staleness=max_staleness, in_flight=in_flight, **fields)  # type: ignore[arg-type]
