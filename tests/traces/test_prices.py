from pathlib import Path

import pytest

from traces.errors import TraceFormatError
from traces.hardware import list_gpus
from traces.prices import load_prices

HEADER = "gpu,usd_per_gpu_hour,power_w,date,source\n"


def test_shipped_prices_are_of_known_gpus_dated_and_sourced() -> None:
    prices = load_prices()
    assert set(prices) <= set(list_gpus())
    assert all(price.usd_per_gpu_hour > 0 and price.source for price in prices.values())


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (HEADER + "H100,cheap,700,2026-01-01,x\n", "line 2, column usd_per_gpu_hour"),
        (HEADER + "H100,2,700,yesterday,x\n", "line 2, column date"),
        (HEADER + "H100,2,700,2026-01-01\n", "line 2, column source"),
        ("gpu,price\nH100,2\n", "line 2, column usd_per_gpu_hour"),
        (b"\xff\xfe\x00", "not UTF-8 text"),
    ],
)
def test_a_bad_table_names_its_line(tmp_path: Path, text: str | bytes, line: str) -> None:
    path = tmp_path / "prices.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(TraceFormatError) as caught:
        load_prices(path)
    assert str(caught.value).startswith(f"{path}: {line}")
