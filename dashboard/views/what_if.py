"""What if: the speedup over one knob live, over two as a map, plans that beat each other, and what to measure first."""

import streamlit as st

from dashboard import address, data, engine, links, shell, state, tables, words
from dashboard.axes import BATCH, DRAFTS, Axis, axes, prepared
from dashboard.figures.heat_map import heat_map
from dashboard.figures.one_knob import one_knob
from dashboard.figures.pareto import pareto
from dashboard.figures.tornado import tornado
from simulator.config import Scenario
from simulator.errors import ScenarioError, TraceCoverageError
from simulator.optimize import PlanReport
from simulator.sensitivity import Sensitivity, analyse
from simulator.what_if import SpeedupMap, speedup_at, speedup_map

ARM, KNOB, VALUE, ACROSS, UP = "what_if_arm", "what_if_knob", "what_if_value", "what_if_across", "what_if_up"
MAX_GPUS, NUM_PLANS = "what_if_gpus", "what_if_plans"
PLAN_COUNTS = (40, 80, 160)
SHORT_NOTE = (
    "Each number is one short run with every input as stated, over a few RL steps after the warm-up: close to the full "
    "answer of **Predict**, without its interval."
)


def render() -> None:
    """Draw the four parts, each from what the sidebar asks."""
    asked = state.question()
    if asked is None:
        return
    st.header("What if", anchor=False)
    with shell.mistakes():
        arm = _which_arm(asked)
        found = axes(asked.scenario, arm)
        if not found:
            st.info("This scenario has no knob that could take another value.", icon=":material/block:")
            return
        _say_where()
        st.markdown("#### One knob, live")
        _live(asked.scenario, arm, found)
    with shell.mistakes():
        st.markdown("#### Two knobs at once")
        _map(asked.scenario, arm, found)
    st.markdown("#### Plans that no other beats")
    with shell.mistakes():
        _plans(asked.scenario, arm)
    st.markdown("#### What to measure first")
    with shell.mistakes():
        _sensitivity(asked.scenario, arm)


def _say_where() -> None:
    """Say what a service does not do, if there is one."""
    address = engine.chosen().address
    if address is not None:
        st.caption(
            f":material/dns: Plans are searched by {words.escape_markdown(address)}. It has no short runs: knobs, map "
            "and inputs are worked out on this machine."
        )


def _which_arm(asked: data.Question) -> str:
    arms = asked.scenario.arms
    names = [name for name, config in arms.items() if config.k > 0] or list(arms)
    key = state.keyed(ARM, ",".join(names))
    kept = address.preset(links.ARM, key, names, state.arm(names))
    chosen = st.segmented_control("Arm", names, default=kept, key=key, format_func=words.escape_markdown) or names[0]
    if chosen != state.arm(names):
        state.choose_arm(chosen)
        address.share(links.write(asked, chosen))
    return chosen


@st.fragment
def _live(scenario: Scenario, arm: str, found: dict[str, Axis]) -> None:
    """Draw the speedup over one knob; only this part is drawn anew when its slider moves."""
    left, right = st.columns([1, 2])
    first = next(iter(found))
    address.preset("knob", KNOB, list(found), first)
    if st.session_state[KNOB] not in found:
        st.session_state[KNOB] = first
    name = left.selectbox(
        "Knob",
        list(found),
        index=state.place(KNOB, list(found)),
        key=KNOB,
        format_func=lambda each: found[each].knob.title,
    )
    axis = found[name]
    key = state.keyed(VALUE, name, f"{axis.knob.values}")
    own = min(axis.knob.values, key=lambda value: abs(value - axis.now))
    value = right.select_slider(
        axis.knob.title, axis.knob.values, value=state.preset(key, own), key=key, format_func="{:g}".format
    )
    address.keep("knob", name, first)
    address.show()
    with shell.mistakes():
        base = _base(scenario, arm, axis)
        with st.spinner("Running"):
            speedup = _speedup(scenario, arm, axis, value, base)
        # The rest of the curve is filled in as its values are looked at, so that a move costs one short run.
        known = [shell.kept().get(f"{base}/{each}") for each in axis.knob.values]
        st.markdown(_sentence(arm, axis, value, speedup))
        figure = one_knob(
            axis.knob,
            [each if isinstance(each, float) else None for each in known],
            value,
            speedup if isinstance(speedup, float) else None,
            dark=shell.dark(),
        )
        shell.chart("one_knob", figure)
        if any(each is None for each in known) and st.button("Draw the whole curve", key="whole_curve"):
            with shell.working("Drawing the curve", "curve") as progress:
                for index, each in enumerate(axis.knob.values, start=1):
                    _speedup(scenario, arm, axis, each, base)
                    progress(index / len(axis.knob.values))
            st.rerun()
    st.caption(SHORT_NOTE)


