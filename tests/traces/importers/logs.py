"""Where the published logs lie, and small logs in the frameworks' own forms."""

from pathlib import Path

import pytest

from traces.importers import read_log
from traces.measured import MeasuredRun

PUBLISHED = Path(__file__).parents[4] / "shared" / "data" / "rl_logs"
"""Logs that are not part of the repository."""

needs_published_logs = pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published logs are not here")


def verl_line(step: int, **numbers: float | str) -> str:
    """Return a console line of verl with its two indispensable times; `__` in a name stands for `/`."""
    values: dict[str, float | str] = {
        "response_length/mean": 100.0 + step,
        "timing_s/gen": 40.0,
        "timing_s/step": 100.0,
    }
    values |= {name.replace("__", "/"): value for name, value in numbers.items()}
    return " - ".join([f"step:{step}", *(f"{key}:{value}" for key, value in values.items())])


def read_text(folder: Path, text: str | bytes, **settings: object) -> MeasuredRun:
    """Write a log and import it."""
    path = folder / "run.log"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_log(path, **settings)  # type: ignore[arg-type]
