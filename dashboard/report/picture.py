"""A figure as PNG or SVG, drawn by a headless browser on this machine."""

import base64
import json
import os
import shutil
from urllib.parse import unquote_to_bytes

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from traces.errors import TraceError

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
WAIT_MS = 60_000


def draw(figure: go.Figure, suffix: str, *, width_px: int = 1080) -> bytes:
    """Return the figure as `.png` (twice as fine) or `.svg`.

    Raises:
        TraceError: No browser.
        ModuleNotFoundError: playwright is not installed.
    """
    from playwright.sync_api import sync_playwright

    browser_path = os.environ.get("BROWSER_PATH") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser_path is None:
        raise TraceError("no browser to draw with; install chromium, or write .html instead")
    height = int(figure.layout.height or 450)
    look = figure.update_layout(paper_bgcolor="#FFFFFF", width=width_px)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.set_content("<div id=figure></div>")
        page.add_script_tag(content=get_plotlyjs())
        options = {"format": suffix.removeprefix("."), "width": width_px, "height": height, "scale": 2}
        url = page.evaluate(
            "async ([figure, options]) => { const drawn = await Plotly.newPlot('figure', figure.data, figure.layout);"
            " return Plotly.toImage(drawn, options); }",
            [json.loads(look.to_json()), options],
        )
        browser.close()
    head, _, body = url.partition(",")
    return base64.b64decode(body) if head.endswith(";base64") else unquote_to_bytes(body)
