"""What `bebop profile` says where llama.cpp is not installed, and what it refuses before it starts an engine."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bebop import main as bebop


def test_the_missing_package_is_named_with_its_extra_and_the_way_without_it() -> None:
    for package, options in (("xllamacpp", []), ("gguf", ["--source", "llamacpp"])):
        probe = (
            f"import sys; sys.modules[{package!r}] = None; import bebop; sys.exit(bebop.main(['profile', *{options}]))"
        )
        result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60, check=False)
        assert result.returncode == 5
        # Where none of the two is there, the first one is named.
        assert result.stderr.endswith(
            " is not installed; run `pip install '.[llamacpp]'` in the checkout, or time torch's kernels instead: "
            "bebop profile --device cpu\n"
        )
        assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model", "Qwen3-9B"], "no architecture named"),
        (["--model", "Qwen3-8B"], "--device cpu"),
        (["--model", "Qwen3.5-27B"], "GB"),
        (["--model", "nowhere/config.json"], "cannot be read"),
        (["--sweeps", "0"], "--sweeps 0 is outside 1..100"),
        (["--accepted-share", "2"], "--accepted-share 2 is outside 0..1"),
        (["--batches", "1,500"], "--batches 500 is outside 1..256"),
        (["--tp", "2"], "--tp, --ep: llama.cpp in our own process has no use for it"),
        (["--fleet"], "--fleet: llama.cpp in our own process has no use for it"),
        (["--routing", "x.npz"], "--routing: llama.cpp in our own process has no use for it"),
        (["--shared"], "--shared: llama.cpp in our own process has no use for it"),
        (["--train-tokens", "64"], "--train-tokens: llama.cpp"),
        (["--gpu", "H200"], "--gpu: llama.cpp"),
        (["--url", "http://127.0.0.1:8000"], "--url: llama.cpp"),
        (["-o", "x.csv"], "end it in .parquet or .json"),
        (["--device", "cpu"], "drop one of them"),
    ],
)
def test_a_mistake_is_one_line(
    options: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("gguf")
    pytest.importorskip("xllamacpp")
    monkeypatch.chdir(tmp_path)
    code = bebop(["profile", "--source", "llamacpp", *options])
    assert code in (2, 5)
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_configuration_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gguf")
    pytest.importorskip("xllamacpp")
    config = tmp_path / "config.json"
    for content, words in (({"model_type": "mamba"}, "'mamba' is not one of"), ({"model_type": "qwen3_5"}, "missing")):
        config.write_text(json.dumps(content))
        assert bebop(["profile", "--model", str(config)]) == 2
        assert words in capsys.readouterr().err


def test_a_testbed_without_it_says_so_before_anything_starts(tmp_path: Path) -> None:
    config = Path(__file__).parents[3] / "profiler" / "testbed" / "configs" / "llamacpp-sync-k2.toml"
    arguments = ["testbed", "run", str(config), "-o", str(tmp_path / "run")]
    probe = f"import sys; sys.modules['xllamacpp'] = None; import bebop; sys.exit(bebop.main({arguments}))"
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 5
    assert "xllamacpp is not installed; run `pip install '.[llamacpp]'`" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()
