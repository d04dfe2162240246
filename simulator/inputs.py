"""Inputs: a scenario with everything it names looked up, and the parts of each run made from it.

Everything that can be wrong with a scenario beyond its own fields shows here, before anything is simulated.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from simulator.arm_rates import ArmRates, build_arm_rates
from simulator.config import ArmConfig, Scenario, TrainerStall
from simulator.draft_head import syncs_with_head
from simulator.engine_habits import load_habits
from simulator.entropy import Entropy, build_entropy
from simulator.errors import ScenarioError
from simulator.failures import replica_failures, trainer_failures
from simulator.latency import Need, TraceLatency
from simulator.laws import KnownLaws, Laws, draft_lengths
from simulator.memory import kv_capacity_tokens
from simulator.parts import Parts, groups_needed
from simulator.rng import generator, stream_key
from simulator.roofline import roofline_trace
from simulator.step_table import scaled
from simulator.trainer import TrainerCost, trainer_cost
from simulator.weight_sync import weight_sync_s
from simulator.workload import NO_FILTER, Bools, Workload, draw_useful, draw_workload, groups_per_step, trace_workload
from traces.acceptance import AcceptanceTrace
from traces.architecture import Architecture, load_architecture
from traces.base import Trace, canonical_hash
from traces.errors import TraceError
from traces.hardware import Gpu, load_gpu
from traces.latency import LatencyTrace
from traces.store import load_named
from traces.workload import WorkloadTrace

A = TypeVar("A")
T = TypeVar("T")

BASELINE = "baseline"
_PLAIN = ArmConfig(k=0)


@dataclass(slots=True)
class Inputs:
    """What a scenario's names stand for."""

    scenario: Scenario
    architecture: Architecture
    gpu: Gpu
    latency: TraceLatency
    entropy: Entropy
    workload_trace: WorkloadTrace | None
    groups_per_step: int
    """Groups that one RL step trains on."""
    trainer: TrainerCost
    latency_while_training: TraceLatency | None = None

    @property
    def temperature(self) -> float:
        return self.scenario.workload.temperature

    @property
    def rl_steps(self) -> range:
        """RL steps of the run, on the entropy trajectory."""
        first = self.scenario.run.first_step
        return range(first, first + self.scenario.run.num_steps)

    def arm(self, name: str) -> ArmConfig:
        """Return an arm's configuration; the baseline is plain decoding."""
        return _PLAIN if name == BASELINE else self.scenario.arms[name]

    def rates(self, name: str, shift: float = 0.0) -> ArmRates | None:
        """Return the arm's acceptance along the run; None for plain decoding."""
        first_step = self.scenario.run.first_step
        try:
            return build_arm_rates(
                self.arm(name),
                name=name,
                temperature=self.temperature,
                first_step=first_step,
                accept_length_shift=shift,
            )
        except TraceError as error:
            raise ScenarioError(f"arms.{name}.acceptance.trace: {error}") from None

    def sync_s(self, name: str) -> float:
        """Return the seconds of one weight sync of an arm, its draft head included where that is trained."""
        scenario = self.scenario
        policy, per_step = scenario.policy, self.groups_per_step
        syncs_per_step = per_step / policy.groups_per_sync(per_step) if policy.kind == "fully_async" else 1.0
        share = syncs_with_head(self.arm(name).head, syncs_per_step)
        precision = scenario.model.precision
        return weight_sync_s(scenario.weight_sync, self.architecture, precision, syncs_with_head=share)

    def trainer_of(self, name: str, factor: float = 1.0) -> TrainerCost:
        """Return what training costs an arm, `factor` times: its overhead, and refits that the trainer waits for."""
        arm, cost = self.arm(name), self.trainer
        if arm.head is not None and arm.head.kind == "refit" and not arm.head.overlapped:
            refit = TrainerStall(every_steps=arm.head.every_steps, seconds=arm.head.seconds)
            cost = replace(cost, stalls=(*cost.stalls, refit))
        return cost.scaled(factor * (1.0 + arm.train_overhead))

    def content_hash(self) -> str:
        """Return the sha256 of the scenario and the traces it uses."""
        scenario = self.scenario
        traces: list[Trace] = [self.latency.trace]
        if self.latency_while_training is not None:
            traces.append(self.latency_while_training.trace)
        if self.workload_trace is not None:
            traces.append(self.workload_trace)
        if scenario.entropy is not None and scenario.entropy.kind == "trace":
            traces.append(load_named(scenario.entropy.trace, WorkloadTrace))
        for _, arm in sorted(scenario.arms.items()):
            if arm.acceptance is not None and arm.acceptance.kind != "fixed":
                traces.append(load_named(arm.acceptance.trace, AcceptanceTrace))
        return canonical_hash([scenario.model_dump(mode="json"), [trace.content_hash() for trace in traces]])


