"""The page: choose a scenario, turn its knobs, run it, read the answer. Lays out; numbers are never born here."""

import shlex
from dataclasses import dataclass

import streamlit as st

from dashboard import data, plots, state, tables, words
from simulator.config import Scenario
from traces.report import RunReport

MAX_K = 8
FIXED = "fixed rates"
ARMS_NOTE = (
    "Speedups are over plain decoding, with the range that holds 90 % of runs whose inputs vary as the scenario says. "
    "At most: what this rollout speedup could bring if training and sync never got in the way (Amdahl)."
)
MAX_ORIGINS_SHOWN = 14
ORIGINS_HEIGHT = 600
"""A long list of inputs scrolls inside this many pixels."""

CHART = {"displayModeBar": False}
ICON = (
    "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'>"
    "<path fill='#0072B2' d='M3 5h26v6H3z'/><path fill='#D55E00' d='M17 13h12v6H17z'/>"
    "<path fill='#009E73' d='M3 21h14v6H3z'/></svg>"
)
"""Drawn here because an icon by name is fetched from another host."""

STYLE = """<style>
.stMainBlockContainer { padding: 2.5rem 2rem 4rem; max-width: 1180px; }
[data-testid="stSidebarHeader"] { height: 2.5rem; margin-bottom: 0; }
[data-testid="stSidebarUserContent"] { padding-bottom: 1.5rem; }
.st-key-answer p { font-size: 1.7rem; line-height: 1.35; }
.st-key-arms table * { white-space: nowrap !important; }
</style>"""
"""Fixed text: nothing a user wrote ever goes into HTML."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the controls ask for."""

    source: data.Source
    overrides: tuple[str, ...]

    @property
    def command(self) -> str:
        """The same run on the command line."""
        sets = " ".join(f"--set {shlex.quote(override)}" for override in self.overrides)
        return f"bebop simulate {shlex.quote(self.source.name)} {sets}".strip()


def main() -> None:
    """Draw the page once; Streamlit calls this at every interaction."""
    st.set_page_config(page_title="Bebop", page_icon=ICON, layout="wide")
    st.html(STYLE)
    with st.sidebar:
        request, error = _controls()
        pressed = st.button("Run", type="primary", width="stretch", key=state.RUN, disabled=request is None)
    if error is not None:
        st.error(words.escape_markdown(error), icon=":material/error:")
    if request is None:
        return
    try:
        scenario = data.load(request.source, request.overrides)
        _header(scenario)
        report = _report(request, scenario, pressed)
    except Exception as failure:
        message = data.mistake(failure)
        if message is None:
            raise
        st.error(words.escape_markdown(message), icon=":material/error:")
        return
    if report is None:
        st.info(
            "Press **Run** to simulate this scenario. It runs on this machine and takes up to a minute.",
            icon=":material/play_arrow:",
        )
    else:
        _answer(report)
        _charts(report)
        _origins(report)
        _footer(request, report)


@st.cache_resource
def _reports() -> data.ReportCache:
    return data.ReportCache()


def _controls() -> tuple[Request | None, str | None]:
    """Draw the sidebar; return what it asks for, or why it cannot."""
    st.title("Bebop", anchor=False)
    questions = dict(data.bundled_scenarios())
    name = st.selectbox("Scenario", list(questions), key=state.SCENARIO)
    with st.expander("Upload a scenario"):
        file = st.file_uploader("Scenario file (TOML, up to 1 MB)", type=["toml"], key=state.UPLOAD)
    try:
        if name is None and file is None:
            return None, "No scenario is bundled with this installation; upload one."
        source = data.Source(name) if file is None else data.uploaded(file.name, file.getvalue())
        scenario = data.load(source)
        if file is not None:
            st.caption(f"Using the upload {words.escape_markdown(file.name)}; remove it to go back.")
        overrides = [*_engine_controls(source, scenario), *_arm_controls(source, scenario)]
    except Exception as failure:
        message = data.mistake(failure)
        if message is None:
            raise
        return None, message
    return Request(source, tuple(overrides)), None


def _engine_controls(source: data.Source, scenario: Scenario) -> list[str]:
    stated = scenario.engine.max_running_seqs
    limit = st.number_input(
        "Engine batch limit (sequences)",
        min_value=1,
        max_value=8192,
        value=stated,
        key=state.keyed(state.MAX_RUNNING_SEQS, source.key),
        help="`engine.max_running_seqs`: sequences that one rollout replica decodes together.",
    )
    return [] if limit == stated else [data.override_max_running_seqs(limit)]


def _arm_controls(source: data.Source, scenario: Scenario) -> list[str]:
    overrides = []
    for arm, config in scenario.arms.items():
        num_draft_tokens = st.slider(
            f"**{words.escape_markdown(arm)}**: draft tokens k",
            min_value=0,
            max_value=max(MAX_K, config.k),
            value=config.k,
            key=state.keyed(state.NUM_DRAFT_TOKENS, source.key, arm),
        )
        if num_draft_tokens != config.k:
            overrides.append(data.override_k(arm, num_draft_tokens))
        overrides += _acceptance_control(source, scenario, arm)
    return overrides


