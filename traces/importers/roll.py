"""ROLL: TensorBoard, and the JSON of each step on the console (`metrics_tag: {...}`).

Keys from its `pipeline/rlvr/rlvr_pipeline.py` and `pipeline/agentic/agentic_pipeline.py`. Traps: the RLVR pipeline logs
as `time/step_total` the step before; with `async_generation_ratio` above 0, `time/step_generate` is the wait for a
batch, which no key tells (state `setup.is_asynchronous`); acceptance is not logged.
"""

from itertools import pairwise

from traces.importers.rules import Context, Draft, Framework, Rule

RULES = (
    Rule("step_s", ("time/step_total",)),
    Rule("generation_s", ("time/step_generate", "time/step_rollout")),
    Rule("train_s", ("time/step_train",)),
    Rule(
        "log_prob_s",
        ("time/old_log_probs", "time/step_old_log_probs_values"),
        note="values within, where there are any",
    ),
    Rule("reference_s", ("time/ref_log_probs_values", "time/step_ref_log_probs_values_reward")),
    Rule("reward_s", ("time/step_cal_norm_rewards",)),
    Rule("sync_s", ("time/step_model_update",)),
    Rule("validation_s", ("time/val_step", "time/val")),
    Rule("checkpoint_s", ("time/do_checkpoint/total", "time/do_checkpoint")),
    Rule("response_tokens_mean", ("tokens/response_length/mean", "token/response_length/mean")),
    Rule("response_tokens_min", ("tokens/response_length/min", "token/response_length/min")),
    Rule("response_tokens_max", ("tokens/response_length/max", "token/response_length/max")),
    Rule("prompt_tokens_mean", ("tokens/prompt_length/mean", "token/prompt_length/mean")),
    Rule("prompt_tokens_max", ("tokens/prompt_length/max", "token/prompt_length/max")),
    Rule("entropy_nats", ("critic/entropy/mean",)),
    Rule("reward_mean", ("critic/score/mean", "critic/rewards/mean")),
)


def derive(drafts: list[Draft], context: Context) -> None:
    """Put the total of a step where it belongs, and follow what the user says of overlap."""
    if any(draft.of("time/step_generate") is not None for draft in drafts):
        _shift(drafts, context)
    is_asynchronous = context.stated.get("is_asynchronous")
    for draft in drafts:
        if "generation_s" in draft.values:
            draft.values["generation_wait_s"] = draft.values["generation_s"]
            context.say("generation_wait_s", "time/step_generate or time/step_rollout")
        if is_asynchronous:
            draft.values.pop("generation_s", None)
            context.understood.pop("generation_s", None)


def _shift(drafts: list[Draft], context: Context) -> None:
    """The RLVR pipeline reports the total of the step before."""
    totals = [draft.values.pop("step_s", None) for draft in drafts]
    for (draft, after), total in zip(pairwise(drafts), totals[1:], strict=True):
        if total and after.raw.step == draft.raw.step + 1 and after.raw.segment == draft.raw.segment:
            draft.values["step_s"] = total
    context.understood["step_s"] = "time/step_total of the next step, which reports the one before"


ROLL = Framework(
    name="roll",
    signature=(
        "time/step_generate",
        "time/step_rollout",
        "time/step_train",
        "time/step_model_update",
        "time/old_log_probs",
        "time/ref_log_probs_values",
        "tokens/response_length/",
        "token/response_length/",
        "system/tps",
        "system/samples",
        "scheduler/",
    ),
    rules=RULES,
    derive=derive,
    validation=("time/val_step", "time/val", "val_correct/"),
)