def _speedup(scenario: Scenario, arm: str, axis: Axis, value: float, base: str) -> float | str:
    """Return the speedup at one value, or why it cannot run."""

    def run() -> float | str:
        try:
            return speedup_at(prepared(scenario, axis), arm, [(axis.knob.path, value)])
        except (ScenarioError, TraceCoverageError) as error:
            return str(error)

    found: float | str = shell.kept().take(f"{base}/{value}", run)
    return found


def _base(scenario: Scenario, arm: str, axis: Axis) -> str:
    """Return what the keys of all values of a knob begin with: hashing a scenario costs more than looking it up."""
    return data.key_of(scenario, "speedup", arm, axis.knob.path)


def _sentence(arm: str, axis: Axis, value: float, speedup: float | str) -> str:
    at = f"At {words.escape_markdown(axis.knob.title)} = {value:g}"
    if isinstance(speedup, str):
        return f"{at} the scenario cannot run: {words.escape_markdown(speedup)}"
    return f"{at}, **{words.escape_markdown(arm)}** runs at **{words.times(speedup)}** the speed of plain decoding."


def _map(scenario: Scenario, arm: str, found: dict[str, Axis]) -> None:
    names = list(found)
    if len(names) < 2:
        st.info("A map needs two knobs; this scenario has one.", icon=":material/block:")
        return
    left, right = st.columns(2)
    for place, key, label, parameter, default in (
        (left, ACROSS, "Across", "across", BATCH),
        (right, UP, "Up", "up", DRAFTS),
    ):
        fallback = default if default in names else names[key == ACROSS]
        address.preset(parameter, key, names, fallback)
        if st.session_state[key] not in names:
            st.session_state[key] = fallback
        place.selectbox(
            label,
            names,
            index=state.place(key, names),
            key=key,
            format_func=lambda each: found[each].knob.title,
        )
        address.keep(parameter, st.session_state[key], fallback)
    across, up = found[st.session_state[ACROSS]], found[st.session_state[UP]]
    if across.name == up.name:
        st.info("Choose two different knobs.", icon=":material/swap_horiz:")
        return
    shown = _speedup_map(scenario, arm, across, up)
    if shown is None:
        return
    shell.chart("map", heat_map(shown, dark=shell.dark()))
    st.caption("Each cell is one short run, so neighbours scatter. Dotted: where drafting breaks even, if it does.")
    if shown.why_not:
        said = ", ".join(f"{field} ({count} cells)" for field, count in shown.why_not.items())
        st.caption(f"Empty cells cannot run, because of: {words.escape_markdown(said)}")
    if {across.name, up.name} == {"rollout_gpus", "train_gpus"}:
        st.caption("Speedups compare both ways of decoding on the same GPUs; more GPUs make both faster.")


