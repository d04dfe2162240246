"""Price: what a GPU hour costs and what a GPU draws: a dated row of `prices.csv`, or of a user's file like it."""

import csv
import datetime
from pathlib import Path

from pydantic import Field, NonNegativeFloat, PositiveFloat, ValidationError

from traces.base import Strict
from traces.errors import TraceFormatError
from traces.store import DATA_FOLDER

SHIPPED = DATA_FOLDER / "hardware" / "prices.csv"
MAX_FILE_BYTES = 1_000_000


class Price(Strict):
    """One GPU type."""

    gpu: str = Field(min_length=1, max_length=100)
    usd_per_gpu_hour: NonNegativeFloat
    """Rent of one GPU with its share of the node, US dollars per hour."""
    power_w: PositiveFloat
    """Most that the GPU draws, watts."""
    date: datetime.date
    """Day on which the price was true."""
    source: str = Field(min_length=1, max_length=1000)


def load_prices(path: Path | None = None) -> dict[str, Price]:
    """Return the prices by GPU; None reads those that are shipped.

    Raises:
        TraceFormatError: The file is not such a table; names line and column.
    """
    path = path or SHIPPED
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise TraceFormatError(f"{path}: above the limit of {MAX_FILE_BYTES} bytes; a price table is a short text")
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise TraceFormatError(f"{path}: not UTF-8 text; save it as UTF-8") from None
    except OSError as error:
        raise TraceFormatError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    prices = {}
    for line, row in enumerate(csv.DictReader(lines), start=2):
        try:
            price = Price.model_validate(row)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise TraceFormatError(f"{path}: line {line}, column {where}: {first['msg']}; mend that cell") from None
        prices[price.gpu] = price
    return prices
