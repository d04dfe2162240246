"""A study runs through, judges by intervals, and leaves traces that a scenario can use."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from bebop import main as bebop  # noqa: E402
from profiler.errors import UsageError  # noqa: E402
from profiler.models.decoder import build_decoder  # noqa: E402
from profiler.models.rank import slice_rank  # noqa: E402
from profiler.models.weights import WeightMaker, num_values  # noqa: E402
from profiler.mtp import study  # noqa: E402
from profiler.mtp.estimates import (  # noqa: E402
    Estimate,
    Outcome,
    accept_rate,
    drifts,
    estimate,
    gain,
    late,
    position_shifts,
    rl_lines,
)
from profiler.mtp.publish import as_json, as_text, traces  # noqa: E402
from profiler.mtp.results import (  # noqa: E402
    LOSSES_COMPARED,
    NARROW,
    ONLINE,
    RECIPES,
    TEMPERATURES,
    Results,
    ResultsFile,
    Unit,
)
from profiler.mtp.study import FULL, LARGE, QUICK, plan, run_study  # noqa: E402
from profiler.mtp.units import shape_of  # noqa: E402
from profiler.mtp.verdicts import verdicts  # noqa: E402
from simulator.acceptance_rows import CountedRows, find_rows  # noqa: E402
from simulator.config import TraceAcceptance  # noqa: E402
from tests.profiler.mtp.made_up import TINY, accepted, along_rl, made_up  # noqa: E402
from traces.acceptance import AcceptanceTrace, VerifyRule  # noqa: E402
from traces.store import load_trace, save_trace  # noqa: E402


@pytest.fixture(scope="module")
def results() -> Results:
    return run_study(TINY, lambda _: None, domains=("math",))


def test_every_cell_is_measured_once(results: Results) -> None:
    keys = [(cell.domain, cell.loss, cell.verify_rule, cell.temperature, cell.seed) for cell in results.cells]
    assert len(set(keys)) == len(keys) == len(LOSSES_COMPARED) + 2 + 4 * (len(TEMPERATURES) - 1)
    assert [point.step for point in results.rl] == [0, 1, 2, 3, 4]
    assert all(set(point.found) == {*RECIPES, *ONLINE, NARROW} for point in results.rl)
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


def test_two_processes_measure_what_one_does(results: Results) -> None:
    again = run_study(replace(TINY, rl_steps=0), lambda _: None, domains=("math",), num_workers=2)
    assert again.cells == results.cells


def test_another_seed_is_another_study(results: Results) -> None:
    other = run_study(replace(TINY, rl_steps=0, seeds=(1,)), lambda _: None, domains=("math",))
    assert not {cell.found for cell in other.cells} & {cell.found for cell in results.cells}


def test_every_study_asks_for_all_parts_under_three_seeds() -> None:
    expected = [(part, seed) for seed in range(3) for part in ("sums", "math", "code", "agent")]
    assert plan(QUICK) == plan(FULL) == plan(LARGE) == expected


def test_targets_have_as_many_values_as_their_sizes_say() -> None:
    for size, low, high in ((QUICK, 1e5, 2e5), (FULL, 8e5, 9e5), (LARGE, 5e7, 15e7)):
        decoder = build_decoder(slice_rank(shape_of(size)), WeightMaker.seeded(torch.device("meta"), "fp32"))
        assert low < num_values(decoder) - num_values(decoder.mtp) < high


def test_what_is_kept_is_what_was_measured(results: Results, tmp_path: Path) -> None:
    file = ResultsFile(tmp_path / "new")
    assert file.begin(TINY) == []
    for unit in results.units:
        file.add(unit)
    again = file.read()
    assert (again.size, again.cells, again.rl, again.units) == (TINY, results.cells, results.rl, results.units)
    assert as_json(again) == as_json(results)


def test_a_study_that_was_killed_goes_on_behind_its_last_whole_unit(results: Results, tmp_path: Path) -> None:
    file, kept = ResultsFile(tmp_path), []
    file.begin(TINY)
    for unit in results.units:
        file.add(unit)
    file.path.write_text(file.path.read_text()[:-100])
    done = file.begin(TINY)
    assert done == results.units[:-1]

    def keep(unit: Unit) -> None:
        kept.append(unit.part)
        file.add(unit)

    run_study(TINY, lambda _: None, domains=("math",), done=done, keep=keep)
    assert kept == [results.units[-1].part]
    assert (file.read().cells, file.read().rl) == (results.cells, results.rl)


def test_a_file_of_another_study_is_not_continued(tmp_path: Path) -> None:
    ResultsFile(tmp_path).begin(TINY)
    with pytest.raises(UsageError, match="another size"):
        ResultsFile(tmp_path).begin(replace(TINY, seeds=(0, 1)))
    with pytest.raises(UsageError, match="not there"):
        ResultsFile(tmp_path / "none").read()
    (tmp_path / "measured.jsonl").write_text("{}\n")
    with pytest.raises(UsageError, match="not what"):
        ResultsFile(tmp_path).read()


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


def outcome(results: Results, name: str) -> Outcome:
    return verdicts(results)[name].outcome


def test_a_claim_is_decided_only_where_the_interval_decides() -> None:
    lengths = dict.fromkeys(LOSSES_COMPARED, 3.0)
    assert outcome(made_up({**lengths, "e2e_tv": 3.1}), "e2e_tv_above_ce") is Outcome.REPRODUCED
    assert outcome(made_up({**lengths, "e2e_tv": 2.9}), "e2e_tv_above_ce") is Outcome.NOT_REPRODUCED
    assert outcome(made_up({**lengths, "e2e_tv": 3.1}, sd=0.2), "e2e_tv_above_ce") is Outcome.OPEN


@pytest.mark.parametrize(
    ("of_greedy", "expected"),
    [(2.9, Outcome.REPRODUCED), (3.1, Outcome.NOT_REPRODUCED), (3.0, Outcome.OPEN)],
)
def test_verify_rules_are_compared_by_the_same_head(of_greedy: float, expected: Outcome) -> None:
    found = made_up(dict.fromkeys(LOSSES_COMPARED, 3.0))
    found.cells = [
        replace(cell, found=accepted(of_greedy)) if cell.verify_rule == "greedy_draft" else cell for cell in found.cells
    ]
    assert outcome(found, "rejection_above_greedy") is expected


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
    assert outcome(along_rl({"to": -1.7, "rs_tv": of_tv}), "slope_of_rs_tv_a_fifth") is expected


def test_what_drifts_with_the_steps_is_no_slope_in_entropy() -> None:
    found = along_rl({"rs_tv": 0.0}, per_step=-0.05)
    line = rl_lines(found)["rs_tv"]
    assert line.slope_per_nat == pytest.approx(0.0, abs=0.1)
    assert line.per_step == pytest.approx(-0.05, abs=0.005)
    parts = drifts(found, "rs_tv", line)
    assert parts["peak"].mismatch.mean == pytest.approx(-0.3, abs=0.06)
    assert parts["end"].entropy.mean == pytest.approx(0.0, abs=0.05)
    for drift in parts.values():
        assert drift.change.mean == pytest.approx(drift.entropy.mean + drift.mismatch.mean)


@pytest.mark.parametrize(
    ("frozen", "trained_on", "expected"),
    [(0.0, -1.0, Outcome.REPRODUCED), (-1.0, 0.0, Outcome.NOT_REPRODUCED)],
)
def test_the_orderings_of_strategies_are_judged_seed_by_seed(
    frozen: float, trained_on: float, expected: Outcome
) -> None:
    online = dict.fromkeys(ONLINE, trained_on)
    found = along_rl({"to": frozen, "rs_e2e_tv": frozen, **online})
    assert late(found, "to", over="start_ce_online_ce").mean == pytest.approx(0.175 * (frozen - trained_on))
    for name in ("online_tv_no_lasting_gain", "online_ce_below_frozen_tv", "greedy_online_below_frozen"):
        assert outcome(found, name) is expected


def test_intervals_come_from_seeds_where_there_are_three() -> None:
    assert estimate([1.0, 1.2], [0.1, 0.1]).high == pytest.approx(1.1 + 1.96 * 0.1 / 2**0.5)
    over_seeds = estimate([1.0, 1.1, 1.2], [9.0, 9.0, 9.0])
    assert (over_seeds.mean, over_seeds.high) == pytest.approx((1.1, 1.1 + 4.303 * 0.1 / 3**0.5), rel=1e-3)
    assert Estimate(1.0, 0.9, 1.1).above(0.95) is Outcome.OPEN


def test_rates_and_gains_are_shares_of_k() -> None:
    found = made_up({**dict.fromkeys(LOSSES_COMPARED, 3.0), "e2e_tv": 3.3})
    assert accept_rate(found, "code", "ce").mean == pytest.approx(2 / 3)
    assert gain(found, "code", "e2e_tv", "ce").mean == pytest.approx(0.1)


def test_shifts_along_the_response_are_of_the_log_odds_of_conditional_rates() -> None:
    found = made_up(dict.fromkeys(LOSSES_COMPARED, 3.0))
    whole = replace(accepted(3.0), cumulative=(0.5, 0.25, 0.125))
    later = replace(whole, cumulative=(0.75, 0.5625, 0.421875))
    found.cells = [replace(cell, found=whole, place_bins=((0, whole), (64, later))) for cell in found.cells]
    shifts = position_shifts(found, "code", "tv", "rejection")
    assert {place: one.mean for place, one in shifts.items()} == pytest.approx({0: 0.0, 64: math.log(3.0)})
    assert as_json(found)["acceptance_by_position"]["code"]["rs_tv"] == [(0, 0.0), (64, 1.099)]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["mtp", "--threads", "0"], "--threads 0 is outside 1..256; choose a value inside"),
        pytest.param(
            ["mtp", "--device", "cuda"],
            "--device cuda: torch sees no GPU here; leave it out to measure on the CPU",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
        (["mtp", "--large"], "--large: takes days on a CPU; add --device cuda, or leave it out"),
        (["mtp", "-o", "x.json"], "-o x.json: several files are written; name a folder"),
        (
            ["mtp", "--quick", "--from", "x"],
            "--from and --quick: nothing is measured with --from; leave one of them out",
        ),
        (
            ["mtp", "--from", "nowhere"],
            "nowhere/measured.jsonl: not there; name a folder that `bebop study mtp -o` wrote",
        ),
    ],
)
def test_wrong_options_are_one_line(options: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert bebop(["study", *options]) == 2
    assert capsys.readouterr().err == f"bebop: {complaint}\n"


def test_the_command_prints_one_line_of_json_and_writes_traces(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(study, "QUICK", TINY)
    threads = torch.get_num_threads()
    assert bebop(["study", "mtp", "--quick", "--json", "-o", str(tmp_path), "--threads", "1"]) == 0
    torch.set_num_threads(threads)
    out = capsys.readouterr()
    assert out.out.count("\n") == 1
    answer = json.loads(out.out)
    assert set(answer["accept_rate"]) == {"code", "math", "agent"}
    assert all(set(rates) == set(LOSSES_COMPARED) for rates in answer["accept_rate"].values())
    assert set(answer["slope"]) == {"to", "rs_ce", "rs_tv", "rs_e2e_tv"}
    assert {"e2e_tv_above_ce", "slope_of_rs_tv_a_fifth", "online_tv_no_lasting_gain"} <= set(answer["verdicts"])
    assert "sums, seed 0" in out.err
    assert len(list(tmp_path.glob("mtp-study-tiny*.json"))) == 4
    again = tmp_path / "of" / "what is there"
    assert bebop(["study", "mtp", "--json", "--from", str(tmp_path), "-o", str(again)]) == 0
    torch.set_num_threads(threads)
    assert capsys.readouterr().out == out.out
    assert len([*again.glob("*.json")]) == 4
    assert (again / "figures.html").stat().st_size > 100_000
