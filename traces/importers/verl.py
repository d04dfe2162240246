"""verl: console lines, file logger, TensorBoard. Keys from its `ray_trainer.py`, `metric_utils.py` and async recipes.

Traps: a fully asynchronous trainer's `timing_s/gen` is waiting, and its lines add up the optimizer steps between two
weight pushes; `response_length` counts the observations of tools too; acceptance is a mean over requests in which a
request without drafts counts as 0.0; collectors cut long lines, and then the times at their end are gone.
"""

from collections import Counter
from itertools import pairwise

from traces.importers.rules import SPECULATION_BY_REQUEST, Context, Draft, Framework, Rule
from traces.measured import Quality

OBSERVATIONS = "observations of tools counted in: verl measures the attention mask"

RULES = (
    Rule("step_s", ("timing_s/step", "perf/time_per_step")),
    Rule("generation_s", ("timing_s/gen", "timing_s/get_batch_rollout_with_filtering", "timing_s/generate_sequences")),
    Rule("generation_wait_s", ("timing_s/wait_prev_gen",)),
    Rule("train_s", ("timing_s/update_actor",)),
    Rule("log_prob_s", ("timing_s/old_log_prob",)),
    Rule("reference_s", ("timing_s/ref", "timing_s/ref_log_prob")),
    Rule("critic_s", ("timing_s/values", "timing_s/update_critic"), is_sum=True),
    Rule("reward_s", ("timing_s/reward",)),
    Rule(
        "sync_s",
        (
            "timing_s/update_weights",
            "timing_s/timing_s/param_sync",
            "timing_s/param_sync",
            "timing_s/sync_rollout_weights",
            "timing_s/reshard",
        ),
        note="timing_s/timing_s/param_sync is its name with the prefix twice",
    ),
    Rule("validation_s", ("timing_s/testing",)),
    Rule("checkpoint_s", ("timing_s/save_checkpoint",)),
    Rule("response_tokens_mean", ("response_length/mean",)),
    Rule("response_tokens_min", ("response_length/min",)),
    Rule("response_tokens_max", ("response_length/max",)),
    Rule("clipped_fraction", ("response_length/clip_ratio",)),
    Rule("prompt_tokens_mean", ("prompt_length/mean",)),
    Rule("prompt_tokens_max", ("prompt_length/max",)),
    Rule("total_tokens", ("perf/total_num_tokens",)),
    Rule("turns_mean", ("num_turns/mean",)),
    Rule("turns_max", ("num_turns/max",)),
    Rule("tool_s_mean", ("timing_s/agent_loop/tool_calls/mean",)),
    Rule("tool_s_max", ("timing_s/agent_loop/tool_calls/max",)),
    Rule("trajectory_s_mean", ("timing_s/agent_loop/generate_sequences/mean",)),
    Rule("trajectory_s_max", ("timing_s/agent_loop/generate_sequences/max",)),
    Rule("slowest_tokens", ("timing_s/agent_loop/slowest/response_length",)),
    Rule("entropy_nats", ("actor/entropy", "actor/entropy_loss")),
    Rule("reward_mean", ("critic/rewards/mean", "critic/score/mean")),
    *SPECULATION_BY_REQUEST,
    Rule(
        "staleness_mean_versions",
        ("training/off_policy/trajectory_staleness_worst/mean", "training/off_policy/trajectory_staleness/mean"),
    ),
    Rule(
        "staleness_max_versions",
        ("training/off_policy/trajectory_staleness_worst/max", "training/off_policy/trajectory_staleness/max"),
    ),
    Rule("aborted_fraction", ("response/aborted_ratio",)),
    Rule("tokens_per_s_per_gpu", ("perf/throughput",), note="prompt and response tokens over the whole step"),
)


def derive(drafts: list[Draft], context: Context) -> None:
    """Fill in what follows from identities between verl's keys."""
    is_fully_async = any(key.startswith("fully_async/") for draft in drafts for key in draft.raw.numbers)
    is_asynchronous = is_fully_async or any(_is_ahead(draft) for draft in drafts)
    if is_asynchronous or any("generation_s" in draft.values for draft in drafts):
        context.setup["is_asynchronous"] = is_asynchronous
    for draft in drafts:
        if is_asynchronous:
            _waiting(draft, context)
        elif "generation_s" in draft.values:
            draft.values["generation_wait_s"] = draft.values["generation_s"]
            context.say("generation_wait_s", "same as generation_s: the trainer waits for all of it")
        _count_sequences(draft, context)
        if draft.speculation:
            draft.speculation["is_request_weighted"] = True
    if is_fully_async:
        _aggregated(drafts, context)
    _observations(drafts, context)
    _num_gpus(drafts, context)
    _dropped(drafts, context)


