"""Small valid traces, and strategies that draw more of them."""

from hypothesis import strategies as st

from traces import (
    AcceptanceLaw,
    AcceptanceRow,
    AcceptanceTrace,
    EntropyPoint,
    LatencyRow,
    LatencyTrace,
    MeasuredRun,
    MeasuredStep,
    Operation,
    Origin,
    Provenance,
    SequenceRow,
    Turn,
    VerifyRule,
    WorkloadTrace,
)
from traces.measured import Speculation

PROVENANCE = Provenance(source="made up for a test", created="2026-01-31")


def latency_trace(num_rows: int = 20) -> LatencyTrace:
    rows = tuple(
        LatencyRow(
            operation=Operation.DECODE, batch=i + 1, context_tokens=512, tokens_per_seq=1, latency_s=0.001 + i / 7e3
        )
        for i in range(num_rows)
    )
    return LatencyTrace(
        name="h200", provenance=PROVENANCE, gpu="H200", model="Qwen3-8B", precision="bf16", engine="vllm", rows=rows
    )


def acceptance_trace() -> AcceptanceTrace:
    row = AcceptanceRow(loss="e2e_tv", verify_rule=VerifyRule.REJECTION, cumulative=(0.9, 0.8, 0.7), entropy_nats=0.25)
    law = AcceptanceLaw(
        recipe="rs_e2e_tv",
        fit="reasoning",
        verify_rule=VerifyRule.REJECTION,
        num_draft_tokens=3,
        intercept=3.6,
        slope_per_nat=-0.9,
        slope_sd_per_nat=0.1,
        entropy_low_nats=0.1,
        entropy_high_nats=0.6,
        origin=Origin.STATED,
        source="a paper",
    )
    return AcceptanceTrace(name="accept", provenance=PROVENANCE, model="Qwen3-8B", rows=(row,), laws=(law,))


def workload_trace() -> WorkloadTrace:
    turns = (Turn(input_tokens=300, output_tokens=50), Turn(input_tokens=40, output_tokens=7, delay_s=1.5))
    return WorkloadTrace(
        name="work",
        provenance=PROVENANCE,
        sequences=(SequenceRow(rl_step=0, group=0, turns=turns),),
        entropy=(EntropyPoint(rl_step=0, entropy_nats=0.5), EntropyPoint(rl_step=9, entropy_nats=0.4)),
    )


def _some(strategy: st.SearchStrategy[float]) -> st.SearchStrategy[float | None]:
    return st.none() | strategy


fractions = st.floats(0, 1)
names = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,20}\Z")
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
provenances = st.builds(Provenance, source=texts, created=st.just("2026-01-31"), notes=st.none() | texts)

latency_rows = st.builds(
    LatencyRow,
    batch=st.integers(1, 1_000_000),
    context_tokens=st.integers(0, 10_000_000),
    tokens_per_seq=st.integers(1, 10_000_000),
    latency_s=st.floats(1e-7, 600),
    tp_size=st.integers(1, 1024),
    ep_size=st.integers(1, 4096),
    measured_fraction=_some(fractions),
    relative_spread=_some(st.floats(0, 1e300)),
)
latency_traces = st.builds(
    LatencyTrace,
    name=names,
    provenance=provenances,
    gpu=texts,
    model=texts,
    precision=texts,
    engine=texts,
    graph_batch_sizes=st.none() | st.sets(st.integers(1, 4096), min_size=1).map(lambda sizes: tuple(sorted(sizes))),
    rows=st.lists(latency_rows, min_size=1, max_size=8, unique_by=LatencyRow.key).map(tuple),
)
acceptance_rows = st.builds(
    AcceptanceRow,
    head=texts,
    loss=texts,
    temperature=st.floats(0, 10),
    entropy_nats=_some(st.floats(0, 20)),
    task=st.none() | texts,
    from_token=st.none() | st.integers(0, 2**31),
    cumulative=st.lists(fractions, min_size=1, max_size=16).map(lambda rates: tuple(sorted(rates, reverse=True))),
    num_steps=st.none() | st.integers(1, 2**62),
)
acceptance_traces = st.builds(
    AcceptanceTrace,
    name=names,
    provenance=provenances,
    model=texts,
    rows=st.lists(acceptance_rows, min_size=1, max_size=8).map(tuple),
    laws=st.just(()),
)
turns = st.builds(
    Turn,
    input_tokens=st.integers(0, 10_000_000),
    output_tokens=st.integers(1, 10_000_000),
    delay_s=st.floats(0, 1_000_000),
)
sequence_rows = st.builds(
    SequenceRow,
    rl_step=st.integers(0, 2**62),
    group=st.integers(0, 2**62),
    turns=st.lists(turns, min_size=1, max_size=4).map(tuple),
)
workload_traces = st.builds(
    WorkloadTrace,
    name=names,
    provenance=provenances,
    model=st.none() | texts,
    sequences=st.lists(sequence_rows, max_size=8).map(tuple),
    entropy=st.just((EntropyPoint(rl_step=0, entropy_nats=0.5),)),
)
measured_steps = st.builds(
    MeasuredStep,
    step=st.integers(0, 2**62),
    segment=st.integers(0, 3),
    step_s=_some(st.floats(0, 1e7)),
    entropy_nats=_some(st.floats(0, 20)),
    speculation=st.none() | st.builds(Speculation, per_position=st.lists(fractions, max_size=4).map(tuple)),
    logged=st.dictionaries(texts, st.floats(allow_nan=False, allow_infinity=False), max_size=3),
)
measured_runs = st.builds(
    MeasuredRun,
    name=names,
    provenance=provenances,
    framework=texts,
    steps=st.lists(measured_steps, min_size=1, max_size=8, unique_by=lambda each: (each.segment, each.step)).map(
        lambda steps: tuple(sorted(steps, key=lambda each: (each.segment, each.step)))
    ),
)
traces = latency_traces | acceptance_traces | workload_traces | measured_runs
