"""Gpu: what a datasheet promises. Does not know what kernels reach of it, nor how GPUs are wired into nodes."""

from functools import cache

from pydantic import Field, PositiveFloat, ValidationError

from traces.base import Strict
from traces.errors import TraceFormatError
from traces.fact_table import FactTable

_TABLE = "gpus.csv"


class Gpu(Strict):
    """Peak figures of one GPU: a row of `gpus.csv`; dense rates, SI units."""

    name: str = Field(min_length=1, max_length=100)
    """GPU name as the vendor writes it, e.g. `H200`."""
    memory_bytes: PositiveFloat
    """Device memory, bytes (decimal giga, as datasheets count)."""
    hbm_bytes_per_s: PositiveFloat
    """Peak bandwidth of the device memory, HBM or GDDR."""
    bf16_flops: PositiveFloat
    """Peak dense bf16 tensor rate, floating-point operations per second."""
    fp8_flops: PositiveFloat | None
    """Peak dense fp8 tensor rate, floating-point operations per second; None: no fp8."""
    nvlink_bytes_per_s: PositiveFloat | None
    """Peak NVLink bandwidth of one GPU, both directions together; None: no NVLink."""
    source: str = Field(min_length=1)
    """The datasheet."""


def load_gpu(name: str) -> Gpu:
    """Return the GPU named `name`, spelled as in `list_gpus()`.

    An unknown name is a TraceFormatError: one line with close matches and the list.
    """
    return _facts().find(name)


def list_gpus() -> tuple[str, ...]:
    """Return the names of all known GPUs, in the order of the table."""
    return tuple(_facts().rows)


@cache
def _facts() -> FactTable[Gpu]:
    return FactTable("GPU", "hardware", _TABLE, _parse_row)


def _parse_row(line: int, row: dict[str, str]) -> Gpu:
    try:
        return Gpu.model_validate({column: value or None for column, value in row.items()})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise TraceFormatError(f"{_TABLE}: line {line}, column {where}: {first['msg']}") from None
