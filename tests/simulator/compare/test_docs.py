"""The example of docs/comparing.md is what the commands print."""

import re
from pathlib import Path

import pytest

import bebop

ROOT = Path(__file__).parents[3]


def test_the_documentation_shows_what_bebop_compare_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = str(tmp_path / "run.json")
    assert bebop.main(["simulate", "skyrl-qwen3.5-9b", "-o", report]) == 0
    capsys.readouterr()
    assert bebop.main(["compare", report, report]) == 0
    shown = re.findall(r"<!-- example -->\n```text\n(.*?)\n```\n", (ROOT / "docs/comparing.md").read_text(), re.DOTALL)
    assert shown == [capsys.readouterr().out.rstrip()]
