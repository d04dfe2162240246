"""OpenRLHF: `Global step N: {...}` on the console, TensorBoard and W&B (where every key stands under `train/`).

Keys from its `trainer/ppo_trainer.py` and `ppo_trainer_async.py`. Traps: synchronously `timing/step_total` is the sum
of its parts, asynchronously the wall time, in which they overlap, and `timing/generation` happens elsewhere; making the
experience holds log-probabilities, reference, values and rewards together; acceptance is not logged.
"""

from traces.importers.rules import Context, Draft, Framework, Rule


def _either(key: str) -> tuple[str, str]:
    return (key, f"train/{key}")


RULES = (
    Rule("step_s", _either("timing/step_total")),
    Rule("generation_s", _either("timing/generation")),
    Rule("train_s", _either("timing/ppo_train")),
    Rule("log_prob_s", _either("timing/make_experience"), note="reference, values and rewards within"),
    Rule("sync_s", _either("timing/broadcast")),
    Rule("num_sequences", _either("rollout/num_samples")),
    Rule("response_tokens_mean", (*_either("rollout/response_length_mean"), *_either("response_length"))),
    Rule("clipped_fraction", _either("rollout/truncated_rate")),
    Rule("entropy_nats", (*_either("entropy"), *_either("entropy_loss"))),
    Rule("reward_mean", (*_either("rollout/reward_mean"), *_either("reward"))),
)

TOLERANCE = 1.001


def derive(drafts: list[Draft], context: Context) -> None:
    """Parts that add up to more than the step have overlapped."""
    whole = [draft for draft in drafts if {"step_s", "generation_s", "train_s"} <= draft.values.keys()]
    if not whole:
        return
    overlapped = sum(_parts(draft) > TOLERANCE * draft.values["step_s"] for draft in whole)
    exact = sum(abs(_parts(draft) - draft.values["step_s"]) < 1e-3 * draft.values["step_s"] for draft in whole)
    is_asynchronous = context.stated.get("is_asynchronous", True if overlapped else exact < 0.9 * len(whole))
    context.setup["is_asynchronous"] = is_asynchronous
    for draft in whole:
        rest = _parts(draft) - draft.values["generation_s"]
        if is_asynchronous:
            draft.values["generation_wait_s"] = max(0.0, draft.values["step_s"] - rest)
            context.say("generation_wait_s", "timing/step_total - what the trainer does in it")
        else:
            draft.values["generation_wait_s"] = draft.values["generation_s"]
            context.say("generation_wait_s", "same as generation_s: the trainer waits for all of it")


def _parts(draft: Draft) -> float:
    return float(sum(draft.values.get(name, 0.0) for name in ("generation_s", "train_s", "log_prob_s", "sync_s")))


OPENRLHF = Framework(
    name="openrlhf",
    signature=tuple(
        key
        for name in ("generation", "make_experience", "ppo_train", "broadcast", "step_total")
        for key in _either(f"timing/{name}")
    )
    + tuple(
        key for name in ("response_length_mean", "truncated_rate", "num_samples") for key in _either(f"rollout/{name}")
    ),
    rules=RULES,
    derive=derive,
    validation=("eval/",),
)
