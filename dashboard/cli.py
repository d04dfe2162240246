"""The launcher, `bebop ui`: serves the page on this machine only, with the settings that make it safe."""

import importlib.util
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread

from traces.console import ExitCode, Parser, explain, print_error

ADDRESS = "127.0.0.1"
SETTINGS = {
    "server.address": ADDRESS,
    "server.maxUploadSize": "16",
    "server.maxMessageSize": "64",
    "server.enableStaticServing": "false",
    "server.enableCORS": "true",
    "server.enableXsrfProtection": "true",
    "server.fileWatcherType": "none",
    "server.showEmailPrompt": "false",
    "runner.magicEnabled": "false",
    "client.showErrorDetails": "none",
    "client.toolbarMode": "minimal",
    "browser.serverAddress": ADDRESS,
    "browser.gatherUsageStats": "false",
    "global.developmentMode": "false",
    "global.disableWidgetStateDuplicationWarning": "true",  # controls have a value and a default: `state.preset`
}
"""Given as flags, so that no configuration file or environment variable of the user loosens them."""

ALLOWED_HOSTS = (ADDRESS, "localhost")
"""A page of another host that rebinds its name to 127.0.0.1 is refused."""


def main(argv: list[str]) -> int:
    """Serve the page until interrupted; return the exit code."""
    parser = Parser(
        prog="bebop ui", description="Open the dashboard in a browser, served on 127.0.0.1 unless told otherwise."
    )
    parser.add_argument(
        "--host",
        default=ADDRESS,
        help="address to serve on (default: %(default)s); the page has no login, so others only inside a container",
    )
    parser.add_argument("--port", type=int, default=8501, help="port to serve on (default: %(default)s)")
    parser.add_argument("--no-browser", action="store_true", help="serve without opening a browser")
    parser.add_argument(
        "--api", metavar="URL", help="work out predictions and plans on this service (`bebop serve`), not here"
    )
    parser.add_argument(
        "--token-env", metavar="NAME", help="environment variable that holds its token (default: BEBOP_TOKEN)"
    )
    arguments = parser.parse_args(argv)
    if arguments.token_env is not None and arguments.api is None:
        parser.error("--token-env is about --api URL; give both")
    for package in ("streamlit", "plotly"):
        if importlib.util.find_spec(package) is None:
            code, message = explain(ModuleNotFoundError(f"No module named {package!r}", name=package))
            print_error(message)
            return code
    complaint = _port_complaint(arguments.port, arguments.host)
    if complaint:
        print_error(complaint)
        return ExitCode.USAGE
    for_page = [] if arguments.api is None else ["--api", arguments.api]
    for_page += [] if arguments.token_env is None else ["--token-env", arguments.token_env]
    if for_page:
        from dashboard.engine import engine_of  # kernels: slow to import

        engine_of(for_page, os.environ)  # complains here rather than on the page
    return _serve(arguments.port, open_browser=not arguments.no_browser, host=arguments.host, for_page=for_page)


def streamlit_arguments(
    port: int, *, open_browser: bool, host: str = ADDRESS, for_page: Sequence[str] = ()
) -> list[str]:
    """Return Streamlit's own command line, and after it what the page itself is told."""
    flags = {
        **SETTINGS,
        "server.address": host,
        "server.port": str(port),
        "server.headless": str(not open_browser).lower(),
    }
    page = Path(__file__).with_name("app.py")
    hosts = [f"--server.allowedHosts={host}" for host in ALLOWED_HOSTS]
    settings = [f"--{name}={value}" for name, value in flags.items()]
    return ["run", str(page), *settings, *hosts, *(["--", *for_page] if for_page else [])]


def _port_complaint(port: int, host: str = ADDRESS) -> str | None:
    """What is wrong with a port, None if it can be served on."""
    if not 1 <= port <= 65535:
        return f"--port: {port} is not between 1 and 65535; leave it out for 8501"
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            reason = (error.strerror or "not available").lower()
            return f"--port: {port} cannot be served on ({reason}); give another one, e.g. --port {port % 65535 + 1}"
    return None


def _serve(port: int, *, open_browser: bool, host: str, for_page: Sequence[str]) -> int:
    from streamlit.web import cli

    Thread(target=_warm_up, daemon=True).start()
    arguments = streamlit_arguments(port, open_browser=open_browser, host=host, for_page=for_page)
    try:
        cli.main(args=arguments, standalone_mode=False)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else ExitCode.OK
    return ExitCode.OK


def _warm_up() -> None:
    """Load what the first visitor's page needs, and look at its scenario, while the browser still loads the page."""
    with suppress(Exception):  # the page meets it again, and says it
        from dashboard import data, plots, tables  # noqa: F401

        data.first_look(data.load(data.Source(data.bundled_scenarios()[0][0])))
