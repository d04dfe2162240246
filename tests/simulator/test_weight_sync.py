"""Weight sync: stated seconds, or latency + bytes over bandwidth."""

import pytest

from simulator.config import BandwidthWeightSync, SecondsWeightSync
from simulator.weight_sync import weight_sync_s
from traces.architecture import load_architecture

MODEL = load_architecture("Qwen3-30B-A3B")


def test_stated_seconds_are_taken_as_they_are() -> None:
    assert weight_sync_s(SecondsWeightSync(seconds=4.4), MODEL, "bf16") == 4.4
    assert weight_sync_s(SecondsWeightSync(seconds=0.0), MODEL, "fp8") == 0.0


def test_bandwidth_moves_every_parameter_of_the_policy_once() -> None:
    """30.5e9 parameters x 2 bytes at 50 GB/s take 1.22 s, on top of the latency."""
    config = BandwidthWeightSync(bytes_per_s=50e9, latency_s=0.3)
    assert weight_sync_s(config, MODEL, "bf16") == 0.3 + MODEL.num_params * 2 / 50e9
    assert weight_sync_s(config, MODEL, "bf16") == pytest.approx(1.52, abs=0.01)
    assert weight_sync_s(config, MODEL, "fp8") == 0.3 + MODEL.weight_bytes("fp8") / 50e9


def test_a_trained_head_is_moved_with_the_policy() -> None:
    """Its bytes over the bandwidth; stated seconds grow in proportion to the bytes; half as often, half as much."""
    model = load_architecture("Qwen3.5-9B")
    share = model.mtp_weight_bytes() / model.weight_bytes()
    config = BandwidthWeightSync(bytes_per_s=50e9, latency_s=0.3)
    more_s = weight_sync_s(config, model, "bf16", syncs_with_head=1.0) - weight_sync_s(config, model, "bf16")
    assert more_s == pytest.approx(model.mtp_weight_bytes() / 50e9)
    stated = weight_sync_s(SecondsWeightSync(seconds=4.0), model, "bf16", syncs_with_head=0.5)
    assert stated == pytest.approx(4.0 * (1 + share / 2))
