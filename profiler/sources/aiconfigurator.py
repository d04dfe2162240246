"""A LatencyTrace from aiconfigurator-core: measured operator tables of NVIDIA GPUs, composed into speculative steps.

Its own speculation (`nextn`) is never used: it reads the KV cache k + 1 times and has no serial draft passes.
Source: aiconfigurator-core (Apache-2.0), tables of the engine version named in the trace.
"""

import datetime
import importlib
import importlib.metadata
import json
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from profiler.errors import MissingPackageError, UnsupportedModelError
from profiler.sources.attention_hull import attention_hull
from profiler.sources.grid import HOST_GAP_S, GridRows
from profiler.sources.model_config import model_path
from profiler.sources.operators import OperatorPrices, parse_operators
from profiler.sources.passes import SAMPLER_PASSES, Passes
from traces.architecture import list_architectures, load_architecture
from traces.base import Provenance
from traces.latency import LatencyTrace

SYSTEMS = {
    "A100": "a100_sxm",
    "B200": "b200_sxm",
    "B300": "b300_sxm",
    "GB200": "gb200",
    "GB300": "gb300",
    "H100": "h100_sxm",
    "H200": "h200_sxm",
    "L40S": "l40s",
}
"""aiconfigurator's name of each GPU."""
BACKEND = "vllm"
GRAPH_BATCH_SIZES = (1, 2, 4, *range(8, 256, 8), *range(256, 513, 16))
"""Token counts that vLLM captures CUDA graphs for by default."""


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """What to compose a trace of."""

    model: str
    gpu: str
    tp_size: int = 1
    ep_size: int = 1
    max_draft_tokens: int = 8

    @property
    def name(self) -> str:
        """Name of the trace and of its file."""
        ep = f"-ep{self.ep_size}" if self.ep_size > 1 else ""
        return f"{self.model}-{self.gpu}-tp{self.tp_size}{ep}".lower()

    @property
    def command(self) -> str:
        """Command line that makes the trace again."""
        ep = f" --ep {self.ep_size}" if self.ep_size > 1 else ""
        return (
            f"bebop profile --source aiconfigurator --model {self.model} --gpu {self.gpu} --tp {self.tp_size}{ep} "
            f"--max-draft-tokens {self.max_draft_tokens} -o {self.name}.parquet"
        )


@dataclass(frozen=True, slots=True)
class CompiledModel:
    """One model on one replica layout, ready to be priced."""

    passes: Passes
    precision: str
    backend_version: str


def compose_trace(request: TraceRequest) -> LatencyTrace:
    """Return the latencies of decode, verify, draft, lm_head, sample, host gap and prefill over the whole grid.

    Raises:
        UnsupportedModelError: aiconfigurator cannot price this model, GPU or layout.
        MissingPackageError: aiconfigurator-core is not installed.
        TraceFormatError: nobody knows the model.
    """
    compiled = compile_model(request)
    grid = GridRows(compiled.passes, request.max_draft_tokens, request.tp_size, request.ep_size)
    with _refusals(request):
        rows = grid.build()
    versions = _versions(compiled.backend_version)
    core = versions["aiconfigurator-core"]
    return LatencyTrace(
        name=request.name,
        gpu=request.gpu,
        model=request.model,
        precision=compiled.precision,
        engine=f"{BACKEND} {compiled.backend_version} (aiconfigurator-core {core})",
        graph_batch_sizes=GRAPH_BATCH_SIZES,
        rows=rows,
        provenance=Provenance(
            source=f"operator tables of aiconfigurator-core {core} (Apache-2.0) for {request.gpu}, "
            f"{BACKEND} {compiled.backend_version}, composed into speculative steps",
            created=datetime.datetime.now(datetime.UTC).date().isoformat(),
            command=request.command,
            versions=versions,
            notes=_notes(request, compiled.passes, grid),
        ),
    )


def compile_model(request: TraceRequest) -> CompiledModel:
    """Return the model's operators with an engine that prices them; errors as `compose_trace`."""
    if request.gpu not in SYSTEMS:
        raise UnsupportedModelError(f"gpu {request.gpu!r}: aiconfigurator has {', '.join(SYSTEMS)}; choose one of them")
    engine, models, builders, databases, common = _import_aiconfigurator()
    system = SYSTEMS[request.gpu]
    version = str(databases.resolve_query_version(system, BACKEND, "current"))
    layout = _layout(request)
    with tempfile.TemporaryDirectory() as folder:
        path = model_path(request.model, frozenset(common.DefaultHFModels), Path(folder))
        with _refusals(request):
            model = models.get_model(path, builders.build_model_config(**layout), BACKEND)
            database = databases.get_database(system, BACKEND, version)
            spec_json = engine.build_engine_spec_json(
                model, model_path=path, system=system, backend=BACKEND, backend_version=version,
                kv_block_size=None, systems_path=None, nextn=0, database=database,
            )  # fmt: skip
            handle = engine.EngineHandle(engine.aiconfigurator_core.engine_spec_bincode_from_json(spec_json))
    spec = json.loads(spec_json)
    passes = Passes(
        decode_operators=parse_operators(spec["generation_ops"]),
        prefill_operators=parse_operators(spec["context_ops"]),
        decode_prices=OperatorPrices(handle._engine, in_hull=attention_hull(handle._engine)),
        prefill_prices=OperatorPrices(handle._engine, is_context=True),
        hidden_size=int(model._hidden_size),
        vocab_size=int(model._vocab_size),
        tp_size=request.tp_size,
    )
    passes.check()
    quantization = str(model.config.gemm_quant_mode.name)
    precision = {"bfloat16": "bf16"}.get(quantization, quantization.split("_")[0])
    return CompiledModel(passes, precision, version)


