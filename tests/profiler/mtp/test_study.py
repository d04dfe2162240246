"""A study runs through, judges by intervals, and leaves traces that a scenario can use."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from bebop import main as bebop  # noqa: E402
from profiler.mtp import study  # noqa: E402
from profiler.mtp.acceptance import Acceptance  # noqa: E402
from profiler.mtp.publish import as_json, as_text, traces  # noqa: E402
from profiler.mtp.study import LOSSES_COMPARED, RECIPES, TEMPERATURES, Cell, Results, RlPoint, Size, run_study  # noqa: E402
from profiler.mtp.verdicts import Estimate, Outcome, accept_rate, estimate, gain, verdicts  # noqa: E402
from simulator.acceptance_rows import CountedRows, find_rows  # noqa: E402
from simulator.config import TraceAcceptance  # noqa: E402
from traces.acceptance import AcceptanceTrace, VerifyRule  # noqa: E402
from traces.store import load_trace, save_trace  # noqa: E402

TINY = Size("tiny", 32, 1, 20_000, 8, 6, 3, 12, 12, 24, 3, 1, (0,))


@pytest.fixture(scope="module")
def results() -> Results:
    torch.manual_seed(0)
    return run_study(TINY, lambda _: None, domains=("math",))


def test_every_cell_is_measured_once(results: Results) -> None:
    keys = [(cell.domain, cell.loss, cell.verify_rule, cell.temperature, cell.seed) for cell in results.cells]
    assert len(set(keys)) == len(keys) == len(LOSSES_COMPARED) + 2 + 4 * (len(TEMPERATURES) - 1)
    assert len(results.rl) == TINY.rl_steps
    binned = [cell for cell in results.cells if cell.place_bins]
    assert len(binned) == len(LOSSES_COMPARED) + 2
    for cell in binned:
        assert cell.found.num_steps == sum(one.num_steps for one in cell.entropy_bins)
        assert cell.found.num_steps == sum(one.num_steps for _, one in cell.place_bins)


def test_the_answer_has_the_parts_that_were_asked_for(results: Results) -> None:
    answer = json.loads(json.dumps(as_json(results)))
    assert set(answer["accept_rate"]["math"]) == set(LOSSES_COMPARED)
    assert set(answer["slope"]) == set(RECIPES)
    outcomes = {one["outcome"] for one in answer["verdicts"].values()}
    assert outcomes <= {outcome.value for outcome in Outcome}
    text = as_text(results)
    assert "Verdicts" in text
    assert all(loss in text for loss in LOSSES_COMPARED)


def test_the_same_seed_gives_the_same_study(results: Results) -> None:
    again = run_study(replace(TINY, rl_steps=0, rl_pretrain_steps=0), lambda _: None, domains=("math",))
    assert again.cells == results.cells


def test_traces_survive_a_file_and_feed_a_scenario(results: Results, tmp_path: Path) -> None:
    made = list(traces(results, "bebop study mtp"))
    assert [trace.name for trace in made] == [f"mtp-study-tiny{end}" for end in ("", "-entropy", "-places", "-rl")]
    for trace in made:
        save_trace(trace, tmp_path / f"{trace.name}.json")
        assert load_trace(tmp_path / f"{trace.name}.json", AcceptanceTrace) == trace
    config = TraceAcceptance(kind="trace", trace="x", loss="e2e_tv", verify_rule=VerifyRule.REJECTION, task="math")
    counted = CountedRows("arm", "x", find_rows(made[0], config, "arm", 1.0))
    expected = next(cell.found.cumulative for cell in results.cells if cell.loss == "e2e_tv")
    assert counted.cumulative(3, None) == pytest.approx(expected, abs=1e-5)
    config = TraceAcceptance(kind="trace", trace="x", loss="ce", verify_rule=VerifyRule.GREEDY_DRAFT, task="sums")
    along = CountedRows("arm", "x", find_rows(made[3], config, "arm", 1.0))
    point = results.rl[1]
    assert along.cumulative(3, round(point.entropy_nats, 5)) == pytest.approx(point.found["to"].cumulative, abs=1e-5)


def accepted(length: float, sd: float = 0.001, sigma: float = 0.0) -> Acceptance:
    c = (length - 1) / 3
    return Acceptance((c,) * 3, (c,) * 3, (sigma,) * 3, length, sd, 0.5, 1000)


def made_up(lengths: dict[str, float], sd: float = 0.001, sigma: float = 0.0) -> Results:
    cells = [
        Cell("code", loss, rule, 1.0, 0, accepted(length, sd, sigma))
        for loss, length in lengths.items()
        for rule in ("rejection", "block", "greedy_draft")
    ]
    return Results(TINY, cells)


def outcome(results: Results, name: str) -> Outcome:
    return verdicts(results)[name].outcome


def test_a_claim_is_decided_only_where_the_interval_decides() -> None:
    lengths = dict.fromkeys(LOSSES_COMPARED, 3.0)
    assert outcome(made_up({**lengths, "e2e_tv": 3.1}), "e2e_tv_above_ce") is Outcome.REPRODUCED
    assert outcome(made_up({**lengths, "e2e_tv": 2.9}), "e2e_tv_above_ce") is Outcome.NOT_REPRODUCED
    assert outcome(made_up({**lengths, "e2e_tv": 3.1}, sd=0.2), "e2e_tv_above_ce") is Outcome.OPEN


def test_one_domain_against_it_refutes_a_claim_about_all() -> None:
    lengths = dict.fromkeys(LOSSES_COMPARED, 3.0)
    both = made_up({**lengths, "e2e_tv": 3.1})
    worse = made_up({**lengths, "e2e_tv": 2.9}).cells
    both.cells += [replace(cell, domain="agent") for cell in worse]
    assert outcome(both, "e2e_tv_above_ce") is Outcome.NOT_REPRODUCED


def test_counts_beyond_their_error_are_not_passed_over() -> None:
    lengths = dict.fromkeys(LOSSES_COMPARED, 3.0)
    assert outcome(made_up(lengths, sigma=1.0), "counts_agree") is Outcome.REPRODUCED
    assert outcome(made_up(lengths, sigma=3.5), "counts_agree") is Outcome.NOT_REPRODUCED


@pytest.mark.parametrize(
    ("of_tv", "expected"), [(-0.05, Outcome.REPRODUCED), (-1.0, Outcome.NOT_REPRODUCED), (-0.34, Outcome.OPEN)]
)
def test_the_slope_is_judged_by_both_intervals(of_tv: float, expected: Outcome) -> None:
    found = made_up(dict.fromkeys(LOSSES_COMPARED, 3.0))
    slopes: dict[str, float] = {"to": -1.7, "rs_ce": -1.0, "rs_tv": of_tv, "rs_e2e_tv": of_tv}
    names: dict[str, Any] = {**slopes, **dict.fromkeys(study.ONLINE, -1.0)}
    for step in range(12):
        entropy, noise = 0.1 + 0.05 * step, 0.02 * (-1) ** step
        lengths = {name: accepted(3.7 + slope * entropy + noise) for name, slope in names.items()}
        found.rl.append(RlPoint(0, step, entropy, 0.5, lengths))
    assert outcome(found, "slope_of_rs_tv_a_fifth") is expected


def test_intervals_come_from_seeds_where_there_are_three() -> None:
    assert estimate([1.0, 1.2], [0.1, 0.1]).high == pytest.approx(1.1 + 1.96 * 0.1 / 2**0.5)
    over_seeds = estimate([1.0, 1.1, 1.2], [9.0, 9.0, 9.0])
    assert (over_seeds.mean, over_seeds.high) == pytest.approx((1.1, 1.1 + 4.303 * 0.1 / 3**0.5), rel=1e-3)
    assert Estimate(1.0, 0.9, 1.1).above(0.95) is Outcome.OPEN


def test_rates_and_gains_are_shares_of_k() -> None:
    found = made_up({**dict.fromkeys(LOSSES_COMPARED, 3.0), "e2e_tv": 3.3})
    assert accept_rate(found, "code", "ce").mean == pytest.approx(2 / 3)
    assert gain(found, "code", "e2e_tv", "ce").mean == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["mtp", "--threads", "0"], "--threads 0 is outside 1..256; choose a value inside"),
        (["mtp", "-o", "x.json"], "-o x.json: several traces are written; name a folder"),
    ],
)
def test_wrong_options_are_one_line(options: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert bebop(["study", *options]) == 2
    assert capsys.readouterr().err == f"bebop: {complaint}\n"


def test_the_command_prints_one_line_of_json_and_writes_traces(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(study, "QUICK", replace(TINY, rl_steps=0))
    monkeypatch.setattr(study, "DOMAINS", {"math": study.DOMAINS["math"]})
    threads = torch.get_num_threads()
    assert bebop(["study", "mtp", "--quick", "--json", "-o", str(tmp_path), "--threads", "1"]) == 0
    torch.set_num_threads(threads)
    out = capsys.readouterr()
    assert set(json.loads(out.out)["accept_rate"]) == {"math"}
    assert "training heads" in out.err
    assert len(list(tmp_path.glob("mtp-study-tiny*.json"))) == 3
