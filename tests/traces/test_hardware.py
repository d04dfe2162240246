"""GPUs: datasheet figures are coherent with each other, errors are one clear line."""

import pytest

from traces.errors import TraceFormatError
from traces.hardware import list_gpus, load_gpu


def test_the_h200_row_is_its_datasheet() -> None:
    gpu = load_gpu("H200")
    assert (gpu.memory_bytes, gpu.hbm_bytes_per_s, gpu.nvlink_bytes_per_s) == (141e9, 4.8e12, 900e9)
    assert gpu.bf16_flops == pytest.approx(1978.9e12 / 2, rel=1e-3)


@pytest.mark.parametrize("name", list_gpus())
def test_units_are_si_and_rates_are_dense(name: str) -> None:
    gpu = load_gpu(name)
    assert 6e9 <= gpu.memory_bytes <= 1e12
    assert 0.25e12 <= gpu.hbm_bytes_per_s <= 1e13
    # A rate with 2:4 sparsity written by mistake would double this ratio.
    assert 30 <= gpu.bf16_flops / gpu.hbm_bytes_per_s <= 430
    assert gpu.fp8_flops is None or gpu.fp8_flops == pytest.approx(2 * gpu.bf16_flops, rel=0.02)
    assert "datasheet" in gpu.source


def test_h200_differs_from_h100_in_memory_only() -> None:
    h100, h200 = load_gpu("H100"), load_gpu("H200")
    assert h100.bf16_flops == h200.bf16_flops
    assert h100.hbm_bytes_per_s < h200.hbm_bytes_per_s


def test_a_card_without_nvlink_or_fp8_says_none() -> None:
    assert load_gpu("L40S").nvlink_bytes_per_s is None
    assert load_gpu("A100").fp8_flops is None


def test_unknown_gpu_names_close_matches_and_the_list_in_one_line() -> None:
    with pytest.raises(TraceFormatError, match=r"'H300': did you mean .*H.00.* known: H100") as caught:
        load_gpu("H300")
    assert "\n" not in str(caught.value)
