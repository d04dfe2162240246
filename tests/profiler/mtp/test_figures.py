"""Figures show what tables say, no point lies outside its axis, and none is drawn of what was not measured."""

from dataclasses import replace

import pytest

pytest.importorskip("torch")
pytest.importorskip("plotly")

from profiler.mtp.estimates import accept_rate, rl_lines
from profiler.mtp.figures import FIGURES, figures, page
from profiler.mtp.results import LOSSES_COMPARED, TEMPERATURES, Results
from tests.profiler.mtp.made_up import accepted, along_rl, made_up


def everything() -> Results:
    lengths = {loss: 3.0 + 0.1 * index for index, loss in enumerate(LOSSES_COMPARED)}
    found = along_rl({"to": -2.0, "rs_tv": -0.1})
    bins = tuple(replace(accepted(3.0 - entropy), entropy_nats=entropy) for entropy in (0.1, 0.5, 1.0))
    found.cells = [replace(cell, entropy_bins=bins) for cell in made_up(lengths).cells]
    arithmetic = [replace(cell, domain="math") for cell in found.cells]
    found.cells += [replace(cell, temperature=t) for t in TEMPERATURES for cell in arithmetic]
    return found


def test_every_figure_is_drawn_of_a_whole_study_and_fits_on_one_page() -> None:
    drawn = figures(everything())
    assert set(drawn) == set(FIGURES)
    html = page(drawn.values())
    assert html.count("plotly-graph-div") >= len(FIGURES)
    assert all(one.layout.title.text in html for one in drawn.values())
    assert '<script src="http' not in html


def test_no_figure_is_drawn_of_what_was_not_measured() -> None:
    assert set(figures(Results(everything().size))) == set()
    without_rl = everything()
    without_rl.rl = []
    assert set(figures(without_rl)) == {"losses", "temperatures", "first-drafts"}


def test_bars_are_the_intervals_of_the_table() -> None:
    found = everything()
    traces = {one.name: one for one in figures(found)["losses"].data}
    for name, loss in (("CE", "ce"), ("e2e TV", "e2e_tv")):
        rate = accept_rate(found, "code", loss)
        assert traces[name].y[0] == pytest.approx(rate.mean)
        assert traces[name].error_y.array[0] == pytest.approx(rate.high - rate.mean)


def test_a_law_is_drawn_through_its_points() -> None:
    found = everything()
    drawn = [one for one in figures(found)["laws"].data if one.mode == "lines"]
    greedy, line = drawn[0], rl_lines(found)["to"]
    slope = (greedy.y[1] - greedy.y[0]) / (greedy.x[1] - greedy.x[0])
    assert slope == pytest.approx(line.slope_per_nat)
    assert (greedy.x[0], greedy.x[1]) == pytest.approx((line.entropy_low_nats, line.entropy_high_nats))


def test_points_of_single_seeds_have_bars_of_counting_and_laws_the_interval_of_their_slope() -> None:
    found = everything()
    drawn = figures(found)
    dots = next(one for one in drawn["laws"].data if one.mode == "markers")
    assert dots.error_y.array == pytest.approx([1.96 * found.rl[0].found["to"].accept_length_sd] * len(dots.x))
    bin_dots = next(one for one in drawn["first-drafts"].data if one.mode == "markers")
    share = bin_dots.y[0]
    assert bin_dots.error_y.array[0] == pytest.approx(1.96 * (share * (1 - share) / 1000) ** 0.5)
    line, titles = rl_lines(found)["to"], [one.text for one in drawn["laws"].layout.annotations]
    interval = f"{line.slope_per_nat:.2f} ({line.slope_low:.2f} to {line.slope_high:.2f})"
    assert titles[0] == f"greedy draft, CE<br>{interval}"


def test_bounds_are_drawn_below_and_above_every_likeliest_token() -> None:
    lower, upper, *_ = figures(everything())["first-drafts"].data
    assert lower.y[0] == upper.y[0] == 1.0
    assert all(low <= high for low, high in zip(lower.y, upper.y, strict=True))
    assert lower.x[-1] == upper.x[-1] == pytest.approx(1.0)
