"""Operators: what aiconfigurator charges for one operator at one shape, never faster than the card allows.

Knows operators and the engine that prices them; does not know what a verify or a draft pass is made of.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from profiler.errors import UnsupportedModelError

Spec = Mapping[str, Any]
PricedOperator = tuple[str, float, float, str]
"""What the engine answers per operator: name, milliseconds, energy, origin."""

ATTENTION_KINDS = frozenset({"GenerationAttention", "ContextAttention"})
"""Operators that read the KV cache: their bytes depend on sequences and context, not on new tokens."""
STATE_KINDS = frozenset({"Gdn"})
"""Operators that read and write a recurrent state of fixed size per sequence."""
TOKEN_KINDS = frozenset({"Embedding", "Elementwise", "Gemm", "CustomAllReduce", "Nccl", "P2P", "Moe", "MoeDispatch"})
"""Operators whose cost depends on the number of tokens in the pass alone."""


AttentionHull = Callable[[Spec, int, int], bool]
"""Whether a decode-attention shape at (batch, context) lies inside what was measured."""


class OperatorEngine(Protocol):
    """The part of aiconfigurator's engine that is used here."""

    def evaluate_ops_json(
        self, ops_json: str, is_context: bool, batch_size: int, s: int, prefix: int = 0
    ) -> list[PricedOperator]:
        """Return the price of each operator, milliseconds."""
        ...

    def evaluate_ops_sol_json(
        self, ops_json: str, is_context: bool, batch_size: int, s: int, prefix: int = 0
    ) -> list[tuple[str, float, float, float]]:
        """Return each operator's roofline: name, the larger of the two, compute and memory milliseconds."""
        ...


