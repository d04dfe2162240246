"""Invariants: what must add up at the end of every run, whatever the policy. Always on; does not mend anything."""

import itertools
import math

import numpy as np
from numpy.typing import NDArray

from simulator.config import FullyAsyncPolicy
from simulator.errors import InvariantError
from simulator.parts import Parts
from simulator.rollout import RolloutSide
from simulator.rollout_state import DISCARDED, FREE, PER_STEP, RUNNING, TOOL, RolloutState
from simulator.run_log import RunLog

_REPORT = "a defect of the simulator; please report the scenario"


def check_run(
    parts: Parts, side: RolloutSide, log: RunLog, *, num_published: int, num_taken: int, num_dropped: int
) -> None:
    """Raise InvariantError unless samples, tokens, KV blocks, time and versions of a finished run add up.

    Args:
        parts: What the run was made of.
        side: Its rollout side.
        log: Its RL steps.
        num_published: Policy versions that replicas were given.
        num_taken: Groups trained on.
        num_dropped: Finished groups that were dropped.
    """
    _check_samples(parts, side, num_taken, num_dropped)
    _check_tokens(side)
    _check_drafts(parts, side)
    check_kv_cache(side.state)
    _check_time(parts, log)
    _check_versions(parts, side, log, num_published)
    _check_trained(parts, log, num_taken)


def check_kv_cache(state: RolloutState) -> None:
    """KV blocks allocated, counted sequence by sequence, + free = total, and free is never negative.

    But for a sequence that runs alone: it always may. Holds after every event, not only at the end of a run. The jump
    knows only how full blocks are on average, and so promises this of the average.
    """
    limits = state.limits[0]
    context = _contexts_now(state)
    running = context >= 0
    block, lookahead = int(limits["block_tokens"]), int(limits["tokens_per_seq"]) - 1
    with_lookahead = np.where(running, context + lookahead, 0.0)
    if limits["mode"] == PER_STEP:
        held = (np.ceil(with_lookahead / block) * block).sum(axis=1)
    else:
        held = with_lookahead.sum(axis=1) + running.sum(axis=1) * (block - 1) / 2
    shared = _shared_now(state, running)
    held -= shared
    for r, replica in enumerate(state.replicas):
        said, counted = float(replica["context_tokens"]), float(context[r][running[r]].sum())
        free = float(limits["kv_tokens"]) - held[r]
        if not math.isclose(said, counted, rel_tol=1e-9, abs_tol=1e-3):
            raise InvariantError(
                f"KV cache: replica {r} accounts for {said:g} tokens, but its sequences hold {counted:g}: {_REPORT}"
            )
        if replica["shared_tokens"] != shared[r]:
            raise InvariantError(
                f"KV cache: replica {r} accounts for {replica['shared_tokens']:g} shared tokens, but its sequences "
                f"share {shared[r]:g}: {_REPORT}"
            )
        if running[r].sum() > 1 and free < -1e-3:
            raise InvariantError(
                f"KV cache: replica {r} holds {held[r] / block:g} blocks of {limits['kv_tokens'] / block:g}: {_REPORT}"
            )


def _contexts_now(state: RolloutState) -> NDArray[np.float64]:
    """Return [replicas, slots]: KV tokens of each running sequence, -1 where none runs."""
    shape = state.running.shape
    slots, replicas = state.slots.reshape(shape), state.replicas[:, None]
    if state.limits[0]["mode"] == PER_STEP:
        left = np.zeros(shape, np.int64)
        for r, replica in enumerate(state.replicas):
            count = replica["num_running"]
            left[r, state.running[r, :count]] = state.left[r, :count]
        emitted = slots["tokens_left"] - left
    else:
        emitted = slots["growth"] * (replicas["step"] - slots["start_step"])
    return np.where(slots["status"] == RUNNING, slots["context_tokens"] + emitted, -1.0)


