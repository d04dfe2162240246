"""GPU memory of a rollout replica: what weights, draft head and recurrent states leave for the KV cache."""

from simulator.config import Scenario
from simulator.errors import ScenarioError
from traces.architecture import BYTES_PER_VALUE, Architecture
from traces.hardware import Gpu


def kv_capacity_tokens(scenario: Scenario, architecture: Architecture, gpu: Gpu, num_draft_tokens: int) -> int:
    """Return the KV-cache capacity of one replica, tokens of context: a whole number of blocks.

    Memory x utilisation - weights - MTP layer - recurrent states of max_running_seqs sequences (1 + k slots each, as
    vLLM and SGLang keep them), over KV bytes per token. Activations are not counted. A model that was released without
    an MTP layer drafts with one of its shape, as in the roofline.

    Raises:
        ScenarioError: Nothing is left, or too little for one sequence.
    """
    engine, cluster = scenario.engine, scenario.cluster
    if engine.kv_cache_tokens is not None:
        return engine.kv_cache_tokens // engine.kv_block_tokens * engine.kv_block_tokens
    precision = scenario.model.precision
    memory = cluster.tp_size * gpu.memory_bytes * engine.gpu_memory_utilization
    weights = architecture.weight_bytes(precision)
    per_token = architecture.kv_bytes_per_token(precision)
    if num_draft_tokens > 0:
        weights += draft_head_bytes(architecture, precision)
        per_token += num_head_layers(architecture) * architecture.kv_bytes_per_token_per_layer(precision)
    states = architecture.state_bytes_per_seq * engine.max_running_seqs * (1 + num_draft_tokens)
    left = memory - weights - states
    if left < per_token:
        raise ScenarioError(
            f"engine.max_running_seqs: {engine.max_running_seqs} sequences of {scenario.model.name} need "
            f"{weights / 1e9:.0f} GB of weights and {states / 1e9:.0f} GB of states, but {cluster.tp_size} x "
            f"{cluster.gpu} at engine.gpu_memory_utilization {engine.gpu_memory_utilization:g} give "
            f"{memory / 1e9:.0f} GB; raise cluster.tp_size or engine.gpu_memory_utilization, or lower "
            "engine.max_running_seqs"
        )
    return int(left / per_token) // engine.kv_block_tokens * engine.kv_block_tokens


def num_head_layers(architecture: Architecture) -> int:
    """Return the MTP layers that were released with the model, or the one that is assumed in their place."""
    return max(architecture.num_mtp_layers, 1)


def draft_head_params(architecture: Architecture) -> int:
    """Return the parameters of the draft head; embedding and lm_head are the target's own."""
    return num_head_layers(architecture) * architecture.mtp_layer_params


def draft_head_bytes(architecture: Architecture, precision: str) -> int:
    """Return bytes of the draft head's weights."""
    return draft_head_params(architecture) * BYTES_PER_VALUE[precision]
