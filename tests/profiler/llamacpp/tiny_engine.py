"""A model so small that llama.cpp steps in a fifth of a millisecond, and prompts for it."""

import dataclasses
import random
from pathlib import Path

from profiler.models.hf_config import architecture_of
from profiler.sources.llamacpp.session import Call, EngineSettings
from profiler.sources.llamacpp.weights_file import WeightsRequest, weights_file
from traces.architecture import Architecture

CONFIG = {
    "model_type": "qwen3_5",
    "num_hidden_layers": 2,
    "full_attention_interval": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "linear_num_key_heads": 1,
    "linear_num_value_heads": 2,
    "linear_value_head_dim": 32,
    "vocab_size": 512,
    "mtp_num_hidden_layers": 1,
    "tie_word_embeddings": True,
}
MODEL: Architecture = architecture_of(CONFIG, "smallest", "a test")


def settings(folder: Path, **changes: object) -> EngineSettings:
    """Return a server of two slots with the weights in `folder`."""
    path = weights_file(WeightsRequest(MODEL), folder)
    return dataclasses.replace(EngineSettings(str(path), num_slots=2, slot_tokens=512), **changes)


def call(num_tokens: int, seed: int = 0, prompt_tokens: int = 16) -> Call:
    words = random.Random(seed)
    return Call(tuple(words.randrange(256, 512) for _ in range(prompt_tokens)), num_tokens, seed=seed)