def _speedup_map(scenario: Scenario, arm: str, across: Axis, up: Axis) -> SpeedupMap | None:
    """Return the map; None while it is cancelled."""
    work = "map"
    key = data.key_of(scenario, work, arm, across.knob, up.knob)
    known: SpeedupMap | None = shell.kept().get(key)
    if known is not None:
        return known
    if state.was_cancelled(work):
        st.info("The map was cancelled.", icon=":material/cancel:")
        st.button("Draw the map", key="draw_map", on_click=state.resume, args=(work,))
        return None
    num_cells = len(across.knob.values) * len(up.knob.values)
    with shell.working(f"Drawing {num_cells} short runs", work) as progress:
        found: SpeedupMap = shell.kept().take(
            key, lambda: speedup_map(prepared(scenario, across, up), arm, across.knob, up.knob, progress=progress)
        )
    return found


def _plans(scenario: Scenario, arm: str) -> None:
    if scenario.arms[arm].k == 0:
        st.info("Plans are searched for an arm that drafts; give this one a k above 0.", icon=":material/block:")
        return
    cluster = scenario.cluster
    own = cluster.num_rollout_gpus + (0 if scenario.policy.kind == "synchronous" else cluster.num_train_gpus)
    left, middle, right = st.columns(3, vertical_alignment="bottom")
    gpus_key = state.keyed(MAX_GPUS, str(own))
    max_gpus = left.number_input(
        "At most so many GPUs", min_value=1, max_value=65_536, value=state.preset(gpus_key, own), key=gpus_key
    )
    count = middle.selectbox("Plans to try", PLAN_COUNTS, index=1, key=NUM_PLANS)
    where = engine.chosen()
    key = data.key_of(scenario, "plans", arm, max_gpus, count, where.address)
    pressed = right.button("Search plans", key="search_plans", width="stretch")
    found: PlanReport | None = shell.kept().get(key)
    if found is None:
        what = "Searches splits, parallel layouts, k, batch and staleness; takes a minute or more."
        if not _is_asked("plans", "The search", "Search plans", what, pressed=pressed):
            return
        with shell.working(f"Trying {count} plans", "plans") as progress:
            found = shell.kept().take(key, lambda: where.plans(scenario, arm, max_gpus, count, progress))
    best = found.recommended
    st.markdown(
        f"Recommended on at most {found.max_gpus} GPUs: **{words.escape_markdown(best.plan.words())}**, "
        f"{words.plain(best.hours.mean)} h ({words.plain(best.hours.low)} to {words.plain(best.hours.high)}), "
        f"{words.escape_markdown(found.reason)}. As it stands: {words.plain(found.today.hours.mean)} h."
    )
    shell.chart("pareto", pareto(found, dark=shell.dark()))


def _is_asked(work: str, name: str, button: str, what: str, *, pressed: bool) -> bool:
    """Return whether a piece of work is asked for; until it is, say what it does, and whether it was cancelled."""
    if pressed:
        state.resume(work)
        return True
    if state.was_cancelled(work):
        st.info(f"{name} was cancelled; press **{button}** to start it again.", icon=":material/cancel:")
    st.caption(what)
    return False


def _sensitivity(scenario: Scenario, arm: str) -> None:
    key = data.key_of(scenario, "sensitivity", arm)
    pressed = st.button("Find what matters", key="find_sensitivity")
    found: Sensitivity | None = shell.kept().get(key)
    if found is None:
        what = "Moves every uncertain or assumed input to both ends of its range, one at a time."
        if not _is_asked("sensitivity", "The analysis", "Find what matters", what, pressed=pressed):
            return
        with shell.working("Moving one input at a time", "sensitivity") as progress:
            found = shell.kept().take(key, lambda: analyse(scenario, arm, num_samples=0, progress=progress))
    first = max(found.factors, key=lambda factor: factor.swing)
    st.markdown(
        f"Measure **{words.escape_markdown(first.meaning)}** first: over its range the speedup goes from "
        f"{words.times(first.speedup_at_low)} to {words.times(first.speedup_at_high)}."
    )
    shell.chart("tornado", tornado(found, dark=shell.dark()))
    with st.expander("The ranges and their sources"):
        st.table(tables.factor_ranges(found), border="horizontal")


if __name__ == "__main__":
    render()
