import pytest

from dashboard.words import answer, biggest_loss, escape_markdown, percent, plain, seconds, times
from tests.dashboard.report_fixture import make_report
from traces.report import Interval, RunReport


def with_speedup(report: RunReport, arm: str, interval: Interval) -> RunReport:
    changed = report.arms[arm].model_copy(update={"end_to_end_speedup": interval})
    return report.model_copy(update={"arms": {**report.arms, arm: changed}})


def test_the_answer_gives_speedup_interval_rollout_and_the_largest_loss() -> None:
    assert answer(make_report(), "RS+e2e-TV") == (
        r"With **RS\+e2e\-TV** drafts at k = 3 the run finishes **1.62× faster** (1.51 to 1.73); "
        r"rollout alone is 1.94× as fast; the largest loss is **trainer\-bound waiting** (×0.79)."
    )


def test_an_interval_that_holds_one_is_not_called_faster() -> None:
    report = with_speedup(make_report(), "TO", Interval(mean=1.03, low=0.97, high=1.09))
    assert "finishes about as fast as without: **1.03×** (0.97 to 1.09)" in answer(report, "TO")


def test_a_slower_run_is_called_slower() -> None:
    report = with_speedup(make_report(), "TO", Interval(mean=0.9, low=0.85, high=0.95))
    assert "gets slower, **0.90×** the speed (0.85 to 0.95)" in answer(report, "TO")


def test_an_arm_that_loses_nothing_names_no_loss() -> None:
    report = make_report()
    gain = report.arms["TO"].waterfall[:1]
    changed = report.arms["TO"].model_copy(update={"waterfall": gain})
    assert biggest_loss(changed) is None
    assert "lost" not in answer(report.model_copy(update={"arms": {"TO": changed}}), "TO")


def test_the_best_arm_has_the_largest_mean_speedup() -> None:
    assert make_report(6).best_arm == "RS+e2e-TV"


@pytest.mark.parametrize(
    ("value", "text"), [(0.034, "0.03 s"), (9.1, "9.10 s"), (26.44, "26.4 s"), (2826.0, "2,826 s")]
)
def test_seconds_keep_the_digits_that_matter(value: float, text: str) -> None:
    assert seconds(value) == text


def test_small_shares_do_not_print_as_zero() -> None:
    assert [percent(0.0), percent(0.001), percent(0.34)] == ["0 %", "<1 %", "34 %"]


def test_ratios_print_with_two_decimals() -> None:
    assert [times(1.518), times(250.0), plain(0.5)] == ["1.52×", "250×", "0.50"]


@pytest.mark.parametrize("hostile", ["<script>x</script>", "![i](http://x)", ":red[x]", "$x$", "a|b", "`x`", "# x"])
def test_markdown_of_users_is_escaped_letter_by_letter(hostile: str) -> None:
    escaped = escape_markdown(hostile)
    assert escaped.replace("\\", "") == hostile
    for index, letter in enumerate(escaped):
        if letter in "<>[]()$|`#:!":
            assert escaped[index - 1] == "\\"


def test_escaped_text_is_one_line() -> None:
    assert escape_markdown("a\n\n# b") == r"a \# b"
