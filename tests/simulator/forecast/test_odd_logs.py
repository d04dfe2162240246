import numpy as np
import pytest

from simulator.forecast import ForecastError, forecast, forecast_report
from tests.simulator.forecast.logs import made_up_run, run_of
from traces.measured import MeasuredRun, MeasuredStep

FIELDS = [
    "step_s",
    "generation_s",
    "generation_wait_s",
    "train_s",
    "log_prob_s",
    "sync_s",
    "reference_s",
    "response_tokens_mean",
    "response_tokens_max",
    "clipped_fraction",
    "prompt_tokens_mean",
    "total_tokens",
    "num_sequences",
    "entropy_nats",
    "slowest_tokens",
]


def odd_run(seed: int) -> MeasuredRun:
    """Return a short run with fields missing everywhere or here and there, and some that cannot be true."""
    source = np.random.default_rng(seed)
    missing = set(source.choice(FIELDS, int(source.integers(0, 9)), replace=False))
    steps = []
    for step in made_up_run(int(source.integers(2, 14)), seed=seed, noise=0.1).steps:
        said = step.model_dump(exclude_none=True, exclude={"logged"})
        for name in FIELDS:
            if name in missing or source.random() < 0.1:
                said.pop(name, None)
            elif source.random() < 0.06:
                wrong = {"clipped_fraction": 1.0, "num_sequences": int(source.choice([0, 1, 10**6])), "entropy_nats": 0}
                said[name] = wrong.get(name, float(source.choice([0.0, 1e-9, 1.0, 9e6])))
        steps.append(MeasuredStep(**said))
    return run_of(steps)


@pytest.mark.parametrize("seed", range(40))
def test_an_odd_log_ends_in_a_forecast_or_in_one_line(seed: int) -> None:
    try:
        done = forecast(odd_run(seed), (0.1, 0.2, 0.5, 0.9)[seed % 4])
    except ForecastError as error:
        refusal = str(error)
    else:
        refusal = ""
        forecast_report(done, 0.2).model_dump_json()
        assert all(np.isfinite(prediction.high).all() for prediction in done.predictions.values())
    assert "\n" not in refusal
