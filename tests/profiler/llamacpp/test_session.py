"""llama.cpp runs the weights that we write, and its own counters say what forced acceptance did."""

import dataclasses
import json
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")

from profiler.errors import DeviceError, UnsupportedModelError
from profiler.models.hf_config import architecture_of
from profiler.sources.llamacpp.session import EngineSession
from profiler.sources.llamacpp.weights_file import WeightsRequest, weights_file
from tests.profiler.llamacpp.tiny_engine import CONFIG, MODEL, call, settings


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": False}])
def test_an_answer_has_the_tokens_asked_for(changes: dict[str, object], precision: str, tmp_path: Path) -> None:
    model = architecture_of(CONFIG | changes, "variant", "a test")
    path = weights_file(WeightsRequest(model, precision), tmp_path)
    session = EngineSession(dataclasses.replace(settings(tmp_path), model=str(path), num_draft_tokens=2))
    answers = session.complete([call(40, seed) for seed in range(3)])
    assert [answer.num_tokens for answer in answers] == [40, 40, 40]
    assert all(answer.decode_s > 0 and answer.prefill_s > 0 for answer in answers)
    session.close()


@pytest.mark.parametrize("acceptance", [(0.0, 0.0), (1.0, 1.0), (1.0, 0.0), (0.8, 0.3)])
def test_the_engine_accepts_what_it_is_told_to(acceptance: tuple[float, ...], tmp_path: Path) -> None:
    session = EngineSession(settings(tmp_path, num_draft_tokens=2, acceptance=acceptance))
    session.complete([call(400, seed) for seed in range(4)])
    counters = session.counters()
    session.close()
    num_steps = counters["llamacpp:spec_decode_num_drafts_total"]
    accepted = [
        counters[f'llamacpp:spec_decode_num_accepted_tokens_per_pos_total{{position="{j}"}}'] / num_steps
        for j in range(2)
    ]
    # 4 sigma of a share over at least 500 steps; at the end of a response fewer than k drafts are made.
    assert accepted == pytest.approx(acceptance, abs=0.02 if set(acceptance) <= {0.0, 1.0} else 0.09)


def test_dropped_drafts_are_made_and_not_verified(tmp_path: Path) -> None:
    session = EngineSession(settings(tmp_path, num_draft_tokens=2, drops_drafts=True))
    (answer,) = session.complete([call(60)])
    assert answer.num_tokens == 60
    assert answer.num_draft_tokens == 0
    session.close()


def test_the_server_answers_http(tmp_path: Path) -> None:
    session = EngineSession(settings(tmp_path))
    with urllib.request.urlopen(f"{session.address}/health") as reply:
        assert json.load(reply) == {"status": "ok"}
    session.close()


def test_a_refused_request_says_why(tmp_path: Path) -> None:
    session = EngineSession(settings(tmp_path))
    with pytest.raises(DeviceError, match="exceeds the available context size"):
        session.complete([call(8, prompt_tokens=600)])
    session.close()


def test_a_file_that_is_none_does_not_load(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF")
    for name, words in (("broken.gguf", "does not load it"), ("none.gguf", "no such file")):
        with pytest.raises(DeviceError, match=words):
            EngineSession(dataclasses.replace(settings(tmp_path), model=str(tmp_path / name)))


def test_the_same_weights_are_written_once(tmp_path: Path) -> None:
    first = weights_file(WeightsRequest(MODEL), tmp_path)
    time_ns, content = first.stat().st_mtime_ns, first.read_bytes()
    assert weights_file(WeightsRequest(MODEL), tmp_path) == first
    assert first.stat().st_mtime_ns == time_ns
    assert weights_file(WeightsRequest(MODEL, seed=1), tmp_path) != first
    assert weights_file(WeightsRequest(MODEL), tmp_path / "other").read_bytes() == content
    assert [path for path in tmp_path.iterdir() if path.suffix == ".tmp"] == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "qwen3"}, "dense models of Qwen3.5's kind only"),
        ({"hidden_size": 65536, "vocab_size": 200_000}, "8 GB are written"),
        ({"vocab_size": 300}, "at least 512 tokens"),
        ({"num_hidden_layers": 3, "layer_types": ["full_attention"] * 2 + ["linear_attention"]}, "not one in every n"),
        ({"full_attention_interval": 1}, "2 of 2 layers have full attention"),
    ],
)
def test_a_shape_that_llamacpp_does_not_run_is_refused(changes: dict[str, object], words: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=words):
        weights_file(WeightsRequest(architecture_of(CONFIG | changes, "variant", "a test")), tmp_path)
