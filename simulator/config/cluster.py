"""The policy model, the GPUs, and the engine of a rollout replica."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from simulator.config.limits import MAX_GPUS, MAX_TOKENS
from traces.base import Strict

Router = Literal["least_in_flight", "round_robin", "sticky", "static_split"]


class ModelConfig(Strict):
    """The policy being trained."""

    name: str = Field(min_length=1, max_length=200)
    """A name of the architecture table, e.g. `Qwen3.5-35B-A3B`."""
    precision: str = "bf16"
    """Precision of the rollout engine's weights and KV cache."""


class ClusterConfig(Strict):
    """Which GPUs do what. Under a synchronous policy both sides are the same GPUs and both counts are equal."""

    gpu: str = Field(min_length=1, max_length=100)
    num_rollout_gpus: Annotated[int, Field(ge=1, le=MAX_GPUS)]
    num_train_gpus: Annotated[int, Field(ge=1, le=MAX_GPUS)]
    tp_size: Annotated[int, Field(ge=1, le=1024)] = 1
    """Tensor-parallel GPUs of one rollout replica."""
    ep_size: Annotated[int, Field(ge=1, le=1024)] = 1
    """Expert-parallel size inside the replica's GPUs (it does not add GPUs)."""
    stragglers: tuple[tuple[PositiveInt, Annotated[float, Field(ge=0.1, le=100)]], ...] | None = None
    """(replicas, factor): so many replicas take `factor` times as long for everything; None: all are alike."""

    router: Router = "least_in_flight"
    """Which replica a response goes to: whoever has room takes the next (least_in_flight); or fixed when it is
    submitted, and nobody else takes it: in turn (round_robin), its whole group where fewest are unfinished (sticky, for
    `engine.group_prefix`), or by equal contiguous parts of every submission (static_split)."""

    @model_validator(mode="after")
    def _replicas_are_whole(self) -> Self:
        if self.num_rollout_gpus % self.tp_size:
            raise ValueError(
                f"num_rollout_gpus: {self.num_rollout_gpus} is not a multiple of tp_size {self.tp_size}; "
                "a replica has tp_size GPUs"
            )
        return self

    @model_validator(mode="after")
    def _stragglers_are_replicas(self) -> Self:
        named = sum(count for count, _ in self.stragglers or ())
        if named > self.num_replicas:
            raise ValueError(f"stragglers: {named} replicas, but there are only {self.num_replicas}; name fewer")
        return self

    @property
    def num_replicas(self) -> int:
        """Rollout engines."""
        return self.num_rollout_gpus // self.tp_size

    @property
    def slowness(self) -> tuple[float, ...]:
        """Factor of each straggler's latencies; replicas beyond the last entry are as the latency source says."""
        return tuple(factor for count, factor in self.stragglers or () for _ in range(count))


class EngineConfig(Strict):
    """One rollout replica: an inference engine with continuous batching."""

    max_running_seqs: Annotated[int, Field(ge=1, le=8192)]
    """Sequences decoded together (vLLM `max_num_seqs`)."""
    max_live_trajectories: Annotated[int, Field(ge=1, le=65_536)] | None = None
    """Trajectories a replica holds, those at a tool included; None: max_running_seqs."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of GPU memory the engine may use; what weights leave is KV cache."""
    kv_cache_tokens: PositiveInt | None = None
    """KV-cache capacity of a replica in tokens; None derives it from memory, weights and architecture."""
    kv_block_tokens: Annotated[int, Field(ge=1, le=4096)] = 16
    """Tokens of a KV block, in which the cache is handed out. 16 is vLLM's default (`block_size`); SGLang's is 1
    (`page_size`). vLLM raises it for models with recurrent states, e.g. to 528 for Qwen3.5-4B (vLLM issue 40696)."""
    chunked_prefill_tokens: Annotated[int, Field(ge=16, le=MAX_TOKENS)] | None = None
    """Token budget of a step that mixes prefill with decoding; None prefills at once while decoding waits."""
    layer_overhead_s: Annotated[float, Field(ge=0, le=0.1)] = 0.0
    """Seconds per decoder layer and pass beyond the latency source, e.g. kernel launches without CUDA graphs."""
    efficiency: Annotated[float, Field(gt=0, le=10)] | None = Field(
        default=None, exclude_if=lambda value: value is None
    )
    """Speed of the engine over that of the latency source, overheads included; `bebop calibrate` fits it. None: 1."""
    software: Literal["vllm", "vllm_early", "vllm_piecewise", "sglang", "sglang_no_overlap", "llama_cpp"] | None = (
        Field(default=None, exclude_if=lambda value: value is None)
    )
    """Whose host work between passes is added to the latency source, and whose kernels a roofline has
    (`traces/data/kernels/engine_habits.json`); vllm_early: before 0.11; vllm_piecewise: where speculation
    downgrades CUDA graphs; sglang_no_overlap: SGLang whose speculation runs without the overlap scheduler. None:
    nobody's."""
    prefix_cache: Literal["kept", "lost"] = "kept"
    """Whether the KV of earlier turns survives a tool call."""
    group_prefix: Literal["shared", "computed"] = "computed"
    """Whether the responses of a group that run on the same replica share its prompt: prefilled once, held once, in
    whole blocks (prefix caching); or compute it each for itself."""
