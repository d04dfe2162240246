"""A real browser walks Profiles, Measured vs predicted and Timeline; the numbers are the command line's."""

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from bebop import main as bebop
from dashboard import measured
from tests.dashboard.browsing import needs_chromium

SHARED = Path(__file__).parents[3] / "shared" / "data" / "rl_logs" / "verl" / "20251203_201530-38rf6xe8.log"
FIRST, SECOND = "qwen3-8b-h200-tp1", "qwen3-8b-h100-tp1"

pytestmark = needs_chromium


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    assert bebop([*arguments, "--json"]) == 0
    content: dict[str, object] = json.loads(capsys.readouterr().out)
    return content


def drawn(page: Page, key: str) -> Locator:
    """Wait for a figure, and return it."""
    figure = page.locator(f".st-key-{key} .js-plotly-plot")
    figure.locator(".main-svg").first.wait_for()
    return figure


def test_a_log_is_uploaded_understood_forecast_and_calibrated(page: Page, capsys: pytest.CaptureFixture[str]) -> None:
    log = SHARED if SHARED.is_file() else measured.EXAMPLES / measured.EXAMPLE_LOG
    page.goto("/measured")
    page.get_by_text("Or try the example").wait_for()
    page.locator("[data-testid=stMain] input[type=file]").first.set_input_files(log)
    understood = page.locator(".st-key-understood")
    understood.get_by_text("verl: 16 steps").wait_for()
    expect(understood).to_contain_text(log.name)
    page.get_by_text(re.compile(r"Understood: \d+ fields")).click()
    page.get_by_text("timing_s/update_actor").wait_for()
    drawn(page, "forecast")
    report = said(capsys, "forecast", str(log))
    mape = report["mape"]
    assert isinstance(mape, dict)
    for error in mape.values():
        expect(page.locator(".st-key-forecast_terms")).to_contain_text(f"{100 * error:.3g} %")
    expect(page.locator(".st-key-forecast_answer")).to_contain_text(f"{100 * mape['step']:.3g} %")


def test_two_profiles_are_compared_as_on_the_command_line(page: Page, capsys: pytest.CaptureFixture[str]) -> None:
    page.goto(f"/profiles?trace={FIRST}")
    for key in ("step_latency", "verify_ratio", "surface"):
        drawn(page, key)
    choice = page.get_by_role("combobox", name=re.compile(r"Compare with \(B\)"))
    choice.click()
    choice.fill(SECOND)
    page.get_by_role("option", name=SECOND).click()
    ratio = drawn(page, "profile_ratio")
    regions = said(capsys, "profile", "compare", FIRST, SECOND)["regions"]
    assert isinstance(regions, list)
    usual = [region for region in regions if region["operation"] in ("decode", "verify")]
    for region in usual:
        expect(ratio).to_contain_text(f"{region['median']:.2f}×")
    page.get_by_text("The numbers", exact=True).click()
    numbers = page.locator(".st-key-profile_ratios")
    numbers.get_by_text("decode, batch 1 to 4, context 128 to 512").wait_for()
    for region in usual:
        for name in ("median", "lowest", "highest"):
            expect(numbers).to_contain_text(f"{region[name]:.3f}")
    expect(page).to_have_url(re.compile(f"trace={FIRST}"))
    expect(page).to_have_url(re.compile(f"beside={SECOND}"))


def test_the_scorecard_shows_the_figures_of_the_command_line(page: Page, capsys: pytest.CaptureFixture[str]) -> None:
    page.goto("/measured?part=scorecard")
    page.get_by_role("button", name="Score these rows").click()
    drawn(page, "scorecard")
    cells = page.locator(".st-key-scorecard_classes")
    classes = said(capsys, "scorecard", "--no-runs")["classes"]
    assert isinstance(classes, dict)
    for figures in classes.values():
        expect(cells).to_contain_text(str(figures["n"]))
        expect(cells).to_contain_text(f"{figures['median_error']:.1%}")
        expect(cells).to_contain_text(f"{figures['p90_error']:.1%}")


def test_the_timeline_is_drawn_and_its_download_is_what_trace_writes(page: Page, tmp_path: Path) -> None:
    page.goto("/timeline?scenario=verl-one-step-off&watch=baseline&steps=3")
    timeline = drawn(page, "timeline")
    expect(timeline).to_contain_text("trainer")
    expect(timeline).to_contain_text("replica 0")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download for Perfetto").click()
    assert download.value.suggested_filename == "verl-one-step-off-baseline.perfetto.json"
    expected = tmp_path / "expected.json"
    assert bebop(["trace", "verl-one-step-off", "--arm", "baseline", "--steps", "3", "-o", str(expected)]) == 0
    assert Path(download.value.path()).read_bytes() == expected.read_bytes()