def _is_ahead(draft: Draft) -> bool:
    """Return whether a step shows that generation ran while the trainer trained."""
    ahead = ("timing_s/wait_prev_gen", "timing_s/generate_async", "timing_s/sync_rollout_weights")
    return any(key in draft.raw.numbers for key in ahead) or bool(draft.values.get("staleness_max_versions"))


def _waiting(draft: Draft, context: Context) -> None:
    """Asynchronous: `gen` is the time that the trainer waits for samples, and generation has another name or none."""
    draft.values.pop("generation_s", None)
    context.understood.pop("generation_s", None)
    busy = next((key for key in ("timing_s/generate_async", "timing_s/generate_sequences") if draft.of(key)), None)
    if busy is not None:
        draft.values["generation_s"] = draft.raw.numbers[busy]
        context.used.add(busy)
    if "generation_wait_s" not in draft.values and "timing_s/gen" in draft.raw.numbers:
        draft.values["generation_wait_s"] = draft.raw.numbers["timing_s/gen"]
        context.say("generation_wait_s", "timing_s/gen (asynchronous: the trainer's wait, not generation)")


def _aggregated(drafts: list[Draft], context: Context) -> None:
    """Count the optimizer steps of each line by `training/global_step`, which is that of the last of them."""
    counters = [(draft, int(counter)) for draft in drafts if (counter := draft.of("training/global_step")) is not None]
    growth = {
        id(draft): counter - before
        for (earlier, before), (draft, counter) in pairwise(counters)
        if earlier.raw.segment == draft.raw.segment
    }
    usual = Counter(growth.values()).most_common(1)[0][0] if growth else None
    for draft, counter in counters:
        first = counter if draft.raw.step <= 1 or usual is None else usual
        num = growth.get(id(draft), first)
        if num > 1:
            draft.values["num_aggregated"] = num
            draft.quality.add(Quality.AGGREGATED)
            context.used.add("training/global_step")
            context.say("num_aggregated", "growth of training/global_step from line to line")


def _count_sequences(draft: Draft, context: Context) -> None:
    """Responses = all tokens / tokens per sequence, where that is a whole number."""
    total, prompt, response = (
        draft.values.get(name) for name in ("total_tokens", "prompt_tokens_mean", "response_tokens_mean")
    )
    if not total or prompt is None or response is None or prompt + response <= 0:
        return
    num = total / (prompt + response)
    if num >= 0.5 and abs(num - round(num)) < 0.001 * num and abs(num - round(num)) < 0.2:
        draft.values["num_sequences"] = round(num)
        context.say("num_sequences", "perf/total_num_tokens / (prompt_length/mean + response_length/mean)")


def _observations(drafts: list[Draft], context: Context) -> None:
    """Say whether lengths hold the observations of tools."""
    has_tools = any((draft.of("num_turns/max") or 0) > 2 or draft.values.get("tool_s_max") for draft in drafts)
    context.setup["response_includes_observations"] = has_tools
    if has_tools:
        for name in ("response_tokens_mean", "response_tokens_min", "response_tokens_max"):
            if name in context.understood:
                context.understood[name] += f" ({OBSERVATIONS})"


def _num_gpus(drafts: list[Draft], context: Context) -> None:
    """GPUs = tokens / (seconds x tokens per second per GPU), by which verl computes the last of these."""
    found = set()
    for draft in drafts:
        tokens, rate = draft.values.get("total_tokens"), draft.values.get("tokens_per_s_per_gpu")
        seconds = draft.of("perf/time_per_step")
        if tokens and rate and seconds:
            num = tokens / (rate * seconds)
            found.add(round(num) if abs(num - round(num)) < 0.01 else -1)
    if len(found) == 1 and (num_gpus := found.pop()) > 0:
        context.setup["num_gpus"] = num_gpus


def _dropped(drafts: list[Draft], context: Context) -> None:
    """Dropped samples of a step: the counter is that of the whole run."""
    key = "fully_async/count/dropped_stale_samples"
    before: dict[int, float] = {}
    for draft in drafts:
        total = draft.of(key)
        if total is not None:
            last = before.get(draft.raw.segment, 0.0)
            draft.values["dropped_samples"] = int(max(0.0, total - last))
            before[draft.raw.segment] = total
            context.used.add(key)
            context.say("dropped_samples", f"growth of {key} from line to line")


VERL = Framework(
    name="verl",
    signature=(
        "timing_s/",
        "timing_per_token_ms/",
        "global_seqlen/",
        "response_length_non_aborted/",
        "perf/total_num_tokens",
        "fully_async/",
    ),
    rules=RULES,
    derive=derive,
    validation=("timing_s/testing", "val-core/", "val-aux/", "val/"),
)
