"""Opens the app's views in Streamlit's own test driver."""

from pathlib import Path

from streamlit.testing.v1 import AppTest

from dashboard import data, state
from tests.dashboard.tiny_scenario import TINY

APP = Path(__file__).parents[2] / "dashboard" / "app.py"


def open_view(name: str, *, tiny: bool = False, **parameters: str) -> AppTest:
    """Return a view, with query parameters as a link has them; `tiny` uploads the small scenario first."""
    page = held(AppTest.from_file(str(APP), default_timeout=240))
    for key, value in parameters.items():
        page.query_params[key] = value
    page.run()
    if tiny:
        page.file_uploader(key=state.UPLOAD).set_value(("tiny.toml", TINY.encode(), "application/toml")).run()
    page.switch_page(f"views/{name}.py")
    # Streamlit takes a link's parameters away as it changes the page; a browser opens the page itself.
    for key, value in parameters.items():
        page.query_params[key] = value
    return page.run()


def held(page: AppTest) -> AppTest:
    """Keep Predict from answering by itself, as a visitor does who has pressed Cancel in every scenario."""
    for name, _ in data.bundled_scenarios():
        page.session_state[state.keyed("_cancelled", f"predict/{name}")] = True
    return page


def written(page: AppTest) -> str:
    """Return all Markdown of a page."""
    return "\n".join(element.value for element in (*page.markdown, *page.caption))


def charts(page: AppTest) -> int:
    """Return how many figures are drawn."""
    return len(page.get("plotly_chart"))
