"""Measured: logs that a visitor drops, what is read from them, and what forecast, calibration and comparison say.

Each answer is the document that the command line prints as `--json`, kept by what was asked. Does not know Streamlit.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from dashboard.data import Source
from dashboard.uploads import Upload, on_disk
from simulator.calibration import calibrate
from simulator.calibration.cli import read_fields
from simulator.calibration.report import CalibrationReport, calibration_report
from simulator.compare import Comparison, compare
from simulator.compare.cli import read_run as read_either
from simulator.compare.cli import sides
from simulator.forecast import ForecastReport, forecast, forecast_report
from simulator.forecast.log_file import read_run
from traces.importers import read_log
from traces.importers.formats import FRAMEWORKS
from traces.measured import MeasuredRun
from traces.report import RunReport

FORMATS = ("auto", *FRAMEWORKS)
EXAMPLES = Path(__file__).parent / "examples"
EXAMPLE_LOG = "verl-38rf6xe8.log"
EXAMPLE_SCENARIO = "aopd.toml"
KEPT = 8
"""Answers of each kind that a server keeps, over all its visitors."""

Log = tuple[Upload, ...]
"""Files of one run, in order."""


def example_log() -> Log:
    """Return a real log to try: the steps of a public verl run (`examples/README.md`)."""
    return (Upload(EXAMPLE_LOG, (EXAMPLES / EXAMPLE_LOG).read_bytes()),)


def example_scenario() -> Source:
    """Return the scenario that states the example's run as far as its configuration does."""
    return Source(EXAMPLE_SCENARIO, (EXAMPLES / EXAMPLE_SCENARIO).read_text(encoding="utf-8"))


@lru_cache(maxsize=KEPT)
def read(log: Log, log_format: str) -> MeasuredRun:
    """Return the run that the files log; raises TraceError, one line."""
    with on_disk(log) as paths:
        return read_run(paths, log_format)


@lru_cache(maxsize=KEPT)
def forecast_of(log: Log, log_format: str, train_fraction: float) -> ForecastReport:
    """Return what `bebop forecast` says of a log; raises TraceError or ForecastError, one line."""
    return forecast_report(forecast(read(log, log_format), train_fraction), train_fraction)


@lru_cache(maxsize=KEPT)
def calibration_of(log: Log, log_format: str, scenario: Source) -> tuple[CalibrationReport, str]:
    """Return what `bebop calibrate` says of a log, and the calibrated scenario as TOML.

    Raises:
        TraceError, ForecastError, ScenarioError: One line.
    """
    content, name = _content(scenario)
    source = ", ".join(upload.file_name for upload in log)
    done = calibrate(read(log, log_format), content, name, source)
    return calibration_report(done), done.toml(source)


@lru_cache(maxsize=KEPT)
def read_other(files: Log) -> MeasuredRun | RunReport:
    """Return the run or the report in what was uploaded: a log, a trace of `bebop import`, a report of `-o`."""
    with on_disk(files) as paths:
        return read_either(str(paths[0])) if len(paths) == 1 else read_log(paths)


def comparison_of(
    a: MeasuredRun | RunReport, b: MeasuredRun | RunReport, names: tuple[str, str], arms: Sequence[str]
) -> Comparison:
    """Return what `bebop compare A B` says, `arms` as its `--arm`; raises ComparisonError, one line."""
    return compare(*sides([a, b], names, arms))


def _content(scenario: Source) -> tuple[dict[str, Any], str]:
    if scenario.text is None:
        return read_fields(scenario.name, ())
    with on_disk([Upload(scenario.name, scenario.text.encode())]) as (path,):
        return read_fields(str(path), ())
