"""Controls: the sidebar, in which a scenario is chosen and its knobs turned, the same for every view."""

from collections.abc import Sequence

import streamlit as st

from dashboard import data, knobs, links, shell, state, words
from simulator.config import AcceptanceConfig, Scenario
from simulator.errors import ScenarioError
from simulator.scenario_file import field_keys
from traces.architecture import list_architectures
from traces.hardware import list_gpus

MAX_K = 8
FIXED = "fixed rates"
OWN_LATENCY = "as the scenario says"
ROOFLINE = "roofline: nothing measured"
MODEL, GPU = "model.name", "cluster.gpu"


def draw(link: links.Link | None) -> data.Question | None:
    """Draw the controls, set as a link says; return what they ask for, or None after saying why they cannot."""
    if link is not None:
        _follow(link)
    names = dict(data.bundled_scenarios())
    state.preset(state.SCENARIO, next(iter(names), None))
    name = st.selectbox("Scenario", list(names), index=state.place(state.SCENARIO, list(names)), key=state.SCENARIO)
    with st.expander("Upload a scenario", icon=":material/upload_file:"):
        file = st.file_uploader("Scenario file (TOML, up to 1 MB)", type=["toml"], key=state.UPLOAD)
    found: data.Question | None = None
    with shell.mistakes():
        if name is None and file is None:
            raise ScenarioError("No scenario is bundled with this installation; upload one.")
        source = data.Source(name) if file is None else data.uploaded(file.name, file.getvalue())
        stated = data.load(source)
        if file is not None:
            st.caption(f"Using the upload {words.escape_markdown(file.name)}; remove it to go back.")
        overrides = _knobs(source, stated)
        found = data.Question(source, tuple(overrides), data.load(source, overrides))
    if link is not None and link.ignored:
        lines = "\n".join(f"- {words.escape_markdown(line)}" for line in link.ignored)
        st.warning(f"Left out of the link:\n{lines}", icon=":material/link_off:")
    return found


def _follow(link: links.Link) -> None:
    """Set the controls as a link says."""
    st.session_state[state.SCENARIO] = link.source.name
    state.choose_arm(link.arm)
    apply(link.source, link.overrides)


def apply(source: data.Source, overrides: Sequence[str]) -> None:
    """Set the controls of a scenario to what overrides say, before they are drawn; those without a control are listed.

    Raises:
        ScenarioError: They do not fit the scenario.
    """
    scenario = data.load(source, overrides)
    content = scenario.model_dump(mode="json")
    shown = {MODEL, GPU}
    for path in (MODEL, GPU):
        st.session_state[state.keyed(path, source.key)] = knobs.value_at(content, path)
    for knob in (knob for section in knobs.knobs_of(scenario).values() for knob in section):
        shown.update(knob.paths)
        st.session_state[state.keyed(knob.path, source.key)] = _typed(knob, knobs.value_at(content, knob.path))
    set_paths = [_path(override) for override in overrides]
    for arm, config in scenario.arms.items():
        shown.add(f"arms.{arm}.k")
        st.session_state[state.keyed(state.NUM_DRAFT_TOKENS, source.key, arm)] = config.k
        if f"arms.{arm}.acceptance" not in set_paths:
            st.session_state[state.keyed(state.ACCEPTANCE, source.key, arm)] = data.acceptance_words(config.acceptance)
        elif _show_acceptance(source, arm, config.acceptance):
            shown.add(f"arms.{arm}.acceptance")
    if "latency" not in set_paths:
        _show_own_latency(source, scenario)
    elif _show_latency(source, scenario):
        shown.add("latency")
    state.keep_entropy_points(source.key, None)
    if "entropy" in set_paths and scenario.entropy is not None and scenario.entropy.kind == "piecewise":
        state.keep_entropy_points(source.key, list(scenario.entropy.points))
        shown.add("entropy")
    rest = [override for override in overrides if _path(override) not in shown]
    st.session_state[state.keyed(state.OTHER_SETTINGS, source.key)] = "\n".join(rest)


