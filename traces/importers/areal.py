"""AReaL: TensorBoard, JSON lines, and the table of each step on the console.

Keys from its `utils/stats_tracker.py` (`timeperf/` of `record_timing`) and `trainer/ppo/actor.py`. Traps: when it runs
asynchronously, `timeperf/rollout` is the trainer's wait for a batch; `seq_len` holds the prompt and, over several
turns, what tools put in, all of which `prompt_len` counts as well.
"""

from traces.importers.rules import Context, Draft, Framework, Rule

RULES = (
    Rule("generation_s", ("timeperf/rollout",)),
    Rule("train_s", ("timeperf/train_step", "timeperf/ppo_train_step")),
    Rule("log_prob_s", ("timeperf/recompute_logp",)),
    Rule("reference_s", ("timeperf/ref_logp", "timeperf/teacher_logp"), is_sum=True),
    Rule("critic_s", ("timeperf/critic_values", "timeperf/critic_train_step"), is_sum=True),
    Rule("sync_s", ("timeperf/update_weights",)),
    Rule("validation_s", ("timeperf/eval",)),
    Rule("checkpoint_s", ("timeperf/save", "timeperf/checkpoint_for_recover"), is_sum=True),
    Rule("num_sequences", ("*/n_seqs",)),
    Rule("clipped_fraction", ("*/no_eos_ratios/avg",)),
    Rule("prompt_tokens_mean", ("*/prompt_len/avg",), note="over several turns, observations of tools within"),
    Rule("prompt_tokens_max", ("*/prompt_len/max",)),
    Rule("entropy_nats", ("*/entropy/avg",)),
    Rule("reward_mean", ("*/task_reward/avg", "rollout/reward")),
    Rule("staleness_mean_versions", ("*/sample_staleness_theta_avg",)),
    Rule("staleness_max_versions", ("*/sample_staleness_theta_max",)),
)

_STEP_PARTS = "timeperf/"


def derive(drafts: list[Draft], context: Context) -> None:
    """Lengths without prompts, the step as the sum of its parts, and what `rollout` means."""
    stale = any((draft.values.get("staleness_max_versions") or 0.0) > 1.0 for draft in drafts)
    is_asynchronous = context.stated.get("is_asynchronous", stale or None)
    context.setup["is_asynchronous"] = is_asynchronous
    for draft in drafts:
        if "generation_s" in draft.values:
            draft.values["generation_wait_s"] = draft.values["generation_s"]
            context.say("generation_wait_s", "timeperf/rollout")
        if is_asynchronous is not False:
            draft.values.pop("generation_s", None)
            context.understood.pop("generation_s", None)
            context.say("generation_wait_s", "timeperf/rollout (asynchronous: the trainer's wait, not generation)")
        _step(draft, context)
        _response(draft, context)


def _step(draft: Draft, context: Context) -> None:
    """AReaL logs no time of the step; its phases follow each other."""
    parts = [value for key, value in draft.raw.numbers.items() if key.startswith(_STEP_PARTS)]
    if "train_s" in draft.values and parts:
        draft.values["step_s"] = sum(parts)
        context.say("step_s", "sum of timeperf/*, which follow each other")


def _response(draft: Draft, context: Context) -> None:
    sequence = next((draft.raw.numbers[key] for key in sorted(draft.raw.numbers) if _is_length(key)), None)
    prompt = draft.values.get("prompt_tokens_mean")
    if sequence is not None and prompt is not None and sequence >= prompt:
        draft.values["response_tokens_mean"] = sequence - prompt
        context.say("response_tokens_mean", "seq_len/avg - prompt_len/avg")
        context.setup["response_includes_observations"] = False


def _is_length(key: str) -> bool:
    return key.endswith("/seq_len/avg") and "eval" not in key


AREAL = Framework(
    name="areal",
    signature=("timeperf/", "ppo_actor/", "grpo_actor/", "ppo_critic/"),
    rules=RULES,
    derive=derive,
    validation=("timeperf/eval", "eval-rollout/"),
)
