"""A scenario small enough to be simulated in well under a second."""

TINY = """
name = "tiny"
question = "How much faster does a tiny <b>run</b> finish?"
model = { name = "Qwen3-8B" }
cluster = { gpu = "H200", num_rollout_gpus = 2, num_train_gpus = 2 }
policy = { kind = "fully_async", max_staleness = 1 }
engine = { max_running_seqs = 32 }
entropy = { kind = "piecewise", points = [[0, 0.44], [6, 0.36]] }
latency = { kind = "trace", trace = "qwen3-8b-h200-tp1" }
trainer = { kind = "mfu", mfu = 0.3 }
weight_sync = { kind = "seconds", seconds = 2.0 }
run = { num_steps = 6, replications = 2 }

[workload]
kind = "synthetic"
prompts_per_step = 8
group_size = 4
prompt_tokens = { kind = "constant", value = 600 }
response_tokens = { kind = "lognormal", mean = 1500, sigma = 0.7, maximum = 8000 }

[arms.to]
k = 3
acceptance = { kind = "law", recipe = "to", fit = "reasoning" }

[arms.rs-tv]
k = 3
acceptance = { kind = "law", recipe = "rs_tv", fit = "reasoning" }

[[measured]]
arm = "to"
quantity = "step_s"
speedup = 1.38
source = "a made-up log"
"""
