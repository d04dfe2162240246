"""SkyRL: TensorBoard, JSON lines, and the dictionary of each step on the console.

Keys from its `train/trainer.py`, `fully_async_trainer.py`, `generators/utils.py`, `vllm_metrics_scraper.py`. Traps:
`avg_num_tokens` holds what tools put in, `avg_assistant_tokens` does not; its vLLM rates are differences of counters,
and so weighted by tokens; positions of acceptance count from 1.
"""

from traces.importers.rules import Context, Draft, Framework, Rule, positions

RULES = (
    Rule("step_s", ("timing/step",)),
    Rule("generation_s", ("timing/generate",)),
    Rule("generation_wait_s", ("timing/wait_for_generation_buffer",), note="asynchronous: waiting for groups"),
    Rule("train_s", ("timing/policy_train", "timing/train_critic_and_policy", "timing/run_training")),
    Rule("log_prob_s", ("timing/fwd_logprobs_values_reward",), note="reference, values and rewards within"),
    Rule("critic_s", ("timing/critic_train",)),
    Rule("sync_s", ("timing/sync_weights",)),
    Rule("validation_s", ("timing/eval",)),
    Rule("checkpoint_s", ("timing/save_checkpoints", "timing/save_hf_model"), is_sum=True),
    Rule("num_sequences", ("generate/batch_num_seq",)),
    Rule("response_tokens_mean", ("generate/avg_assistant_tokens", "generate/avg_num_tokens")),
    Rule("response_tokens_min", ("generate/min_assistant_tokens", "generate/min_num_tokens")),
    Rule("response_tokens_max", ("generate/max_assistant_tokens", "generate/max_num_tokens")),
    Rule("turns_mean", ("generate/avg_num_turns",)),
    Rule("turns_max", ("generate/max_num_turns",)),
    Rule("tool_s_mean", ("generate/trajectory_time_env_mean",)),
    Rule("tool_s_max", ("generate/trajectory_time_env_max",)),
    Rule("trajectory_s_mean", ("generate/trajectory_time_llm_mean",)),
    Rule("trajectory_s_max", ("generate/trajectory_time_llm_max",)),
    Rule("entropy_nats", ("policy/policy_entropy",)),
    Rule("reward_mean", ("reward/avg_raw_reward",)),
    Rule("speculation.num_draft_tokens", ("vllm/train/draft_num_draft_tokens",)),
    Rule("speculation.num_accepted_tokens", ("vllm/train/draft_num_accepted_tokens",)),
    Rule("speculation.accept_length", ("vllm/train/draft_mean_acceptance_length",), note="bonus token counted in"),
    Rule("speculation.accept_rate", ("vllm/train/draft_acceptance_rate",)),
    Rule("staleness_mean_versions", ("async/staleness_mean",)),
    Rule("staleness_max_versions", ("async/staleness_max",)),
    Rule("tokens_per_s_per_gpu", ("trainer/tokens_per_second_per_gpu",), note="over training only, not the whole step"),
)


def derive(drafts: list[Draft], context: Context) -> None:
    """Tell the asynchronous trainer by its keys, observations by the two lengths, and take positions."""
    is_asynchronous = any("generation_wait_s" in d.values or d.of("async/staleness_mean") is not None for d in drafts)
    if is_asynchronous or any("generation_s" in draft.values for draft in drafts):
        context.setup["is_asynchronous"] = is_asynchronous
    knows = any(draft.of("generate/avg_assistant_tokens") is not None for draft in drafts)
    context.setup["response_includes_observations"] = False if knows else None
    for draft in drafts:
        if not is_asynchronous and "generation_s" in draft.values:
            draft.values["generation_wait_s"] = draft.values["generation_s"]
            context.say("generation_wait_s", "same as generation_s: the trainer waits for all of it")
        everything, response = draft.of("generate/avg_num_tokens"), draft.of("generate/avg_assistant_tokens")
        if everything is not None and response is not None and everything >= response:
            draft.values["observation_tokens_mean"] = everything - response
            context.used.add("generate/avg_num_tokens")
            context.say("observation_tokens_mean", "generate/avg_num_tokens - generate/avg_assistant_tokens")
        positions(draft, "vllm/train/draft_acceptance_rate_pos_", 1, context)


SKYRL = Framework(
    name="skyrl",
    signature=(
        "timing/train_critic_and_policy",
        "timing/policy_train",
        "timing/fwd_logprobs_values_reward",
        "timing/wait_for_generation_buffer",
        "timing/convert_to_training_input",
        "timing/generate",
        "timing/sync_weights",
        "generate/",
        "trainer/tokens_per_second_per_gpu",
        "vllm/train/",
        "async/staleness_mean",
    ),
    rules=RULES,
    derive=derive,
    validation=("timing/eval", "eval/"),
)
