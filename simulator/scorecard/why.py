"""Why rows are missed, as far as we know. Text only."""

WHY: tuple[tuple[str, str], ...] = (
    (
        "q35-08b",
        "a model so small that the host decides; GPU and host are not stated, the sign is all that can be claimed",
    ),
    (
        "strix-q36-27b-k",
        "ROCm multiplies AWQ weights by one vector much faster than by two: verifying even one draft costs half a pass "
        "more, which no roofline has",
    ),
    (
        "strix",
        "ROCm's kernels for AWQ weights reach a third of this GPU's bandwidth, our efficiencies are an H200's; the "
        "speedup, a ratio, is close",
    ),
    (
        "lcpp",
        "experts computed on a laptop's host, whose memory and cores are not stated; the speedup, a ratio, is close",
    ),
    (
        "qwen3-32b-h100-tp2-4096",
        "more requests than the KV cache holds: preemption and recomputation are not in the closed form",
    ),
    (
        "angelslim-h20-qwen3-30b",
        "the measured MoE kernels that the roofline was fitted to take some 25 us a layer more than vLLM's at batch 1",
    ),
    ("specforge", "SGLang's host work is more on two GPUs than on the one that it was fitted on"),
    ("kimi", "plain decoding is as far off: what eight GPUs wait for beyond their all-reduces is not known"),
    ("vllm-35387", "a GA100 of 64 GB, whose bandwidth is not published, is taken for an A100"),
    ("rtxpro", "fp4's own peak and kernels are not modelled"),
    (
        "specdrift-gptoss",
        "throughput of whole runs: prompts and the thinning tail of 80 questions count, and prompts, batch 64 above "
        "all, are not stated; mxfp4 kernels of Hopper are not modelled",
    ),
    ("eagle", "accept length of another engine at batch 1; whether it holds at every batch is not published"),
    ("vllm-16035", "an early vLLM V1; its CUDA graphs and host work are not those of the release that was fitted"),
    ("vllm-20780", "draft passes of both heads are given one launch time, and EAGLE-3's take longer"),
    (
        "bebop-reasoning-to",
        "greedy drafts lose more step time in the paper than their accept length explains: 1.29x against rejection "
        "sampling, at 1.10x the accept length",
    ),
    ("bebop", "model size, GPUs, batch, lengths and staleness are not published; all of them are assumed"),
    ("skyrl-rollout", "runs without CUDA graphs: how long a layer's launches take on its host is assumed, and decides"),
    ("verl-mimo", "batch, lengths and acceptance are not stated"),
    ("verl-h20", "batch, lengths, and the acceptance of a tree of drafts are not stated"),
    ("verl-1step", "the mean response length is not published"),
    (
        "verl-require",
        "training seconds are inputs; the trainer's waiting is what is predicted, and comes out too short",
    ),
    ("h200-q36", "accept length is not published for these rows; the one assumed is of another task"),
    ("gb300", "the model's Gated-DeltaNet heads are assumed"),
)
"""Beginning of a row's id -> reason."""


def why(row_id: str) -> str:
    """Return the reason that is known for a row's miss."""
    return next((reason for prefix, reason in WHY if row_id.startswith(prefix)), "not known")
