"""Predict: the answer in one sentence, and everything that explains it."""

import streamlit as st

from dashboard import address, basket, data, engine, entropy_editor, links, plots, shell, state, tables, words
from simulator.config import Scenario
from simulator.errors import ServiceError
from traces.report import RunReport

ARMS_NOTE = (
    "Speedups are over plain decoding, with the range that holds 90 % of runs whose inputs vary as the scenario says. "
    "At most: what this rollout speedup could bring if training and sync never got in the way (Amdahl)."
)
MAX_ORIGINS_SHOWN = 14
ORIGINS_HEIGHT = 600
"""A long list of inputs scrolls inside this many pixels."""


def render() -> None:
    """Draw the question, and the answer if there is one."""
    asked = state.question()
    if asked is None:
        return
    _header(asked.scenario)
    entropy_editor.render(asked)
    with shell.mistakes():
        working = st.empty()
        if _is_wanted(asked):
            answer = st.empty()  # what an earlier answer left on the page goes as soon as this one begins
            with working.container():
                report = _run(asked)
            working.empty()
            place = answer.container()
        else:
            place, report = st.container(), _last_report(asked)
        with place:
            _explained(asked, report)


def _header(scenario: Scenario) -> None:
    """Say what is asked and of which cluster."""
    st.subheader(words.escape_markdown(scenario.name), anchor=False)
    st.markdown(words.escape_markdown(scenario.question))
    cluster = scenario.cluster
    gpus = f"{cluster.num_rollout_gpus} + {cluster.num_train_gpus} {cluster.gpu}"
    if scenario.policy.kind == "synchronous":
        gpus = f"{cluster.num_rollout_gpus} {cluster.gpu}, colocated"
    facts = (
        scenario.model.name,
        gpus,
        scenario.policy.kind.replace("_", " "),
        f"staleness up to {scenario.max_staleness}",
        f"{scenario.run.num_steps} RL steps, {scenario.run.replications} replications",
    )
    st.caption(" · ".join(words.escape_markdown(fact) for fact in facts))


def _work(asked: data.Question) -> str:
    """Return the name by which the run of a scenario is cancelled."""
    return f"predict/{asked.source.key}"


def _is_wanted(asked: data.Question) -> bool:
    """Return whether to run now: Run was pressed, or this scenario was opened and nothing has answered it yet."""
    if state.take_run_wish():
        return True
    has_ended = state.was_cancelled(_work(asked)) or state.why_failed(_work(asked)) is not None
    return _last_report(asked) is None and not has_ended and data.starts_by_itself(asked)


def _last_report(asked: data.Question) -> RunReport | None:
    """Return the last report of this scenario, whatever its knobs were."""
    last = state.last_run()
    return None if last is None or last[0].source != asked.source else last[1]


def _run(asked: data.Question) -> RunReport | None:
    """Return a fresh report, None where the service failed.

    Meanwhile show how far it is, a first look at once, and the answer before what explains it.
    """
    state.resume(_work(asked))
    where = engine.chosen()
    first = st.empty()
    try:
        with shell.working("Simulating", _work(asked)) as progress:
            if not shell.reports().holds(asked.scenario, where):
                known = data.first_look(asked.scenario, where, lambda _: progress(0.0))
                with first.container():
                    _first_look(known)

            def answered(report: RunReport) -> None:
                shell.kept().take(_early_key(asked), lambda: report)
                with first.container():
                    _early_answer(report)
                    st.caption("What the speedup is made of follows.")

            report = shell.reports().run(asked.scenario, progress, where, answered)
    except ServiceError as error:
        state.fail(_work(asked), str(error))
        return _last_report(asked)
    state.keep_run(asked, report)
    return report


def _early_key(asked: data.Question) -> str:
    return data.key_of(asked.scenario, "early answer", engine.chosen().address)


def _first_look(found: dict[str, float]) -> None:
    """Say what one short run of each arm says."""
    with st.container(key="first_look"):
        st.markdown(words.first_look(found))
    st.caption(words.first_look_note(found))


def _early_answer(report: RunReport) -> None:
    """Say the answer without what explains it."""
    chosen = state.chosen_arm()
    with st.container(key="early_answer"):
        st.markdown(words.answer(report, chosen if chosen is not None and chosen in report.arms else report.best_arm))
    with st.container(key="early_arms"):
        st.table(tables.arms_table(report), border="horizontal")
    st.caption(ARMS_NOTE)


