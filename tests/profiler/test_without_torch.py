"""What `bebop profile` says where torch is not installed."""

import subprocess
import sys


def test_torch_is_named_with_its_extra() -> None:
    probe = (
        "import sys; sys.modules['torch'] = None; import bebop; sys.exit(bebop.main(['profile', '--device', 'cpu']))"
    )
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 5
    assert result.stderr == "bebop: torch is not installed; run `pip install '.[torch]'` in the checkout\n"


def test_a_running_engine_is_asked_without_torch() -> None:
    argv = ["profile", "--source", "engine", "--url", "http://127.0.0.1:1", "--gpu", "H200"]
    probe = f"import sys; sys.modules['torch'] = None; import bebop; sys.exit(bebop.main({argv}))"
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 5
    assert "http://127.0.0.1:1: does not answer" in result.stderr


def test_help_does_not_import_torch() -> None:
    probe = "import sys, bebop\ntry: bebop.main(['profile', '-h'])\nexcept SystemExit: sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", probe], capture_output=True, timeout=60, check=True)
