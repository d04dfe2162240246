"""docs/faults.md: every test that it names is there, and no number between 1 and 33 is left out but the profiler's."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "faults.md").read_text()


def test_every_test_that_the_table_names_is_there() -> None:
    named = re.findall(r"`([\w./]+\.py)::(\w+)`", TEXT)
    assert len(named) > 60
    for file, test in named:
        assert f"def {test}(" in (ROOT / "tests" / "simulator" / file).read_text(), f"{file}::{test}"


def test_every_fault_is_injected() -> None:
    numbers = {int(number) for row in re.findall(r"^\| ([\d, ]+) \|", TEXT, re.MULTILINE) for number in row.split(",")}
    assert numbers == set(range(1, 34)) - {29}