def _explained(asked: data.Question, report: RunReport | None) -> None:
    """Draw a report and all that explains it, marked if it is out of date; without one, say how to get it."""
    why = state.why_failed(_work(asked))
    if why is not None:
        shell.complain(why)
        st.caption("Press **Run** to try again.")
    elif state.was_cancelled(_work(asked)):
        st.warning("The run was cancelled; press **Run** to start it again.", icon=":material/cancel:")
    elif report is None:
        st.info(
            "Press **Run** to simulate this scenario: a first look in seconds, then the answer with its interval, "
            "which takes a while for a question of this size.",
            icon=":material/play_arrow:",
        )
    if report is None:
        early = shell.kept().get(_early_key(asked))
        known = data.known_first_look(asked.scenario, engine.chosen())
        if early is not None:
            _early_answer(early)
        elif known is not None:
            _first_look(known)
        return
    last = state.last_run()
    if last is not None and last[0] != asked:
        st.warning(
            "The inputs changed since this run. Press **Run** to bring the answer up to date.", icon=":material/sync:"
        )
    _answer(asked, report)
    _charts(report)
    _origins(report)
    _footer(asked, report)


def _answer(asked: data.Question, report: RunReport) -> None:
    """Say the answer in one sentence, the arms in a table, and what to beware of."""
    sentence = st.container(key="answer")
    arm = _explained_arm(asked, report)
    sentence.markdown(words.answer(report, arm))
    with st.container(key="arms"):
        st.table(tables.arms_table(report), border="horizontal")
    st.caption(ARMS_NOTE)
    _take_away(report)
    if report.warnings:
        st.warning(tables.bullets(report.warnings), icon=":material/warning:")
    st.markdown("#### From accept length to end-to-end speedup")
    shell.chart("waterfall", plots.waterfall(report, arm, dark=shell.dark()))
    if report.arms[arm].waterfall:
        with st.expander("What each factor means"):
            st.table(tables.factors_table(report.arms[arm]), border="horizontal")


def _explained_arm(asked: data.Question, report: RunReport) -> str:
    """Let the reader choose the arm that the sentence and the waterfall explain; the best one at first."""
    best = report.best_arm
    if len(report.arms) == 1:
        return best
    linked = state.chosen_arm()
    key = state.keyed(state.EXPLAINED_ARM, report.scenario_hash)
    kept = address.preset(links.ARM, key, list(report.arms), linked if linked in report.arms else best)
    chosen = st.segmented_control(
        "Arm to explain",
        list(report.arms),
        default=kept,
        key=key,
        format_func=words.escape_markdown,
        label_visibility="collapsed",
    )
    if chosen is not None and chosen != linked and (linked is not None or chosen != best):
        state.choose_arm(chosen)
        address.share(links.write(asked, chosen))
    return chosen or best


def _take_away(report: RunReport) -> None:
    """Offer what leaves this page: the basket, and files."""
    with st.container(horizontal=True):
        why_not = basket.why_not_add(report)
        st.button(
            "Add to basket",
            key="add_to_basket",
            icon=":material/add_shopping_cart:",
            disabled=why_not is not None,
            help=why_not,
            on_click=basket.add,
            args=(report,),
        )
        st.download_button(
            "Report (HTML)",
            lambda: basket.html([report]),
            file_name=f"{report.scenario}.html",
            mime="text/html",
            key="download_html",
            on_click="ignore",
            icon=":material/download:",
        )
        st.download_button(
            "Report (JSON)",
            report.to_json(),
            file_name=f"{report.scenario}.report.json",
            mime="application/json",
            key="download_json",
            on_click="ignore",
            icon=":material/download:",
        )


def _charts(report: RunReport) -> None:
    """Draw what explains the answer."""
    dark = shell.dark()
    st.markdown("#### Speedup along the run, as entropy moves")
    shell.chart("steps", plots.speedup_by_step(report, dark=dark))
    st.markdown("#### Where the seconds of a step go")
    shell.chart("breakdown", plots.step_breakdown(report, dark=dark))
    if report.measured:
        st.markdown("#### Measured beside predicted")
        shell.chart("measured", plots.measured_vs_predicted(report, dark=dark))
        with st.expander("The numbers and their sources"):
            st.table(tables.measured_table(report), border="horizontal")
    st.markdown("#### Staleness of what is trained on")
    shell.chart("staleness", plots.staleness_histogram(report, dark=dark))


def _origins(report: RunReport) -> None:
    """List every input of the prediction with its origin."""
    st.markdown("#### What the answer rests on")
    if not report.provenance:
        st.caption("The report lists no inputs.")
        return
    st.markdown(tables.origins_summary(report))
    with st.container(height=ORIGINS_HEIGHT if len(report.provenance) > MAX_ORIGINS_SHOWN else "content", border=False):
        st.table(tables.origins_table(report), border="horizontal")


def _footer(asked: data.Question, report: RunReport) -> None:
    st.caption("The same run on the command line:")
    st.code(asked.command, language="shell", wrap_lines=True)
    st.caption(
        f"Simulator {words.escape_markdown(report.model_version)}, seed {report.seed}, "
        f"scenario sha256 {words.escape_markdown(report.scenario_hash[:12])}"
    )


if __name__ == "__main__":
    render()