@dataclass(frozen=True, slots=True)
class Noise:
    """Factors by which one replication's inputs differ from the stated ones."""

    latency: float = 1.0
    draft_and_verify: float = 1.0
    trainer: float = 1.0
    weight_sync: float = 1.0
    accept_length: float | None = None
    """Tokens added to every accept length; None: drawn for each source of acceptance, as the scenario says."""


def resolve(scenario: Scenario) -> Inputs:
    """Look up everything the scenario names.

    Raises:
        ScenarioError: A name stands for nothing, or the parts do not fit.
        TraceError: A trace is missing or broken.
    """
    architecture = _named("model.name", load_architecture, scenario.model.name)
    gpu = _named("cluster.gpu", load_gpu, scenario.cluster.gpu)
    workload_trace = None
    if scenario.workload.kind == "trace":
        workload_trace = _named("workload.trace", _load_workload, scenario.workload.trace)
        if not workload_trace.sequences:
            raise ScenarioError(f"workload.trace: {workload_trace.name} holds no sequences; give one that does")
    inputs = Inputs(
        scenario=scenario,
        architecture=architecture,
        gpu=gpu,
        latency=_latency(scenario, architecture, gpu, getattr(scenario.latency, "trace", None)),
        entropy=_named("entropy.trace", build_entropy, scenario.entropy),
        workload_trace=workload_trace,
        groups_per_step=groups_per_step(scenario.workload, workload_trace),
        trainer=trainer_cost(scenario.trainer, scenario.cluster, architecture, gpu),
    )
    beside = getattr(scenario.latency, "while_training", None)
    if beside is not None:
        inputs.latency_while_training = _latency(scenario, architecture, gpu, beside)
    fetch = getattr(scenario.policy, "fetch_groups", None)
    if fetch is not None and inputs.groups_per_step % fetch:
        raise ScenarioError(
            f"policy.fetch_groups: {fetch} does not divide the {inputs.groups_per_step} groups of an RL step "
            "(workload.prompts_per_step); choose a divisor"
        )
    for name, arm in scenario.arms.items():
        rates = inputs.rates(name)
        if rates is not None:
            last = scenario.run.num_steps - 1
            for version in (0, last) if arm.verify_rule is None else range(last + 1):
                rates.check(version, inputs.entropy.at(inputs.rl_steps[version]))
    return inputs


def make_workload(inputs: Inputs, replication: int) -> Workload:
    """Return the sequences that all arms of one replication generate, with some to spare for unbounded staleness."""
    scenario = inputs.scenario
    failures, per_step = scenario.failures, inputs.groups_per_step
    num_steps = scenario.run.num_steps
    if failures is not None and failures.trainer_mtbf_s is not None:
        num_steps *= 2  # as many to train on again; a run that needs more is refused
    seed = (scenario.run.seed, replication, "workload")

    def num_groups(useful: Bools) -> int:
        ahead = _most_ahead(inputs)
        return max(groups_needed(num_steps, per_step, scenario.policy, ahead, useful), num_steps * per_step + ahead)

    if inputs.workload_trace is not None:
        return trace_workload(inputs.workload_trace, num_groups(NO_FILTER))
    assert scenario.workload.kind == "synthetic"
    needed = num_groups(NO_FILTER)
    if scenario.workload.useful_fraction is not None:
        drawn = int(needed / scenario.workload.useful_fraction) + 64
        while (needed := num_groups(draw_useful(scenario.workload, drawn, *seed))) > drawn:
            drawn *= 2
    return draw_workload(
        scenario.workload,
        needed,
        *seed,
        first_step=scenario.run.first_step,
        groups_per_step=scenario.generated_groups_per_step,
    )


