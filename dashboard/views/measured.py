"""Measured vs predicted: a log beside its forecast, calibrated; two runs compared; the scorecard."""

import shlex
from collections.abc import Sequence

import streamlit as st

from dashboard import address, data, measured, measured_tables, shell, state, tables, words
from dashboard.figures.forecast import forecast_by_step
from dashboard.figures.step_difference import step_difference
from dashboard.uploads import Upload
from dashboard.views import scorecard
from simulator.compare.sides import BASELINE
from traces.measured import ImportAccount, MeasuredRun
from traces.report import RunReport

PART = "measured_part"
PARTS = {"forecast": "A log and its forecast", "compare": "Where did my speedup go?", "scorecard": "Scorecard"}
UPLOAD, OTHER_UPLOAD = "measured_upload", "measured_other_upload"
FORMAT, EXAMPLE, FORGET = "measured_format", "measured_example", "measured_forget"
FRACTION, SCENARIO, CALIBRATE = "measured_fraction", "measured_scenario", "measured_calibrate"
OTHER, IS_A, ARM, COMPARE = "measured_other", "measured_is_a", "measured_arm", "measured_compare"
ANOTHER_FILE = "another file"
MAX_SENTENCES = 20

_LOG, _CALIBRATED = "_measured_log", "_measured_calibrated"


def render() -> None:
    """Draw the part that was chosen; the log is the same for all."""
    st.header("Measured vs predicted", anchor=False)
    kept = address.preset("part", PART, list(PARTS), "forecast")
    part = st.segmented_control(
        "Part", list(PARTS), default=kept, format_func=PARTS.__getitem__, key=PART, label_visibility="collapsed"
    )
    part = part or "forecast"
    address.keep("part", part, "forecast")
    if part == "scorecard":
        with shell.mistakes():
            scorecard.render()
        return
    log = _log()
    if log is None:
        st.info(
            "Drop the console log, metrics file or event file of an RL run: verl, slime, NeMo-RL, SkyRL, AReaL, "
            "prime-rl, ROLL, OpenRLHF, TRL, or an engine's own. It stays on this machine. Or try the example: a real "
            "verl run of 17 steps.",
            icon=":material/upload_file:",
        )
        return
    with shell.mistakes():
        log_format = st.selectbox(
            "Format", measured.FORMATS, key=FORMAT, help="`auto` tells the framework by its keys."
        )
        run = shell.waited_for("Reading the log", "read", _id(log, log_format), lambda: measured.read(log, log_format))
        if run is None:
            return
        _understood(run, log)
        if part == "compare":
            _compare(run, log)
        else:
            _forecast(log, log_format)
            _calibration(log, log_format)


def _log() -> measured.Log | None:
    """Draw where a log is dropped; return the one in use, which stays while other views are looked at."""
    st.file_uploader(
        "Log files of one run, in their order, or its trace (up to 16 MB; .gz is unpacked)",
        accept_multiple_files=True,
        key=UPLOAD,
        on_change=_take_upload,
    )
    log: measured.Log | None = st.session_state.get(_LOG)
    with st.container(horizontal=True):
        st.button("Try the example", key=EXAMPLE, on_click=_take_example, icon=":material/science:")
        st.button("Forget the log", key=FORGET, on_click=_forget, disabled=log is None, icon=":material/delete:")
    return log


def _take_upload() -> None:
    files = st.session_state.get(UPLOAD) or []
    st.session_state[_LOG] = tuple(Upload(file.name, file.getvalue()) for file in files) or None


def _take_example() -> None:
    st.session_state[_LOG] = measured.example_log()


def _forget() -> None:
    st.session_state[_LOG] = None