@dataclass(frozen=True, slots=True)
class Price:
    """Time of an operator or a pass, and the part of it that comes from a measured table."""

    latency_s: float = 0.0
    measured_s: float = 0.0

    def __add__(self, other: "Price") -> "Price":
        return Price(self.latency_s + other.latency_s, self.measured_s + other.measured_s)

    def times(self, count: float) -> "Price":
        """Return the price of `count` repetitions, one after another."""
        return Price(self.latency_s * count, self.measured_s * count)

    def unmeasured(self) -> "Price":
        """Return the same time, with nothing of it counted as measured."""
        return Price(self.latency_s, 0.0)


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator of a pass, `count` times in a row (once per layer)."""

    kind: str
    name: str
    count: float
    spec: Spec
    """Fields of one execution, in aiconfigurator's wire form."""

    @classmethod
    def from_wire(cls, wire: Spec) -> Self:
        """Return the operator of a one-key object `{kind: fields}`."""
        ((kind, fields),) = wire.items()
        if "scale_factor" not in fields:
            raise UnsupportedModelError(
                f"operator of kind {kind} has no composition rule for verify passes; choose a model with "
                "grouped-query attention (Qwen3, Qwen3.5, Llama-3)"
            )
        return cls(kind, str(fields["name"]), float(fields["scale_factor"]), {**fields, "scale_factor": 1.0})

    def wire_json(self) -> str:
        """Return one execution as the JSON list that the engine reads."""
        return json.dumps([{self.kind: self.spec}])


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two groups of operators on two streams: the longer one counts."""

    name: str
    groups: tuple[tuple[Operator, ...], tuple[Operator, ...]]


def parse_operators(wires: Iterable[Spec]) -> tuple[Operator | Overlap, ...]:
    """Return the operators of a pass; those that run zero times (pipeline hops of one stage) are left out."""
    parsed: list[Operator | Overlap] = []
    for wire in wires:
        if "Overlap" in wire:
            both = wire["Overlap"]
            groups = (_operators(both["group_a"]), _operators(both["group_b"]))
            parsed.append(Overlap(str(both["name"]), groups))
        else:
            parsed.extend(_operators([wire]))
    return tuple(parsed)


def elementwise(name: str, bytes_per_token: float, count: float = 1.0) -> Operator:
    """Return a memory-bound operator that moves `bytes_per_token`."""
    spec = {"name": name, "scale_factor": 1.0, "bytes_per_token": bytes_per_token, "scale_num_tokens": 1}
    return Operator("Elementwise", name, count, {**spec, "seq_split": 1})


@dataclass(slots=True)
class OperatorPrices:
    """Prices from one engine, remembered, each raised to the card's roofline where the table is below it."""

    engine: OperatorEngine
    is_context: bool = False
    in_hull: AttentionHull | None = None
    """Decode attention outside it is not counted as measured, whatever origin the engine states."""
    num_priced: Counter[str] = field(default_factory=Counter)
    """Shapes priced, per operator kind."""
    num_floored: Counter[str] = field(default_factory=Counter)
    """Of those, shapes whose table entry was faster than the card's peaks allow."""
    _known: dict[tuple[str, int, int, int, int], Price] = field(default_factory=dict)

    def price(self, step: Operator | Overlap, batch: int, context_tokens: int, cached_tokens: int = 0) -> Price:
        """Return the time of all executions of `step`.

        `batch` is sequences for attention and states, tokens of the pass for everything else; `context_tokens` is
        what one sequence attends to (decode) or adds (prefill, after `cached_tokens`).
        """
        if isinstance(step, Overlap):
            totals = [
                sum((self.price(op, batch, context_tokens, cached_tokens) for op in group), Price())
                for group in step.groups
            ]
            return max(totals, key=lambda total: total.latency_s)
        return self._once(step, batch, context_tokens, cached_tokens, queries=1).times(step.count)

    def attention(self, operator: Operator, batch: int, context_tokens: int, queries: int) -> Price:
        """Return the time of decode attention for `queries` new tokens per sequence, its KV cache read once.

        The measured kernel has one query per sequence. More of them only add arithmetic, so the time is that kernel's,
        or the tensor cores' peak for `queries` times the work where that is longer.
        """
        return self._once(operator, batch, context_tokens, 0, queries).times(operator.count)

    def _once(self, operator: Operator, batch: int, context_tokens: int, cached_tokens: int, queries: int) -> Price:
        key = (operator.name, batch, context_tokens, cached_tokens, queries)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._ask(operator, batch, context_tokens, cached_tokens, queries)
        return known

    def _ask(self, operator: Operator, batch: int, context_tokens: int, cached_tokens: int, queries: int) -> Price:
        wire = operator.wire_json()
        ((_, latency_ms, _, origin),) = self.engine.evaluate_ops_json(
            wire, self.is_context, batch, context_tokens, cached_tokens
        )
        compute_ms, memory_ms = self._roofline_ms(operator, wire, batch, context_tokens, cached_tokens)
        floor_s = max(queries * compute_ms, memory_ms) / 1e3
        latency_s = latency_ms / 1e3
        self.num_priced[operator.kind] += 1
        # Tables are read back as float32: equality with the roofline is not a violation.
        if latency_s < floor_s * (1 - 1e-4):
            self.num_floored[operator.kind] += 1
            return Price(floor_s, 0.0)
        is_measured = origin == "silicon"
        if operator.kind == "GenerationAttention" and self.in_hull is not None:
            is_measured = is_measured and self.in_hull(operator.spec, batch, context_tokens)
        return Price(latency_s, latency_s if is_measured else 0.0)

    def _roofline_ms(
        self, operator: Operator, wire: str, batch: int, context_tokens: int, cached_tokens: int
    ) -> tuple[float, float]:
        """Return compute and memory floors of one execution, milliseconds."""
        if operator.kind in STATE_KINDS:
            # The engine exports no roofline for these; an elementwise operator of the same bytes has one.
            tokens = context_tokens if self.is_context else 1
            wire = elementwise("state_floor", state_bytes(operator.spec)).wire_json()
            return self._roofline(wire, batch * tokens, 0, 0)
        if operator.kind == "MoeDispatch":
            return 0.0, 0.0  # The engine exports no roofline for it either, and its bytes cross NVLink, not memory.
        compute_ms, memory_ms = self._roofline(wire, batch, context_tokens, cached_tokens)
        if operator.kind == "Moe":
            # Its roofline counts min(experts, tokens x top-k) distinct experts; skewed routing touches fewer, so only
            # the first token's experts are certain to be read.
            memory_ms = self._roofline(wire, 1, 1, 0)[1]
        return compute_ms, memory_ms

    def _roofline(self, wire: str, batch: int, context_tokens: int, cached_tokens: int) -> tuple[float, float]:
        ((_, _, compute_ms, memory_ms),) = self.engine.evaluate_ops_sol_json(
            wire, self.is_context, batch, context_tokens, cached_tokens
        )
        return compute_ms, memory_ms


def state_bytes(spec: Spec) -> float:
    """Return the bytes that a gated-DeltaNet operator must at least move, of one tensor-parallel rank.

    Decode: per sequence, the state read and written (recurrence: v_heads x d_k x d_v values of `mamba_ssm_dtype`;
    convolution: its window of bf16 channels). Prefill: per token, the bf16 inputs and outputs.
    """
    values = float(spec["num_v_heads"] * spec["head_v_dim"])
    channels = float(2 * spec["num_k_heads"] * spec["head_k_dim"]) + values
    is_convolution = str(spec["kernel_source"]).startswith("causal_conv1d")
    if spec["phase"] == "context":
        return 2 * (channels + (channels if is_convolution else values))
    if is_convolution:
        return 2 * 2 * channels * float(spec["d_conv"] - 1)
    value_bytes = 4.0 if spec["mamba_ssm_dtype"] == "float32" else 2.0
    return 2 * value_bytes * values * float(spec["head_k_dim"])


def _operators(wires: Iterable[Spec]) -> tuple[Operator, ...]:
    return tuple(operator for operator in map(Operator.from_wire, wires) if operator.count > 0)
