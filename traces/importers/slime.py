"""slime and miles: `perf N`, `rollout N` and `step N` dictionaries of two processes, joined on N, and JSON lines.

Keys from slime's `observability/train_metric_utils.py` and `rollout_metrics.py`. Traps: `perf/train_wait_time` holds
the push of weights (`step_time = train_wait_time + train_time`), except in reports that subtract it; `response_len`
is what the model wrote, `response_lengths` holds the observations of tools too; acceptance is a mean over requests,
0.0 where nothing was counted.
"""

from collections import Counter

from traces.importers.records import RawStep
from traces.importers.rules import SPECULATION_BY_REQUEST, Context, Draft, Framework, Rule
from traces.importers.tally import Tally

RULES = (
    Rule("step_s", ("perf/step_time",)),
    Rule("generation_s", ("perf/rollout_time",)),
    Rule("train_s", ("perf/actor_train_time",)),
    Rule("log_prob_s", ("perf/log_probs_time",)),
    Rule("reference_s", ("perf/ref_log_probs_time", "perf/teacher_log_probs_time"), is_sum=True),
    Rule("critic_s", ("perf/critic_train_time", "perf/values_time"), is_sum=True),
    Rule("sync_s", ("perf/update_weights_time",)),
    Rule("checkpoint_s", ("perf/save_model_time",)),
    Rule("response_tokens_mean", ("rollout/response_len/mean",), note="what the model wrote"),
    Rule("response_tokens_median", ("rollout/response_len/median",)),
    Rule("response_tokens_min", ("rollout/response_len/min",)),
    Rule("response_tokens_max", ("rollout/response_len/max",)),
    Rule("clipped_fraction", ("rollout/truncated_ratio", "rollout/truncated")),
    Rule("prompt_tokens_mean", ("prompt_len/mean", "rollout/prompt_len/mean")),
    Rule("prompt_tokens_max", ("prompt_len/max", "rollout/prompt_len/max")),
    Rule("tool_s_mean", ("perf/non_generation_time/mean", "sandbox/tool_time_per_sample_mean")),
    Rule("tool_s_max", ("perf/non_generation_time/max",)),
    Rule("trajectory_s_mean", ("perf/request/e2e_latency/mean",), note="of one request, not of all its turns"),
    Rule("trajectory_s_max", ("perf/request/e2e_latency/max",), note="of one request, not of all its turns"),
    Rule("entropy_nats", ("rollout/entropy", "train/entropy_loss")),
    Rule("reward_mean", ("rollout/raw_reward", "rollout/rewards")),
    *SPECULATION_BY_REQUEST,
    Rule("staleness_mean_versions", ("policy_staleness/mean",)),
    Rule("staleness_max_versions", ("policy_staleness/max",)),
    Rule("dropped_samples", ("perf/fully_async/stale_dropped",)),
    Rule(
        "tokens_per_s_per_gpu",
        ("perf/effective_tokens_per_gpu_per_sec", "perf/tokens_per_gpu_per_sec"),
        note="response tokens per second of generation and rollout GPU",
    ),
)

CONFIG_KEYS = {
    "num_train_gpus": "actor_gpus",
    "num_rollout_gpus": "rollout_gpus",
    "rollout_tp": "rollout_gpus_per_engine",
    "groups_per_step": "rollout_batch_size",
    "group_size": "n_samples_per_prompt",
    "max_response_tokens": "rollout_max_response_len",
    "max_turns": "max_turns",
    "temperature": "rollout_temperature",
}
"""Field of Setup -> slime's argument."""

CLOSE_FRACTION = 0.005
"""How far sums of rounded times may be from the step they make up."""


def join(steps: list[RawStep], tally: Tally) -> list[RawStep]:
    """Bring `step N` lines, which count optimizer steps, to the rollout of each, and average their numbers.

    slime numbers them rollout x steps per rollout + step (`megatron_utils/model.py`), so that the largest numbers tell
    how many there are.
    """
    joined: list[RawStep] = []
    for segment in sorted({raw.segment for raw in steps}):
        own = [raw for raw in steps if raw.segment == segment]
        rollouts = [raw.step for raw in own if raw.told.keys() - {"step", "train/step"}]
        optimizer = [raw.step for raw in own if raw.told.keys() & {"step", "train/step"}]
        ratio = (max(optimizer) + 1) / (max(rollouts) + 1) if optimizer and rollouts else 1.0
        num = round(ratio)
        joined += _regroup(own, num, tally) if num > 1 and abs(ratio - num) < 0.01 * num else own
    return joined


