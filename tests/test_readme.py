"""The README shows what the command prints."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_the_readme_shows_what_bebop_simulate_prints() -> None:
    printed = subprocess.run(
        [sys.executable, str(ROOT / "bebop.py"), "simulate"], capture_output=True, text=True, check=True
    ).stdout
    blocks = re.findall(
        r"<!-- (?:answer|inputs) -->\n```text\n(.*?)\n```\n", (ROOT / "README.md").read_text(), re.DOTALL
    )
    assert len(blocks) == 2
    assert "\n\n".join(blocks) == printed.rstrip()


def test_the_readme_shows_what_every_bundled_scenario_predicts() -> None:
    script = ROOT / "benchmarks" / "readme.py"
    check = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)
    assert (check.returncode, check.stdout) == (0, "README.md is up to date\n"), check.stderr
