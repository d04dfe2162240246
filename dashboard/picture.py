"""Picture: a figure as a file: a page that needs nothing else, or a bitmap or vector drawn by a browser."""

from pathlib import Path
from typing import Any

from dashboard.errors import PictureError
from traces.store import write_atomically

SUFFIXES = (".html", ".png", ".svg")
WIDTH_PX = 1440
SCALE = 2
"""Pixels of a PNG per pixel of the layout."""


def write_picture(figure: Any, path: Path, width_px: int = WIDTH_PX) -> None:
    """Write a Plotly figure; the suffix chooses the format.

    Raises:
        PictureError: PNG or SVG without a browser to draw them.
    """
    if path.suffix == ".html":
        page = figure.to_html(include_plotlyjs=True, config={"responsive": True, "displaylogo": False})
        write_atomically(path, page.encode())
        return
    import kaleido  # noqa: F401  # a page needs none, and Plotly's own complaint about its absence is a paragraph

    try:
        image = figure.to_image(format=path.suffix[1:], width=width_px, scale=SCALE)
    except RuntimeError as error:  # what kaleido's errors about browsers have in common
        raise PictureError(
            f"{path}: a browser draws {path.suffix[1:]} files, and none starts here ({type(error).__name__}); install "
            f"chromium, or write {path.with_suffix('.html').name}"
        ) from error
    write_atomically(path, image)
