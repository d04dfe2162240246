"""`bebop scorecard`: what it prints, what it refuses, and that a scenario's row is what `bebop simulate` says."""

import json
import re
from pathlib import Path

import pytest

from bebop import main
from simulator.run import simulate
from simulator.scenario_file import load_scenario, parse_scenario
from simulator.scorecard.runs import compared_arms, score_scenarios
from simulator.scorecard.score import Scored, Unpredictable

TINY = (Path(__file__).parents[3] / "docs" / "tiny.toml").read_text(encoding="utf-8")
TINY = re.sub(r'kind = "trace"\ntrace = .*\nallow_mismatch = true', 'kind = "roofline"', TINY)
HEADER = "id,engine,hw,model,method,k,concurrency,accept_len,speedup_vs_AR,tpot_ms\n"


def test_json_of_own_rows_has_classes_and_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(HEADER + "a,vLLM,H100,Qwen3-8B,EAGLE3,3,8,2.5,1.5,\nb,vLLM,H100,Nonsense-8B,MTP,1,1,1.9,1.2,\n")
    assert main(["scorecard", "--rows", str(path), "--json"]) == 0
    out, err = capsys.readouterr()
    content = json.loads(out)
    assert err == ""
    assert content["classes"]["inference_speedup"]["n"] == 1
    scored, missing = content["rows"]
    assert scored["error"] == pytest.approx(scored["predicted"] / scored["measured"] - 1, abs=1e-3)
    assert missing["predicted"] is None
    assert "Nonsense-8B" in missing["missing"]


def test_the_table_names_classes_and_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(HEADER + "a,vLLM,H100,Qwen3-8B,AR,0,1,,,7\nb,vLLM,Abacus,Qwen3-8B,AR,0,1,,,7\n")
    assert main(["scorecard", "--rows", str(path)]) == 0
    out = capsys.readouterr().out
    assert "serving_k0" in out
    assert "no datasheet of 'Abacus'" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rows", "{tmp}/none.csv"], "none.csv"),
        (["--rows", "{tmp}"], "{tmp}"),
        (["--scenarios", "{tmp}/nothing"], "not a folder"),
        (["--scenarios", "{tmp}"], "no scenario here"),
        (["--rows", "{tmp}/x.csv", "--check"], "about the shipped rows"),
        (["--no-runs", "--write", "{tmp}/x.md"], "needs the RL runs too"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(["scorecard", *(argument.format(tmp=tmp_path) for argument in arguments)])
    except SystemExit as end:  # the parser's own complaint
        code = end.code
    assert code == 2
    err = capsys.readouterr().err
    assert words.format(tmp=tmp_path) in err
    assert err.count("\n") == 1


def test_a_folder_of_scenarios_is_scored_as_simulate_answers(tmp_path: Path) -> None:
    text = TINY + '\n[[measured]]\narm = "mtp"\nquantity = "step_s"\nspeedup = 1.2\nsource = "a log"\n'
    (tmp_path / "one.toml").write_text(text)
    (tmp_path / "broken.toml").write_text("name = 3")
    (tmp_path / "bare.toml").write_text(TINY.replace("num_steps = 3", "num_steps = 2"))
    by_id = {entry.id: entry for entry in score_scenarios(tmp_path)}
    report = simulate(parse_scenario(text, "one.toml"))
    scored = by_id["one.toml#0"]
    assert isinstance(scored, Scored)
    expected = report.measured[0].predicted_speedup
    assert expected is not None
    assert (scored.predicted, scored.low, scored.high) == (expected.mean, expected.low, expected.high)
    assert isinstance(by_id["broken.toml"], Unpredictable)
    assert "no [[measured]] table" in by_id["bare.toml"].missing  # type: ignore[union-attr]


def test_arms_that_nothing_was_measured_of_do_not_change_the_others() -> None:
    scenario = load_scenario(
        "bebop-reasoning", ["run.num_steps=6", "run.replications=2", "workload.prompts_per_step=16"]
    )
    whole, part = simulate(scenario), simulate(compared_arms(scenario))
    assert set(part.arms) == {"to", "rs_e2e_tv"}
    assert part.measured == whole.measured


def test_a_report_without_a_waterfall_is_the_same_in_everything_else() -> None:
    scenario = load_scenario("skyrl-qwen3.5-9b", ["run.num_steps=4", "run.replications=2"])
    whole, part = simulate(scenario), simulate(scenario, with_waterfall=False)
    bare = {name: arm.model_copy(update={"waterfall": ()}) for name, arm in whole.arms.items()}
    assert part == whole.model_copy(update={"arms": bare})
