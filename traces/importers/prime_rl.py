"""prime-rl: the `metrics.jsonl` of its trainer and of its orchestrator, and the line of each step on the console.

Keys from its `trainer/rl/train.py` and `orchestrator/orchestrator.py`. Traps: both processes log `time/step`; the
orchestrator's is kept as `orchestrator:time/step`; throughput is over forward and backward, not over the step.
"""

import re

from traces.importers.literals import NUMBER, number
from traces.importers.records import Record, put
from traces.importers.rules import Context, Draft, Framework, Rule
from traces.importers.tally import Tally
from traces.importers.text import Piece

ORCHESTRATOR_KEYS = ("time/wait_for_policy", "time/pack", "progress/rollouts")
"""Keys by which a row is known as the orchestrator's."""
SHARED_KEYS = ("time/step", "time/save_ckpt")
"""Keys that mean another thing in each process."""
ORCHESTRATOR = "orchestrator:"

_LENGTHS = "train/agg/effective/num_output_tokens"

_PIPES = re.compile(r"(?<!Micro )\bStep (\d{1,12}) \| +([\d.dhms ]{1,20}?) \| (.*)", re.ASCII)
_PIPE_ITEM = re.compile(rf"([A-Za-z][A-Za-z .-]{{0,60}}?) ({NUMBER})(%)?(?: |$)", re.ASCII)
RULES = (
    Rule("step_s", ("time/step", "console/time", "orchestrator:time/step")),
    Rule("generation_wait_s", ("time/wait_for_batch",), note="the trainer waiting for a batch"),
    Rule("train_s", ("time/forward_backward",)),
    Rule("sync_s", ("time/broadcast_weights", "watcher/last_update_weights_time")),
    Rule("checkpoint_s", ("time/save_ckpt",)),
    Rule("num_sequences", ("progress/rollouts",)),
    Rule("num_groups", ("progress/tasks",)),
    Rule("response_tokens_mean", (f"{_LENGTHS}/mean", "train/agg/all/num_output_tokens/mean")),
    Rule("response_tokens_min", (f"{_LENGTHS}/min",)),
    Rule("response_tokens_max", (f"{_LENGTHS}/max", "train/agg/all/num_output_tokens/max")),
    Rule("prompt_tokens_mean", ("train/agg/effective/num_input_tokens/mean",), note="observations of tools within"),
    Rule("total_tokens", ("progress/tokens",)),
    Rule("turns_mean", ("train/agg/effective/num_turns/mean", "console/Turns")),
    Rule("turns_max", ("train/agg/effective/num_turns/max",)),
    Rule("entropy_nats", ("entropy/all/mean", "entropy/mean", "console/Entropy")),
    Rule("reward_mean", ("reward/mean", "train/agg/effective/reward/mean", "console/Reward")),
    Rule("staleness_mean_versions", ("off_policy/mean",)),
    Rule("staleness_max_versions", ("off_policy/max", "console/Max Off-Policy")),
    Rule("dropped_samples", ("off_policy/dropped",)),
    Rule(
        "tokens_per_s_per_gpu",
        ("perf/throughput_per_gpu",),
        note="over forward and backward, not the whole step",
    ),
)


def derive(drafts: list[Draft], context: Context) -> None:
    """prime-rl is always asynchronous; output tokens are the model's own."""
    context.setup["is_asynchronous"] = True
    if any("response_tokens_mean" in draft.values for draft in drafts):
        context.setup["response_includes_observations"] = False


PRIME_RL = Framework(
    name="prime_rl",
    signature=(
        "time/wait_for_batch",
        "time/forward_backward",
        "time/broadcast_weights",
        "time/wait_for_policy",
        "perf/throughput_per_gpu",
        "perf/peak_memory",
        "entropy/all/mean",
        "off_policy/mean",
        "off_policy/in_queue/",
        "off_policy/in_flight/",
        "progress/",
        "train/agg/",
        "dispatcher/",
        "console/",
    ),
    rules=RULES,
    derive=derive,
    validation=("eval/",),
)


def is_orchestrator(numbers: dict[str, float]) -> bool:
    """Return whether a row of `metrics.jsonl` is the orchestrator's."""
    return any(key in numbers for key in ORCHESTRATOR_KEYS)


def orchestrator_keys(numbers: dict[str, float]) -> dict[str, float]:
    """Return the row with the keys renamed that mean another thing in the trainer's rows."""
    return {ORCHESTRATOR + key if key in SHARED_KEYS else key: value for key, value in numbers.items()}


def console_line(piece: Piece, tally: Tally) -> Record | None:
    """Return the record of `Step 7 | 1m 5s | Name 0.5 | Name 3 unit` (prime-rl)."""
    if " | " not in piece.text or (match := _PIPES.search(piece.text)) is None:
        return None
    is_trainer = "| Loss " in piece.text
    owner = "console/" if is_trainer else "orchestrator:console/"
    numbers: dict[str, float] = {}
    seconds = duration_s(match.group(2))
    if seconds is not None:
        put(numbers, f"{owner}time", seconds, tally)
    for item in match.group(3).split(" | "):
        name, value = _PIPE_ITEM.match(item), None
        if name is not None and (value := number(name.group(2))) is not None:
            put(numbers, f"console/{name.group(1)}", value / (100.0 if name.group(3) else 1.0), tally)
    return Record(int(match.group(1)), numbers, piece.where, part=owner)


def duration_s(text: str) -> float | None:
    """Return the seconds of `250ms`, `3.2s`, `1m 5s`, `2h 3m` or `1d 4h`; None for anything else."""
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
    parts = re.findall(r"(\d{1,9}(?:\.\d{1,9})?)(ms|[smhd])(?: |$)", text.strip(), re.ASCII)
    return sum(float(value) * units[unit] for value, unit in parts) if parts else None
