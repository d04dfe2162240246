import itertools
import json
import math
import subprocess
import sys
from typing import Any

import pytest

from dashboard import plots
from dashboard.look import DARK, LIGHT, line_style
from tests.dashboard.report_fixture import make_report

FIGURES = {
    "waterfall": lambda report, dark: plots.waterfall(report, next(iter(report.arms)), dark=dark),
    "speedup_by_step": lambda report, dark: plots.speedup_by_step(report, dark=dark),
    "step_breakdown": lambda report, dark: plots.step_breakdown(report, dark=dark),
    "staleness_histogram": lambda report, dark: plots.staleness_histogram(report, dark=dark),
    "measured_vs_predicted": lambda report, dark: plots.measured_vs_predicted(report, dark=dark),
}


def texts(figure: Any) -> str:
    return "\n".join(annotation.text for annotation in figure.layout.annotations)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("num_steps", [1, 60])
@pytest.mark.parametrize("num_arms", [1, 2, 6])
@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_draws_any_report_with_finite_numbers(
    name: str, num_arms: int, num_steps: int, dark: bool
) -> None:
    figure = FIGURES[name](make_report(num_arms, num_steps=num_steps), dark)
    text = figure.to_json()
    json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} in {name}"))
    assert figure.data
    for trace in figure.data:
        for values in (trace.x, trace.y):
            assert all(math.isfinite(value) for value in values)


@pytest.mark.parametrize("name", FIGURES)
def test_every_drawn_axis_has_a_unit_or_names_its_rows(name: str) -> None:
    figure = FIGURES[name](make_report(6), False)
    titles = [axis.title.text for axis in figure.select_xaxes()]
    assert any(titles), f"{name} has no title on its x axis"
    for axis in figure.select_yaxes():
        named_rows = axis.ticktext is not None
        assert named_rows or axis.title.text or "share of trained groups (%)" in texts(figure)


def test_the_waterfall_bars_span_the_speedups_before_and_after_each_factor() -> None:
    report = make_report()
    arm = report.arms["RS+e2e-TV"]
    (bars,) = plots.waterfall(report, "RS+e2e-TV").data
    before = 1.0
    for index, factor in enumerate(arm.waterfall):
        low, high = bars.base[index], bars.base[index] + bars.x[index]
        assert (low, high) == pytest.approx((min(before, factor.speedup_after), max(before, factor.speedup_after)))
        assert bars.customdata[index] == factor.factor
        before = factor.speedup_after
    assert bars.base[-1] + bars.x[-1] == pytest.approx(arm.end_to_end_speedup.mean)


def test_the_waterfall_labels_every_factor_and_shows_the_interval() -> None:
    report = make_report()
    figure = plots.waterfall(report, "TO")
    for factor in report.arms["TO"].waterfall:
        assert f"×{factor.factor:.2f}" in texts(figure)
    assert "<b>1.38×</b>  (1.28 to 1.48)" in texts(figure)


def test_the_waterfall_axis_is_logarithmic_so_that_equal_factors_have_equal_lengths() -> None:
    figure = plots.waterfall(make_report(), "TO")
    assert figure.layout.xaxis.type == "log"
    low, high = (10**end for end in figure.layout.xaxis.range)
    assert low < 1 < 1.38 < high
    assert 3 <= len(figure.layout.xaxis.tickvals) <= 12


def test_a_waterfall_that_ends_below_one_still_fits_its_axis() -> None:
    report = make_report(6)
    figure = plots.waterfall(report, "fixed-0.8")
    assert 10 ** figure.layout.xaxis.range[0] < 0.93
    assert figure.data[0].base[-1] == pytest.approx(0.93)


def test_the_waterfall_of_the_baseline_says_that_there_is_nothing_to_split() -> None:
    figure = plots.waterfall(make_report(), "baseline")
    assert not figure.data
    assert "Nothing to split" in texts(figure)


def test_the_waterfall_of_an_unknown_arm_names_the_arms() -> None:
    with pytest.raises(ValueError, match=r"'typo' is not in the report; arms are \['RS\+CE', 'RS\+e2e-TV', 'TO'\]"):
        plots.waterfall(make_report(), "typo")


def test_speedup_by_step_draws_each_arm_and_the_entropy_once_below_them() -> None:
    report = make_report()
    figure = plots.speedup_by_step(report)
    *lines, entropy = figure.data
    assert [line.name for line in lines] == list(report.arms)
    for line, arm in zip(lines, report.arms.values(), strict=True):
        assert list(line.x) == [point.rl_step for point in arm.by_step]
        assert list(line.y) == [point.speedup for point in arm.by_step]
        assert line.yaxis is None
    assert list(entropy.y) == [point.entropy_nats for point in report.baseline.by_step]
    assert entropy.yaxis == "y2"
    assert {line.xaxis for line in figure.data} == {None}, "one x axis, so that one hover box reads both panels"
    assert figure.layout.yaxis2.domain[1] < figure.layout.yaxis.domain[0]


def test_steps_left_out_of_the_means_are_shaded() -> None:
    figure = plots.speedup_by_step(make_report())
    (shade,) = [shape for shape in figure.layout.shapes if shape.type == "rect"]
    warmup = [point.rl_step for point in make_report().baseline.by_step if point.is_warmup]
    assert shade.x0 < warmup[0]
    assert warmup[-1] < shade.x1 < warmup[-1] + 1
    assert "warm-up" in texts(figure)