def num_helpers(scenario: Scenario) -> int:
    """Return how many replicas the trainer's GPUs make while it waits for samples."""
    if getattr(scenario.policy, "elastic_switch_s", None) is None:
        return 0
    return scenario.cluster.num_train_gpus // scenario.cluster.tp_size


def unbounded_staleness(inputs: Inputs) -> int:
    """Return a staleness at which admission never holds a replica back: two full clusters of work ahead."""
    scenario = inputs.scenario
    if scenario.policy.kind != "fully_async":
        return scenario.max_staleness
    size = scenario.workload.group_size if scenario.workload.kind == "synthetic" else 1
    places = (scenario.cluster.num_replicas + num_helpers(scenario)) * scenario.max_live_per_replica
    per_sync = scenario.policy.groups_per_sync(inputs.groups_per_step)
    return max(scenario.max_staleness, math.ceil(places / (size * per_sync)) + 2)


def _most_ahead(inputs: Inputs) -> int:
    """Return the groups that unbounded staleness admits beyond those trained on at the last weight sync."""
    policy, per_step = inputs.scenario.policy, inputs.groups_per_step
    per_sync = policy.groups_per_sync(per_step) if policy.kind == "fully_async" else per_step
    return (unbounded_staleness(inputs) + 1) * per_sync


def make_noise(inputs: Inputs, replication: int) -> Noise:
    """Return one replication's errors of the inputs: log-normal, the same for all arms."""
    config = inputs.scenario.uncertainty

    def factor(name: str, sd: float) -> float:
        return float(np.exp(sd * _normal(inputs, replication, name)))

    return Noise(
        latency=factor("latency", config.latency),
        draft_and_verify=factor("draft_and_verify", config.draft_and_verify),
        trainer=factor("trainer", config.trainer),
        weight_sync=factor("weight_sync", config.weight_sync),
    )


def make_parts(
    inputs: Inputs, name: str, workload: Workload, noise: Noise, replication: int, known_laws: KnownLaws | None = None
) -> tuple[Parts, tuple[str, ...]]:
    """Return one arm's parts for one replication, and warnings about inputs used beyond their data.

    Step laws in `known_laws` are not made again, new ones are kept there.

    Raises:
        ScenarioError: The longest sequence does not fit into a replica's KV cache.
        TraceCoverageError: The latency trace does not cover the run.
    """
    scenario, arm = inputs.scenario, inputs.arm(name)
    kv_tokens = kv_capacity_tokens(scenario, inputs.architecture, inputs.gpu, arm.k)
    longest = workload.max_context_tokens
    if longest > kv_tokens:
        stated = scenario.engine.kv_cache_tokens is not None
        raise ScenarioError(
            f"{'engine.kv_cache_tokens' if stated else 'engine.max_running_seqs'}: the KV cache of a replica holds "
            f"{kv_tokens} tokens (arm {name}), but the longest sequence has {longest}; "
            + ("raise it" if stated else "lower it, raise cluster.tp_size or engine.gpu_memory_utilization,")
            + " or shorten the workload"
        )
    in_flight = _most_ahead(inputs) * int(workload.group_size.max())
    max_running = min(scenario.engine.max_running_seqs, in_flight)
    choices = draft_lengths(arm)
    keeps_draft_cache = arm.draft_length is not None
    needs = [Need(name, k, max_running, longest, kv_tokens, keeps_draft_cache) for k in choices]
    slowness = noise.latency / (scenario.engine.efficiency or 1.0)
    of_level = [noise.draft_and_verify if k > 0 else 1.0 for k in choices]
    table, warnings = inputs.latency.step_tables(needs)
    table, while_training = scaled(table, slowness, of_level), None
    if inputs.latency_while_training is not None:
        while_training, more = inputs.latency_while_training.step_tables(needs)
        while_training, warnings = scaled(while_training, slowness, of_level), (*warnings, *more)
    shift = noise.accept_length
    if shift is None:
        source = arm.acceptance.model_dump_json() if arm.acceptance else ""
        shift = scenario.uncertainty.accept_length * _normal(inputs, replication, "accept_length", source)
    laws = Laws(inputs, name, shift, workload, table, scenario.run.first_step, known_laws)
    parts = Parts(
        workload=workload,
        num_steps=scenario.run.num_steps,
        groups_per_step=inputs.groups_per_step,
        policy=scenario.policy,
        num_replicas=scenario.cluster.num_replicas,
        max_running=max_running,
        max_live=max(min(scenario.max_live_per_replica, in_flight), max_running),
        kv_tokens=float(kv_tokens),
        chunk_tokens=scenario.engine.chunked_prefill_tokens or 0,
        keep_prefix=scenario.engine.prefix_cache == "kept",
        table=table,
        num_draft_tokens=arm.k,
        num_classes=laws.num_classes,
        piece_from=laws.piece_from,
        law_of=laws.law,
        num_helpers=num_helpers(scenario),
        switch_s=getattr(scenario.policy, "elastic_switch_s", None) or 0.0,
        sync_mode=scenario.weight_sync.mode or "blocking",
        swap_s=(scenario.weight_sync.swap_s or 0.0) * noise.weight_sync,
        trainer=inputs.trainer_of(name, noise.trainer),
        sync_s=inputs.sync_s(name) * noise.weight_sync,
        stream=stream_key(scenario.run.seed, replication, "acceptance"),
        kv_block_tokens=scenario.engine.kv_block_tokens,
        share_prompts=scenario.engine.group_prefix == "shared",
        router=scenario.cluster.router,
        slowness=scenario.cluster.slowness,
        failures=trainer_failures(scenario.failures, scenario.run.seed, replication),
        crashes=replica_failures(scenario.failures, scenario.run.seed, replication),
        table_while_training=while_training,
    )
    return parts, warnings