def _regroup(steps: list[RawStep], num: int, tally: Tally) -> list[RawStep]:
    """Average the numbers of `num` optimizer steps each into their rollout."""
    by_step = {raw.step: raw for raw in steps}
    collected: dict[int, dict[str, list[float]]] = {}
    for raw in steps:
        for part in raw.told.keys() & {"step", "train/step"}:
            for key, value in raw.told[part].items():
                raw.numbers.pop(key, None)
                collected.setdefault(raw.step // num, {}).setdefault(key, []).append(value)
    for step, values in collected.items():
        if step in by_step:
            by_step[step].numbers.update({key: sum(found) / len(found) for key, found in values.items()})
        else:
            tally.drop(by_step[step * num].where, f"optimizer steps of rollout {step}, which has no line")
    tally.ignore(f"{num} optimizer steps per rollout", "their `step N` lines are averaged", len(collected))
    return [raw for raw in steps if raw.numbers]


def derive(drafts: list[Draft], context: Context) -> None:
    """Fill in waiting, sequences and observations by slime's own identities."""
    conventions = Counter(kind for draft in drafts if (kind := _convention(draft)))
    holds_sync = conventions["raw"] >= conventions["subtracted"]
    for draft in drafts:
        _wait(draft, holds_sync=_convention(draft) != "subtracted" and holds_sync, context=context)
        _lengths(draft, context)
        if draft.speculation:
            draft.speculation["is_request_weighted"] = True
    _facts(context)
    if "is_asynchronous" not in context.setup:
        _asynchronous(drafts, context)
    context.setup["response_includes_observations"] = False


def _convention(draft: Draft) -> str | None:
    """Return whether this step's waiting time holds the push of weights, None where arithmetic cannot tell."""
    step, wait, sync = (draft.of(f"perf/{name}_time") for name in ("step", "train_wait", "update_weights"))
    if not step or wait is None or not sync:
        return None
    train = draft.of("perf/train_time")
    if train is None:
        train = (draft.of("perf/log_probs_time") or 0.0) + (draft.of("perf/actor_train_time") or 0.0)
    left = step - wait - train
    if abs(left) < min(CLOSE_FRACTION * step, 0.5 * sync):
        return "raw"
    return "subtracted" if abs(left - sync) < min(CLOSE_FRACTION * step, 0.5 * sync) else None


def _wait(draft: Draft, *, holds_sync: bool, context: Context) -> None:
    wait, sync = draft.of("perf/train_wait_time"), draft.of("perf/update_weights_time") or 0.0
    if wait is None:
        return
    context.used.add("perf/train_wait_time")
    if holds_sync:
        draft.values["generation_wait_s"] = max(0.0, wait - sync)
        context.say("generation_wait_s", "perf/train_wait_time - perf/update_weights_time, which it holds")
    else:
        draft.values["generation_wait_s"] = wait
        context.say("generation_wait_s", "perf/train_wait_time (a report that has subtracted the push of weights)")


def _lengths(draft: Draft, context: Context) -> None:
    """Observations, all tokens and sequences, where the log holds what they follow from."""
    response, everything = draft.of("rollout/response_len/mean"), draft.of("rollout/response_lengths")
    if response is not None and everything is not None and everything >= response:
        draft.values["observation_tokens_mean"] = everything - response
        context.used.add("rollout/response_lengths")
        context.say("observation_tokens_mean", "rollout/response_lengths - rollout/response_len/mean")
    rate, seconds = draft.of("perf/actor_train_tok_per_s"), draft.of("perf/actor_train_time")
    if not rate or not seconds:
        return
    draft.values["total_tokens"] = rate * seconds
    context.used.add("perf/actor_train_tok_per_s")
    context.say("total_tokens", "perf/actor_train_tok_per_s x perf/actor_train_time")
    prompt = draft.values.get("prompt_tokens_mean")
    if prompt is not None and everything is not None and prompt + everything > 0:
        num = rate * seconds / (prompt + everything)
        if num >= 0.5 and abs(num - round(num)) < 0.01:
            draft.values["num_sequences"] = round(num)
            context.say("num_sequences", "total_tokens / (prompt_len/mean + rollout/response_lengths)")


def _facts(context: Context) -> None:
    """Take the configuration that published runs state beside their numbers."""
    config = context.facts.get("config")
    config = config if isinstance(config, dict) else {}
    placement = str(context.facts.get("placement", ""))
    found = {
        "model": config.get("model"),
        "gpu": context.facts.get("gpu"),
        "num_gpus": context.facts.get("gpu_count"),
        "is_asynchronous": True if "async" in placement else None,
        **{name: config.get(key) for name, key in CONFIG_KEYS.items()},
    }
    context.setup.update({name: value for name, value in found.items() if value is not None})


def _asynchronous(drafts: list[Draft], context: Context) -> None:
    """Waiting less than generation takes, on several steps, is what only an asynchronous trainer does."""
    both = [draft for draft in drafts if {"generation_s", "generation_wait_s"} <= draft.values.keys()]
    shorter = [draft for draft in both if draft.values["generation_wait_s"] < 0.95 * draft.values["generation_s"]]
    if any(key.startswith("perf/fully_async/") for draft in drafts for key in draft.raw.numbers) or len(shorter) > 1:
        context.setup["is_asynchronous"] = True
    elif len(both) >= 3:
        context.setup["is_asynchronous"] = False


SLIME = Framework(
    name="slime",
    signature=(
        "perf/rollout_time",
        "perf/train_wait_time",
        "perf/actor_train_time",
        "perf/update_weights_time",
        "perf/wait_time_ratio",
        "perf/actor_train_tok_per_s",
        "perf/longest_sample_tokens_per_sec",
        "perf/tokens_per_gpu_per_sec",
        "rollout/response_len/",
        "rollout/response_lengths",
        "rollout/zero_std/",
    ),
    rules=RULES,
    derive=derive,
    join=join,
    validation=("eval/",),
)
