"""Overrides that make a bundled scenario small enough for a test."""

SMALL = (
    "cluster.num_rollout_gpus=2",
    "cluster.num_train_gpus=2",
    "workload.prompts_per_step=8",
    "workload.response_tokens={kind='lognormal', mean=400, sigma=0.8, maximum=2000}",
    "engine.max_running_seqs=32",
    "run.num_steps=6",
    "run.replications=2",
)