def _latency(scenario: Scenario, architecture: Architecture, gpu: Gpu, trace_name: str | None) -> TraceLatency:
    """Return what a latency trace of this name says of an engine; None: a roofline."""
    config, cluster = scenario.latency, scenario.cluster
    habits = load_habits()[scenario.engine.software] if scenario.engine.software is not None else None
    if config.kind == "trace":
        field = "latency.trace" if trace_name == config.trace else "latency.while_training"
        trace = _named(field, _load_latency, trace_name or config.trace)
        for field_name, said, known in (
            ("model.name", scenario.model.name, trace.model),
            ("cluster.gpu", cluster.gpu, trace.gpu),
            ("model.precision", scenario.model.precision, trace.precision),
        ):
            if said.lower() != known.lower() and not config.allow_mismatch:
                raise ScenarioError(
                    f"{field_name}: {said} is not {known}, for which latency trace {trace.name} was made; choose a "
                    "matching trace or set latency.allow_mismatch = true"
                )
        allow = config.allow_extrapolation
    else:
        most = max(arm.k for arm in scenario.arms.values())
        trace = roofline_trace(
            architecture,
            gpu,
            tp_size=cluster.tp_size,
            ep_size=cluster.ep_size,
            max_draft_tokens=max(most, 1),
            precision=scenario.model.precision,
            draft=config.draft,
            habits=habits,
        )
        allow = True
    return TraceLatency(
        trace,
        tp_size=cluster.tp_size,
        ep_size=cluster.ep_size,
        allow_extrapolation=allow,
        target_overhead_s=scenario.engine.layer_overhead_s * architecture.num_layers,
        draft_overhead_s=scenario.engine.layer_overhead_s,
        habits=habits,
        num_piecewise_layers=architecture.num_layers if architecture.num_linear_attention_layers else 0,
    )


def _load_latency(name: str) -> LatencyTrace:
    return load_named(name, LatencyTrace)


def _load_workload(name: str) -> WorkloadTrace:
    return load_named(name, WorkloadTrace)


def _named(field_name: str, load: Callable[[A], T], name: A) -> T:
    try:
        return load(name)
    except TraceError as error:
        raise ScenarioError(f"{field_name}: {error}") from None


def _normal(inputs: Inputs, replication: int, *name: str) -> float:
    return float(generator(inputs.scenario.run.seed, replication, "uncertainty", *name).standard_normal())