def test_a_scenario_without_entropy_and_steps_without_decoding_are_said_in_words() -> None:
    report = make_report(1)
    points = tuple(
        p.model_copy(update={"entropy_nats": None, "accept_length": None}) for p in report.arms["TO"].by_step
    )
    arm = report.arms["TO"].model_copy(update={"by_step": points})
    figure = plots.speedup_by_step(report.model_copy(update={"arms": {"TO": arm}, "baseline": arm}))
    assert "the scenario states no entropy" in texts(figure)
    assert figure.data[0].customdata[0][0] == "nothing decoded"


def test_names_at_line_ends_do_not_overlap_and_keep_the_order_of_their_lines() -> None:
    report = make_report(6)
    figure = plots.speedup_by_step(report)
    names = {f"<b>{name}</b>": arm.by_step[-1].speedup for name, arm in report.arms.items()}
    labels = sorted((a.y, names[a.text]) for a in figure.layout.annotations if a.text in names)
    assert len(labels) == 6
    assert [end for _, end in labels] == sorted(end for _, end in labels)
    low, high = figure.layout.yaxis.range
    assert all(b - a >= (high - low) * 0.06 for (a, _), (b, _) in itertools.pairwise(labels))


def test_a_run_without_steps_says_so() -> None:
    report = make_report(1)
    empty = report.arms["TO"].model_copy(update={"by_step": ()})
    figure = plots.speedup_by_step(report.model_copy(update={"arms": {"TO": empty}}))
    assert not figure.data
    assert "No RL steps" in texts(figure)


def test_the_step_breakdown_of_each_side_adds_up_to_the_step() -> None:
    report = make_report()
    figure = plots.step_breakdown(report)
    arms = [report.baseline, *report.arms.values()]
    for axis in ("y", "y2"):
        bars = [bar for bar in figure.data if bar.yaxis == axis]
        for index, arm in enumerate(arms):
            assert sum(bar.x[index] for bar in bars) == pytest.approx(arm.step_s)
    waiting = next(bar for bar in figure.data if bar.name == "waiting for samples")
    assert waiting.x[0] == pytest.approx(report.baseline.trainer_time.waiting * report.baseline.step_s)
    assert list(figure.layout.yaxis.ticktext) == ["baseline", *report.arms]


def test_uses_of_time_that_wait_are_hatched_so_that_colour_is_not_the_only_sign() -> None:
    for bar in plots.step_breakdown(make_report()).data:
        busy = bar.name in ("training", "generating", "weight sync")
        assert (bar.marker.pattern.shape is None) == busy


def test_where_both_sides_share_gpus_the_other_phase_is_not_called_idle() -> None:
    report = make_report().model_copy(update={"num_gpus": 64, "num_train_gpus": 64, "num_rollout_gpus": 64})
    figure = plots.step_breakdown(report)
    assert {"generating, or idle", "training, or idle"} <= {bar.name for bar in figure.data}
    assert "the same 64 GPUs, as trainer" in texts(figure)


def test_the_staleness_histogram_has_a_row_per_arm_with_the_reports_fractions() -> None:
    report = make_report()
    figure = plots.staleness_histogram(report)
    arms = {"baseline": report.baseline, **report.arms}
    assert [bars.name for bars in figure.data] == list(arms)
    for bars, arm in zip(figure.data, arms.values(), strict=True):
        assert list(bars.x) == [bin_.versions for bin_ in arm.staleness]
        assert list(bars.y) == [bin_.fraction for bin_ in arm.staleness]
    assert len({tuple(axis.range) for axis in figure.select_yaxes()}) == 1


def test_measured_and_predicted_share_a_panel_per_unit() -> None:
    report = make_report()
    figure = plots.measured_vs_predicted(report)
    predicted, measured = figure.data[:2]
    assert list(measured.x) == [1.38, 1.79]
    assert list(predicted.x) == [row.predicted_speedup.mean for row in report.measured if row.predicted_speedup]
    assert predicted.x[1] - predicted.error_x.arrayminus[1] == pytest.approx(1.62 * 0.93)
    titles = [axis.title.text for axis in figure.select_xaxes()]
    assert titles == ["speedup (×)", "seconds", "tokens per verify step"]
    assert "<b>−9.5 %</b>" in texts(figure)


def test_without_measured_rows_the_figure_says_so() -> None:
    figure = plots.measured_vs_predicted(make_report(measured=False))
    assert not figure.data
    assert "no measured numbers" in texts(figure)


def test_text_of_the_report_is_escaped_in_every_figure() -> None:
    report = make_report(1)
    row = report.measured[0].model_copy(update={"arm": "<b>x", "source": "<a href='javascript:0'>y</a>"})
    hostile = report.model_copy(update={"arms": {"<b>x": report.arms["TO"]}, "measured": (row,)})
    for name, draw in FIGURES.items():
        text = draw(hostile, False).to_json().replace("\\u003c", "<")
        assert "<b>x</b>" not in text.replace("&lt;b&gt;x", ""), name
        assert "<a href" not in text, name


def test_twenty_four_arms_differ_in_colour_or_dash() -> None:
    for look in (LIGHT, DARK):
        styles = {(line_style(i, look)["color"], line_style(i, look)["dash"]) for i in range(24)}
        assert len(styles) == 24


@pytest.mark.parametrize("look", [LIGHT, DARK])
def test_text_colours_stand_out_from_the_page(look: Any) -> None:
    for colour in (look.ink, look.muted):
        assert contrast(colour, look.page) >= 4.5
    for colour in (look.gain, look.loss, look.total, *look.lines):
        assert contrast(colour, look.page) >= 3.0
    for fill, text in look.fills.values():
        assert contrast(fill, text) >= 3.0


def test_plots_do_not_import_streamlit() -> None:
    code = "import sys, dashboard.plots; print('streamlit' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def contrast(one: str, other: str) -> float:
    lights = sorted((luminance(one), luminance(other)))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