def _shared_now(state: RolloutState, running: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return [replicas]: prompt tokens that more than one running sequence uses, all but one of them."""
    shared = np.zeros(len(running))
    places = int(state.limits[0]["prefix_places"])
    if places == 0:
        return shared
    held = state.slots["prefix"].reshape(running.shape)
    for r, tokens in enumerate(state.prefixes["tokens"].reshape(-1, places)):
        users = np.bincount(held[r][running[r] & (held[r] >= 0)], minlength=places)
        shared[r] = float((np.maximum(users - 1, 0) * tokens).sum())
    return shared


def _check_samples(parts: Parts, side: RolloutSide, num_taken: int, num_dropped: int) -> None:
    """Samples in = trained + dropped + filtered + in the buffer + in flight."""
    state, size = side.state, parts.workload.group_size
    ready, counters = state.ready_group[: side.num_ready], state.counters[0]
    gone = int(size[ready[: num_taken + num_dropped]].sum()) + int(counters["discarded_sequences"])
    filtered = int(size[state.filtered_group[: side.num_filtered]].sum())
    kept = state.group_left != DISCARDED
    buffered = int((size - state.group_left)[kept].sum()) - filtered + int(counters["discarded_sequences"]) - gone
    in_flight = int((state.slots["status"] != FREE).sum())
    started = int(counters["started"])
    if started != gone + filtered + buffered + in_flight or side.num_live != in_flight:
        raise InvariantError(
            f"samples: {started} started, but {gone} were trained on or dropped, {filtered} filtered, {buffered} are "
            f"buffered and {in_flight} in flight ({side.num_live} counted): {_REPORT}"
        )


def _check_trained(parts: Parts, log: RunLog, num_taken: int) -> None:
    """Groups taken = trained on, and recorded so + undone by a failure of the trainer."""
    trained = sum(int(step.staleness.sum()) for step in log.steps)
    if trained != parts.num_steps * parts.groups_per_step or num_taken != trained + log.num_lost_groups:
        raise InvariantError(
            f"samples: {num_taken} groups taken, but {trained} trained on in {len(log.steps)} RL steps and "
            f"{log.num_lost_groups} lost: {_REPORT}"
        )


def _check_tokens(side: RolloutSide) -> None:
    """Tokens generated = of all samples that began + thrown away by restarts - still or never to come."""
    state, counters = side.state, side.state.counters[0]
    generated = int(state.replicas["stretch_tokens"].sum() + state.replicas["first_tokens"].sum())
    live = state.slots[state.slots["status"] != FREE]
    whole, restarted = int(counters["started_tokens"]), int(counters["restarted_tokens"])
    to_come = int(counters["abandoned_tokens"])
    if len(live):
        low, high = int(live["turn"].min()), int(state.first_turn[live["sequence"] + 1].max())
        before = np.concatenate([[0], np.cumsum(state.output_tokens[low:high], dtype=np.int64)])
        turn = live["turn"] + (live["status"] != TOOL)  # one at a tool has its whole next turn to come
        to_come += int((before[state.first_turn[live["sequence"] + 1] - low] - before[turn - low]).sum())
        to_come += int(live["tokens_left"][live["status"] != TOOL].sum())
    if generated != whole - to_come + restarted:
        raise InvariantError(
            f"tokens: {generated} generated, but samples that have begun have {whole}, of which {to_come} are still or "
            f"never to come, and restarts threw {restarted} away: {_REPORT}"
        )


def _check_drafts(parts: Parts, side: RolloutSide) -> None:
    """Drafted = accepted + rejected: no verify step emits more than its draft tokens and one, nor less than one."""
    replicas = side.state.replicas
    steps, tokens = int(replicas["stretch_steps"].sum()), int(replicas["stretch_tokens"].sum())
    drafted, accepted = parts.num_draft_tokens * steps, tokens - steps
    if not 0 <= accepted <= drafted:
        raise InvariantError(
            f"drafts: {drafted} drafted in {steps} steps, which emitted {tokens} tokens, so {accepted} were accepted "
            f"and {drafted - accepted} rejected: {_REPORT}"
        )


def _check_time(parts: Parts, log: RunLog) -> None:
    """The shares of each side's time add up to 1, and time never goes back."""
    ends = [step.end_s for step in log.steps]
    if any(later < earlier for earlier, later in itertools.pairwise(ends)):
        raise InvariantError(f"time: an RL step ends before the one before it: {_REPORT}")
    colocated = parts.policy.kind == "synchronous"
    trainer_s = sum(
        step.wait_s + step.train_s + step.drain_s + step.sync_s + step.lost_s + step.down_s for step in log.steps
    )
    if colocated:
        trainer_s += sum(step.generation_s for step in log.steps)
        trainer_s += len(log.steps) * getattr(parts.policy, "switch_s", 0.0)
    totals = log.steps[-1].totals
    idle_s = totals.starved_s + totals.tool_s + totals.down_s + totals.away_s
    rollout_s = (totals.busy_s + idle_s + totals.sync_s) / (parts.num_replicas + parts.num_helpers)
    for name, spent_s in (("trainer", trainer_s), ("rollout", rollout_s)):
        if not math.isclose(spent_s, ends[-1], rel_tol=1e-6, abs_tol=1e-6):
            raise InvariantError(
                f"time: the run takes {ends[-1]:g} s, its {name} side accounts for {spent_s:g}: {_REPORT}"
            )


def _check_versions(parts: Parts, side: RolloutSide, log: RunLog, num_published: int) -> None:
    """Replicas hold what was published, nothing is from the future, and staleness keeps to its rule."""
    held = int(side.state.counters["version"][0])
    newest = int(side.versions_of(side.state.ready_group[: side.num_ready]).max(initial=0))
    if held != num_published or newest > num_published:
        raise InvariantError(
            f"versions: {num_published} published, replicas hold {held} and samples are from up to {newest}: {_REPORT}"
        )
    policy = parts.policy
    if isinstance(policy, FullyAsyncPolicy):
        bound = policy.max_staleness if policy.overdue in ("drop", "drop_running") else None
    else:
        bound = None if policy.leftover == "resume" else int(policy.kind == "one_step_off")
    oldest = max(int(np.flatnonzero(step.staleness).max(initial=0)) for step in log.steps)
    if bound is not None and oldest > bound:
        raise InvariantError(f"staleness: {oldest} versions, above the {bound} that the policy promises: {_REPORT}")