@contextmanager
def _refusals(request: TraceRequest) -> Iterator[None]:
    """Turn aiconfigurator's complaints, which have no common base, into one line of ours."""
    try:
        yield
    except (AssertionError, NotImplementedError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split()).split(" at /")[0][:300]
        raise UnsupportedModelError(
            f"{request.model} on {request.gpu}, tp {request.tp_size}, ep {request.ep_size}: aiconfigurator refuses "
            f"({reason}); choose another layout, GPU or model"
        ) from error


def _layout(request: TraceRequest) -> dict[str, int]:
    is_moe = request.model not in list_architectures() or load_architecture(request.model).is_moe
    if request.ep_size > 1 and not is_moe:
        raise UnsupportedModelError(
            f"{request.model} is dense, --ep {request.ep_size} has no experts to split; omit --ep"
        )
    if request.tp_size % request.ep_size:
        raise UnsupportedModelError(
            f"--ep {request.ep_size} does not divide --tp {request.tp_size}; use ep 1 or ep = tp"
        )
    return {
        "tp_size": request.tp_size,
        "pp_size": 1,
        "attention_dp_size": 1,
        "moe_tp_size": request.tp_size // request.ep_size if is_moe else 1,
        "moe_ep_size": request.ep_size,
    }


def _import_aiconfigurator() -> tuple[ModuleType, ModuleType, ModuleType, ModuleType, Any]:
    try:
        engine = importlib.import_module("aiconfigurator_core.sdk.engine")
    except ImportError as error:
        raise MissingPackageError(
            "aiconfigurator-core is not installed, and it holds the operator tables; "
            "run `pip install '.[aiconfigurator]'` in the checkout"
        ) from error
    # It warns about operator families (MLA, DSA) that none of our models has.
    logging.getLogger("aiconfigurator_core").setLevel(logging.ERROR)
    names = ("models", "config_builders", "perf_database", "common")
    models, builders, databases, common = (importlib.import_module(f"aiconfigurator_core.sdk.{name}") for name in names)
    return engine, models, builders, databases, common


def _versions(backend_version: str) -> dict[str, str]:
    return {
        "aiconfigurator-core": importlib.metadata.version("aiconfigurator-core"),
        "bebop-rollout": importlib.metadata.version("bebop-rollout"),
        BACKEND: backend_version,
    }


def _notes(request: TraceRequest, passes: Passes, grid: GridRows) -> str:
    floored = passes.decode_prices.num_floored + passes.prefill_prices.num_floored
    priced = passes.decode_prices.num_priced + passes.prefill_prices.num_priced
    shares = ", ".join(f"{kind} {count} of {priced[kind]}" for kind, count in sorted(floored.items())) or "none"
    mtp = "of the model's own shape:"
    if request.model not in list_architectures() or load_architecture(request.model).num_mtp_layers == 0:
        mtp = "hypothetical, none was released with the model:"
    return (
        "Nothing here was timed as a whole pass: each row is a sum of operators, so its origin is modelled; "
        "measured_fraction is the share of its time that the operator tables call silicon (interpolation inside those "
        "tables included, attention beyond the measured batch and context not). "
        "verify: token operators at batch x (k + 1) tokens, decode attention at batch sequences (KV cache read once; "
        "raised to the tensor cores' peak for k + 1 queries), gated-DeltaNet kernels at (k + 2) / 2 times the batch "
        "(same bytes), not counted as measured; verify of one token equals decode. "
        f"draft: MTP layer ({mtp} embedding, norms, 2h x h projection and one full-attention decoder layer), without "
        "lm_head. "
        f"sample: assumed, {SAMPLER_PASSES} passes over fp32 logits of the whole vocabulary on every rank. "
        f"host_gap: assumed, {HOST_GAP_S * 1e6:g} us per pass. "
        "Not included: gathering logits across tensor-parallel ranks, prefilling the MTP layer, and the engine's work "
        "between steps (0.6 ms per step and 44 us per sequence of it are unexplained in measured serving of Qwen3-32B "
        "by vLLM 0.12.0 on H100: benchmarks/aiconfigurator_check.py). "
        "MoE tables assume power-law routing (exponent 1.2). "
        "Times are for the batch as given; graph_batch_sizes are vLLM's captured token counts, to which it pads. "
        f"Operator shapes faster than the card's peaks, raised to the roofline: {shares}. "
        f"Points raised to keep latency monotone in batch, context and tokens: {grid.num_raised} of {grid.num_points}, "
        f"the largest by {grid.largest_raise:.1%}."
    )