def _understood(run: MeasuredRun, log: measured.Log) -> None:
    """Say what was read of the log, what is missing, and what was left out."""
    account = run.account or ImportAccount(num_lines=0, num_step_lines=0)
    first, last = run.steps[0], run.steps[-1]
    restarts = f", {last.segment} restarts" if last.segment else ""
    lines = (
        f"; {account.num_step_lines:,} of {account.num_lines:,} lines carry numbers of a step"
        if run.account is not None
        else ""
    )
    with st.container(key="understood"):
        st.markdown(
            f"**{words.escape_markdown(run.framework)}: {len(run.steps):,} steps**, {first.step} to "
            f"{last.step}{restarts}{lines}."
        )
        files = ", ".join(f"{upload.name} (sha256 {upload.sha256[:12]})" for upload in log)
        st.caption(words.escape_markdown(files))
    marks = measured_tables.quality_words(run)
    if marks:
        st.caption(f"Marked: {marks}.")
    with st.expander(f"Understood: {len(account.understood)} fields"):
        _table(measured_tables.setup_table(run))
        _table(measured_tables.understood_table(run))
    if account.missing:
        with st.expander(f"Missing: {len(account.missing)} fields that no step has"):
            st.markdown(", ".join(words.escape_markdown(name) for name in account.missing))
    if account.ignored or account.num_dropped:
        with st.expander(f"Left out: {len(account.ignored)} kinds of keys or lines, {account.num_dropped} step lines"):
            _sentences(account.dropped)
            _table(measured_tables.ignored_table(run))


def _table(content: tables.Table) -> None:
    if any(content.values()):
        st.table(content, border="horizontal")


def _sentences(texts: Sequence[str]) -> None:
    shown = list(texts[:MAX_SENTENCES])
    if len(texts) > len(shown):
        shown.append(f"and {len(texts) - len(shown)} more")
    if shown:
        st.markdown(tables.bullets(shown))


def _command(verb: str, log: measured.Log, *more: str) -> None:
    files = (shlex.quote(upload.file_name) for upload in log)
    st.code(" ".join(["bebop", verb, *files, *more]), language="shell", wrap_lines=True)


def _forecast(log: measured.Log, log_format: str) -> None:
    st.markdown("#### Forecast: the first steps predict the later ones")
    percent = st.slider(
        "Share of the steps to fit on",
        min_value=5,
        max_value=80,
        value=20,
        step=5,
        format="%d %%",
        key=FRACTION,
        help="The later steps are predicted from their lengths alone, then held against their times.",
    )
    with shell.mistakes():
        report = shell.waited_for(
            "Fitting the first steps",
            "forecast",
            _id(log, log_format, percent),
            lambda: measured.forecast_of(log, log_format, percent / 100),
        )
        if report is None:
            return
        with st.container(key="forecast_answer"):
            st.markdown(measured_tables.forecast_sentence(report))
        with st.container(key="forecast_terms"):
            st.table(measured_tables.forecast_table(report), border="horizontal")
        st.caption(
            "Mean of |predicted over measured - 1| over the later steps, beside two naive forecasts fitted on the same "
            f"steps; {report.num_fitted_steps} of the first {report.num_first_steps} steps were fitted on."
        )
        shell.chart("forecast", forecast_by_step(report, dark=shell.dark()))
        if report.left_out or report.notes:
            with st.expander(f"Notes ({len(report.left_out) + len(report.notes)})"):
                _sentences((*report.left_out, *report.notes))
        _command("forecast", log, "--train-fraction", f"{percent / 100:g}")


def _calibration(log: measured.Log, log_format: str) -> None:
    st.markdown("#### Calibrate: what of a scenario the log tells")
    sources = _scenarios(log)
    chosen = sources[st.selectbox("Scenario that states the run", list(sources), key=f"{SCENARIO}/{_id(log)}")]
    wanted = (log, log_format, chosen)
    if st.button("Calibrate", key=CALIBRATE, icon=":material/tune:"):
        st.session_state[_CALIBRATED] = wanted
    if st.session_state.get(_CALIBRATED) != wanted:
        st.caption(
            "Fits what physics leaves open (engine efficiency, the trainer's lines, the tail of lengths) and takes "
            "some seconds."
        )
        return
    with shell.mistakes():
        done = shell.waited_for(
            "Replaying the logged steps",
            "calibrate",
            _id(log, log_format, chosen.key),
            lambda: measured.calibration_of(log, log_format, chosen),
        )
        if done is None:
            return
        report, text = done
        with st.container(key="calibration_answer"):
            st.markdown(measured_tables.calibration_sentence(report))
        st.table(measured_tables.calibration_table(report), border="horizontal")
        with st.expander("Why, field by field"):
            _sentences([f"{one.path}: {one.why}" for one in report.fields])
        _sentences(report.notes)
        st.download_button(
            "Download the calibrated scenario (TOML)",
            text,
            file_name=f"{report.scenario}-calibrated.toml",
            mime="application/toml",
            on_click="ignore",
            icon=":material/download:",
            help="Upload it in the sidebar to ask what drafts would change in this run.",
        )


