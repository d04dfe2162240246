"""A log as the user names it: files of any framework that can be imported, or a measured run already imported."""

from collections.abc import Sequence
from pathlib import Path

from traces.errors import TraceFormatError
from traces.importers import read_log
from traces.measured import MeasuredRun
from traces.store import load_trace


def read_run(paths: Sequence[Path], log_format: str = "auto") -> MeasuredRun:
    """Return the run that the files log.

    Args:
        paths: A trace written by `bebop import`, or log files of one run in order.
        log_format: Name of a framework, or `auto`.

    Raises:
        TraceError: One line: the file cannot be read, or is no log.
    """
    if len(paths) == 1 and log_format == "auto" and paths[0].suffix in (".json", ".parquet"):
        try:
            return load_trace(paths[0], MeasuredRun)
        except TraceFormatError as broken:
            if paths[0].suffix == ".parquet":
                raise
            try:
                return read_log(paths)
            except TraceFormatError:
                raise broken from None
    return read_log(paths, format=log_format)
