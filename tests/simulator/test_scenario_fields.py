"""Scenario files with wrong fields: one line, with the field, its value and its limit."""

from pathlib import Path

import pytest

from simulator.config import MAX_TOKENS
from tests.simulator.test_scenario_file import FIELDS, TEXT, refusal


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (
            "max_running_seqs",
            "max_runing_seqs",
            "engine.max_runing_seqs: unknown key; did you mean `max_running_seqs`?",
        ),
        ("switch_s = 0.5", "swich_s = 0.5", "policy.swich_s: unknown key; did you mean `switch_s`?"),
        ("[arms.spec]\n", "[arms.spec]\nacceptence = 3\n", "arms.spec.acceptence: unknown key; did you mean `acceptan"),
        ("sigma = 0.6", "sigma = 0.6, sd = 1", f"workload.response_tokens.sd: unknown key{FIELDS}"),
        ('"fixed"', '"fixed", task = 1', f"arms.spec.acceptance.task: unknown key{FIELDS}"),
        ("name = ", "nam = ", "nam: unknown key; did you mean `name`?"),
        ("sigma = 0.6", "sigma = -0.6", f"workload.response_tokens.sigma: -0.6 is not at least 0{FIELDS}"),
        ("num_rollout_gpus = 2", "num_rollout_gpus = -2", f"cluster.num_rollout_gpus: -2 is not at least 1{FIELDS}"),
        ("seconds = 0.25", "seconds = -1", f"weight_sync.seconds: -1 is not at least 0{FIELDS}"),
        ("seconds = 0.25", "seconds = nan", f"weight_sync.seconds: nan is not a finite number{FIELDS}"),
        ("seconds = 0.25", "seconds = inf", f"weight_sync.seconds: inf is not a finite number{FIELDS}"),
        ("seconds = 0.25", "seconds = -inf", f"weight_sync.seconds: -inf is not a finite number{FIELDS}"),
        ("seconds = 0.25", "seconds = 1e999", f"weight_sync.seconds: inf is not a finite number{FIELDS}"),
        ("seconds = 0.25", 'seconds = "0.25"', f"weight_sync.seconds: '0.25' is not a number{FIELDS}"),
        ("seconds = 0.25", "seconds = true", f"weight_sync.seconds: True is not a number{FIELDS}"),
        ("num_train_gpus = 2", 'num_train_gpus = "2"', f"cluster.num_train_gpus: '2' is not a whole number{FIELDS}"),
        ("k = 3", "k = 3.5", f"arms.spec.k: 3.5 is not a whole number{FIELDS}"),
        ("k = 3", "k = true", f"arms.spec.k: True is not a whole number{FIELDS}"),
        ("k = 3", "k = 17", f"arms.spec.k: 17 is not at most 16{FIELDS}"),
        ('gpu = "H200"', "gpu = 200", f"cluster.gpu: 200 is not text{FIELDS}"),
        ('gpu = "H200", ', "", f"cluster.gpu: missing{FIELDS}"),
        (
            '{ kind = "synchronous", switch_s = 0.5 }',
            '"synchronous"',
            f"policy: 'synchronous' is not an object{FIELDS}",
        ),
        ('kind = "synchronous", ', "", "policy.kind: missing; it is 'synchronous', 'one_step_off' or 'fully_async'"),
        (
            '"synchronous"',
            '"sync"',
            f"policy.kind: 'sync' is not one of 'synchronous', 'one_step_off' or 'fully_async'{FIELDS}",
        ),
        ("0.8, 0.6, 0.4", "0.8, 0.9, 0.4", "arms.spec.acceptance.cumulative: [0.8, 0.9, 0.4] increases; give P(first"),
        ("0.8, 0.6, 0.4", "0.8, 1.6, 0.4", f"arms.spec.acceptance.cumulative[1]: 1.6 is not at most 1{FIELDS}"),
        ("0.8, 0.6, 0.4", "", f"arms.spec.acceptance.cumulative: [] has fewer items than 1{FIELDS}"),
        ("acceptance =", "#", "arms.spec.acceptance: missing, though k is 3; give a law, a trace or fixed rates"),
        (
            "[arms.spec]",
            "[arms.baseline]",
            "arms.baseline: the name is taken by plain decoding, which always runs; cho",
        ),
        ("[arms.spec]", '[arms."a b"]', "arms.a b: 'a b' does not match ^[A-Za-z0-9]"),
        ("name = ", "schema_version = 2\nname = ", f"schema_version: 2 is not one of 1{FIELDS}"),
        (
            "maximum = 2000",
            "maximum = 200",
            "workload.response_tokens.mean: 300 must lie between minimum 1 and maximum",
        ),
        (
            "maximum = 2000",
            "maximum = 1e12",
            f"workload.response_tokens.maximum: 1000000000000.0 is not at most {MAX_TOKENS}",
        ),
        ("mean = 300, ", "", "workload.response_tokens.mean: missing, and median too; state one of them"),
        (
            "mean = 300",
            "mean = 300, median = 200",
            "workload.response_tokens.median: 200 stands beside mean 300; state only one of them",
        ),
        (
            "mean = 300",
            "median = 3000",
            "workload.response_tokens.median: 3000 must lie between minimum 1 and maximum 2000; change one of them",
        ),
        (
            '"constant", value = 100',
            '"quantiles", points = [[0.0, 64], [0.9, 500], [0.5, 900], [1.0, 1000]]',
            "workload.prompt_tokens.points: probability 0.5 does not ascend after 0.9; sort them",
        ),
        (
            '"constant", value = 100',
            '"quantiles", points = [[0.0, 64], [0.5, 500], [1.0, 400]]',
            "workload.prompt_tokens.points: length 400 falls after 500; a quantile never does",
        ),
        (
            '"constant", value = 100',
            '"quantiles", points = [[0.5, 64], [0.99, 500]]',
            "workload.prompt_tokens.points: probabilities go from 0.5 to 0.99, not from 0 to 1; add the shortest",
        ),
        (
            '"constant", value = 100',
            '"quantiles", points = [[0, 64], [1, 64]]',
            'workload.prompt_tokens.points: every length is 64; use kind = "constant"',
        ),
        (
            '"constant", value = 100',
            '"quantiles", points = [[0, 0], [1, 64]]',
            f"workload.prompt_tokens.points[0][1]: 0 is not above 0{FIELDS}",
        ),
        (
            "group_size = 2",
            "group_size = 2\ngroup_correlation = 1.2",
            f"workload.group_correlation: 1.2 is not at most 1{FIELDS}",
        ),
        (
            "group_size = 2",
            "group_size = 2\nlength_drift = [[10, 1.0], [10, 2.0]]",
            "workload.length_drift: rl_step must ascend without repeats, got [10, 10]; sort the points",
        ),
        (
            "group_size = 2",
            "group_size = 2\nlength_drift = [[10, 0.0]]",
            f"workload.length_drift[0][1]: 0.0 is not above 0{FIELDS}",
        ),
        ("value = 100", "value = 1e12", f"workload.prompt_tokens.value: 1000000000000.0 is not at most {MAX_TOKENS}"),
        (
            "num_rollout_gpus = 2",
            "num_rollout_gpus = 3, tp_size = 2",
            "cluster.num_rollout_gpus: 3 is not a multiple of tp_size 2; a replica has tp_size GPUs",
        ),
        (
            "num_train_gpus = 2",
            "num_train_gpus = 4",
            "cluster.num_train_gpus: 4 differs from num_rollout_gpus 2, but a synchronous policy runs both on the same "
            "GPUs; make them equal",
        ),
        (
            "num_rollout_gpus = 2",
            "num_rollout_gpus = 100000",
            f"cluster.num_rollout_gpus: 100000 is not at most 65536{FIELDS}",
        ),
        (
            "prompts_per_step = 4",
            "prompts_per_step = 900000",
            "workload.prompts_per_step: 900000 x group_size 2 = 1800000 sequences per step, above the limit 1000000; "
            "lower one of them",
        ),
        (
            "prompts_per_step = 4",
            "prompts_per_step = 400000",
            "run.num_steps: 500 x 800000 sequences = 400000000, above the limit 20000000; simulate fewer steps",
        ),
        ("num_steps = 5", "num_steps = 1000000000", f"run.num_steps: 1000000000 is not at most 10000{FIELDS}"),
        (
            "num_steps = 5",
            "num_steps = 1",
            "run.num_steps: 1 leaves nothing after 1 warm-up steps; raise it or set run.warmup_steps",
        ),
        (
            '{ kind = "fixed", cumulative = [0.8, 0.6, 0.4] }',
            '{ kind = "law", recipe = "to", fit = "swe" }',
            "entropy: missing, but arms.spec.acceptance is a law of entropy; give a trajectory",
        ),
        (
            '{ kind = "fixed", cumulative = [0.8, 0.6, 0.4] }',
            '{ kind = "law", recipe = "too", fit = "swe" }',
            f"arms.spec.acceptance.recipe: 'too' is not one of 'to', 'rs_ce', 'rs_tv' or 'rs_e2e_tv'{FIELDS}",
        ),
        (
            "[arms.spec]",
            'entropy = { kind = "piecewise", points = [[5, 0.4], [5, 0.3]] }\n[arms.spec]',
            "workload.entropy: unknown key",
        ),
    ],
)
def test_a_wrong_field_is_named_with_its_value_and_limit(old: str, new: str, line: str, tmp_path: Path) -> None:
    text = TEXT.replace(old, new, 1)
    if "500 x" in line:
        text = text.replace("num_steps = 5", "num_steps = 500")
    assert text != TEXT
    found = refusal(text, tmp_path)
    assert found.startswith(line)
    assert not any(
        tag in found.split(":")[0]
        for tag in ("synthetic", "lognormal", "constant.", "quantiles", "fixed", "synchronous")
    )