def put(asked: data.Question, override: str) -> None:
    """Set one more override in the controls; for a callback, before they are drawn."""
    apply(asked.source, _last_of_each([*asked.overrides, override]))


def _last_of_each(overrides: Sequence[str]) -> list[str]:
    """Return the overrides without those that a later one of the same field replaces."""
    return list({_path(override): override for override in overrides}.values())


def _path(override: str) -> str:
    """Return the dotted path that an override sets, without quotes."""
    return ".".join(field_keys(override.partition("=")[0]))


def _show_acceptance(source: data.Source, arm: str, acceptance: AcceptanceConfig | None) -> bool:
    """Set an arm's acceptance in its control; return whether the control can show it."""
    key = state.keyed(state.ACCEPTANCE, source.key, arm)
    if acceptance is not None and acceptance.kind == "fixed":
        st.session_state[key] = FIXED
        st.session_state[state.keyed(state.RATES, source.key, arm)] = ", ".join(f"{c:g}" for c in acceptance.cumulative)
        return True
    _, laws = _laws(data.load(source), arm)
    label = data.acceptance_words(acceptance)
    if acceptance is None or acceptance.kind != "law" or label not in laws or laws[label].trace != acceptance.trace:
        return False
    st.session_state[key] = label
    return True


def _show_own_latency(source: data.Source, scenario: Scenario) -> None:
    """Set where step latencies come from to what its control begins with."""
    model, gpu, stated = scenario.model.name, scenario.cluster.gpu, data.load(source)
    is_own = (model, gpu) == (stated.model.name, stated.cluster.gpu)
    first = OWN_LATENCY if is_own else next(iter(data.latency_traces(model, gpu)), ROOFLINE)
    st.session_state[state.keyed(state.LATENCY, source.key, f"{model}/{gpu}")] = first


def _show_latency(source: data.Source, scenario: Scenario) -> bool:
    """Set where step latencies come from in its control; return whether the control can show it."""
    model, gpu, latency = scenario.model.name, scenario.cluster.gpu, scenario.latency
    choice = ROOFLINE if latency.kind == "roofline" else latency.trace
    plain = data.load(source, [data.override_latency(None if choice == ROOFLINE else choice)]).latency
    if plain != latency or choice not in (*data.latency_traces(model, gpu), ROOFLINE):
        return False
    st.session_state[state.keyed(state.LATENCY, source.key, f"{model}/{gpu}")] = choice
    return True


def _knobs(source: data.Source, stated: Scenario) -> list[str]:
    sections = knobs.knobs_of(stated)
    overrides: list[str] = []
    with st.expander("Drafts and acceptance", icon=":material/bolt:", expanded=True):
        for arm in stated.arms:
            overrides += [*_draft_control(source, stated, arm), *_acceptance_control(source, stated, arm)]
    for title, icon in (("Model and GPUs", "memory"), ("Workload and run", "dataset")):
        with st.expander(title, icon=f":material/{icon}:"):
            if title == "Model and GPUs":
                overrides += _hardware_controls(source, stated)
            for knob in sections[title]:
                overrides += _number(source, stated, knob)
    points = state.entropy_points(source.key)
    if points is not None:
        overrides.append(data.override_entropy(points))
    return _last_of_each([*overrides, *_other_settings(source)])


def _number(source: data.Source, stated: Scenario, knob: knobs.Knob) -> list[str]:
    own = _typed(knob, knobs.value_at(stated.model_dump(mode="json"), knob.path))
    key = state.keyed(knob.path, source.key)
    value = st.number_input(
        knob.label,
        min_value=knob.low,
        max_value=max(knob.high, own),
        value=state.preset(key, own),
        step=None if knobs.is_whole(knob) else (0.1 if knob.high < 10 else 256.0),
        key=key,
        help=f"`{knob.path}`. {knob.help}".strip(),
    )
    return [] if value == own else knob.overrides(value)


