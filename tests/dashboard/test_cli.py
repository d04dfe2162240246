import importlib.util
import socket
import subprocess
import sys

import pytest

from dashboard import cli


def flags(port: int = 8501, *, open_browser: bool = False) -> dict[str, str]:
    arguments = cli.streamlit_arguments(port, open_browser=open_browser)
    return dict(argument.removeprefix("--").split("=", 1) for argument in arguments if argument.startswith("--"))


def test_the_page_is_served_on_this_machine_only_with_safe_settings() -> None:
    safe = {
        "server.address": "127.0.0.1",
        "server.maxUploadSize": "16",
        "server.maxMessageSize": "64",
        "server.enableStaticServing": "false",
        "server.enableXsrfProtection": "true",
        "client.showErrorDetails": "none",
        "client.toolbarMode": "minimal",
        "browser.gatherUsageStats": "false",
    }
    assert safe.items() <= flags().items()


def test_every_setting_is_known_to_streamlit() -> None:
    config = pytest.importorskip("streamlit.config")
    assert flags().keys() <= config.get_config_options().keys()


def test_the_browser_opens_unless_told_otherwise() -> None:
    assert flags(open_browser=True)["server.headless"] == "false"
    assert flags(open_browser=False)["server.headless"] == "true"


def test_what_the_first_page_needs_is_loaded_while_it_is_opened() -> None:
    code = "import sys; from dashboard import cli; cli._warm_up(); print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=240)
    assert {"dashboard.plots", "simulator.kernels", "plotly.graph_objs"} <= set(done.stdout.split())
    assert "streamlit" not in done.stdout.split(), "Streamlit reads its settings when it is imported first"


@pytest.mark.parametrize("missing", ["streamlit", "plotly"])
def test_a_missing_extra_ends_with_code_5_and_the_command_that_installs_it(
    missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else real(name))
    assert cli.main(["--no-browser"]) == 5
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{missing} is not installed" in line
    assert "[dashboard]'" in line


def test_a_taken_port_is_named_with_another_to_try(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert cli.main(["--no-browser", "--port", str(port)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"--port: {port} cannot be served on (address already in use); give another one" in line


@pytest.mark.parametrize("port", ["0", "65536"])
def test_a_port_out_of_range_is_refused_with_the_range(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--port", port]) == 2
    assert f"--port: {port} is not between 1 and 65535" in capsys.readouterr().err
