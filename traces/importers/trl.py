"""TRL: `trainer_state.json` (its `log_history`), JSON lines, TensorBoard (where every key stands under `train/`).

Keys from its `trainer/grpo_trainer.py` and `experimental/async_grpo`. Traps: numbers are means over the `logging_steps`
since the line before, not sums; the dictionaries on the console name no step and are not read; `step_time` of GRPO
holds generation, that of asynchronous GRPO does not; `num_tokens` counts from the run's beginning.
"""

from traces.importers.rules import Context, Draft, Framework, Rule

MEAN = "mean over the steps since the line before"


def _either(*keys: str) -> tuple[str, ...]:
    return tuple(name for key in keys for name in (key, f"train/{key}"))


RULES = (
    Rule("step_s", _either("step_time"), note=MEAN),
    Rule(
        "generation_s",
        _either(
            "profiling/Time taken: GRPOTrainer.vLLM.generate",
            "profiling/Time taken: GRPOTrainer.transformers.generate_batch",
            "profiling/Time taken: GRPOTrainer.transformers.generate",
        ),
        note="profiling, with W&B or MLflow only",
    ),
    Rule("sync_s", _either("weight_sync_time_s", "profiling/Time taken: GRPOTrainer.sync_weights")),
    Rule("response_tokens_mean", _either("completions/mean_length", "completion_length")),
    Rule("response_tokens_min", _either("completions/min_length")),
    Rule("response_tokens_max", _either("completions/max_length")),
    Rule("clipped_fraction", _either("completions/clipped_ratio")),
    Rule("entropy_nats", _either("entropy")),
    Rule("reward_mean", _either("reward")),
)


def derive(drafts: list[Draft], context: Context) -> None:
    """Tell asynchronous GRPO by its keys."""
    ahead = _either("queue_wait_time_s", "training_tok/s", "weight_sync_time_s")
    is_asynchronous = any(key in draft.raw.numbers for draft in drafts for key in ahead)
    if drafts:
        context.setup["is_asynchronous"] = is_asynchronous


TRL = Framework(
    name="trl",
    signature=_either(
        "completions/mean_length",
        "completions/max_length",
        "completions/clipped_ratio",
        "completions/mean_terminated_length",
        "frac_reward_zero_std",
        "step_time",
        "queue_wait_time_s",
        "weight_sync_time_s",
    ),
    rules=RULES,
    derive=derive,
    validation=("eval_loss", "eval_reward", "eval_runtime", "eval/"),
)