def _scenarios(log: measured.Log) -> dict[str, data.Source]:
    """Return what a log may be calibrated against: the sidebar's upload, the example's own, the bundled ones."""
    asked = state.question()
    sources = {name: data.Source(name) for name, _ in data.bundled_scenarios()}
    first: dict[str, data.Source] = {}
    if log == measured.example_log():
        first[f"{measured.EXAMPLE_SCENARIO} (the example's)"] = measured.example_scenario()
    if asked is not None:
        label = asked.source.name if asked.source.text is None else f"{asked.source.name} (uploaded)"
        first[label] = asked.source
    return first | sources


def _id(log: measured.Log, *more: object) -> str:
    """Return what tells a log, and whatever else a result depends on, from any other."""
    return "/".join([*(upload.sha256 for upload in log), *(str(each) for each in more)])


def _compare(run: MeasuredRun, log: measured.Log) -> None:
    st.markdown("#### Where did my speedup go?")
    reports = _reports()
    choice = st.selectbox(
        "Compare the log with",
        [ANOTHER_FILE, *reports],
        key=OTHER,
        help="Another run's log, its trace, or a report. Runs of Predict and of the basket stand here as well.",
    )
    other: MeasuredRun | RunReport
    if choice == ANOTHER_FILE:
        file = st.file_uploader(
            "The other run: a log, a trace of `bebop import`, or a report of `bebop simulate -o`", key=OTHER_UPLOAD
        )
        if file is None:
            st.info(
                "Drop the other run, e.g. the same training without drafts; or simulate it in Predict.",
                icon=":material/compare_arrows:",
            )
            return
        files = (Upload(file.name, file.getvalue()),)
        read = shell.waited_for("Reading the other run", "read_other", _id(files), lambda: measured.read_other(files))
        if read is None:
            return
        other = read
        other_name = file.name
    else:
        other, other_name = reports[choice], choice
    log_is_a = (
        st.radio("The log is", ["A: where to start from", "B: what to explain"], key=IS_A, horizontal=True)
        == "A: where to start from"
    )
    arms = []
    if isinstance(other, RunReport):
        names = [BASELINE, *other.arms]
        arms = [st.selectbox("Arm of the report", names, index=names.index(other.best_arm), key=f"{ARM}/{choice}")]
    log_name = log[0].file_name
    if log_is_a:
        found = measured.comparison_of(run, other, (log_name, other_name), arms)
    else:
        found = measured.comparison_of(other, run, (other_name, log_name), arms)
    with st.container(key="comparison_answer"):
        st.markdown(f"**{words.escape_markdown(found.verdict)}.**")
    shell.chart("step_difference", step_difference(found, dark=shell.dark()))
    st.table(measured_tables.terms_table(found), border="horizontal")
    st.caption(
        f"{found.num_steps:,} RL steps compared, paired by number. Intervals: "
        + words.escape_markdown(found.interval or "none; too few steps, or reports that hold none for these arms")
    )
    if found.warnings:
        st.warning(tables.bullets(found.warnings), icon=":material/warning:")
    with st.expander("What each effect means"):
        st.table(measured_tables.effects_table(found), border="horizontal")
    if found.facts:
        with st.expander("What else both logged"):
            st.table(measured_tables.facts_table(found), border="horizontal")


def _reports() -> dict[str, RunReport]:
    """Return the visitor's runs by what they are called."""
    last = state.last_run()
    runs = [*([last[1]] if last is not None else []), *state.basket()]
    return {f"{number}: {run.scenario} ({run.scenario_hash[:8]})": run for number, run in enumerate(runs, start=1)}


if __name__ == "__main__":
    render()
