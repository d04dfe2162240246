"""NeMo-RL: TensorBoard, JSON lines, and the report of each step on the console.

Keys from its `algorithms/grpo.py`, `experience/rollout_manager.py`, `models/generation/vllm/utils.py`. Traps:
asynchronous GRPO logs `exposed_generation`, which is waiting; `training_worker_idle_time_ratio` is 0 as soon as
generation is exposed; positions of acceptance count from 0.
"""

from traces.importers.rules import Context, Draft, Framework, Rule, positions

SPEC = ("train/vllm/spec_", "vllm/spec_")
"""Beginnings under which its vLLM counters are logged."""


def _spec(name: str) -> tuple[str, ...]:
    return tuple(beginning + name for beginning in SPEC)


RULES = (
    Rule("step_s", ("timing/train/total_step_time",)),
    Rule("generation_s", ("timing/train/generation",)),
    Rule("generation_wait_s", ("timing/train/exposed_generation",), note="asynchronous: waiting for trajectories"),
    Rule("train_s", ("timing/train/policy_training",)),
    Rule("log_prob_s", ("timing/train/policy_and_reference_logprobs",), note="the reference's within"),
    Rule("critic_s", ("timing/train/value_training", "timing/train/value_inference"), is_sum=True),
    Rule("reward_s", ("timing/train/reward_calculation",)),
    Rule(
        "sync_s",
        (
            "timing/train/weight_sync",
            "timing/train/prepare_for_generation/total",
            "timing/train/prepare_for_generation/transfer_and_update_weights",
        ),
    ),
    Rule("validation_s", ("timing/train/idle/validation", "timing/validation/total_validation_time")),
    Rule("checkpoint_s", ("timing/train/checkpointing",)),
    Rule("num_sequences", ("train/global_valid_seqs",)),
    Rule("response_tokens_mean", ("train/mean_gen_tokens_per_sample", "train/gen_tokens_per_sample/mean")),
    Rule("response_tokens_median", ("train/gen_tokens_per_sample/median",)),
    Rule("response_tokens_min", ("train/gen_tokens_per_sample/min",)),
    Rule("response_tokens_max", ("train/gen_tokens_per_sample/max",)),
    Rule("clipped_fraction", ("train/truncation_rate",)),
    Rule("prompt_tokens_mean", ("train/mean_prompt_length",)),
    Rule("observation_tokens_mean", ("train/env_tokens_per_sample/mean", "train/mean_env_tokens_per_sample")),
    Rule("total_tokens", ("train/total_num_tokens",)),
    Rule("turns_mean", ("train/turns_per_sample/mean", "train/avg_turns_per_sample")),
    Rule("turns_max", ("train/turns_per_sample/max", "train/max_turns_per_sample")),
    Rule("entropy_nats", ("train/approx_entropy",)),
    Rule("reward_mean", ("train/reward",)),
    Rule("speculation.num_drafts", _spec("num_drafts")),
    Rule("speculation.num_draft_tokens", _spec("num_draft_tokens")),
    Rule("speculation.num_accepted_tokens", _spec("num_accepted_tokens")),
    Rule("speculation.accept_length", _spec("acceptance_length"), zero_is_missing=True, note="bonus token counted in"),
    Rule("speculation.accept_rate", _spec("acceptance_rate")),
    Rule("staleness_mean_versions", ("train/avg_trajectory_age",)),
    Rule("tokens_per_s_per_gpu", ("performance/tokens_per_sec_per_gpu",)),
)


def derive(drafts: list[Draft], context: Context) -> None:
    """Tell the asynchronous trainer by its keys, and take acceptance by position."""
    is_asynchronous = any("generation_wait_s" in draft.values for draft in drafts)
    if is_asynchronous or any("generation_s" in draft.values for draft in drafts):
        context.setup["is_asynchronous"] = is_asynchronous
    context.setup["response_includes_observations"] = False
    for draft in drafts:
        if not is_asynchronous and "generation_s" in draft.values:
            draft.values["generation_wait_s"] = draft.values["generation_s"]
            context.say("generation_wait_s", "same as generation_s: the trainer waits for all of it")
        for beginning in SPEC:
            positions(draft, f"{beginning}acceptance_rate-pos-", 0, context)


NEMO_RL = Framework(
    name="nemo_rl",
    signature=(
        "timing/train/",
        "performance/",
        "refit/",
        "train/mean_gen_tokens_per_sample",
        "train/gen_tokens_per_sample/",
        "train/global_valid_seqs",
        "train/global_valid_toks",
    ),
    rules=RULES,
    derive=derive,
    validation=("timing/train/idle/validation", "timing/validation/", "validation/"),
)