@pytest.mark.parametrize("value", ["2026-01-01", "12:30:00", "2026-01-01T12:30:00Z", "[1979-05-27]"])
def test_a_date_is_named(value: str, tmp_path: Path) -> None:
    line = refusal(TEXT.replace("seconds = 0.25", f"seconds = {value}"), tmp_path)
    assert line.startswith("weight_sync.seconds")
    assert line.endswith("is a date or a time; no field is one, quote it or remove it")


@pytest.mark.parametrize(
    ("table", "line"),
    [
        (
            'arm = "specc"\nquantity = "step_s"\nspeedup = 1.3',
            "measured.0.arm: 'specc' is not an arm; arms are ['spec']",
        ),
        ('arm = "spec"\nquantity = "steps"\nspeedup = 1.3', "measured row 0, column quantity: 'steps' is not one of"),
        ('arm = "spec"\nquantity = "step_s"', "measured row 0: speedup and with_spec: both missing; a measured row"),
        ('arm = "spec"\nquantity = "step_s"\nspeedup = 0', "measured row 0, column speedup: 0 is not above 0"),
        (
            'arm = "spec"\nquantity = "accept_length"\nspeedup = 1.3',
            "measured row 0, column quantity: accept_length is of the arm alone; state with_spec, no baseline, no spe",
        ),
    ],
)
def test_a_wrong_measured_row_is_named(table: str, line: str, tmp_path: Path) -> None:
    assert refusal(f'{TEXT}\n[[measured]]\nsource = "a log"\n{table}\n', tmp_path).startswith(line)


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        ('"cluster.gpu" = "stated"', "origins.cluster.gpu: 'stated' is not an object"),
        ('"cluster.gpu" = { origin = "stated" }', "origins.cluster.gpu.source: missing"),
        (
            '"cluster.gpu" = { origin = "guessed", source = "x" }',
            "origins.cluster.gpu.origin: 'guessed' is not one of 'm",
        ),
        (
            'cluster.gpu = { origin = "stated", source = "x" }',
            'origins: cluster is a table of tables; quote the whole path, as in "cluster.field" = { .. }',
        ),
    ],
)
def test_a_wrong_origin_is_named(entry: str, line: str, tmp_path: Path) -> None:
    assert refusal(f"{TEXT}\n[origins]\n{entry}\n", tmp_path).startswith(line)


def test_many_mistakes_are_one_line_with_their_number(tmp_path: Path) -> None:
    text = TEXT.replace("k = 3", "k = -1").replace("num_train_gpus = 2", "num_train_gpus = 0")
    assert refusal(text, tmp_path) == f"cluster.num_train_gpus: 0 is not at least 1 (and 1 more){FIELDS}"
