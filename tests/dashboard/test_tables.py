from dashboard.tables import arms_table, badge, factors_table, measured_table, origins_summary, origins_table
from tests.dashboard.report_fixture import make_report
from traces.base import Origin
from traces.report import LostWork


def test_the_arms_table_starts_with_the_baseline_and_shows_every_arm_with_its_interval() -> None:
    table = arms_table(make_report())
    assert table["arm"] == ["**baseline**", "**TO**", r"**RS\+CE**", r"**RS\+e2e\-TV**"]
    assert table["end to end"] == [
        "1×",
        "**1.38×** (1.28 to 1.48)",
        "**1.47×** (1.37 to 1.57)",
        "**1.62×** (1.51 to 1.73)",
    ]
    assert table["RL step"][0] == "2,826 s"


def test_the_arms_table_shows_lost_work_only_where_there_is_some() -> None:
    report = make_report()
    assert list(arms_table(report))[-1] == "GPU-hours"
    lost = report.baseline.model_copy(update={"lost": LostWork(max_restarts=3, useful_tokens_fraction=0.25)})
    table = arms_table(report.model_copy(update={"baseline": lost}))
    assert list(table)[-2:] == ["most restarts of a sample", "useful over generated tokens"]
    assert table["most restarts of a sample"] == ["3", "–", "–", "–"]
    assert table["useful over generated tokens"][0] == "0.25"


def test_all_columns_of_a_table_have_the_same_length() -> None:
    report = make_report(6)
    for table in (arms_table(report), factors_table(report.arms["TO"]), measured_table(report), origins_table(report)):
        assert len({len(cells) for cells in table.values()}) == 1


def test_the_factors_table_gives_the_reports_own_factors() -> None:
    arm = make_report().arms["TO"]
    assert factors_table(arm)["×"] == [f"{factor.factor:.3f}" for factor in arm.waterfall]


def test_measured_rows_show_speedups_where_there_are_some_and_absolute_values_elsewhere() -> None:
    table = measured_table(make_report())
    assert table["measured"] == ["1.38× (2,826 to 2,048 s)", "1.79× (2,826 to 1,579 s)", "2.90", "840 s"]
    assert table["error"][1] == "**−9.5 %**"


def test_origins_come_least_trusted_first_and_assumed_stands_out_in_bold() -> None:
    table = origins_table(make_report())
    assert table["origin"][:3] == [
        ":orange-badge[**assumed**]",
        ":orange-badge[**assumed**]",
        ":red-badge[**extrapolated**]",
    ]
    assert table["origin"][-1] == ":green-badge[measured]"


def test_the_summary_counts_origins_and_says_what_assumed_means() -> None:
    summary = origins_summary(make_report())
    assert ":orange-badge[**2 assumed**]" in summary
    assert "2 of 7 inputs are chosen by a person, measured by nobody." in summary


def test_every_origin_has_a_badge() -> None:
    assert len({badge(origin, "x").partition("-")[0] for origin in Origin}) == len(Origin)


def test_free_text_of_a_report_is_escaped_in_tables() -> None:
    report = make_report(1)
    row = report.provenance[0].model_copy(update={"value": "![x](http://y)", "source": "<script>"})
    table = origins_table(report.model_copy(update={"provenance": (row,)}))
    assert table["value"] == [r"\!\[x\]\(http\:\/\/y\)"]
    assert table["source"] == [r"\<script\>"]