def _acceptance_control(source: data.Source, scenario: Scenario, arm: str) -> list[str]:
    """Draw where an arm's acceptance comes from; return the override it needs, if any."""
    stated = scenario.arms[arm].acceptance
    trace = stated.trace if stated is not None and stated.kind == "law" else data.DEFAULT_LAWS
    laws = {f"law {law.recipe}, fit {law.fit}": law for law in data.laws(trace)} if scenario.entropy else {}
    own = data.acceptance_words(stated)
    choice = st.selectbox(
        f"**{words.escape_markdown(arm)}**: acceptance",
        [own, *(label for label in laws if label != own), FIXED],
        key=state.keyed(state.ACCEPTANCE, source.key, arm),
    )
    if choice == FIXED:
        text = st.text_input(
            "P(first j drafts accepted), j = 1 to k",
            value="0.90, 0.78, 0.65",
            max_chars=200,
            key=state.keyed(state.RATES, source.key, arm),
        )
        return [data.override_rates(arm, data.parse_rates(text))]
    return [] if choice == own else [data.override_law(arm, laws[choice])]


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


def _report(request: Request, scenario: Scenario, pressed: bool) -> RunReport | None:
    """Return the report to show: a fresh one when Run was pressed, else the last one, marked if it is out of date."""
    if pressed:
        bar = st.progress(0.0, text="Simulating")
        drawn = 0.0

        def progress(fraction: float) -> None:
            # Each call is a message to the browser: one per percent is enough. It is also where a new press of a
            # control stops this run.
            nonlocal drawn
            if fraction - drawn >= 0.01:
                drawn = min(fraction, 1.0)
                bar.progress(drawn, text=f"Simulating: {words.percent(drawn)}")

        try:
            report = _reports().run(scenario, progress)
        finally:
            bar.empty()
        st.session_state[state.LAST_RUN] = (request, report)
        return report
    last: tuple[Request, RunReport] | None = st.session_state.get(state.LAST_RUN)
    if last is None or last[0].source != request.source:
        return None
    if last[0] != request:
        st.warning(
            "The inputs changed since this run. Press **Run** to bring the answer up to date.", icon=":material/sync:"
        )
    return last[1]


def _answer(report: RunReport) -> None:
    """Say the answer in one sentence, the arms in a table, and what to beware of."""
    sentence = st.container(key="answer")
    arm = _explained_arm(report)
    sentence.markdown(words.answer(report, arm))
    with st.container(key="arms"):
        st.table(tables.arms_table(report), border="horizontal")
    st.caption(ARMS_NOTE)
    if report.warnings:
        st.warning(tables.bullets(report.warnings), icon=":material/warning:")
    st.markdown("#### From accept length to end-to-end speedup")
    _chart("waterfall", plots.waterfall(report, arm, dark=_dark()))
    if report.arms[arm].waterfall:
        with st.expander("What each factor means"):
            st.table(tables.factors_table(report.arms[arm]), border="horizontal")


def _explained_arm(report: RunReport) -> str:
    """Let the reader choose the arm that the sentence and the waterfall explain; the best one at first."""
    best = report.best_arm
    if len(report.arms) == 1:
        return best
    chosen = st.segmented_control(
        "Arm to explain",
        list(report.arms),
        default=best,
        key=state.keyed(state.EXPLAINED_ARM, report.scenario_hash),
        format_func=words.escape_markdown,
        label_visibility="collapsed",
    )
    return chosen or best


def _charts(report: RunReport) -> None:
    """Draw what explains the answer."""
    dark = _dark()
    st.markdown("#### Speedup along the run, as entropy moves")
    _chart("steps", plots.speedup_by_step(report, dark=dark))
    st.markdown("#### Where the seconds of a step go")
    _chart("breakdown", plots.step_breakdown(report, dark=dark))
    if report.measured:
        st.markdown("#### Measured beside predicted")
        _chart("measured", plots.measured_vs_predicted(report, dark=dark))
        with st.expander("The numbers and their sources"):
            st.table(tables.measured_table(report), border="horizontal")
    st.markdown("#### Staleness of what is trained on")
    _chart("staleness", plots.staleness_histogram(report, dark=dark))


def _origins(report: RunReport) -> None:
    """List every input of the prediction with its origin."""
    st.markdown("#### What the answer rests on")
    if not report.provenance:
        st.caption("The report lists no inputs.")
        return
    st.markdown(tables.origins_summary(report))
    with st.container(height=ORIGINS_HEIGHT if len(report.provenance) > MAX_ORIGINS_SHOWN else "content", border=False):
        st.table(tables.origins_table(report), border="horizontal")


def _footer(request: Request, report: RunReport) -> None:
    st.caption("The same run on the command line:")
    st.code(request.command, language="shell", wrap_lines=True)
    st.download_button(
        "Download the report (JSON)",
        report.to_json(),
        file_name=f"{report.scenario}.report.json",
        mime="application/json",
        on_click="ignore",
    )
    st.caption(
        f"Simulator {words.escape_markdown(report.model_version)}, seed {report.seed}, "
        f"scenario sha256 {words.escape_markdown(report.scenario_hash[:12])}"
    )


def _chart(key: str, figure: object) -> None:
    st.plotly_chart(figure, theme=None, key=key, config=CHART)


def _dark() -> bool:
    return st.context.theme.type == "dark"


if __name__ == "__main__":
    main()
