"""What vLLM, SGLang and llama.cpp count: readings of `/metrics`, and what was counted between two of them.

Counters are cumulative since a server started; only differences of two readings mean anything. Gauges of accept rate
and length are not read: they are means over unknown windows, and 0.0 where nothing was counted. Sources: vLLM 0.32
`v1/metrics/loggers.py`, `v1/spec_decode/metrics.py`; SGLang 0.5 `srt/observability/metrics_collector.py`, which counts
a request when it ends; llama.cpp `tools/server/server-task.cpp`. Does not know how a measurement is made.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from profiler.errors import EngineError
from profiler.sources.engine.http import Endpoint, RefusedError
from traces.errors import TraceFormatError
from traces.prometheus import MetricSample, MetricsText, parse_metrics


@dataclass(frozen=True, slots=True)
class Names:
    """Metrics of one engine; several names where versions differ, `_total` being what Prometheus clients append."""

    running: tuple[str, ...]
    waiting: tuple[str, ...]
    generated: tuple[str, ...]
    drafts: tuple[str, ...]
    """Verify steps times sequences."""
    draft_tokens: tuple[str, ...] = ()
    accepted: tuple[str, ...] = ()
    preempted: tuple[str, ...] = ()
    """Sequences thrown out of the KV cache."""
    by_position: tuple[str, ...] = ()
    """Labelled `position`, from 0; unconditional: the first position + 1 tokens were all accepted."""


def _both(*names: str) -> tuple[str, ...]:
    return tuple(form for name in names for form in (f"{name}_total", name))


NAMES = {
    "vllm": Names(
        running=("vllm:num_requests_running",),
        waiting=("vllm:num_requests_waiting",),
        generated=_both("vllm:generation_tokens"),
        drafts=_both("vllm:spec_decode_num_drafts"),
        draft_tokens=_both("vllm:spec_decode_num_draft_tokens"),
        accepted=_both("vllm:spec_decode_num_accepted_tokens"),
        preempted=_both("vllm:num_preemptions"),
        by_position=_both("vllm:spec_decode_num_accepted_tokens_per_pos"),
    ),
    "sglang": Names(
        running=("sglang:num_running_reqs",),
        waiting=("sglang:num_queue_reqs",),
        generated=_both("sglang:generation_tokens"),
        drafts=_both("sglang:spec_verify_calls"),
        preempted=_both("sglang:num_retracted_requests"),
    ),
    "llama.cpp": Names(
        running=("llamacpp:requests_processing",),
        waiting=("llamacpp:requests_deferred",),
        generated=_both("llamacpp:tokens_predicted"),
        drafts=_both("llamacpp:spec_decode_num_drafts"),
        draft_tokens=_both("llamacpp:spec_decode_num_draft_tokens"),
        accepted=_both("llamacpp:spec_decode_num_accepted_tokens"),
        by_position=_both("llamacpp:spec_decode_num_accepted_tokens_per_pos"),
    ),
}
PREFIXES = {"vllm:": "vllm", "sglang:": "sglang", "llamacpp:": "llama.cpp"}
IDLE_PATIENCE_S = {"vllm": 10.0, "sglang": 40.0, "llama.cpp": 10.0}
"""How long gauges may lag behind an engine that has become idle: SGLang refreshes them every 30 s then."""


@dataclass(frozen=True, slots=True)
class Counters:
    """One reading; None where the engine does not count it."""

    generated_tokens: float | None
    drafts: float | None
    draft_tokens: float | None
    accepted_tokens: float | None
    accepted_by_position: tuple[float, ...]
    num_busy: float | None
    """Requests running or waiting, as far as the gauges know."""
    started_s: float | None
    """Start of the server's process."""
    num_preempted: float | None = None

    def since(self, earlier: "Counters") -> "Counters":
        """Return what was counted in between.

        Raises:
            EngineError: Something went backwards: the server restarted.
        """
        names = ("generated_tokens", "drafts", "draft_tokens", "accepted_tokens", "num_preempted")
        found = {name: _difference(getattr(self, name), getattr(earlier, name)) for name in names}
        before = earlier.accepted_by_position or (0.0,) * len(self.accepted_by_position)
        positions = tuple(now - then for now, then in zip(self.accepted_by_position, before, strict=False))
        values = [*positions, *(value for value in found.values() if value is not None)]
        if self.started_s != earlier.started_s or min(values, default=0.0) < 0:
            raise EngineError("the server restarted while it was measured; repeat the command")
        return Counters(**found, accepted_by_position=positions, num_busy=self.num_busy, started_s=self.started_s)


def read_metrics(endpoint: Endpoint) -> MetricsText | None:
    """Return the server's metrics, None if it does not offer any.

    Raises:
        EngineError: No answer, or one that is no Prometheus text.
    """
    try:
        return parse_metrics(endpoint.get("/metrics"), f"{endpoint}/metrics")
    except RefusedError as error:
        if error.status in (404, 501):
            return None
        raise
    except TraceFormatError as error:
        raise EngineError(str(error)) from None


def read_counters(metrics: MetricsText, engine: str) -> Counters:
    """Return the counters of one engine.

    Raises:
        EngineError: Several engines answer behind one port, so a batch would be split among them.
    """
    names = NAMES[engine]
    ranks = {sample.labels.get("engine") or sample.labels.get("dp_rank") for sample in _first(metrics, names.running)}
    if len(ranks) > 1:
        raise EngineError(f"{len(ranks)} engines share this port, and a batch; profile a server with one (no --dp)")
    positions = {
        int(s.labels["position"]): s.value for s in _first(metrics, names.by_position) if _is_position(s.labels)
    }
    # Tensor- and pipeline-parallel ranks repeat a gauge.
    gauges = [max((s.value for s in _first(metrics, name)), default=None) for name in (names.running, names.waiting)]
    return Counters(
        generated_tokens=metrics.total(*names.generated),
        drafts=metrics.total(*names.drafts),
        draft_tokens=metrics.total(*names.draft_tokens),
        accepted_tokens=metrics.total(*names.accepted),
        accepted_by_position=tuple(positions.get(j, 0.0) for j in range(max(positions, default=-1) + 1)),
        num_busy=sum(value or 0.0 for value in gauges) if gauges[0] is not None else None,
        started_s=metrics.total("process_start_time_seconds"),
        num_preempted=metrics.total(*names.preempted),
    )


def _is_position(labels: dict[str, str]) -> bool:
    text = labels.get("position", "")
    return text.isascii() and text.isdigit() and int(text) <= 64


def _first(metrics: MetricsText, names: tuple[str, ...]) -> Sequence[MetricSample]:
    return next((found for name in names if (found := metrics.of(name))), ())


def _difference(now: float | None, then: float | None) -> float | None:
    # Labelled counters appear with the first thing they count.
    return None if now is None else now - (then or 0.0)
