"""What a running vLLM, SGLang or llama.cpp says about itself: model, version, draft length, limits.

vLLM tells k by the positions it counts, SGLang by its arguments, llama.cpp by its counters once it has drafted. Does
not know what is measured.
"""

from dataclasses import dataclass
from typing import Any

from profiler.errors import EngineError, UsageError
from profiler.sources.engine.counters import PREFIXES, read_counters, read_metrics
from profiler.sources.engine.http import Endpoint, RefusedError
from traces.prometheus import MetricsText

MAX_DRAFT_TOKENS = 15
"""Largest k that a trace of this build holds."""
PRECISIONS = {
    "bfloat16": "bf16",
    "float16": "fp16",
    "float32": "fp32",
    "all F32": "fp32",
    "BF16": "bf16",
    "F16": "fp16",
    "auto": "",
}
"""How engines write what traces call otherwise."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a server says about itself; None where it says nothing."""

    engine: str
    version: str
    model_id: str
    """Name that requests carry."""
    num_draft_tokens: int | None
    precision: str | None = None
    tp_size: int | None = None
    ep_size: int | None = None
    max_running: int | None = None
    max_tokens_per_seq: int | None = None
    vocab_size: int | None = None

    @property
    def model(self) -> str:
        """Return the model's name without owner, folder and suffix."""
        return self.model_id.rstrip("/").split("/")[-1].removesuffix(".gguf") or self.engine


def find_facts(endpoint: Endpoint) -> Facts:
    """Return what answers at the endpoint.

    Raises:
        EngineError: Nobody, or no engine.
        UsageError: An engine in a configuration that cannot be measured.
    """
    card = _card(endpoint)
    model_id = str(card["id"])
    metrics = read_metrics(endpoint)
    engine = next((PREFIXES[p] for p in PREFIXES if metrics and any(s.name.startswith(p) for s in metrics.samples)), "")
    if engine in ("", "sglang"):
        info = sglang_info(endpoint)
        if "speculative_algorithm" in info or "tp_size" in info:
            return _sglang(info, model_id, has_metrics=metrics is not None)
    if engine == "vllm" and metrics is not None:
        return _vllm(endpoint, model_id, card, metrics)
    props = _optional(endpoint, "/props") if engine in ("", "llama.cpp") else None
    if props is not None and "total_slots" in props:
        return _llama_cpp(endpoint, props, model_id, card, metrics)
    raise EngineError(
        f"{endpoint}: neither vLLM, SGLang nor llama.cpp answers (no /metrics of theirs, no /server_info, no /props); "
        "check --url"
    )


def _card(endpoint: Endpoint) -> dict[str, Any]:
    """Return what `/v1/models` says about its first model."""
    content = _optional(endpoint, "/v1/models") or {}
    models = content.get("data")
    card = models[0] if isinstance(models, list) and models else None
    if not isinstance(card, dict) or not card.get("id"):
        raise EngineError(f"{endpoint}/v1/models: names no model; is this vLLM, SGLang or llama.cpp?")
    return card


def _optional(endpoint: Endpoint, path: str) -> dict[str, Any] | None:
    try:
        return endpoint.get_json(path)
    except RefusedError as error:
        if error.status in (404, 405, 501):
            return None
        raise


def _vllm(endpoint: Endpoint, model_id: str, card: dict[str, Any], metrics: MetricsText) -> Facts:
    counters = read_counters(metrics, "vllm")
    drafts_known = counters.drafts is not None
    return Facts(
        engine="vllm",
        version=str((_optional(endpoint, "/version") or {}).get("version", "unknown"))[:50],
        model_id=model_id,
        # One series per position exists from the start; none at all without speculation.
        num_draft_tokens=len(counters.accepted_by_position) or (None if drafts_known else 0),
        max_tokens_per_seq=_whole(card.get("max_model_len")),
    )


def _sglang(info: dict[str, Any], model_id: str, *, has_metrics: bool) -> Facts:
    drafts = sglang_draft_tokens(info)
    if drafts and not has_metrics:
        raise UsageError("SGLang counts its verify steps with --enable-metrics only; start the server with it")
    if (_whole(info.get("dp_size")) or 1) > 1:
        raise UsageError(f"SGLang runs dp_size = {info['dp_size']} engines behind one port; profile one (--dp-size 1)")
    quantization, dtype = info.get("quantization"), str(info.get("dtype") or "auto")
    return Facts(
        engine="sglang",
        version=str(info.get("version", "unknown"))[:50],
        model_id=model_id,
        num_draft_tokens=drafts,
        precision=str(quantization)[:50] if quantization else PRECISIONS.get(dtype, dtype) or None,
        tp_size=_whole(info.get("tp_size")),
        ep_size=_whole(info.get("ep_size")),
        max_running=_whole(info.get("max_running_requests")),
        max_tokens_per_seq=_whole(info.get("context_length")) or _whole(info.get("max_req_input_len")),
    )


def sglang_info(endpoint: Endpoint) -> dict[str, Any]:
    """Return what SGLang says about its arguments, under either of its two paths; nothing where it is not SGLang."""
    return _optional(endpoint, "/server_info") or _optional(endpoint, "/get_server_info") or {}


def sglang_draft_tokens(info: dict[str, Any]) -> int:
    """Return k from what SGLang says about its arguments: `speculative_num_draft_tokens` counts k + 1.

    Raises:
        UsageError: Drafts that are a tree, or whose number the server changes by itself.
    """
    if not info.get("speculative_algorithm"):
        return 0
    topk = _whole(info.get("speculative_eagle_topk")) or 1
    if topk > 1:
        raise UsageError(f"SGLang drafts a tree (speculative_eagle_topk = {topk}); Bebop knows chains: set it to 1")
    if info.get("speculative_adaptive"):
        raise UsageError("SGLang changes k by itself (--speculative-adaptive); profile one k at a time without it")
    verified = _whole(info.get("speculative_num_draft_tokens"))
    return verified - 1 if verified else _whole(info.get("speculative_num_steps")) or 0


def _llama_cpp(
    endpoint: Endpoint, props: dict[str, Any], model_id: str, card: dict[str, Any], metrics: MetricsText | None
) -> Facts:
    if metrics is None:
        raise UsageError("llama.cpp counts with --metrics only; start the server with it")
    speculates = _slots_speculate(endpoint)
    settings, ftype = (
        props.get("default_generation_settings"),
        str(props.get("model_ftype") or "").removeprefix("(guessed) "),
    )
    meta = card.get("meta")
    return Facts(
        engine="llama.cpp",
        version=str(props.get("build_info", "unknown"))[:50],
        model_id=model_id,
        # Its k is told nowhere: the counters show it once something was drafted.
        num_draft_tokens=0 if speculates is False else None,
        precision=PRECISIONS.get(ftype, ftype)[:50] or None,
        max_running=_whole(props.get("total_slots")),
        max_tokens_per_seq=_whole(settings.get("n_ctx")) if isinstance(settings, dict) else None,
        vocab_size=_whole(meta.get("n_vocab")) if isinstance(meta, dict) else None,
    )


def _slots_speculate(endpoint: Endpoint) -> bool | None:
    try:
        body = endpoint.get("/slots")
    except RefusedError:
        return None
    return b'"speculative":true' in body.replace(b" ", b"")


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**9 else None
