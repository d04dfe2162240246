"""A RunReport in a file, as `bebop simulate -o` writes it. Does not know how it is shown or compared."""

from pathlib import Path

from pydantic import ValidationError

from traces.complaint import complaint
from traces.errors import TraceFormatError
from traces.report import RunReport
from traces.strict_json import parse_object

MAX_REPORT_BYTES = 64_000_000


def read_report(path: Path) -> RunReport:
    """Return the report that a file holds.

    Raises:
        TraceFormatError: Too large, or no report; one line.
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        data = file.read(MAX_REPORT_BYTES + 1)
    if len(data) > MAX_REPORT_BYTES:
        raise TraceFormatError(f"{path}: larger than {MAX_REPORT_BYTES} bytes; a report is shorter, give another file")
    parse_object(data, str(path))  # for its complaints: no JSON, a key twice
    try:
        return RunReport.model_validate_json(data, strict=True)
    except ValidationError as error:
        raise TraceFormatError(
            f"{path}: {complaint(error, RunReport)}; make the report again with `bebop simulate -o`"
        ) from None
