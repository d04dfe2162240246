"""Every step of docs/tutorial.md, in its order."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dashboard import data, words
from dashboard.axes import axes
from tests.dashboard.test_app import markdown, open_page, press_run, upload

ROOT = Path(__file__).parents[2]
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text()
COMMANDS = re.findall(r"^```\n((?:bebop|make) .*?)\n```$", TUTORIAL, re.MULTILINE)
QUOTED = dict(re.findall(r"<!-- ([^\n]+?) -->\n```text\n(.*?)\n```", TUTORIAL, re.DOTALL))


def run(command: str, folder: Path) -> str:
    command, _, target = command.partition(" > ")
    words_of = [sys.executable, str(ROOT / "bebop.py"), *shlex.split(command)[1:]]
    done = subprocess.run(words_of, cwd=folder, capture_output=True, text=True, check=True, timeout=300)
    if target:
        (folder / target).write_text(done.stdout)
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which the scenario has been written as the tutorial does."""
    found = tmp_path_factory.mktemp("tutorial")
    run(next(command for command in COMMANDS if command.startswith("bebop scenarios")), found)
    return found


def test_the_tutorial_has_the_steps_that_are_run_here() -> None:
    assert [command.split()[:2] for command in COMMANDS] == [
        ["make", "run"],
        ["bebop", "scenarios"],
        ["bebop", "simulate"],
        ["bebop", "ui"],
        ["bebop", "sensitivity"],
        ["bebop", "report"],
    ]
    makefile = (ROOT / "Makefile").read_text()
    assert "bebop simulate $(SCENARIO)" in makefile.split("\nrun:")[1].split("\n\n")[0]


@pytest.mark.parametrize("verb", ["simulate", "sensitivity", "report"])
def test_every_command_prints_what_the_tutorial_shows(folder: Path, verb: str) -> None:
    (command,) = [command for command in COMMANDS if command.startswith(f"bebop {verb}")]
    printed = run(command, folder)
    title = {"simulate": "answer", "sensitivity": "measure first"}.get(verb)
    if title is None:
        assert (folder / "report.html").read_text().startswith("<!doctype html>")
    else:
        assert printed.startswith(QUOTED[title])


def test_the_dashboard_says_what_the_tutorial_says(folder: Path) -> None:
    text = (folder / "mine.toml").read_text()
    source = data.Source("mine.toml", text)
    page = open_page()
    press_run(upload(page, text, "mine.toml"))
    assert not page.exception
    report = data.ReportCache().run(data.load(source), lambda _: None)
    assert words.answer(report, "mtp") in markdown(page)
    speedup = report.arms["mtp"].end_to_end_speedup
    assert f"{speedup.mean:.2f}x faster ({speedup.low:.2f} to {speedup.high:.2f})" in QUOTED["answer"]


def test_what_if_says_what_the_tutorial_says(folder: Path) -> None:
    text = (folder / "mine.toml").read_text()
    page = open_page()
    upload(page, text, "mine.toml").switch_page("views/what_if.py").run()
    drafts = axes(data.load(data.Source("mine.toml", text)), "mtp")["drafts"]
    quoted = re.findall(r"<!-- what if: drafts = (\d) -->\n> (.*)", TUTORIAL)
    assert len(quoted) == 2
    for value, sentence in quoted:
        next(each for each in page.select_slider if each.label == drafts.knob.title).set_value(int(value)).run()
        assert not page.exception
        assert sentence in markdown(page)


def test_its_pictures_are_there_and_small() -> None:
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", TUTORIAL)
    assert len(pictures) == 2
    for picture in pictures:
        assert 10_000 < (ROOT / "docs" / picture).stat().st_size < 300_000
