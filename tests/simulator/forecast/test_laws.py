import numpy as np
import pytest

from simulator.forecast import laws
from simulator.forecast.fit import fit
from simulator.latency import Need, TraceLatency
from traces.latency import LatencyTrace
from traces.store import find_trace, list_traces, load_trace


def doubling(name: str) -> tuple[float, float]:
    """Return the batch and the context that double a decode step of a shipped latency trace."""
    trace = load_trace(find_trace(name, "latency"), LatencyTrace)
    tp_size, ep_size = min((row.tp_size, row.ep_size) for row in trace.rows)
    source = TraceLatency(trace, tp_size=tp_size, ep_size=ep_size, allow_extrapolation=True)
    table, _ = source.step_table(Need("any", 0, 128, 4096, 1e9))
    near = table.knots <= 16_384
    batch, context = np.meshgrid(np.arange(1.0, 129.0), table.knots[near], indexing="ij")
    seconds = table.step_s[1:129][:, near].ravel()
    columns = np.stack([np.ones(batch.size), batch.ravel(), (batch * context).ravel()], axis=1)
    (base, per_sequence, per_token), *_ = np.linalg.lstsq(columns / seconds[:, None], np.ones(len(seconds)))
    return base / per_sequence, base / per_token


def test_the_prior_of_an_engine_is_the_spread_of_the_shipped_latency_traces() -> None:
    found = np.log([doubling(entry.name) for entry in list_traces("latency")])
    assert np.exp(np.mean(found, axis=0)) == pytest.approx([laws.TRACES_BATCH, laws.DOUBLING_CONTEXT_TOKENS], rel=0.15)
    assert np.std(found, axis=0) == pytest.approx([laws.TRACES_BATCH_SD, laws.DOUBLING_CONTEXT_SD], rel=0.15)


def test_generation_is_the_sum_over_iterations_of_a_batch_that_thins_out() -> None:
    lengths, prompts = np.array([3, 10, 10, 57, 200]), np.array([20, 20, 5, 9, 100])
    base, batch, context = 8e-3, 40.0, 9000.0
    seconds = 0.0
    for token in range(lengths.max()):
        alive = lengths > token
        seconds += base * (1 + alive.sum() / batch + (prompts + token + 0.5)[alive].sum() / context)
    features = np.array([[lengths.max(), lengths.sum(), (lengths * prompts + lengths**2 / 2).sum()]], float)
    law = laws.GenerationLaw(features[0])
    parameters = np.array([*np.log([base, batch, context, 1e-9]), 0.0])
    assert law(parameters, features)[0] == pytest.approx(seconds)


def test_a_fit_gives_back_the_parameters_within_its_intervals() -> None:
    source = np.random.default_rng(0)
    hits = []
    for _ in range(40):
        tokens = source.uniform(1e5, 1e6, (30, 1))
        seconds = 50e-6 * (tokens[:, 0] + 2e4) * np.exp(0.02 * source.standard_normal(30))
        found = fit(*laws.token_pass(tokens, seconds), tokens, seconds)
        off = (found.parameters[0] - np.log(50e-6)) / np.sqrt(found.covariance[0, 0])
        hits.append(abs(off) < found.quantile(0.8))
    assert float(np.mean(hits)) > 0.6


def test_what_steps_do_not_show_stays_as_believed() -> None:
    alike = np.tile([[4000.0, 4e5, 4e8]], (20, 1))
    found = fit(*laws.generation(alike, np.full(20, 60.0)), alike, np.full(20, 60.0))
    learned = dict(zip(found.law.names, found.learned(), strict=True))
    assert learned["base_s"] > 0.8
    assert learned["doubling_batch"] < 0.2
    assert learned["doubling_context_tokens"] < 0.2
