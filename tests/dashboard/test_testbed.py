"""Predictions of testbeds beside runs: what is compared with what, in which order, and how it is shown."""

import json
import subprocess
from pathlib import Path

import pytest

from dashboard import testbed_cli
from dashboard.errors import PageError
from dashboard.figures.testbed import BAND, speedups
from dashboard.testbed_cli import chosen_rows, main, possible_rows
from dashboard.testbed_page import markers, write_page
from dashboard.testbed_plan import Plan, twin, write_config
from profiler.errors import UsageError
from profiler.testbed.cli import read_config
from simulator.scorecard.score import RL_SPEEDUP, Scored
from simulator.testbed_rows import Both, Row, in_words
from tests import made_up_testbed as made_up
from traces.report_file import read_report
from traces.store import save_trace

POLICIES = ({"kind": "synchronous"}, {"kind": "one_step_off"}, made_up.fully_async(1), made_up.fully_async(4))


QUANTILES = ((0.0, 8), (1.0, 40))


def row(name: str, measured: tuple[float, ...] = (1.4, 1.5, 1.6), predicted: float = 1.45, **changes: object) -> Row:
    config = made_up.config(name=name, **changes)
    middle = sorted(measured)[len(measured) // 2]
    low, high = 0.9 * predicted, 1.1 * predicted
    scored = Scored(name, RL_SPEEDUP, in_words(config), "step_s", middle, predicted, low, high, "made up")
    numbers = {"step_s": Both(1.25, 1.5), "accept_length": Both(2.0, 2.1)}
    return Row(config, scored, tuple(Both(each, predicted) for each in measured), numbers, numbers)


def test_configs_that_differ_in_their_drafts_alone_share_their_plain_decoding() -> None:
    plain = {
        twin(made_up.config(name=f"row-{k}-{batches}", k=k, head_batches=batches)).model_dump_json()
        for k in (2, 3)
        for batches in (0, 50)
    }
    assert len(plain) == 1
    others = {twin(made_up.config(policy=policy)).name for policy in POLICIES}
    assert len(others) == len(POLICIES)
    assert twin(made_up.config()).k == 0


def test_a_plain_run_stands_in_the_middle_of_those_that_are_compared_with_it(tmp_path: Path) -> None:
    rows = tuple(made_up.config(name=f"k{k}-{kind['kind']}", k=k, policy=kind) for kind in POLICIES[:2] for k in (2, 3))
    order = [(config.policy.kind, config.k) for config in Plan(rows, tmp_path, 1).in_turn()]
    assert order == [(kind, k) for kind in ("synchronous", "one_step_off") for k in (2, 0, 3)]


def test_rows_share_a_profile_unless_the_parts_differ(tmp_path: Path) -> None:
    plan = Plan((), tmp_path, 1)
    folders = {plan.profile_folder(made_up.config(policy=policy, k=k), 0) for policy in POLICIES for k in (2, 3)}
    assert len(folders) == 1
    assert plan.profile_folder(made_up.config(head_batches=0), 0) not in folders
    assert plan.profile_folder(made_up.config(max_running_seqs=4), 0) not in folders
    assert plan.profile_folder(made_up.config(), 1) not in folders, "every sitting has its own"


def test_llamacpp_is_profiled_as_it_drafts_and_accepts() -> None:
    plan, llama = (
        Plan((), Path("somewhere"), 1),
        {"engine": "llamacpp", "head_batches": 0, "response_tokens": QUANTILES},
    )
    configs = [
        made_up.config(**llama, k=k, forced_acceptance=rates, policy=policy)
        for k, rates in ((2, (0.9, 0.8)), (2, (0.1, 0.0)), (3, (0.9, 0.8, 0.7)))
        for policy in POLICIES[:2]
    ]
    assert len({plan.profile_folder(config, 0) for config in configs}) == 3


def test_a_config_is_written_as_it_is_read(tmp_path: Path) -> None:
    for number, policy in enumerate(POLICIES):
        config = made_up.config(policy=policy)
        write_config(config, tmp_path / f"{number}.toml")
        assert read_config(tmp_path / f"{number}.toml") == config


def test_a_prediction_is_a_report_of_its_own_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_up.write_profile(tmp_path / "profile")
    write_config(made_up.config(policy=made_up.fully_async()), tmp_path / "config.toml")
    arguments = ["predict", str(tmp_path / "config.toml"), str(tmp_path / "profile")]
    assert main([*arguments, "-o", str(tmp_path / "report.json")]) == 0
    assert "over plain decoding" in capsys.readouterr().out
    assert read_report(tmp_path / "report.json").scenario == "made-up-k2"


def test_the_shipped_configs_cover_what_is_to_be_compared() -> None:
    rows = chosen_rows(None, quick=False)
    plain = [twin(config) for config in rows]
    kinds = {(one.policy.kind, one.policy.max_staleness, config.k) for config, one in zip(rows, plain, strict=True)}
    for policy in (("synchronous", None), ("one_step_off", None), ("fully_async", 1), ("fully_async", 4)):
        assert {(*policy, 2), (*policy, 3)} <= kinds
    assert len({config.policy.in_flight for config in rows} - {None}) >= 2
    assert len({config.head_batches for config in rows}) >= 2
    assert all(read.name == path for read, path in zip(rows, [config.name for config in rows], strict=True))
    assert len(chosen_rows(None, quick=True)) == 2


def test_only_what_drafts_is_compared(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere: no such config; the shipped are .*sync"):
        chosen_rows(["nowhere"], quick=False)
    write_config(made_up.config(k=0), tmp_path / "plain.toml")
    with pytest.raises(UsageError, match="it drafts nothing, so there is no speedup"):
        chosen_rows([str(tmp_path / "plain.toml")], quick=False)


def test_rows_of_an_engine_that_is_not_installed_are_left_out_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(testbed_cli, "ENGINES", {"torch": "json", "llamacpp": "no_such_module"})
    rows = chosen_rows(None, quick=False)
    possible = possible_rows(Plan(tuple(rows), tmp_path, 1))
    assert {row.engine for row in possible} == {"torch"}
    assert [row for row in rows if row.engine == "torch"] == possible
    _, left_out = capsys.readouterr().err.strip().split(": ")
    assert left_out.split(", ") == [row.name for row in rows if row.engine == "llamacpp"]
    # Nothing at all: the first one that runs says what is missing.
    monkeypatch.setattr(testbed_cli, "ENGINES", {"torch": "no_such_module", "llamacpp": "no_such_module"})
    assert possible_rows(Plan(tuple(rows), tmp_path, 1)) == rows


def test_every_whole_sitting_that_a_folder_holds_counts(tmp_path: Path) -> None:
    config = made_up.config()
    plan = Plan((config,), tmp_path, num_sittings=1)
    for number in range(3):
        made_up.write_profile(plan.profile_folder(config, number))
        for one in (config, twin(config)) if number < 2 else (config,):
            plan.run_folder(one, number).mkdir(parents=True)
            save_trace(made_up.measured(one, 1.0), plan.run_folder(one, number) / "measured.json")
    assert [sitting.profile.name for sitting in plan.sittings(config)] == ["1", "2"]
    assert plan.is_measured(config)


def test_a_sitting_profiles_what_it_runs_just_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = tuple(
        made_up.config(name=f"k{k}-{batches}", k=k, head_batches=batches) for batches in (50, 0) for k in (2, 3)
    )
    plan, said = Plan(rows, tmp_path, num_sittings=3), list[tuple[str, ...]]()

    def command(words: list[str], **_: object) -> "subprocess.CompletedProcess[str]":
        folder = Path(words[words.index("-o") + 1])
        (folder / ("profile.json" if "profile" in words else "measured.json")).touch()
        said.append((words[4], *words[8:]) if "profile" in words else (words[4], folder.parent.name, folder.name))
        return subprocess.CompletedProcess(words, 0, "", "")

    monkeypatch.setattr(subprocess, "run", command)
    plan.make(lambda _: None)
    profile = ("profile", "--sweeps", "6")
    first = [profile, ("run", "k2-50", "1"), ("run", "k3-50", "1"), ("run", twin(rows[0]).name, "1")]
    assert said[: len(first)] == first
    assert said.count(profile) == 2 * 3
    assert len(said) == 3 * (2 + 5)
    assert next(words[1] for words in said if words[-1] == "2") == "k3-0", "every second sitting goes the other way"
    said.clear()
    plan.make(lambda _: None)
    assert said == []


def test_the_page_keeps_its_words_and_changes_its_tables(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    begin, end = markers("torch")
    page.write_text(f"# Words before\n\n{begin}\nold numbers\n{end}\n\nWords after.\n")
    for _ in range(2):
        write_page([row("first"), row("second", (0.7, 0.8, 0.9), 0.9)], page)
    text = page.read_text()
    assert text.startswith(f"# Words before\n\n{begin}\n")
    assert text.endswith(f"\n{end}\n\nWords after.\n")
    assert "old numbers" not in text
    assert "| second | synchronous, k = 2, head of 50 batches, batch 8 | 0.80x | 0.90x | 0.81 - 0.99 | +12.5% |" in text
    assert "+12.5% | 0.70 / 0.90, 0.80 / 0.90, 0.90 / 0.90 |" in text
    assert "| error in a single sitting, median and worst | 6.5%, 28.6% | |" in text
    assert "| worst | 12.5% (second) | 10% |" in text
    assert "1.25 / 1.5" in text
    with pytest.raises(PageError, match="no <!-- testbed llamacpp -->"):
        write_page([row("other", engine="llamacpp", head_batches=0)], page)


def test_every_configuration_is_a_point_of_its_policy_with_both_ranges() -> None:
    rows = [row(f"row-{i}", policy=policy) for i, policy in enumerate(POLICIES)]
    figure = speedups(rows)
    json.loads(figure.to_json(), parse_constant=pytest.fail)
    points = [trace for trace in figure.data if trace.mode == "markers"]
    assert [trace.name for trace in points] == ["synchronous", "one step off", "fully asynchronous"]
    assert sum(len(trace.x) for trace in points) == len(rows)
    for trace in points:
        assert list(trace.error_x.arrayminus) == pytest.approx([0.1] * len(trace.x))
        assert list(trace.error_y.array) == pytest.approx([0.145] * len(trace.x))
    band = figure.data[0]
    assert [y / x for x, y in zip(band.x, band.y, strict=True)] == pytest.approx([1 + BAND] * 2 + [1 - BAND] * 2)
    assert "No configuration" in speedups([]).layout.annotations[0].text


def test_engines_have_symbols_of_their_own() -> None:
    figure = speedups([row("torch"), row("llama", engine="llamacpp", head_batches=0)])
    points = [trace for trace in figure.data if trace.mode == "markers"]
    assert [trace.name for trace in points] == ["torch, synchronous", "llamacpp, synchronous"]
    assert len({trace.marker.symbol for trace in points}) == 2