def _typed(knob: knobs.Knob, value: float) -> float:
    return int(value) if knobs.is_whole(knob) else float(value)


def _hardware_controls(source: data.Source, stated: Scenario) -> list[str]:
    overrides, chosen = [], {}
    for path, label, own, names in (
        (MODEL, "Model", stated.model.name, list_architectures()),
        (GPU, "GPU", stated.cluster.gpu, list_gpus()),
    ):
        key = state.keyed(path, source.key)
        state.preset(key, own)
        options = [own, *(name for name in names if name != own)]
        chosen[path] = st.selectbox(label, options, index=state.place(key, options), key=key)
        if chosen[path] != own:
            overrides.append(data.override_text(path, chosen[path]))
    return [*overrides, *_latency_control(source, chosen[MODEL], chosen[GPU], is_own=not overrides)]


def _latency_control(source: data.Source, model: str, gpu: str, *, is_own: bool) -> list[str]:
    """Draw where step latencies come from: the scenario's own source fits its own model and GPU alone."""
    options = [*([OWN_LATENCY] if is_own else []), *data.latency_traces(model, gpu), ROOFLINE]
    key = state.keyed(state.LATENCY, source.key, f"{model}/{gpu}")
    choice = st.selectbox(
        "Step latencies from",
        options,
        index=state.place(key, options),
        key=key,
        help="`latency`. A trace of this model on this GPU, or a roofline from the datasheet.",
    )
    return [] if choice == OWN_LATENCY else [data.override_latency(None if choice == ROOFLINE else choice)]


def _draft_control(source: data.Source, stated: Scenario, arm: str) -> list[str]:
    key, own = state.keyed(state.NUM_DRAFT_TOKENS, source.key, arm), stated.arms[arm].k
    label = f"{words.escape_markdown(arm)}: draft tokens k"
    chosen = st.slider(label, min_value=0, max_value=max(MAX_K, own), value=state.preset(key, own), key=key)
    return [] if chosen == own else [data.override_k(arm, chosen)]


def _acceptance_control(source: data.Source, stated: Scenario, arm: str) -> list[str]:
    """Draw where an arm's acceptance comes from; return the override it needs, if any."""
    own, laws = _laws(stated, arm)
    label, key = f"{words.escape_markdown(arm)}: acceptance", state.keyed(state.ACCEPTANCE, source.key, arm)
    options = [own, *(name for name in laws if name != own), FIXED]
    choice = st.selectbox(label, options, index=state.place(key, options), key=key)
    if choice == FIXED:
        rates = state.keyed(state.RATES, source.key, arm)
        text = st.text_input(
            "P(first j drafts accepted), j = 1 to k",
            value=state.preset(rates, "0.90, 0.78, 0.65"),
            max_chars=200,
            key=rates,
        )
        return [data.override_rates(arm, data.parse_rates(text))]
    return [] if choice == own else [data.override_law(arm, laws[choice])]


def _laws(stated: Scenario, arm: str) -> tuple[str, dict[str, data.Law]]:
    """Return an arm's own acceptance in words, and the laws that it may use instead."""
    acceptance = stated.arms[arm].acceptance
    trace = acceptance.trace if acceptance is not None and acceptance.kind == "law" else data.DEFAULT_LAWS
    laws = {f"law {law.recipe}, fit {law.fit}": law for law in data.laws(trace)} if stated.entropy else {}
    return data.acceptance_words(acceptance), laws


def _other_settings(source: data.Source) -> list[str]:
    """Draw a field for anything else that `--set` takes."""
    with st.expander("Other settings", icon=":material/tune:"):
        key = state.keyed(state.OTHER_SETTINGS, source.key)
        text = st.text_area(
            "One `path.to.field=value` per line, as `--set` takes it",
            value=state.preset(key, ""),
            key=key,
            max_chars=4000,
            placeholder="trainer.mfu=0.3",
        )
    return [line.strip() for line in text.splitlines() if line.strip()]
